"""Prompts of any checkpoint that transformers loads, by its own template, tokenizer and processor.

Only the stock processor knows what an image becomes in a prompt: how many tokens, with what around
them, and which tensors. So every prompt goes through it whole, and a later turn keeps what it made
of the text after the reply.
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from medeval.errors import FatalModelError, MedevalError, ModelError
from medeval.models.base import shown_images, too_many_images
from medeval.models.chat_template import WALL, ChatTemplate, placeholder_ids, saved_template
from medeval.models.transformers.image_settings import call_settings, with_image_settings
from medeval.models.weights import kept_file_hashes
from medeval.tools.base import ToolSchema
from medeval.types.geometry import Size
from medeval.types.sample import JsonValue, RequestImage
from medeval.types.trajectory import ImageRef, Message, Text

# The files that determine a prompt, besides the chat template.
PROCESSOR_FILES = ("tokenizer.json", "preprocessor_config.json", "processor_config.json")
LOAD_ERRORS = (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError)
# What a stock processor raises for an image that it cannot take.
IMAGE_ERRORS = (*LOAD_ERRORS, IndexError, RuntimeError, ZeroDivisionError)
# The classes that load a processor's parts, by the names of its parameters.
PARTS = {
    "image_processor": "AutoImageProcessor",
    "tokenizer": "AutoTokenizer",
    "feature_extractor": "AutoFeatureExtractor",
    "audio_processor": "AutoFeatureExtractor",
}
# The packages, by their names in messages, that a stock processor may lack.
OPTIONAL_PACKAGES = ("torchvision", "num2words")
ZERO_WIDTH_SPACE = "\u200b"
PROBE_SIZES = ((224, 224), (90, 130), (300, 80))


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One row for `generate`.

    `kinds` are rows of numbers beside the ids, such as token types. `images` are the image tensors
    by their names. `source` is the rendered text with its images, for models whose batches only
    the stock processor can make.
    """

    ids: tuple[int, ...]
    kinds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    images: Mapping[str, torch.Tensor] = field(default_factory=dict)
    n_images: int = 0
    source: tuple[str, tuple[Image.Image, ...]] | None = None

    def followed_by(
        self, ids: Sequence[int], kinds: Mapping[str, Sequence[int]] | None = None
    ) -> "Prompt":
        """More text after this prompt, whose kinds are 0 where not given; without images."""
        more = kinds or {}
        joined = {
            name: (
                *self.kinds.get(name, (0,) * len(self.ids)),
                *more.get(name, (0,) * len(ids)),
            )
            for name in {**self.kinds, **more}
        }
        return Prompt((*self.ids, *ids), joined)


