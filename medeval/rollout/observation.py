"""What a protocol is made of: how tool results are shown, how wordings are drawn, and the rules."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from string import Template
from typing import Literal, TypeAlias

from medeval.errors import DefinitionError
from medeval.scoring.answers import TextRule, find_answer
from medeval.tools.base import check_template
from medeval.tools.calls.actions import terminate_argument
from medeval.types.geometry import Size
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Content, ImageRef, Message, Role, Text

# Where tool results stand: in a turn after the reply, in the reply's own turn, or in messages
# rewritten as if the results had been there before.
ObservationPlace: TypeAlias = Literal["new_turn", "same_turn", "rewritten"]

# How an answer is found: in a reply's text, or as the argument of OpenThinkIMG's final action.
AnswerRule: TypeAlias = TextRule | Literal["terminate"]

# Which calls a published figure counts as a use of the tool; medeval records all three.
Used: TypeAlias = Literal["attempted", "executed", "observed"]

# What a protocol does with a call that cannot be read, and with one that a tool refuses.
OnMalformed: TypeAlias = Literal["end", "observe", "ignore", "carry_out"]
OnError: TypeAlias = Literal["end", "observe"]

# The answer of a conversation that ends at a limit: none, or what the rules find in its last reply.
AtLimit: TypeAlias = Literal["no_answer", "last_reply"]

OBSERVED_PLACEHOLDERS = frozenset(
    {
        "index",
        "made",
        "turn",
        "observation",
        "width",
        "height",
        "raw_width",
        "raw_height",
        "question",
    }
)

FENCE = "```"

# The placeholder for the sample's first image, shown once more.
ORIGINAL = re.compile(r"(?<!\$)\$(?:original\b|\{original\})")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """How the model is shown a tool's result: the text `before`, the image, the text `after`.

    `place` says where. "new_turn": in a new turn of `role`. "same_turn": in the reply's own turn,
    which stays open, and the model goes on in it. "rewritten": in the messages so far. The reply
    is cut after its last code block and ends with `before` and `after`, the images follow those of
    the question, and the model writes another reply.

    An error is shown as the text `error`, or as `malformed` where the call cannot be read and
    `malformed` is not empty. `between` separates the results of several calls.

    Placeholders in `error` and `malformed`: `$message` is the reason. In all texts but `between`:
    `$turn` is the number of the reply from 0, `$observation` the same from 1. In `before` and
    `after`: `$index` is the new image's index in the conversation, `$made` its number among the
    images that calls made, from 1; `$width` and `$height` are its sides in pixels as it is sent,
    `$raw_width` and `$raw_height` before any resize; `$question` is the sample's. In `after`
    alone: `$original` shows the sample's first image once more.
    """

    role: Role = "user"
    place: ObservationPlace = "new_turn"
    before: str = "<tool_response>\n"
    after: str = "\n</tool_response>"
    error: str = "<tool_response>\nError: $message\n</tool_response>"
    malformed: str = ""
    between: str = ""

    def check(self, owner: str) -> None:
        """Raise DefinitionError for an unknown placeholder, or a turn that must end with text.

        `owner` names the protocol in the message.
        """
        known = (
            ("before", OBSERVED_PLACEHOLDERS),
            ("after", OBSERVED_PLACEHOLDERS | {"original"}),
            ("error", {"message", "turn", "observation"}),
            ("malformed", {"message", "turn", "observation"}),
        )
        for part, allowed in known:
            check_template(owner, f"observation.{part}", getattr(self, part), allowed)
        if self.place == "same_turn" and not (self.after and self.error):
            raise DefinitionError(
                f"{owner}: an observation in the reply's own turn ends with text, but its 'after' "
                f"is {self.after!r} and its 'error' {self.error!r}",
                hint="a server goes on after the last text of a turn",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The result of one call: the index of the new `image`, or an `error`.

    `native_id` is the id of a native call, None for a call written in the text. `malformed` says
    that the call could not be read. `turn` is the reply's number, from 0; `made` counts the images
    that calls have made, this one included. `raw` and `sent` are the image's sizes.
    """

    native_id: str | None
    image: int | None = None
    error: str | None = None
    malformed: bool = False
    turn: int = 0
    made: int = 1
    raw: Size | None = None
    sent: Size | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Several texts, of which one is drawn for each sample by a hash of its id.

    The published environments draw at random; here both arms and every checkpoint read the same
    text. `choices` are the texts for samples with options; empty where `texts` serve for all.
    """

    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.texts:
            raise DefinitionError("a wording has at least one text")

    def drawn(self, name: str, sample: Sample) -> str:
        """The text for a sample. Wordings of different names draw independently."""
        texts = self.choices if sample.options and self.choices else self.texts
        digest = hashlib.sha256(f"{name}|{sample.id}".encode()).digest()
        return texts[int.from_bytes(digest[:8]) % len(texts)]


def observation_messages(
    observation: Observation, results: Sequence[CallResult], question: str = ""
) -> tuple[Message, ...]:
    """The messages that show the model the results of one reply's calls.

    `question` is the sample's. A native call is answered by a tool message of text alone, since
    not every server accepts images there; the images follow in one message of the observation's
    role.
    """
    answers: list[Message] = []
    content: list[Content] = []
    for result in results:
        if result.error is not None:
            parts: list[Content] = [Text(_error_text(observation, result))]
        else:
            parts = _image_parts(observation, result, question)
        if content and observation.between:
            content.append(Text(observation.between))
        if result.native_id is None:
            content.extend(parts)
        elif result.error is not None:
            answers.append(_tool_message(result.native_id, parts))
        else:
            done = Text(f"Done. Image {result.image} is in the next message.")
            answers.append(_tool_message(result.native_id, [done]))
            content.extend(parts)
    if content:
        same_turn = observation.place == "same_turn"
        role: Role = "assistant" if same_turn else observation.role
        answers.append(Message(role=role, content=tuple(content), continues=same_turn))
    return tuple(answers)


def rewritten(messages: Sequence[Message], observed: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with the text of `observed` in the last reply, and its images in the question.

    The new images follow those of the question, and the text after them loses its leading blanks.
    Source: VTool-R1/VTool-R1, `tu_build_message` and `trim_to_action_end`.
    """
    parts = [part for message in observed for part in message.content]
    new_text = "".join(part.text for part in parts if isinstance(part, Text))
    new_images = [part for part in parts if isinstance(part, ImageRef)]
    *earlier, reply = messages
    at = next(index for index, message in enumerate(earlier) if message.role == "user")
    question = list(earlier[at].content)
    image_places = [place for place, part in enumerate(question) if isinstance(part, ImageRef)]
    end = image_places[-1] + 1 if image_places else 0
    after = [Text(part.text.lstrip()) for part in question[end : end + 1] if isinstance(part, Text)]
    content = (*question[:end], *new_images, *after, *question[end + 1 :])
    earlier[at] = replace(earlier[at], content=content)
    reply_text = Text(to_last_fence(reply.text) + new_text)
    return (*earlier, replace(reply, content=(reply_text,)))


