"""What definition files define: benchmarks, protocols with their pairs, and judges."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from string import Template
from typing import Literal

from medeval.errors import DefinitionError, JudgeError
from medeval.images import PixelBudget
from medeval.inquiry import Ask
from medeval.models.base import Sampling
from medeval.rows import Row, RowSource
from medeval.text import find_answer, option_letter
from medeval.tools.base import FrameKind, Tool
from medeval.tools.calls import BEHAVIOUR, CallSyntax
from medeval.types import (
    Aggregate,
    Answer,
    Content,
    Grade,
    ImageRef,
    JsonValue,
    Message,
    Role,
    Sample,
    Text,
)

AnswerRule = Literal["answer_tag", "boxed", "whole_reply"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named set of samples.

    `count` is the number of samples the authors published, None where it is not fixed.
    `judge` is the reference of the judge that scores it officially. `chance` is the share that
    blind guessing gets right over the whole set, 0 to 1. `groups` are the groupings that
    samples carry and tables may show. `columns` are those `to_sample` reads, checked before it
    runs. `aliases` are names that other harnesses know it by.

    The official aggregate is the mean over samples unless `aggregate` says otherwise; the
    benchmarks of one `suite` also have an average over all of their samples together.
    `cluster_size` is how many samples share each cluster, None where samples stand alone or
    clusters differ in size. A benchmark that is not `labelled` has no targets: its answers get
    no score, and are submitted to its authors.
    """

    name: str
    rows: RowSource
    to_sample: Callable[[Row], Sample]
    judge: str
    title: str
    count: int | None = None
    columns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    aggregate: Aggregate = "mean over samples"
    chance: float | None = None
    licence: str = ""
    citation: str = ""
    aliases: tuple[str, ...] = ()
    suite: str | None = None
    cluster_size: int | None = None
    labelled: bool = True


def _unasked(sample: Sample, answer: Answer) -> Grade:
    raise JudgeError("this judge asks a model, and was given none")


