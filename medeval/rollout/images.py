"""The images of one conversation: as tools get them, and as the trajectory records them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medeval.errors import DataError, RecordError
from medeval.images.picture import Picture
from medeval.images.request_image import image_hash
from medeval.images.resize import PixelBudget
from medeval.store.files import explained
from medeval.store.run_folder import RunFolder
from medeval.tools.base import ToolResult
from medeval.types.geometry import IDENTITY, Affine, Size
from medeval.types.sample import MediaType, RequestImage
from medeval.types.trajectory import TrajectoryImage


@dataclass(slots=True)
class ConversationImages:
    """Images by their index in the conversation: the sample's own, then those that calls made.

    For each image, `raw_to_root` maps its raw pixels to raw pixels of its root, the sample's image
    from which it was made.
    """

    pictures: list[Picture] = field(default_factory=list)
    recorded: list[TrajectoryImage] = field(default_factory=list)
    raw_to_root: list[Affine] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sent(self) -> tuple[RequestImage, ...]:
        """The images as they are sent."""
        return tuple(picture.sent_image for picture in self.pictures)

    @property
    def largest_px(self) -> int:
        """The raw area of the largest image, in pixels."""
        return max((picture.raw.area_px for picture in self.pictures), default=0)

    def made_bytes(self, n_originals: int) -> int:
        """The memory that the images after the first `n_originals` take now, in bytes."""
        return sum(picture.held_bytes for picture in self.pictures[n_originals:])

    def model_sizes(self, budget: PixelBudget) -> dict[int, Size]:
        """The size of each image after the engine's processor, by index.

        It is the size that the engine reported, or else what `budget` makes of the size sent.
        """
        return {image.index: image.model or budget.size_of(image.sent) for image in self.recorded}

    def note_model_sizes(self, indices: Sequence[int], sizes: Sequence[Size]) -> None:
        """Record the size after the engine's processor of each image in `indices`, in order."""
        for index, size in zip(indices, sizes, strict=False):
            if self.recorded[index].model != size:
                self.recorded[index] = replace(self.recorded[index], model=size)

    def add(self, picture: Picture, made: ToolResult | None = None) -> int:
        """Add one of the sample's images, or one that a call made; returns its index."""
        index, image = len(self.pictures), picture.sent_image
        raw_to_root = (
            IDENTITY if made is None else self.raw_to_root[made.parent].after(made.raw_to_parent)
        )
        self.pictures.append(picture)
        self.raw_to_root.append(raw_to_root)
        self.recorded.append(
            TrajectoryImage(
                index=index,
                sha256=image.sha256 if made is None else None,
                media_type=image.media_type if made is None else None,
                pixels_sha256=None if made is None else image.sha256,
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


def kept_image(folder: RunFolder, image: TrajectoryImage) -> tuple[MediaType, bytes] | None:
    """The type and bytes of an image that a run folder kept; None if it did not.

    Raises RecordError if the file does not have the hash of the record.
    """
    kept = folder.image_file(image.identity)
    if kept is None:
        return None
    path, media_type = kept
    with explained("read", path):
        data = path.read_bytes()
    try:
        found = image_hash(data, of_pixels=image.pixels_sha256 is not None)
    except DataError as error:
        raise RecordError(f"{path} was changed: {error.message}") from error
    if found != image.identity:
        raise RecordError(f"{path} was changed: it has the hash {found!r}")
    return media_type, data
