"""Turns messages and images into the token ids and pixel values that a Qwen-VL checkpoint expects.

Uses the checkpoint's own chat template, tokenizer and image processor, but neither torchvision nor
the video processor, which the stock processor classes require.
"""

import hashlib
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from jinja2 import TemplateError

from medeval.errors import FatalModelError, ModelError
from medeval.images.picture import prepare
from medeval.models.final_turn import whole_turns
from medeval.tools.base import ToolSchema
from medeval.types.geometry import Size
from medeval.types.sample import EncodedImage, JsonValue
from medeval.types.trajectory import ImageRef, Message, Text

# Processor classes by model_type; these families lay out image inputs in the same way.
PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
}
CACHE_BYTES = 256 * 2**20
# The files that determine a prompt, besides the chat template.
PROCESSOR_FILES = ("tokenizer.json", "preprocessor_config.json", "processor_config.json")
# Stands for the last reply, to find the text after it. MARKER and BOUNDARY are random, so that no
# message can contain them.
MARKER = f"medeval-reply-{secrets.token_hex(16)}"
# Separates the pieces of a rendered text that are tokenised one by one.
BOUNDARY = f"medeval-boundary-{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """One image as the vision tower's input.

    `patches` has shape (height * width, values per patch) in float32; `grid` is (1, height, width)
    in patches; `n_tokens` is the number of its tokens in the prompt.
    """

    patches: torch.Tensor
    grid: tuple[int, int, int]
    n_tokens: int
    size: Size


@dataclass(frozen=True, slots=True)
class Prompt:
    """The token ids of a conversation so far, and its images in the order of the messages."""

    ids: tuple[int, ...]
    images: tuple[ImageInput, ...]


class ChatProcessor:
    """A checkpoint's chat template, tokenizer and image processor.

    Special tokens come only from the template: one that is spelled out in a message is plain
    text. `min_pixels` and `max_pixels` override the checkpoint's own bounds on an image's area.
    Raises FatalModelError where the directory lacks one of the three. Not thread-safe.
    """

    def __init__(
        self,
        directory: Path,
        model_type: str,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._processor = _load(directory, model_type, trust_remote_code)
        self._tokenizer = self._processor.tokenizer
        self._images = self._processor.image_processor
        self._set_pixel_budget(min_pixels, max_pixels)
        self._cache: OrderedDict[str, ImageInput] = OrderedDict()
        self._cache_bytes = 0
        self._files = _file_hashes(directory)
        self._renders_tools = False
        self.template = _template(self._processor, directory)
        self.image_id = int(self._processor.image_token_id)
        self.placeholder_ids = frozenset({self.image_id, int(self._processor.video_token_id)})
        self.special_ids = frozenset(int(one) for one in self._tokenizer.all_special_ids)
        self._special_starts = self._pattern_of_special_starts()
        self.end_id: int | None = self._tokenizer.eos_token_id
        self.pad_id = int(self._tokenizer.pad_token_id or 0)

    def opening(
        self,
        messages: Sequence[Message],
        images: Sequence[EncodedImage],
        tools: Sequence[ToolSchema] = (),
    ) -> Prompt:
        """The prompt for the next reply to the messages, or for more of the last turn.

        Raises FatalModelError where the template leaves the tools out.
        """
        inputs = self._image_inputs(messages, images)
        text = self._render(messages, tools)
        if tools and not self._renders_tools:
            self._check_tools_rendered(text, messages)
        return Prompt(self._expand(text, inputs), inputs)

    def extension(
        self,
        earlier: Sequence[int],
        n_messages: int,
        messages: Sequence[Message],
        images: Sequence[EncodedImage],
        tools: Sequence[ToolSchema] = (),
    ) -> Prompt:
        """The prompt that begins with `earlier`, the ids of the first `n_messages` messages.

        The last of these messages is a reply; the text after it is rendered by the template.
        """
        reply = n_messages - 1
        marked = (
            *messages[:reply],
            replace(messages[reply], content=(Text(MARKER),), native_calls=()),
            *messages[n_messages:],
        )
        _, marker, suffix = self._render(marked, tools).rpartition(MARKER)
        if not marker:
            raise FatalModelError(
                "the checkpoint's chat template leaves an earlier reply out",
                hint="use a template that renders every message",
            )
        old = self._image_inputs(messages[:n_messages], images)
        new = self._image_inputs(messages[n_messages:], images)
        return Prompt((*earlier, *self._expand(suffix, new)), (*old, *new))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text; special tokens in it are recognised, and none are added."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def identity(self) -> dict[str, JsonValue]:
        """All that can change a prompt: hashes of template and files, and the image settings."""
        size = dict(self._images.size)
        return {
            "chat_template_sha256": hashlib.sha256(self.template.encode()).hexdigest(),
            "processor_files": dict(self._files),
            "image_processor": type(self._images).__name__,
            "min_pixels": int(size["shortest_edge"]),
            "max_pixels": int(size["longest_edge"]),
            "patch_size": int(self._images.patch_size),
            "merge_size": int(self._images.merge_size),
        }

    def _set_pixel_budget(self, min_pixels: int | None, max_pixels: int | None) -> None:
        size = dict(self._images.size)
        if min_pixels is not None:
            size["shortest_edge"] = min_pixels
        if max_pixels is not None:
            size["longest_edge"] = max_pixels
        if size["shortest_edge"] > size["longest_edge"]:
            raise FatalModelError(
                f"min_pixels {size['shortest_edge']!r} is more than "
                f"max_pixels {size['longest_edge']!r}"
            )
        self._images.size = size

    def _pattern_of_special_starts(self) -> "re.Pattern[str]":
        """Matches the first character of each special token that a text spells out."""
        added = self._tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        special |= set(self._tokenizer.convert_ids_to_tokens(sorted(self.placeholder_ids)))
        return re.compile(f"(?=(?:{'|'.join(map(re.escape, sorted(special)))}))(.)", re.DOTALL)

    def _check_tools_rendered(self, text: str, messages: Sequence[Message]) -> None:
        if text == self._render(messages, ()):
            raise FatalModelError(
                "the checkpoint's chat template does not render the tools of a native protocol",
                hint="use the pair crop_zoom, whose prompt describes its tool, or give a folder "
                "whose template renders tools with --processor",
            )
        self._renders_tools = True

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        """The text of a prompt up to the reply; a last turn that the reply continues stays open."""
        turns = whole_turns(messages)
        if not (messages and messages[-1].continues):
            return self._templated(turns, tools)
        marked = replace(turns[-1], content=(*turns[-1].content, Text(MARKER)))
        text, marker, _ = self._templated((*turns[:-1], marked), tools).rpartition(MARKER)
        if not marker:
            raise FatalModelError(
                "the checkpoint's chat template leaves out the end of the assistant's turn",
                hint="use a template that renders all parts of every message",
            )
        return text

    def _templated(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [self._plain(_as_template_message(message)) for message in messages],
                    tools=[tool.as_json() for tool in tools] or None,
                    chat_template=self.template,
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )
        except TemplateError as error:
            raise FatalModelError(
                f"the checkpoint's chat template refuses the conversation: {error}"
            ) from error

    def _plain(self, value: Any) -> Any:
        """The value with a BOUNDARY inside every special token that its texts spell out."""
        if isinstance(value, str):
            return self._special_starts.sub(rf"\1{BOUNDARY}", value)
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, dict):
            return {name: self._plain(item) for name, item in value.items()}
        return value

    def _expand(self, text: str, inputs: Sequence[ImageInput]) -> tuple[int, ...]:
        """The ids of a text, with each image's placeholder repeated once for each of its tokens."""
        ids = [token for piece in text.split(BOUNDARY) for token in self.encode(piece)]
        n_placeholders = ids.count(self.image_id)
        if n_placeholders != len(inputs):
            raise ModelError(
                f"the conversation has {len(inputs)} images, but its text has {n_placeholders} "
                "image placeholders",
                hint="the checkpoint's chat template leaves images out; give a folder whose "
                "template renders them with --processor",
            )
        remaining = iter(inputs)
        return tuple(
            copy
            for token in ids
            for copy in ([token] * next(remaining).n_tokens if token == self.image_id else [token])
        )

    def _image_inputs(
        self, messages: Iterable[Message], images: Sequence[EncodedImage]
    ) -> tuple[ImageInput, ...]:
        return tuple(
            self._image_input(images[part.image])
            for message in messages
            for part in message.content
            if isinstance(part, ImageRef)
        )

    def _image_input(self, image: EncodedImage) -> ImageInput:
        cached = self._cache.pop(image.sha256, None)
        image_input = cached or self._process(image)
        self._cache[image.sha256] = image_input
        if cached is None:
            self._cache_bytes += image_input.patches.nbytes
            while self._cache_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cache_bytes -= self._cache.popitem(last=False)[1].patches.nbytes
        return image_input

    def _process(self, image: EncodedImage) -> ImageInput:
        pixels = prepare(image.data, name=image.sha256[:8]).pixels()
        try:
            features = self._images(images=[pixels], return_tensors="pt")
        except ValueError as error:
            raise ModelError(
                f"the image processor refuses an image of {image.width_px} x {image.height_px} "
                f"pixels ({image.media_type}, sha256 {image.sha256[:8]}): {error}"
            ) from error
        frames, height, width = (int(value) for value in features["image_grid_thw"][0])
        patch, merge = int(self._images.patch_size), int(self._images.merge_size)
        return ImageInput(
            patches=features["pixel_values"],
            grid=(frames, height, width),
            n_tokens=frames * height * width // merge**2,
            size=Size(width * patch, height * patch),
        )