def _nothing_to_check() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A rule that scores an answer.

    `grade` gets a sample and its answer and returns a score on the scale of `metric`, or None
    where it cannot decide; it raises JudgeError where it could not look. An answer is correct
    at a score of `correct_at` or more. `reads` names the Sample fields it needs beside the
    question.

    A judge that asks a model gives `ask` in place of `grade`: it gets, as a third argument, what
    puts an Inquiry to the model (`medeval.inquiry`). `bound` makes it one that can grade; `model`
    is then the model's name. `check` raises UsageError where something must be installed first.
    `licence` is that of a prompt that was published elsewhere.
    """

    name: str
    metric: str
    grade: Callable[[Sample, Answer], Grade | Awaitable[Grade]] = _unasked
    ask: Callable[[Sample, Answer, Ask], Awaitable[Grade]] | None = None
    correct_at: float = 1.0
    reads: tuple[str, ...] = ("targets",)
    model: str | None = None
    check: Callable[[], None] = _nothing_to_check
    source: str = ""
    licence: str = ""

    @property
    def needs_endpoint(self) -> bool:
        """Whether it asks a model."""
        return self.ask is not None

    def bound(self, model: str, ask: Ask) -> "Judge":
        """The judge as it asks one model; one that asks none stays as it is."""
        own = self.ask
        if own is None:
            return self
        return replace(self, model=model, grade=lambda sample, answer: own(sample, answer, ask))

    def __post_init__(self) -> None:
        if self.model is None and (self.grade is _unasked) != self.needs_endpoint:
            raise DefinitionError(f"judge {self.name!r} needs either a grade or an ask function")
        known = {item.name for item in fields(Sample)}
        for name in self.reads:
            if name not in known:
                raise DefinitionError(
                    f"judge {self.name!r} reads {name!r}, which is no field of a sample; "
                    f"known: {sorted(known)!r}"
                )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """How a tool's result is put before the model: `before`, the image, `after`, as one turn.

    In `error`, `$message` stands for the reason of a refused call; in `before` and `after`,
    `$index` stands for the new image's index in the conversation.
    """

    role: Role = "user"
    before: str = "<tool_response>\n"
    after: str = "\n</tool_response>"
    error: str = "<tool_response>\nError: $message\n</tool_response>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one call of a reply led to: a new image by its index, or an error.

    `native_id` is the id of a native call, None for one written in the text.
    """

    native_id: str | None
    image: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How a sample is put to a model.

    `system` and `user` are `string.Template` texts. In `user`: `$question`, `$options` (one
    line an option, each after a newline; empty without options) and `$instruction` (after a
    newline; empty without one). In `system`: `$tools`, one JSON schema a line. A dollar sign
    is written `$$`.

    With tools, calls are read as `call_syntax` says. Without, a native call and a Hermes block
    in the text are both seen, whatever the syntax: recorded, and the trajectory ends.

    `max_calls` bounds executed calls; `max_images` all images of a conversation, None for no
    bound. `on_malformed` says whether a call that cannot be read is answered with an error or
    ends the trajectory. `answer_rules` are tried in order on a reply that holds no call.
    `stop` strings end a reply right after them. `pixel_budget` resizes a sample's images
    before they are sent; None sends the original bytes.
    """

    name: str
    user: str
    system: str = ""
    tools: tuple[Tool, ...] = ()
    call_syntax: CallSyntax = "none"
    frame: FrameKind = "permille"
    observation: Observation = field(default_factory=Observation)
    on_malformed: Literal["end", "observe"] = "observe"
    max_generations: int = 1
    max_calls: int = 0
    max_images: int | None = None
    answer_rules: tuple[AnswerRule, ...] = ("answer_tag",)
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    pixel_budget: PixelBudget | None = None
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _check_template(self.name, "system", self.system, {"tools"})
        _check_template(self.name, "user", self.user, {"question", "options", "instruction"})
        for part, known in (("before", "index"), ("after", "index"), ("error", "message")):
            text = getattr(self.observation, part)
            _check_template(self.name, f"observation.{part}", text, {known})
        if self.max_generations < 1:
            raise DefinitionError(
                f"protocol {self.name!r}: max_generations is {self.max_generations!r}, "
                "not 1 or more"
            )
        if self.tools and self.call_syntax == "none":
            raise DefinitionError(
                f"protocol {self.name!r} offers tools, but its call_syntax is 'none'",
                hint="name the syntax its calls are written in: 'hermes' or 'openai'",
            )

    def with_tools(
        self,
        *tools: Tool,
        name: str,
        prompt: str = "",
        max_generations: int,
        max_calls: int,
        max_images: int | None = None,
        title: str = "",
    ) -> "EvalProtocol":
        """The same protocol with tools on offer: `prompt` is put after the system text."""
        return replace(
            self,
            name=name,
            tools=tools,
            system=self.system + prompt,
            max_generations=max_generations,
            max_calls=max_calls,
            max_images=max_images,
            title=title or self.title,
        )

    def opening(self, sample: Sample) -> tuple[Message, ...]:
        """The messages before the first reply: the system text, then images and question."""
        system = Template(self.system).substitute(tools=self.tools_text)
        options = "".join(
            f"\n{option_letter(index)}. {option}" for index, option in enumerate(sample.options)
        )
        user = Template(self.user).substitute(
            question=sample.question,
            options=options,
            instruction=f"\n{sample.instruction}" if sample.instruction else "",
        )
        images: tuple[Content, ...] = tuple(ImageRef(i) for i in range(len(sample.images)))
        question = Message(role="user", content=(*images, Text(user)))
        return (
            (Message(role="system", content=(Text(system),)), question) if system else (question,)
        )

    @property
    def tools_text(self) -> str:
        """The tools' schemas, one JSON object a line."""
        return "\n".join(
            json.dumps(tool.schema.as_json(), ensure_ascii=False) for tool in self.tools
        )

    def observe(self, results: Sequence[Observed]) -> tuple[Message, ...]:
        """The messages that put the results of one reply's calls before the model.

        A native call is answered by a tool message of text, as every server accepts it; the
        images follow in one message of the observation's role.
        """
        answers: list[Message] = []
        content: list[Content] = []
        for result in results:
            if result.error is not None:
                parts: list[Content] = [
                    Text(Template(self.observation.error).substitute(message=result.error))
                ]
            else:
                parts = self._image_parts(result.image)
            if result.native_id is None:
                content.extend(parts)
            elif result.error is not None:
                answers.append(_tool_message(result.native_id, parts))
            else:
                done = Text(f"Done. Image {result.image} is in the next message.")
                answers.append(_tool_message(result.native_id, [done]))
                content.extend(parts)
        if content:
            answers.append(Message(role=self.observation.role, content=tuple(content)))
        return tuple(answers)

    def _image_parts(self, index: int | None) -> list[Content]:
        assert index is not None, "a call without an error made an image"
        before, after = (
            Template(text).substitute(index=index)
            for text in (self.observation.before, self.observation.after)
        )
        parts: list[Content] = [Text(before)] if before else []
        return [*parts, ImageRef(index), *([Text(after)] if after else [])]

    def extract(self, reply: str, *, complete: bool = True) -> Answer | None:
        """The final answer of a reply, or None where no rule finds one.

        `complete` is False for a reply that was cut off: then only an answer that was closed
        counts.
        """
        for rule in self.answer_rules:
            text = find_answer(reply, rule, complete=complete)
            if text is not None:
                return Answer(text=text, how_found=rule, reply=reply)
        return None

    def describe(self) -> dict[str, JsonValue]:
        """All that can change a number, as JSON: fields, tools' settings, BEHAVIOUR."""
        described: dict[str, JsonValue] = {
            item.name: _as_json(getattr(self, item.name))
            for item in fields(self)
            if item.name not in ("tools", "title", "source", "licence")
        }
        described["tools"] = [
            {**tool.schema.as_json(), "settings": dict(tool.settings)} for tool in self.tools
        ]
        return {**described, "behaviour": BEHAVIOUR}


