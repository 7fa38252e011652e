"""Compute groups: any fused expression of coordinates, loads and reductions. See group_kernel for the three forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.core.dim import product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.triton.group_kernel import Rows, flat, rows, rows_of, tile

SMS = 132  # where a target does not say
MOST_TILE = 16384  # elements of a tile
MOST_TURNS = 512  # of a loop that reduces
PLENTY = 8192  # elements of half a multiprocessor, from which on fewer programs count more than more of them
LEAST_SIDE = 16  # elements of a tile: with fewer it is small, and its lines are no whole sectors
MOST_OPERANDS = 100  # a kernel's parameters are at most 4 KB


class Group:
    """The universal kernel: what no template computes, and everything pointwise, injective or reduced."""

    name = "triton_group"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group",), into=1)
        if other is not None:
            return other
        types = [*(o.type for o in problem.operands), *problem.outputs]
        odd = sorted({t.dtype.name for t in types if t.dtype.kind not in "fiub"})
        if odd:
            return Reason(f"there is no {', '.join(odd)} on GPUs")
        if len(types) > MOST_OPERANDS:
            return Reason(f"{len(types)} operands are more than {MOST_OPERANDS}")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        sms = target.limits.get("sms", SMS)
        flats = _flat_configs(problem, sms)
        form = rows_of(problem)
        if form is None:
            tiles = _tile_configs(problem, sms)
            thin = any(int(t[side]) < LEAST_SIDE for t in tiles[:1] for side in ("by", "bx"))
            return [*flats, *tiles] if thin else [*tiles, *flats]
        reduced = _row_configs(problem, form, sms)
        turns = max(problem.typical(product(size for _, size in axes)) for axes in form.spaces)
        if form.free or turns > MOST_TURNS:  # a loop per element would reduce again and again, or in one long chain
            return reduced
        if turns > 64 or (turns >= 32 and _along_rows(problem, form.stages[0][1][0])):
            return [*reduced, *flats[:2]]
        return [*flats, *reduced]

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        n = {k: int(v) for k, v in config.items() if k != "form"}
        match config["form"]:
            case "flat":
                return flat(problem, n["block"], n["warps"])
            case "tile":
                return tile(problem, n["axis"], n["by"], n["bx"], n["warps"])
            case "rows":
                return rows(problem, n["br"], n["bc"], n["warps"])
        raise ValueError(f"unknown form in {dict(config)}")


def _power_of_two(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


def _flat_configs(problem: Problem, sms: int) -> list[Config]:
    """Blocks that give every multiprocessor work; the widest loads first where there is plenty, and fewer programs
    (a GPU starts one in a nanosecond) where there is much more."""
    numel = max(1, problem.typical(problem.outputs[0].numel))
    blocks = [(1024, 4), (512, 4), (2048, 8), (256, 4), (4096, 8), (128, 4), (64, 2)]
    share = _power_of_two(numel // (2 * sms) + 1)
    fitting = [b for b in blocks if b[0] <= max(128, share)] or blocks[-2:]
    best = min(2048 if share >= PLENTY else 1024, max(128, share))
    fitting.sort(key=lambda b: abs(b[0].bit_length() - best.bit_length()))
    return [{"form": "flat", "block": block, "warps": warps} for block, warps in fitting]


def _tile_configs(problem: Problem, sms: int) -> list[Config]:
    """Tiles for loads whose last axis is an output axis other than the last."""
    assert problem.body is not None
    rank = problem.outputs[0].rank
    if rank < 2 or exprtree.reductions(problem.body.expr):
        return []
    shape = [problem.typical(d) for d in problem.outputs[0].shape]
    found: dict[int, int] = {}
    for node in exprtree.walk(problem.body.expr):
        axis = _fastest_axis(problem, node) if isinstance(node, ex.Load) else None
        if axis is not None and math.prod(shape[axis + 1 :]) != 1 and shape[axis] > 1:
            found[axis] = found.get(axis, 0) + 1
    if not found:
        return []
    axis = max(found, key=lambda a: (found[a], a))
    height, width = _power_of_two(shape[axis]), _power_of_two(math.prod(shape[axis + 1 :]))
    sizes = [(32, 32, 4), (64, 64, 8), (32, 64, 4), (64, 32, 4), (16, 64, 4), (64, 16, 4), (128, 32, 8), (32, 128, 8)]
    if math.prod(shape) >= 2 * PLENTY * sms:
        sizes.insert(0, sizes.pop(1))
    kept: dict[tuple[int, int, int], None] = {}
    for by, bx, warps in sizes:
        kept[min(by, height), min(bx, width), warps if min(by, height) * min(bx, width) >= 512 else 2] = None
    return [{"form": "tile", "axis": axis, "by": by, "bx": bx, "warps": warps} for by, bx, warps in kept]


def _fastest_axis(problem: Problem, load: ex.Load) -> int | None:
    """The output axis along which a load's addresses are consecutive, where that is not the output's last."""
    shape = problem.operands[load.operand].type.shape
    inner = next((e for e, size in zip(reversed(load.index), reversed(shape)) if size != 1), None)
    axes = [n.name for n in exprtree.walk(inner) if isinstance(n, ex.Axis)] if inner is not None else []
    if len(axes) != 1 or not isinstance(inner, (ex.Axis, ex.Call)):
        return None
    axis = int(axes[0][1:]) if axes[0][1:].isdigit() else -1
    out = problem.outputs[0].shape
    return axis if 0 <= axis < len(out) - 1 else None


def _row_configs(problem: Problem, form: Rows, sms: int) -> list[Config]:
    """Rows: a whole row in one tile where it fits, else pieces; more rows per program where rows are short."""
    count = max(1, problem.typical(product(size for _, size in form.kept)))
    longest = max(problem.typical(product(size for _, size in axes)) for axes in form.spaces)
    whole = _power_of_two(longest)
    inner = _along_rows(problem, form.stages[0][1][0])
    out: dict[tuple[int, int, int], None] = {}
    for width in (whole, 1024, 2048, 4096, 256, 64):
        for height in (1, 2, 4, 8, 16, 32, 64, 128):
            elements = min(width, whole) * height
            if width > whole or elements > MOST_TILE or (height > 1 and height > 2 * count):
                continue
            out[height, width, 1 if elements <= 256 else 2 if elements <= 512 else 4 if elements <= 4096 else 8] = None

    def cost(config: tuple[int, int, int]) -> tuple[float, float, int]:
        height, width, warps = config
        programs = -(-count // height)
        waves = -(-programs * warps // (sms * 16))
        turns = -(-whole // width)
        lanes = 32 * warps
        strided = 1.0 if inner else 32 / min(32, height)
        work = waves * (turns * (max(1.0, width * height / lanes) * strided + 8) + 20)
        return (work, turns, height)

    ordered = sorted(out, key=cost)
    return [{"form": "rows", "br": height, "bc": width, "warps": warps} for height, width, warps in ordered[:10]]


def _along_rows(problem: Problem, reduction: ex.Reduce) -> bool:
    """Whether the reduction's loads are consecutive along the axes it reduces (else along those it keeps)."""
    own = {name for name, _ in reduction.axes}
    for node in exprtree.walk(reduction.body):
        if isinstance(node, ex.Load):
            shape = problem.operands[node.operand].type.shape
            inner = next((e for e, size in zip(reversed(node.index), reversed(shape)) if size != 1), None)
            if inner is not None and not any(isinstance(n, ex.Axis) and n.name in own for n in exprtree.walk(inner)):
                return False
    return True


register(Group())