def to_last_fence(text: str) -> str:
    """The text up to and including its last code fence; all of it where it holds no code block."""
    end = text.rfind(FENCE)
    opened = text.rfind(FENCE, 0, end) if end >= 0 else -1
    return text[: end + len(FENCE)] if opened >= 0 else text


def found_answer(reply: str, rule: AnswerRule, *, complete: bool) -> str | None:
    """The answer that one rule finds in a reply, or None.

    `complete` is False for a reply that was cut off.
    """
    if rule == "terminate":
        return terminate_argument(reply)
    return find_answer(reply, rule, complete=complete)


def _error_text(observation: Observation, result: CallResult) -> str:
    template = observation.malformed if result.malformed else ""
    return Template(template or observation.error).substitute(
        message=result.error, turn=result.turn, observation=result.turn + 1
    )


def _image_parts(observation: Observation, result: CallResult, question: str) -> list[Content]:
    assert result.image is not None, "a call without an error made an image"
    sent, raw = result.sent or Size(0, 0), result.raw or Size(0, 0)
    before, *after = (
        Template(text).substitute(
            index=result.image,
            made=result.made,
            turn=result.turn,
            observation=result.turn + 1,
            width=sent.width_px,
            height=sent.height_px,
            raw_width=raw.width_px,
            raw_height=raw.height_px,
            question=question,
        )
        for text in (observation.before, *ORIGINAL.split(observation.after))
    )
    parts: list[Content] = [Text(before), ImageRef(result.image), Text(after[0])]
    for text in after[1:]:
        parts += [ImageRef(0), Text(text)]
    return [part for part in parts if part != Text("")]


def _tool_message(call_id: str, content: Sequence[Content]) -> Message:
    return Message(role="tool", content=tuple(content), call_id=call_id)


def as_json(value: object) -> JsonValue:
    """The JSON form of a protocol's field: a dataclass becomes an object, a tuple a list."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if is_dataclass(value):
        return {item.name: as_json(getattr(value, item.name)) for item in fields(value)}
    raise TypeError(f"a protocol field holds {value!r}, which has no JSON form")


def schemas_text(schemas: Sequence[Mapping[str, JsonValue]]) -> str:
    """The tools' schemas as a prompt holds them: one JSON object a line."""
    return "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