# What offering a tool changes by itself; any other difference between arms must be declared.
TOOL_FIELDS = frozenset(
    {"name", "title", "tools", "max_generations", "max_calls", "max_images", "source", "licence"}
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two protocols that differ by the tools: the arms of a comparison.

    `differences` lists whatever else the published protocol changes between its arms, by field
    name with the reason; a difference that is not listed raises DefinitionError.
    """

    name: str
    free: EvalProtocol
    available: EvalProtocol
    differences: Mapping[str, str] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        if self.free.tools:
            raise DefinitionError(f"pair {self.name!r}: its free arm offers tools")
        if not self.available.tools:
            raise DefinitionError(f"pair {self.name!r}: its available arm offers no tool")
        found = set(self._differing_fields())
        if found != set(self.differences):
            raise DefinitionError(
                f"pair {self.name!r}: its arms differ in {sorted(found)!r}, "
                f"but it declares {sorted(self.differences)!r}",
                hint="make the arms equal, or list each difference with its reason",
            )

    def _differing_fields(self) -> list[str]:
        return [
            item.name
            for item in fields(EvalProtocol)
            if item.name not in TOOL_FIELDS and not self._agrees(item.name)
        ]

    def _agrees(self, name: str) -> bool:
        free, available = getattr(self.free, name), getattr(self.available, name)
        if name == "system":
            return str(available).startswith(str(free))
        return bool(free == available)

    @property
    def arms(self) -> tuple[EvalProtocol, EvalProtocol]:
        """The free arm, then the available arm."""
        return (self.free, self.available)


def _tool_message(call_id: str, content: Sequence[Content]) -> Message:
    return Message(role="tool", content=tuple(content), call_id=call_id)


def _check_template(owner: str, name: str, text: str, allowed: set[str]) -> None:
    template = Template(text)
    if not template.is_valid():
        raise DefinitionError(
            f"protocol {owner!r}: {name} has a '$' that starts no placeholder",
            hint="write '$$' for a dollar sign",
        )
    unknown = set(template.get_identifiers()) - allowed
    if unknown:
        raise DefinitionError(
            f"protocol {owner!r}: {name} uses {sorted(unknown)!r}, which is not filled in; "
            f"known: {sorted(allowed)!r}"
        )


def _as_json(value: object) -> JsonValue:
    """The JSON form of a protocol's field: dataclasses become objects, tuples lists."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    if is_dataclass(value):
        return {item.name: _as_json(getattr(value, item.name)) for item in fields(value)}
    raise TypeError(f"a protocol field holds {value!r}, which has no JSON form")
