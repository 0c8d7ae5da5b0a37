"""Renders conversations with a checkpoint's own chat template, and turns them into token ids.

Templates differ: message contents are strings or lists of parts, a system message stands alone or
not at all, images stand where the message has them or before its text. None of this is declared,
so it is found by rendering a few random words.

The ids of a later turn are the earlier ids, the generated ids, and the ids of what the template
writes after the reply. To find these, the conversation is rendered with one special token in the
reply's place. As it is a single id, nothing merges with its neighbours.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import transformers
from jinja2 import TemplateError
from transformers import AddedToken, ProcessorMixin

from medeval.errors import FatalModelError
from medeval.models.final_turn import whole_turns
from medeval.tools.base import ToolSchema
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ImageRef, Message, Text

# Special tokens of our own, random so that no message can contain them, and cut out before a model
# sees them. REPLY stands for a reply. WALL splits a special token that a message spells out, which
# so stays plain text.
REPLY = f"<|reply-{secrets.token_hex(12)}|>"
WALL = f"<|wall-{secrets.token_hex(12)}|>"
# How templates fail: in jinja's own ways, and in Python's where they expect another content.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)
# Where its files are missing, transformers makes some tokenizers that know special tokens alone.
LEAST_VOCABULARY = 100
ImagePlace = Literal["in place", "first", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateForm:
    """How a template wants its messages, as found by rendering some.

    With `as_parts`, every content is a list of parts; otherwise only one with images is. With
    `merges_system`, the system text opens the first user message. `image_place` is where a
    message's images stand, None where the template shows none.
    """

    as_parts: bool
    merges_system: bool
    image_place: ImagePlace | None


class ChatTemplate:
    """A checkpoint's tokenizer and chat template. Not for several threads at once.

    Special tokens come only from the template: one that is spelled out in a message stays plain
    text. `placeholder_ids` are the ids that stand for images, video and sound. Raises
    FatalModelError where the template renders no plain conversation.
    """

    def __init__(
        self, tokenizer: Any, template: str | Mapping[str, str], placeholder_ids: frozenset[int]
    ) -> None:
        if len(tokenizer) < LEAST_VOCABULARY:
            raise FatalModelError(
                f"the tokenizer knows {len(tokenizer)} tokens: its files are missing",
                hint="give the folder of the base model, which has a tokenizer, with --processor",
            )
        self.tokenizer = tokenizer
        self.templates = {"default": template} if isinstance(template, str) else dict(template)
        self.placeholder_ids = placeholder_ids
        self.end_id: int | None = tokenizer.eos_token_id
        self.special_ids = frozenset(int(one) for one in tokenizer.all_special_ids)
        known = (tokenizer.pad_token_id, self.end_id, 0)
        self.pad_id = int(next(one for one in known if one is not None))
        self._special_starts = self._pattern_of_special_starts()
        own = [AddedToken(token, special=True, normalized=False) for token in (REPLY, WALL)]
        tokenizer.add_tokens(own, special_tokens=True)
        self.reply_id, self.wall_id = tokenizer.convert_tokens_to_ids([REPLY, WALL])
        self._reply_mark, self._reply_mark_ids = self._found_reply_mark()
        self._renders_tools = False
        self.form = TemplateForm(as_parts=False, merges_system=False, image_place=None)
        self.form = self._found_form()

    @classmethod
    def from_folder(
        cls, directory: Path, config: Any, *, trust_remote_code: bool = False
    ) -> "ChatTemplate":
        """The template of a checkpoint's folder, without its image processor."""
        options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory, **options)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise FatalModelError(
                f"cannot load a tokenizer from {str(directory)!r}: {error}",
                hint="give the folder of the base model, which has one, with --processor",
            ) from error
        template = saved_template(directory, tokenizer)
        return cls(tokenizer, template, placeholder_ids(config, tokenizer))

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> str:
        """The text of a prompt up to the reply; a last turn that the reply continues stays open.

        Raises FatalModelError where the template refuses the conversation or leaves the tools out.
        """
        text = self._rendered(messages, tools)
        if tools and not self._renders_tools:
            self._check_tools_rendered(text, messages)
        return text

    def render_after_reply(
        self, n_messages: int, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()
    ) -> str:
        """The text of a conversation whose message `n_messages - 1` is REPLY."""
        last = n_messages - 1
        mark = (Text(self._reply_mark),)
        reply = replace(messages[last], content=mark, native_calls=(), reasoning="")
        text = self._rendered((*messages[:last], reply, *messages[n_messages:]), tools)
        if REPLY not in text:
            raise FatalModelError(
                "the checkpoint's chat template leaves an earlier reply out",
                hint="use a template that renders every message",
            )
        return text

    def opening_ids(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()
    ) -> tuple[int, ...]:
        """The ids of the prompt, with each image's placeholder as the template writes it."""
        return tuple(self.text_ids(self.render(messages, tools)))

    def extension_ids(
        self,
        earlier: Sequence[int],
        n_messages: int,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
    ) -> tuple[int, ...]:
        """The ids of the prompt that begins with `earlier`, the ids of the first `n_messages`.

        The last of these messages is a reply.
        """
        ids = self.text_ids(self.render_after_reply(n_messages, messages, tools))
        return (*earlier, *ids[self.end_of_reply(ids) :])

    def end_of_reply(self, ids: Sequence[int]) -> int:
        """The index after the reply's mark."""
        end = len(ids) - list(reversed(ids)).index(self.reply_id)
        mark = self._reply_mark_ids
        return end + len(mark) if tuple(ids[end : end + len(mark)]) == mark else end

    def text_ids(self, text: str) -> list[int]:
        """The ids of a rendered text, without walls."""
        made = self.tokenizer([text], add_special_tokens=self.adds_special_tokens(text))
        return [one for one in made["input_ids"][0] if one != self.wall_id]

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer must add its special tokens, as the template wrote no BOS."""
        begin = self.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def without_placeholders(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Generated ids for the history: a placeholder that the model wrote has no image."""
        return tuple(one for one in ids if one not in self.placeholder_ids)

    def identity(self) -> dict[str, JsonValue]:
        """The form of the messages, to be recorded."""
        return dict(asdict(self.form))

    def notes(self) -> tuple[str, ...]:
        """What the form changes in the messages, to report once."""
        notes = []
        if self.form.merges_system:
            notes.append(
                "the chat template has no system role beside images: the system text opens the "
                "first user message"
            )
        if self.form.image_place in ("first", "last"):
            notes.append(f"the chat template puts a message's images {self.form.image_place}")
        return tuple(notes)

    def _rendered(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        turns = whole_turns(messages)
        if not (messages and messages[-1].continues):
            return self._templated(turns, tools)
        marked = replace(turns[-1], content=(*turns[-1].content, Text(REPLY)))
        text, found, _ = self._templated((*turns[:-1], marked), tools).rpartition(REPLY)
        if not found:
            raise FatalModelError(
                "the checkpoint's chat template leaves out the end of the assistant's turn",
                hint="use a template that renders all parts of every message",
            )
        return text

    def _templated(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        form: TemplateForm | None = None,
    ) -> str:
        form = form or self.form
        if form.merges_system and messages[0].role == "system":
            messages = _system_merged(messages)
        template = self.templates.get("tool_use") if tools else None
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [self._walled(_as_template_message(one, form.as_parts)) for one in messages],
                    tools=[tool.as_json() for tool in tools] or None,
                    chat_template=template or self.templates["default"],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )
        except TEMPLATE_ERRORS as error:
            raise FatalModelError(
                f"the checkpoint's chat template refuses the conversation: {error}"
            ) from error

    def _check_tools_rendered(self, text: str, messages: Sequence[Message]) -> None:
        if text == self._rendered(messages, ()):
            raise FatalModelError(
                "the checkpoint's chat template does not render the tools of a native protocol",
                hint="use the pair crop_zoom, whose prompt describes its tool, or give a folder "
                "whose template renders tools with --processor",
            )
        self._renders_tools = True

    def _found_form(self) -> TemplateForm:
        """The first form in which a conversation, if possible one with an image, keeps its words.

        Strings come before parts, and a system message of its own before a merged one.
        """
        forms = [(parts, merged) for merged in (False, True) for parts in (False, True)]
        failure = "it leaves words out, or writes them twice"
        for has_image in (True, False):
            for as_parts, merges_system in forms:
                try:
                    found = self._tried(as_parts, merges_system, has_image)
                except FatalModelError as error:
                    failure = error.message
                    continue
                if found is not None:
                    return found
        raise FatalModelError(
            f"the checkpoint's chat template renders no plain conversation: {failure}",
            hint="give the folder of a model whose template does with --processor",
        )

    def _tried(self, as_parts: bool, merges_system: bool, has_image: bool) -> TemplateForm | None:
        """The form, where a conversation in it keeps its words and its image."""
        words = [f"w{secrets.token_hex(6)}" for _ in range(5)]

        def conversation(*image: ImageRef) -> tuple[Message, ...]:
            return (
                Message(role="system", content=(Text(words[0]),)),
                Message(role="user", content=(Text(words[1]), *image, Text(words[2]))),
                Message(role="assistant", content=(Text(words[3]),)),
                Message(role="user", content=(Text(words[4]),)),
            )

        form = TemplateForm(as_parts=as_parts, merges_system=merges_system, image_place=None)
        shown = self._templated(conversation(*[ImageRef(0)] * has_image), (), form)
        if any(shown.count(word) != 1 for word in words) or "'type':" in shown:
            return None
        if not has_image:
            return form
        bare = self._templated(conversation(), (), form)
        # by how much the text grows between two words; a separator is shorter than an image
        growth: dict[ImagePlace, int] = {
            "in place": _growth(bare, shown, words[1], words[2]),
            "first": _growth(bare, shown, words[0], words[1]),
            "last": _growth(bare, shown, words[2], words[3]),
        }
        place = max(growth, key=lambda one: growth[one])
        return replace(form, image_place=place) if growth[place] > 0 else None

    def _found_reply_mark(self) -> tuple[str, tuple[int, ...]]:
        """What stands for a reply, and the ids of it after REPLY's.

        Some SentencePiece tokenizers put a space before a text that follows a special token, which
        is not there after a reply. A newline after REPLY then takes it, as it merges with nothing.
        """
        made = self.text_ids(f"{REPLY}\n")
        ids = tuple(made[made.index(self.reply_id) + 1 :])
        return (f"{REPLY}\n", ids) if len(ids) > 1 else (REPLY, ())

    def _pattern_of_special_starts(self) -> "re.Pattern[str]":
        """Matches the first character of each special token that a text spells out."""
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        placeholders = self.tokenizer.convert_ids_to_tokens(sorted(self.placeholder_ids))
        special |= {token for token in placeholders if token}
        if not special:
            return re.compile(r"(?!)")
        return re.compile(f"(?=(?:{'|'.join(map(re.escape, sorted(special)))}))(.)", re.DOTALL)

    def _walled(self, value: Any) -> Any:
        """The value with a wall inside every special token that its texts spell out."""
        if isinstance(value, str):
            return self._special_starts.sub(rf"\1{WALL}", value)
        if isinstance(value, list):
            return [self._walled(item) for item in value]
        if isinstance(value, dict):
            return {name: self._walled(item) for name, item in value.items()}
        return value


