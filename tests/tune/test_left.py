"""What a build's summary says of a budget that ended early."""

from __future__ import annotations

from bessemer.tune.left import Left


def test_kernels_beside_the_opt_shape_take_no_part_of_its_run() -> None:
    whole = Left(3, 9, 120.0, 560.0, 12.0)
    assert str(whole) == (
        "the build budget ended before 3 of 9 kernels were timed to the end; they take about 120 of 560 us a run, "
        "of which tuning may save 12 us, going by the kernels that were"
    )
    some = Left(3, 9, 120.0, 560.0, 12.0, elsewhere=2)
    assert "3 of 9 kernels were timed to the end, 2 of them for shapes beside the opt one; the others take" in str(some)
    none = Left(74, 99, 0.0, 567.0, 0.0, elsewhere=74)
    assert str(none).endswith("timed to the end, 74 of them for shapes beside the opt one")
