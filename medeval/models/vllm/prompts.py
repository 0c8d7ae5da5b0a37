"""Prompts as token ids, for an engine that prepares the images itself."""

import io
from dataclasses import dataclass

import torch
from PIL import Image

from medeval.images.resize import PixelBudget, smart_resize
from medeval.models.processor import ChatProcessor, ImageInput, Prompt
from medeval.types.geometry import Size
from medeval.types.sample import EncodedImage

NO_PATCHES = torch.empty(0)


@dataclass(frozen=True, slots=True)
class PlacedPrompt:
    """A prompt's ids, with one placeholder per image.

    `n_tokens` counts all tokens of each image; `sizes` are the image sizes after the engine's
    processor.
    """

    ids: tuple[int, ...]
    n_tokens: int
    sizes: tuple[Size, ...]


class TokenPrompts(ChatProcessor):
    """A checkpoint's chat template and tokenizer; each image keeps one placeholder."""

    def placed(self, prompt: Prompt) -> PlacedPrompt:
        """A prompt of this processor, with the number of tokens that its images fill."""
        merged = int(self._images.merge_size) ** 2
        filled = sum(one.grid[1] * one.grid[2] // merged - 1 for one in prompt.images)
        return PlacedPrompt(
            prompt.ids, len(prompt.ids) + filled, tuple(one.size for one in prompt.images)
        )

    def _process(self, image: EncodedImage) -> ImageInput:
        patch, merge = int(self._images.patch_size), int(self._images.merge_size)
        bounds = dict(self._images.size)
        budget = PixelBudget(
            min_px=int(bounds["shortest_edge"]),
            max_px=int(bounds["longest_edge"]),
            factor=patch * merge,
        )
        size = smart_resize(Size(image.width_px, image.height_px), budget)
        grid = (1, size.height_px // patch, size.width_px // patch)
        return ImageInput(patches=NO_PATCHES, grid=grid, n_tokens=1, size=size)


def lazy_picture(image: EncodedImage) -> Image.Image:
    """The image, opened by PIL; it is decoded only where the engine has not cached it."""
    picture = Image.open(io.BytesIO(image.data))
    return picture if picture.mode == "RGB" else picture.convert("RGB")
