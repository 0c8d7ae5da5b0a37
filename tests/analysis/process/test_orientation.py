"""Which way up an image is: the matrices agree with what happens to pixels."""

from itertools import product as pairs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medeval.analysis.process.orientation import (
    ELEMENTS,
    UPRIGHT,
    inverse,
    is_restored,
    orientation,
    product,
)
from medeval.data.symmetry import TURNS, Symmetry, _turned_pixels
from medeval.tools.base import ToolContext
from medeval.tools.rotate_flip import flip, rotate
from medeval.types.geometry import IDENTITY, Affine
from tests.tools.numbered import numbered

TURNS_AND_UPRIGHT: tuple[Symmetry, ...] = (*TURNS, "upright")
UNDOING: dict[Symmetry, tuple[tuple[str, object], ...]] = {
    "upright": (),
    "rotate_90": (("rotate", 270),),
    "rotate_180": (("flip", "horizontal"), ("flip", "vertical")),
    "rotate_270": (("rotate", 90),),
    "flip_horizontal": (("flip", "horizontal"),),
    "flip_vertical": (("rotate", 180), ("flip", "horizontal")),
    "transpose": (("rotate", 90), ("flip", "horizontal")),
    "transverse": (("rotate", 270), ("flip", "horizontal")),
}


def test_there_is_an_element_for_each_turn_of_a_benchmark() -> None:
    assert set(ELEMENTS) == set(TURNS_AND_UPRIGHT)


@pytest.mark.parametrize(("first", "second"), list(pairs(TURNS_AND_UPRIGHT, TURNS_AND_UPRIGHT)))
def test_products_are_what_pixels_do(first: Symmetry, second: Symmetry) -> None:
    marked = Image.frombytes("L", (2, 3), bytes(range(6)))
    both = _turned_pixels(_turned_pixels(marked, first), second)
    found = product(ELEMENTS[second], ELEMENTS[first])
    (name,) = [name for name in TURNS_AND_UPRIGHT if ELEMENTS[name] == found]
    assert _turned_pixels(marked, name).tobytes() == both.tobytes()
    assert _turned_pixels(marked, name).size == both.size


@pytest.mark.parametrize("name", TURNS_AND_UPRIGHT)
def test_each_element_has_its_inverse(name: str) -> None:
    assert product(inverse(ELEMENTS[name]), ELEMENTS[name]) == UPRIGHT


def played(calls: tuple[tuple[str, object], ...]) -> Affine:
    """The map to the root after these calls of the real tools, each on the image before."""
    picture, to_root = numbered(6, 4), IDENTITY
    for tool, argument in calls:
        where = ToolContext(pictures=[picture], frame="permille")
        made = (
            rotate().run({"angle": argument}, where)  # type: ignore[dict-item]
            if tool == "rotate"
            else flip().run({"direction": argument}, where)  # type: ignore[dict-item]
        )
        picture, to_root = made.picture, to_root.after(made.raw_to_parent)
    return to_root


@pytest.mark.parametrize(("transform", "calls"), list(UNDOING.items()))
def test_the_real_tools_restore_each_turn(
    transform: str, calls: tuple[tuple[str, object], ...]
) -> None:
    assert is_restored(transform, played(calls)) is True


steps = st.one_of(
    st.tuples(st.just("rotate"), st.sampled_from([90, 180, 270])),
    st.tuples(st.just("flip"), st.sampled_from(["horizontal", "vertical"])),
)


@given(st.lists(steps, max_size=5).map(tuple))
def test_calls_restore_exactly_one_of_the_turns(calls: tuple[tuple[str, object], ...]) -> None:
    to_root = played(calls)
    assert sum(bool(is_restored(name, to_root)) for name in ELEMENTS) == 1


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_crops_and_sizes_leave_the_orientation_as_it_is(scale: float) -> None:
    assert orientation(Affine(scale, 0.0, 10.0, 0.0, 2 * scale, 5.0)) == UPRIGHT
    assert is_restored("rotate_90", Affine(scale, 0.0, 10.0, 0.0, scale, 5.0)) is False


def test_a_map_that_slants_is_no_orientation() -> None:
    slanted = Affine(0.8, -0.6, 0.0, 0.6, 0.8, 0.0)
    assert orientation(slanted) is None
    assert is_restored("upright", slanted) is False


def test_rounding_alone_does_not_slant() -> None:
    assert orientation(Affine(1.0, 6e-17, 0.0, -6e-17, 1.0, 0.0)) == UPRIGHT


def test_another_transform_has_nothing_to_restore() -> None:
    assert is_restored("blurred", IDENTITY) is None
