"""Which way up an image is: the symmetries of a square as 2 x 2 integer matrices.

The columns of a matrix are the directions, in the turned image, of the x and y axes of the upright
one, with y pointing down. Two turns in a row are a product of matrices. An image is upright again
exactly if the product of all its turns is the identity.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from medeval.types.geometry import Affine

Matrix: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

UPRIGHT: Final[Matrix] = ((1, 0), (0, 1))
# Turned image <- upright image, by the names of `medeval.data.symmetry`.
ELEMENTS: Final[Mapping[str, Matrix]] = {
    "upright": UPRIGHT,
    "rotate_90": ((0, -1), (1, 0)),
    "rotate_180": ((-1, 0), (0, -1)),
    "rotate_270": ((0, 1), (-1, 0)),
    "flip_horizontal": ((-1, 0), (0, 1)),
    "flip_vertical": ((1, 0), (0, -1)),
    "transpose": ((0, 1), (1, 0)),
    "transverse": ((0, -1), (-1, 0)),
}

# An entry of a map up to this is a rounding error.
NEGLIGIBLE: Final = 1e-9


def product(second: Matrix, first: Matrix) -> Matrix:
    """The symmetry that is `first` and then `second`.

    >>> product(ELEMENTS["flip_vertical"], ELEMENTS["flip_horizontal"]) == ELEMENTS["rotate_180"]
    True
    """
    (a, b), (c, d) = second
    (e, f), (g, h) = first
    return ((a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h))


def inverse(element: Matrix) -> Matrix:
    """The symmetry that undoes one: the transpose, for all are orthogonal."""
    (a, b), (c, d) = element
    return ((a, c), (b, d))


def orientation(to_root: Affine) -> Matrix | None:
    """How an image is turned relative to its root, from the map between their pixels.

    None where the map is not a symmetry of a square with a scaling and a shift, for example after
    a tool that turns by other angles.
    """
    back = ((_sign(to_root.a), _sign(to_root.b)), (_sign(to_root.d), _sign(to_root.e)))
    return inverse(back) if back in ELEMENTS.values() else None


def _sign(value: float) -> int:
    return 0 if abs(value) < NEGLIGIBLE else 1 if value > 0 else -1


def is_restored(transform: str, to_root: Affine) -> bool | None:
    """Whether an image is upright whose root was turned by `transform`.

    None for a transform that is no symmetry of a square.
    """
    applied = ELEMENTS.get(transform)
    if applied is None:
        return None
    turned = orientation(to_root)
    return turned is not None and product(turned, applied) == UPRIGHT
