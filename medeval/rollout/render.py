"""The opening messages of a protocol as plain text, and the difference between a pair's arms."""

import difflib
from collections.abc import Sequence

from medeval.images.picture import Picture
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.geometry import AxisLine, Box, Point
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import Text


def _no_bytes() -> bytes:
    raise AssertionError("the example sample's image is never read")


EXAMPLE = Sample(
    id="example",
    question="What is written on the sign?",
    images=(ImageSource(name="an image", read=_no_bytes),),
    targets=("STOP",),
)


def render_opening(
    protocol: EvalProtocol, sample: Sample, pictures: Sequence[Picture] | None = None
) -> str:
    """The messages before the first reply, each under its role.

    An image is described in a line: by its name, or, with the prepared `pictures`, by its sizes
    and bytes. Native tools, which a server renders itself, follow the messages.
    """
    blocks = []
    for message in protocol.opening(sample):
        parts = [
            part.text if isinstance(part, Text) else _describe(part.image, sample, pictures) + "\n"
            for part in message.content
        ]
        blocks.append(f"[{message.role}]\n{''.join(parts)}")
    if protocol.call_syntax == "openai" and protocol.tools:
        blocks.append(f"[tools, in the request]\n{protocol.tools_text}")
    return "\n\n".join(blocks) + "\n"


def _describe(index: int, sample: Sample, pictures: Sequence[Picture] | None) -> str:
    if pictures is None:
        return f"<image {index}: {sample.images[index].name}>"
    picture = pictures[index]
    raw, sent = picture.raw, picture.sent
    turned = ""
    if picture.exif_orientation is not None:
        turned = f", turned upright by EXIF orientation {picture.exif_orientation}"
    return (
        f"<image {index}: {raw.width_px}x{raw.height_px}{turned}, "
        f"sent as {sent.width_px}x{sent.height_px} {picture.sent_image.media_type}, "
        f"{len(picture.sent_image.encoded())} bytes, sha256 {picture.sent_image.sha256[:12]}>"
    )


def shown_mark(mark: Box | AxisLine | Point) -> str:
    """The target box, line or point of a sample as text, with the unit of its coordinates.

    >>> from medeval.types.geometry import PERMILLE
    >>> shown_mark(AxisLine("x", 120.5, PERMILLE))
    'x = 120.5 permille'
    """
    match mark:
        case Box(left, top, right, bottom):
            place = f"[{left:g}, {top:g}, {right:g}, {bottom:g}]"
        case AxisLine(axis, value):
            place = f"{axis} = {value:g}"
        case Point(x, y):
            place = f"({x:g}, {y:g})"
    return f"{place} {'pixels' if mark.frame.name.startswith('pixels') else mark.frame.name}"


def render_difference(pair: Pair, sample: Sample) -> str:
    """A unified diff from the free arm's opening to the available arm's."""
    free, available = (render_opening(arm, sample).splitlines() for arm in pair.arms)
    return "\n".join(
        difflib.unified_diff(free, available, pair.free.name, pair.available.name, lineterm="")
    )