def saved_template(directory: Path, tokenizer: Any) -> str | Mapping[str, str]:
    """The chat template in a folder: the processor's, which shows images, or the tokenizer's.

    Raises FatalModelError where there is none.
    """
    settings, _ = ProcessorMixin.get_processor_dict(str(directory), local_files_only=True)
    template = settings.get("chat_template") or tokenizer.chat_template
    if not template:
        raise FatalModelError(
            f"{str(directory)!r} has no chat template",
            hint="give the folder of the base model, which has one, with --processor",
        )
    checked: str | Mapping[str, str] = template
    if isinstance(checked, Mapping) and "default" not in checked:
        raise FatalModelError(
            f"{str(directory)!r} has chat templates named {sorted(checked)!r}, none 'default'"
        )
    return checked


def placeholder_ids(*owners: Any) -> frozenset[int]:
    """The ids that stand for images, video and sound, by configuration, processor or tokenizer.

    A processor alone does not name all of them, nor does a configuration.
    """
    ids: set[int] = set()
    for owner in (*owners, *(getattr(owner, "vision_config", None) for owner in owners)):
        for kind in ("image", "video", "audio"):
            for suffix in ("token_ids", "token_id", "token_index"):
                value = getattr(owner, f"{kind}_{suffix}", None)
                values = value if isinstance(value, (list, tuple)) else [value]
                ids |= {one for one in values if isinstance(one, int)}
    return frozenset(ids)


def _growth(bare: str, shown: str, begin: str, end: str) -> int:
    """How many characters more `shown` has than `bare` between two words."""
    return (shown.index(end) - shown.index(begin)) - (bare.index(end) - bare.index(begin))


def _system_merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    system, first, *rest = messages
    content = (*system.content, Text("\n\n"), *first.content)
    return (replace(first, content=content), *rest)


def _as_template_message(message: Message, as_parts: bool) -> dict[str, Any]:
    """A message as chat templates expect it."""
    content: str | list[dict[str, str]] = message.text
    if as_parts or any(isinstance(part, ImageRef) for part in message.content):
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
