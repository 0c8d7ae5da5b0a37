"""The parts a protocol is put together from: observations, wordings, and their rules."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from string import Template
from typing import Literal, TypeAlias

from medeval.errors import DefinitionError
from medeval.scoring.answers import TextRule, find_answer
from medeval.tools.arguments import check_template
from medeval.tools.calls.actions import terminate_argument
from medeval.types.geometry import Size
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Content, ImageRef, Message, Role, Text

# Where an observation stands: in a turn of its own, in the reply's turn, or told as if it had been
# there before the reply ended.
Place: TypeAlias = Literal["new_turn", "same_turn", "rewritten"]

# How an answer is found: in a reply's text, or as the argument of an action that ends it all.
AnswerRule: TypeAlias = TextRule | Literal["terminate"]

# Which calls count as a use of the tool in a published figure; medeval records all three.
Used: TypeAlias = Literal["attempted", "executed", "observed"]

# What becomes of a call that cannot be read, and of one that cannot be carried out.
OnMalformed: TypeAlias = Literal["end", "observe", "ignore", "carry_out"]
OnError: TypeAlias = Literal["end", "observe"]

# What a conversation that a limit ends gives: nothing, or what the rules find in its last reply.
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

# Where an observation shows the sample's first image once more.
ORIGINAL = re.compile(r"(?<!\$)\$(?:original\b|\{original\})")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """How a tool's result is put before the model: `before`, the image, `after`, as one turn.

    That turn is a new one of `role`; or, with `place` "same_turn", the result follows in the
    reply's own turn, which is not closed, and the model goes on in it. With "rewritten" nothing
    follows the reply: it is cut after its last code block and ends with `before` and `after`, the
    images stand behind those of the question, as if they had always been there, and the model is
    asked for another reply.

    In `error`, `$message` stands for the reason of a refused call, and in `malformed` (where it
    is empty, `error` is used) for why a call cannot be read. In `before` and `after`: `$index` is
    the new image's index in the conversation and `$made` counts the images that calls made, from
    1; `$turn` counts replies from 0 and `$observation` from 1, refused calls included; `$width`
    and `$height` are the image's sides as it is sent, `$raw_width` and `$raw_height` before;
    `$question` is the sample's. In `after`, `$original` is the place of the sample's first image,
    where that is shown once more. `between` stands between the results of several calls.
    """

    role: Role = "user"
    place: Place = "new_turn"
    before: str = "<tool_response>\n"
    after: str = "\n</tool_response>"
    error: str = "<tool_response>\nError: $message\n</tool_response>"
    malformed: str = ""
    between: str = ""

    def check(self, owner: str) -> None:
        """Raise DefinitionError for a placeholder that is not filled in."""
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
class Observed:
    """What one call of a reply led to: a new image by its index, or an error.

    `native_id` is the id of a native call, None for one written in the text. `turn` is the
    reply's number, from 0; `made` how many images calls had made, this one included. `raw` and
    `sent` are the image's sizes.
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
    """One of several texts, drawn for each sample by a hash of its id.

    Upstream draws at random; here both arms and every checkpoint read the same words. `choices`
    are the texts for samples with options, where they differ.
    """

    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.texts:
            raise DefinitionError("a wording has at least one text")

    def drawn(self, name: str, sample: Sample) -> str:
        """The text for a sample: each is as likely, whatever the other wordings drew."""
        texts = self.choices if sample.options and self.choices else self.texts
        digest = hashlib.sha256(f"{name}|{sample.id}".encode()).digest()
        return texts[int.from_bytes(digest[:8]) % len(texts)]


def observation_messages(
    observation: Observation, results: Sequence[Observed], question: str = ""
) -> tuple[Message, ...]:
    """The messages that put the results of one reply's calls before the model.

    A native call is answered by a tool message of text, as every server accepts it; the
    images follow in one message of the observation's role.
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
        goes_on = observation.place == "same_turn"
        role: Role = "assistant" if goes_on else observation.role
        answers.append(Message(role=role, content=tuple(content), continues=goes_on))
    return tuple(answers)


def rewritten(messages: Sequence[Message], observed: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation in which what was observed stands in the last reply and in the question.

    Source: VTool-R1/VTool-R1, `tu_build_message` and `trim_to_action_end`; the question's text
    loses the blanks before it once images stand beside each other there.
    """
    parts = [part for message in observed for part in message.content]
    told = "".join(part.text for part in parts if isinstance(part, Text))
    images = [part for part in parts if isinstance(part, ImageRef)]
    *earlier, reply = messages
    at = next(index for index, message in enumerate(earlier) if message.role == "user")
    question = list(earlier[at].content)
    places = [place for place, part in enumerate(question) if isinstance(part, ImageRef)]
    end = places[-1] + 1 if places else 0
    after = [Text(part.text.lstrip()) for part in question[end : end + 1] if isinstance(part, Text)]
    moved = (*question[:end], *images, *after, *question[end + 1 :])
    earlier[at] = replace(earlier[at], content=moved)
    said = Text(to_last_fence(reply.text) + told)
    return (*earlier, replace(reply, content=(said,)))


def to_last_fence(text: str) -> str:
    """The text up to and with its last code fence; all of it where there is no block."""
    end = text.rfind(FENCE)
    opened = text.rfind(FENCE, 0, end) if end >= 0 else -1
    return text[: end + len(FENCE)] if opened >= 0 else text


def found_answer(reply: str, rule: AnswerRule, *, complete: bool) -> str | None:
    """The answer of a reply by one rule, or None where the rule finds none."""
    if rule == "terminate":
        return terminate_argument(reply)
    return find_answer(reply, rule, complete=complete)


def _error_text(observation: Observation, result: Observed) -> str:
    template = observation.malformed if result.malformed else ""
    return Template(template or observation.error).substitute(
        message=result.error, turn=result.turn, observation=result.turn + 1
    )


def _image_parts(observation: Observation, result: Observed, question: str) -> list[Content]:
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
    """The JSON form of a protocol's field: dataclasses become objects, tuples lists."""
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
    """Tools' schemas as a prompt holds them, one JSON object a line."""
    return "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
