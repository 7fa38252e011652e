"""A picture of achieved against roofline, one SVG without scripts or fonts of its own: open it in a browser.

Above, every step by its intensity (operations per byte) and its rate, under the ceilings of the device; the area of a
dot is its share of the time. Below, where the time goes: equal steps together as one bar, with the part that their
rooflines account for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bessemer.cli.roofline import Ceilings, Profiled

WIDTH, LEFT, RIGHT, TOP = 960, 70, 20, 50
HEIGHT = 380  # of the upper part
BAR, BARS, LABEL = 18, 30, 330
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")
SMALL, PLAIN, LARGE = 10, 12, 15  # font sizes


class _Log:
    """A logarithmic axis from a value to a place."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(1, self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def decades(self) -> list[float]:
        return [10.0**k for k in range(self.low, self.high + 1)]


def roofline_svg(title: str, steps: Sequence[Profiled], ceilings: Ceilings) -> str:
    """The picture of one profile."""
    timed = [s for s in steps if s.us > 0 and s.bytes > 0]
    kernels = list(dict.fromkeys(s.kernel for s in sorted(timed, key=lambda s: -s.us)))
    colours = {kernel: COLOURS[min(k, len(COLOURS) - 1)] for k, kernel in enumerate(kernels)}
    longest = _together(timed)[:BARS]
    height = TOP + HEIGHT + 90 + BAR * len(longest) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(LEFT, 24, title, LARGE),
        *_cloud([s for s in timed if s.flops > 0], ceilings, colours, sum(s.us for s in timed)),
        *_legend(colours),
        *_bars(longest, colours, TOP + HEIGHT + 80),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _together(steps: Sequence[Profiled]) -> list[list[Profiled]]:
    """Steps that do the same with the same kernel, those that take longest first."""
    groups: dict[tuple[object, ...], list[Profiled]] = {}
    for s in steps:
        groups.setdefault((s.name, s.kernel, s.bytes, s.flops), []).append(s)
    return sorted(groups.values(), key=lambda group: -sum(s.us for s in group))


def _cloud(steps: Sequence[Profiled], ceilings: Ceilings, colours: dict[str, str], total: float) -> list[str]:
    """The ceilings, and a dot for each step that computes."""
    half = any(s.half for s in steps)
    peak = ceilings.peak(half) / 1e9
    bandwidth = ceilings.bytes_per_s / 1e9
    across = [s.flops / s.bytes for s in steps] or [1.0]
    rates = [s.gflops for s in steps] or [1.0]
    x = _Log(min(*across, 0.1), max(*across, 10 * peak / bandwidth), LEFT, WIDTH - RIGHT)
    y = _Log(max(min(rates), 1e-3), peak * 1.01, TOP + HEIGHT, TOP)
    out = []
    for v in x.decades():
        out.append(_line(x(v), TOP, x(v), TOP + HEIGHT, "#eee"))
        out.append(_text(x(v), TOP + HEIGHT + 15, f"{v:g}", SMALL, "middle"))
    for v in y.decades():
        out.append(_line(LEFT, y(v), WIDTH - RIGHT, y(v), "#eee"))
        out.append(_text(LEFT - 6, y(v) + 4, f"{v:g}", SMALL, "end"))
    out.append(_text((LEFT + WIDTH) / 2, TOP + HEIGHT + 32, "operations per byte", PLAIN, "middle"))
    out.append(_text(LEFT, TOP - 8, "GFLOP/s"))
    start, knee = 10.0**x.low, peak / bandwidth
    out.append(_line(x(start), y(start * bandwidth), x(knee), y(peak), "#333"))
    out.append(_line(x(knee), y(peak), WIDTH - RIGHT, y(peak), "#333"))
    out.append(_text(WIDTH - RIGHT, y(peak) - 5, f"{peak:,.0f} GFLOP/s{' (16 bits)' if half else ''}", SMALL, "end"))
    out.append(_text(x(start) + 30, y(start * bandwidth) + 6, f"{bandwidth:,.0f} GB/s", SMALL))
    for s in sorted(steps, key=lambda s: -s.us):
        radius = 3 + 22 * math.sqrt(s.us / total)
        out.append(
            f'<circle cx="{x(s.flops / s.bytes):.1f}" cy="{y(s.gflops):.1f}" r="{radius:.1f}" '
            f'fill="{colours[s.kernel]}" fill-opacity="0.6" stroke="#fff"><title>{escape(_told(s))}</title></circle>'
        )
    return out


def _legend(colours: dict[str, str]) -> list[str]:
    """The kernels by colour."""
    out, place = [], float(LEFT)
    for kernel, colour in list(colours.items())[: len(COLOURS)]:
        out.append(f'<circle cx="{place + 5:.0f}" cy="{TOP + HEIGHT + 50}" r="5" fill="{colour}"/>')
        out.append(_text(place + 14, TOP + HEIGHT + 54, kernel, SMALL))
        place += 28 + 6 * len(kernel)
    return out


def _bars(groups: Sequence[Sequence[Profiled]], colours: dict[str, str], top: float) -> list[str]:
    """Where the time goes: equal steps together, and in a darker shade what their rooflines account for."""
    longest = max((sum(s.us for s in group) for group in groups), default=1.0)
    room = WIDTH - RIGHT - LABEL - 130
    out = [_text(LEFT, top - 4, "equal steps together: us, and the part that their rooflines account for")]
    for k, group in enumerate(groups):
        y, first = top + 6 + BAR * k, group[0]
        us, least = sum(s.us for s in group), sum(s.roofline_us for s in group)
        width, floor = room * us / longest, room * min(us, least) / longest
        label = f"{len(group)} x {first.name}" if len(group) > 1 else f"{first.step} {first.name}"
        shown, colour = label if len(label) <= 46 else f"{label[:45]}…", colours[first.kernel]
        out.append(_text(LABEL - 6, y + 12, shown, SMALL, "end"))
        out.append(
            f'<g><title>{escape(_told(max(group, key=lambda s: s.us)))}</title><rect x="{LABEL}" y="{y}" '
            f'width="{width:.1f}" height="{BAR - 4}" fill="{colour}" fill-opacity="0.45"/><rect x="{LABEL}" y="{y}" '
            f'width="{floor:.1f}" height="{BAR - 4}" fill="{colour}"/></g>'
        )
        out.append(_text(LABEL + width + 6, y + 12, f"{us:.1f} us, {100 * least / us:.0f} %", SMALL))
    return out


def _told(s: Profiled) -> str:
    return (
        f"step {s.step}: {s.name}\n{s.kernel}, {', '.join(s.onnx[:3])}\n{s.us:.1f} us, {s.gflops:.1f} GFLOP/s, "
        f"{s.gbytes_per_s:.1f} GB/s, {s.roofline_percent:.0f} % of its roofline ({s.bound})"
    )


def _text(x: float, y: float, text: str, font: int = PLAIN, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{font}" fill="#333" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
