"""Plain classes: values by position and by name, defaults, equality, values that stay."""

from __future__ import annotations

import copy
import pickle

import pytest

from fastnet.plain import plain


@plain()
class Point:
    """A point with a name."""

    x: float
    y: float = 0.0
    name: str = ""


@plain(eq=True, frozen=True)
class Fixed:
    """A pair."""

    a: int
    b: int = 2


def test_values_come_by_position_and_by_name():
    for point in (Point(1, 2, "p"), Point(1, name="p", y=2), Point(name="p", x=1, y=2)):
        assert vars(point) == {"x": 1, "y": 2, "name": "p"}
    assert vars(Point(3)) == {"x": 3, "y": 0.0, "name": ""}
    point = Point(1)
    point.y = 5.0
    assert point.y == 5.0 and Point(1).y == 0.0 and Point(1) != Point(1)


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1, 2, "p", 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2}), ((), {"y": 1, "z": 2})],
)
def test_other_values_are_refused(given, named):
    with pytest.raises(TypeError, match="Point takes x, y, name; got"):
        Point(*given, **named)


def test_equal_values_make_equal_objects():
    assert Fixed(1) == Fixed(b=2, a=1) != Fixed(2) and Fixed(1) != Point(1)
    assert len({Fixed(1), Fixed(a=1, b=2), Fixed(2)}) == 2


def test_values_that_stay():
    fixed = Fixed(1)
    for change in (lambda: setattr(fixed, "a", 3), lambda: delattr(fixed, "a")):
        with pytest.raises(AttributeError, match="Fixed: a cannot be assigned"):
            change()
    for other in (copy.copy(fixed), copy.deepcopy(fixed), pickle.loads(pickle.dumps(fixed))):
        assert other == fixed and other is not fixed
