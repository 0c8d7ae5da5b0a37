"""The images of one conversation, as tools see them and as the trajectory records them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medeval.images.picture import Picture
from medeval.images.resize import PixelBudget
from medeval.tools.base import ToolResult
from medeval.types.geometry import IDENTITY, Affine, Size
from medeval.types.sample import EncodedImage
from medeval.types.trajectory import TrajectoryImage


@dataclass(slots=True)
class Album:
    """Images by their index in the conversation: the sample's own, then those that calls made.

    `raw_to_root` maps the raw pixels of each to those of the sample's image it came from.
    """

    pictures: list[Picture] = field(default_factory=list)
    recorded: list[TrajectoryImage] = field(default_factory=list)
    raw_to_root: list[Affine] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def encoded(self) -> tuple[EncodedImage, ...]:
        """The images as they are sent."""
        return tuple(picture.encoded for picture in self.pictures)

    @property
    def largest_px(self) -> int:
        """The raw area of the largest image, in pixels."""
        return max((picture.raw.area_px for picture in self.pictures), default=0)

    def model_sizes(self, budget: PixelBudget) -> dict[int, Size]:
        """The size at which the model sees each image: as its engine told, else by the budget."""
        return {one.index: one.model or budget.size_of(one.sent) for one in self.recorded}

    def note_model_sizes(self, places: Sequence[int], sizes: Sequence[Size]) -> None:
        """Record the sizes that an engine told of the images at the messages' places, in order."""
        for index, size in zip(places, sizes, strict=False):
            if self.recorded[index].model != size:
                self.recorded[index] = replace(self.recorded[index], model=size)

    def add(self, picture: Picture, made: ToolResult | None = None) -> int:
        """Take an image in, the sample's own or what a call made; returns its index."""
        index = len(self.pictures)
        raw_to_root = (
            IDENTITY if made is None else self.raw_to_root[made.parent].after(made.raw_to_parent)
        )
        self.pictures.append(picture)
        self.raw_to_root.append(raw_to_root)
        self.recorded.append(
            TrajectoryImage(
                index=index,
                sha256=picture.encoded.sha256,
                media_type=picture.encoded.media_type,
                parent=None if made is None else made.parent,
                root=index if made is None else self.recorded[made.parent].root,
                operation=None if made is None else made.operation,
                arguments={} if made is None else made.arguments,
                to_root=raw_to_root.after(picture.sent_to_raw),
                raw=picture.raw,
                sent=picture.sent,
                exif_orientation=picture.exif_orientation,
            )
        )
        return index