class ChatProcessor:
    """A checkpoint's chat template, tokenizer and stock processor. Not for several threads at once.

    `settings` override the image processor's own. How the rows of a batch go together is found out
    when it is made, by comparing them with the stock processor's batch. Raises FatalModelError
    where the folder lacks a part, or where the template drops images.
    """

    def __init__(
        self,
        directory: Path,
        config: Any,
        *,
        settings: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._processor = load_processor(directory, config, trust_remote_code)
        tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._images = getattr(self._processor, "image_processor", None)
        if settings:
            self._images = with_image_settings(self._images, settings)
            self._processor.image_processor = self._images
        self._settings = dict(settings or {})
        self._call_settings = call_settings(self._images, self._settings)
        self._files = kept_file_hashes(directory, PROCESSOR_FILES)
        self.template = ChatTemplate(
            tokenizer,
            saved_template(directory, tokenizer),
            placeholder_ids(config, self._processor, tokenizer),
        )
        self.sees_images = self._images is not None
        # tensors as long as the text and as wide as the images: rows then go only with rows of as
        # many images, and every turn is rendered anew
        self.wide = False
        # the most images that a conversation can have, None for any number
        self.max_images: int | None = 0
        self._stacks = True
        self._is_rendered_anew = False
        if self.sees_images:
            self._try_images()

    def opening(
        self,
        messages: Sequence[Message],
        images: Sequence[RequestImage],
        tools: Sequence[ToolSchema] = (),
    ) -> Prompt:
        """The prompt for the next reply to the messages, or for more of the last turn.

        Raises FatalModelError where the template leaves the tools out or the model takes fewer
        images, and ModelError where the processor refuses an image.
        """
        pictures = self._shown(messages, images)
        return self._read(self.template.render(messages, tools), pictures)

    def extension(
        self,
        earlier: Prompt,
        n_messages: int,
        messages: Sequence[Message],
        images: Sequence[RequestImage],
        tools: Sequence[ToolSchema] = (),
    ) -> Prompt:
        """The prompt that begins with `earlier`, which holds the first `n_messages` messages.

        The last of these messages is a reply; the text after it is rendered by the template. Where
        more images change how the earlier ones look, the whole conversation is rendered anew.
        """
        pictures = self._shown(messages, images)
        if self.wide:
            return self._anew(messages, pictures, tools)
        text = self.template.render_after_reply(n_messages, messages, tools)
        whole = self._read(text, pictures)
        cut = self.template.end_of_reply(whole.ids)
        if self._n_places(earlier.ids) != self._n_places(whole.ids[:cut]):
            return self._anew(messages, pictures, tools)
        more = {name: kinds[cut:] for name, kinds in whole.kinds.items()}
        return replace(
            earlier.followed_by(whole.ids[cut:], more),
            images=whole.images,
            n_images=whole.n_images,
            source=whole.source,
        )

    def _anew(
        self,
        messages: Sequence[Message],
        pictures: Sequence[Image.Image],
        tools: Sequence[ToolSchema],
    ) -> Prompt:
        self._is_rendered_anew = True
        return self._read(self.template.render(messages, tools), pictures)

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """The inputs of `generate` for rows padded on the left."""
        width = max(len(prompt.ids) for prompt in prompts)

        def padded(rows: Iterable[Sequence[int]], filler: int) -> torch.Tensor:
            return torch.tensor([[filler] * (width - len(row)) + [*row] for row in rows])

        batch = {
            "input_ids": padded((one.ids for one in prompts), self.template.pad_id),
            "attention_mask": padded(([1] * len(one.ids) for one in prompts), 0),
        }
        for name in dict.fromkeys(name for one in prompts for name in one.kinds):
            rows = (one.kinds.get(name, (0,) * len(one.ids)) for one in prompts)
            batch[name] = padded(rows, 0)
        pictured = [one for one in prompts if one.images]
        if pictured and not self._stacks:
            return batch | self._stock_images(pictured)
        for name in dict.fromkeys(name for one in pictured for name in one.images):
            batch[name] = _stacked([one.images[name] for one in pictured if name in one.images])
        return batch

    def model_sizes(self, prompt: Prompt) -> tuple[Size, ...] | None:
        """The sizes of a prompt's images after the processor; None where it does not tell."""
        grids = prompt.images.get("image_grid_thw")
        patch = getattr(self._images, "patch_size", None)
        if not isinstance(patch, int) or (grids is None and prompt.n_images):
            return None
        if grids is None:
            return ()
        return tuple(Size(int(w) * patch, int(h) * patch) for _, h, w in grids.tolist())

    def probes(self, n_tokens: int) -> list[Prompt]:
        """Two prompts of different lengths that begin with at least `n_tokens` equal tokens."""
        system = Message(role="system", content=(Text("begin " * n_tokens),))
        pictures = [Image.new("RGB", size) for size in PROBE_SIZES[: 2 * self.sees_images]]
        prompts = []
        for index, text in enumerate(("a", "b b b")):
            some = pictures[index : index + 1]
            content: tuple[Text | ImageRef, ...] = (*(ImageRef(0) for _ in some), Text(text))
            messages = (system, Message(role="user", content=content))
            prompts.append(self._read(self.template.render(messages), some))
        return prompts

    def identity(self) -> dict[str, JsonValue]:
        """All that can change a prompt: template, form, files, classes and image settings."""
        templates = "".join(self.template.templates.values())
        return {
            "chat_template_sha256": hashlib.sha256(templates.encode()).hexdigest(),
            "chat_template_form": self.template.identity(),
            "processor": _class_name(self._processor),
            "image_processor": _class_name(self._images) if self.sees_images else None,
            "image_settings": dict(self._settings),
            "image_batches": "concatenated" if self._stacks else "made by the stock processor",
            "processor_files": dict(self._files),
        }

    def notes(self) -> tuple[str, ...]:
        """What this model's prompts do that others' do not, to report once."""
        notes = list(self.template.notes())
        if self._is_rendered_anew:
            notes.append(
                "later turns are rendered and tokenized anew: images look different beside others"
            )
        return tuple(notes)

    def _try_images(self) -> None:
        """Find out what the processor and the template do with one image, two, and a batch."""
        if self.template.form.image_place is None:
            raise FatalModelError(
                "the checkpoint's chat template leaves images out",
                hint="give a folder whose template renders them with --processor",
            )
        pictures = [Image.new("RGB", size) for size in PROBE_SIZES]
        self._stacks = False  # so that the rows keep their sources
        self.max_images = 1
        rows = [self._probe_alone(pictures[0])]
        try:
            rows.append(self._probe(pictures[1:]))
            self.max_images = None
        except MedevalError:
            rows.append(self._probe(pictures[1:2]))
        self.wide = any(
            all(
                row.images[name].ndim > 2 and row.images[name].shape[:2] == (1, len(row.ids))
                for row in rows
            )
            for name in rows[0].images
        )
        stock = self._stock_images(rows)
        self._stacks = True
        self._stacks = _are_equal(self.batch(rows), stock)

    def _probe_alone(self, picture: Image.Image) -> Prompt:
        try:
            return self._probe([picture])
        except ModelError as error:
            if not _lacks_video(self._processor):
                raise
            # some processors need their video part for images too
            raise FatalModelError(
                f"the {_class_name(self._processor)} needs torchvision: {error.message}",
                hint="pip install torchvision",
            ) from error

    def _probe(self, pictures: Sequence[Image.Image]) -> Prompt:
        """A prompt with an image in each user's turn."""
        turn = (
            Message(role="user", content=(ImageRef(0), Text("a"))),
            Message(role="assistant", content=(Text("b"),)),
        )
        messages = (turn * len(pictures))[:-1]
        return self._read(self.template.render(messages), pictures)

    def _shown(
        self, messages: Sequence[Message], images: Sequence[RequestImage]
    ) -> list[Image.Image]:
        """The images that the messages show, if the model takes so many."""
        pictures = shown(messages, images)
        if self.max_images is not None and len(pictures) > self.max_images:
            raise too_many_images(self.max_images, f"this one shows {len(pictures)}")
        return pictures

    def _n_places(self, ids: Sequence[int]) -> int:
        return sum(one in self.template.placeholder_ids for one in ids)

    def _read(self, text: str, pictures: Sequence[Image.Image]) -> Prompt:
        """What the processor makes of a rendered text and its images."""
        if not pictures:
            return Prompt(tuple(self.template.text_ids(text)))
        self._check_places(text, len(pictures))
        if self.wide:
            # a wall would be cut from the ids alone, and not from tensors as long as the text
            text = text.replace(WALL, ZERO_WIDTH_SPACE)
        made = self._stock([text], [pictures])
        ids, images = made["input_ids"][0].tolist(), _image_tensors(made)
        kept = [at for at, one in enumerate(ids) if one != self.template.wall_id]
        kinds = {name: row[0].tolist() for name, row in made.items() if _is_kinds(name)}
        return Prompt(
            tuple(ids[at] for at in kept),
            {name: tuple(row[at] for at in kept) for name, row in kinds.items()},
            images,
            len(pictures),
            None if self._stacks else (text, tuple(pictures)),
        )

    def _check_places(self, text: str, n_pictures: int) -> None:
        mark = getattr(self._processor, "image_token", None)
        if isinstance(mark, str) and text.count(mark) != n_pictures:
            raise ModelError(
                f"the conversation has {n_pictures} images, but its text has {text.count(mark)} "
                "image placeholders",
                hint="the checkpoint's chat template leaves images out; give a folder whose "
                "template renders them with --processor",
            )

    def _stock_images(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        sources = [one.source for one in prompts if one.source is not None]
        texts, pictures = [text for text, _ in sources], [some for _, some in sources]
        return _image_tensors(self._stock(texts, pictures))

    def _stock(
        self, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]
    ) -> dict[str, torch.Tensor]:
        try:
            made = self._processor(
                text=[*texts],
                images=[[*some] for some in pictures],
                add_special_tokens=self.template.adds_special_tokens(texts[0]),
                padding=len(texts) > 1,
                padding_side="left",
                return_tensors="pt",
                **({"images_kwargs": self._call_settings} if self._call_settings else {}),
            )
        except IMAGE_ERRORS as error:
            sizes = ", ".join(f"{one.width} x {one.height}" for some in pictures for one in some)
            raise ModelError(f"the processor refuses images of {sizes} pixels: {error}") from error
        return {name: torch.as_tensor(value) for name, value in made.items() if value is not None}


def shown(messages: Sequence[Message], images: Sequence[RequestImage]) -> list[Image.Image]:
    """The images in the order in which the messages show them, decoded."""
    return [image.pixels() for image in shown_images(messages, images)]


def load_processor(directory: Path, config: Any, trust_remote_code: bool) -> Any:
    """The stock processor, or a tokenizer for a model of text.

    Without torchvision, a stock processor cannot make its video part, which is then None. Raises
    FatalModelError where a part is missing, or a package that this processor needs.
    """
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        return transformers.AutoProcessor.from_pretrained(directory, **options)
    except LOAD_ERRORS as error:
        missing = _missing_package(error)
        if missing != "torchvision" or type(config) not in transformers.PROCESSOR_MAPPING:
            raise FatalModelError(
                f"cannot load a tokenizer and an image processor from {str(directory)!r}: {error}",
                hint=f"pip install {missing}"
                if missing
                else "give the folder of the base model, which has them, with --processor",
            ) from error
    try:
        return _without_video(directory, transformers.PROCESSOR_MAPPING[type(config)], options)
    except LOAD_ERRORS as error:
        package = _missing_package(error) or "torchvision"
        raise FatalModelError(
            f"the processor of a {config.model_type!r} needs {package}: {error}",
            hint=f"pip install {package}",
        ) from error


def _missing_package(error: Exception) -> str | None:
    text = str(error).lower()
    return next((name for name in OPTIONAL_PACKAGES if name in text), None)


def _without_video(directory: Path, stock: Any, options: Mapping[str, Any]) -> Any:
    """The stock processor put together from its parts, without the one for video."""

    class ImageOnlyProcessor(stock):  # type: ignore[misc]
        __init__ = stock.__init__  # its signature names the parts

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    ImageOnlyProcessor.__name__ = stock.__name__
    wanted = inspect.signature(stock.__init__).parameters
    parts = {
        name: getattr(transformers, auto).from_pretrained(directory, **options)
        for name, auto in PARTS.items()
        if name in wanted
    }
    settings, _ = stock.get_processor_dict(directory, **options)
    others = {name: value for name, value in settings.items() if name in wanted}
    return ImageOnlyProcessor(**(others | parts | {"video_processor": None}))


def _lacks_video(processor: Any) -> bool:
    """Whether a processor was made without its part for video, as torchvision is missing."""
    return hasattr(processor, "video_processor") and processor.video_processor is None


def _class_name(processor: Any) -> str:
    return type(processor).__name__


def _is_kinds(name: str) -> bool:
    return name.endswith("token_type_ids")


def _image_tensors(made: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    text = ("input_ids", "attention_mask", "labels")
    return {n: value for n, value in made.items() if n not in text and not _is_kinds(n)}


def _stacked(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows' tensors one after another, filled up with zeros at the ends of the other axes."""
    shape = [max(value.shape[axis] for value in values) for axis in range(values[0].ndim)]
    filled = []
    for value in values:
        gaps = [(0, shape[axis] - value.shape[axis] if axis else 0) for axis in range(value.ndim)]
        filled.append(torch.nn.functional.pad(value, [n for gap in gaps[::-1] for n in gap]))
    return torch.cat(filled)


def _are_equal(made: Mapping[str, torch.Tensor], stock: Mapping[str, torch.Tensor]) -> bool:
    return all(
        name in made and made[name].shape == value.shape and torch.equal(made[name], value)
        for name, value in stock.items()
    )