def _load(directory: Path, model_type: str, trust_remote_code: bool) -> Any:
    stock = getattr(transformers, PROCESSORS[model_type])

    class ImageOnlyProcessor(stock):  # type: ignore[misc, valid-type]
        """The stock processor without its video processor, which needs torchvision."""

        def __init__(
            self,
            image_processor: object = None,
            tokenizer: object = None,
            chat_template: str | None = None,
            **kwargs: object,
        ) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    try:
        return ImageOnlyProcessor.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FatalModelError(
            f"cannot load a tokenizer and an image processor from {str(directory)!r}: {error}",
            hint="give the folder of the base model, which has them, with --processor",
        ) from error


def _file_hashes(directory: Path) -> dict[str, JsonValue]:
    """The sha256 of each of PROCESSOR_FILES that exists."""
    return {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
        for name in PROCESSOR_FILES
        if (directory / name).is_file()
    }


def _template(processor: Any, directory: Path) -> str:
    """The processor's chat template, which renders images, or else the tokenizer's."""
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if not template:
        raise FatalModelError(
            f"{str(directory)!r} has no chat template",
            hint="give the folder of the base model, which has one, with --processor",
        )
    return str(template)


def _as_template_message(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it; its content is a string where it has no image."""
    content: str | list[dict[str, str]] = message.text
    if any(isinstance(part, ImageRef) for part in message.content):
        content = [
            {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
            for part in message.content
        ]
    template_message: dict[str, Any] = {"role": message.role, "content": content}
    if message.native_calls:
        template_message["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.native_calls
        ]
    if message.call_id is not None:
        template_message["tool_call_id"] = message.call_id
    return template_message


def _arguments(text: str) -> JsonValue:
    """The arguments parsed where they are JSON, as templates serialise objects themselves."""
    try:
        parsed: JsonValue = json.loads(text)
    except ValueError:
        return text
    return parsed
