"""A protocol: how a sample is put to a model; and a pair of them, the arms of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from string import Template
from typing import Literal, TypeAlias

from medeval.errors import DefinitionError
from medeval.images.resize import PixelBudget
from medeval.models.base import Sampling
from medeval.rollout.observation import (
    AnswerRule,
    AtLimit,
    Observation,
    Observed,
    OnError,
    OnMalformed,
    Used,
    Wording,
    as_json,
    found_answer,
    observation_messages,
    rewritten,
    schemas_text,
)
from medeval.scoring.answers import option_letter
from medeval.tools.arguments import check_template
from medeval.tools.base import FrameKind, Tool
from medeval.tools.calls.find import BEHAVIOUR, PARSERS, CallRules, CallSyntax
from medeval.tools.focus_regions import REGION_NAMES, region_names
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Answer, Content, ImageRef, Message, Text

# Where a pair's free arm comes from: the model's authors, made here from theirs, or all ours.
FreeSource: TypeAlias = Literal["published", "derived", "ours"]

USER_PLACEHOLDERS = frozenset({"question", "options", "instruction", "images", *REGION_NAMES})


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How a sample is put to a model.

    `system` and `user` are `string.Template` texts. In `user`: `$question`, `$options` (one
    line an option, each after a newline; empty without options), `$instruction` (after a
    newline; empty without one) and the names of `wordings`; `$columns`, `$rows`, `$x_values` and
    `$y_values`, the names of the sample's regions as a Python list; and `$images`, which is where
    the images stand, if not as said below. In `system`: `$tools`, one JSON
    schema a line. A dollar sign is written `$$`. `user_open` is the text for samples without
    options, "" where it is the same. Images stand before the text, or with `images_after` behind.

    With tools, calls are read as `call_syntax` and `call_rules` say. Without, they are looked for
    in the same syntax, or as Hermes blocks where that reads none in text: recorded, and the
    trajectory ends.

    `frame` is what coordinates mean; in "pixels_model" those of the image after the engine's
    processor, which is what the engine tells, or else what `model_budget` makes of it.

    `max_calls` bounds executed calls; `max_images` all images of a conversation,
    `max_context_tokens` prompt and reply of one turn, `max_response_tokens` all that follows the
    first prompt; None for no bound, and the last two hold only where the engine counts. At a limit
    there is no answer, or with `at_limit` "last_reply" what the rules find in the last reply.

    `on_malformed` says whether a call that cannot be read is answered with an error, ends the
    trajectory, is passed over as if it were not there, or is carried out by the first tool without
    arguments; `on_error` whether a refused call is
    answered or ends it. `answer_rules` are tried in order on a reply that holds no call, or, with
    `answer_over` "all_replies", on all replies in one. `stop` strings end a reply right after
    them. `pixel_budget` resizes a sample's images before they are sent; None sends the original
    bytes. `used` is what the published figures count as a use of the tool; all are recorded.
    """

    name: str
    user: str
    system: str = ""
    user_open: str = ""
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    images_after: bool = False
    tools: tuple[Tool, ...] = ()
    call_syntax: CallSyntax = "none"
    call_rules: CallRules = field(default_factory=CallRules)
    frame: FrameKind = "permille"
    model_budget: PixelBudget | None = None
    observation: Observation = field(default_factory=Observation)
    on_malformed: OnMalformed = "observe"
    on_error: OnError = "observe"
    max_generations: int = 1
    max_calls: int = 0
    max_images: int | None = None
    max_context_tokens: int | None = None
    max_response_tokens: int | None = None
    at_limit: AtLimit = "no_answer"
    answer_rules: tuple[AnswerRule, ...] = ("answer_tag",)
    answer_over: Literal["last_reply", "all_replies"] = "last_reply"
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    pixel_budget: PixelBudget | None = None
    used: Used = "executed"
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        owner = f"protocol {self.name!r}"
        check_template(owner, "system", self.system, {"tools"})
        for name in ("user", "user_open"):
            known = USER_PLACEHOLDERS | self.wordings.keys()
            check_template(owner, name, getattr(self, name), known)
        self.observation.check(owner)
        if self.max_generations < 1:
            raise DefinitionError(
                f"{owner}: max_generations is {self.max_generations!r}, not 1 or more"
            )
        if self.call_syntax == "openai" and self.observation.place != "new_turn":
            raise DefinitionError(
                f"{owner}: native calls are answered in turns of their own, but the observation's "
                f"place is {self.observation.place!r}"
            )
        if self.tools and self.call_syntax == "none":
            raise DefinitionError(
                f"{owner} offers tools, but its call_syntax is 'none'",
                hint="name the syntax its calls are written in: 'hermes' or 'openai'",
            )
        if self.call_syntax not in (*PARSERS, "none", "openai"):
            raise DefinitionError(
                f"{owner}: no parser reads calls in the syntax {self.call_syntax!r}; "
                f"known: {sorted((*PARSERS, 'none', 'openai'))!r}"
            )
        if self.tools and self.frame == "pixels_model" and self.model_budget is None:
            raise DefinitionError(
                f"{owner}: the frame 'pixels_model' needs a model_budget",
                hint="not every engine tells the size after its processor",
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
        template = self.user if sample.options or not self.user_open else self.user_open
        values = {
            "question": sample.question,
            "options": options,
            "instruction": f"\n{sample.instruction}" if sample.instruction else "",
            **region_names(sample.metadata),
            **{name: wording.drawn(name, sample) for name, wording in self.wordings.items()},
        }
        before, placed, after = template.partition("$images")
        texts = [Text(Template(part).substitute(values)) for part in (before, after)]
        images: tuple[Content, ...] = tuple(ImageRef(i) for i in range(len(sample.images)))
        if placed:
            content = tuple(part for part in (texts[0], *images, texts[1]) if part != Text(""))
        else:
            content = (texts[0], *images) if self.images_after else (*images, texts[0])
        question = Message(role="user", content=content)
        return (
            (Message(role="system", content=(Text(system),)), question) if system else (question,)
        )

    @property
    def tools_text(self) -> str:
        """The tools' schemas, one JSON object a line."""
        return schemas_text([tool.schema.as_json() for tool in self.tools])

    def observe(self, results: Sequence[Observed], question: str = "") -> tuple[Message, ...]:
        """The messages that put the results of one reply's calls before the model.

        `question` is the sample's, for protocols that ask it again.
        """
        return observation_messages(self.observation, results, question)

    def after_calls(
        self, messages: Sequence[Message], results: Sequence[Observed], question: str = ""
    ) -> tuple[Message, ...]:
        """The conversation once the results of its last reply's calls are put before the model."""
        observed = self.observe(results, question)
        if self.observation.place == "rewritten" and observed:
            return rewritten(messages, observed)
        return (*messages, *observed)

    def extract(self, reply: str, *, complete: bool = True, where: str = "") -> Answer | None:
        """The final answer of a reply, or None where no rule finds one.

        `complete` is False for a reply that was cut off: then only an answer that was closed
        counts. `where` is told in `how_found` after the rule.
        """
        for rule in self.answer_rules:
            text = found_answer(reply, rule, complete=complete)
            if text is not None:
                return Answer(text=text, how_found=f"{rule}{where}", reply=reply)
        return None

    def describe(self) -> dict[str, JsonValue]:
        """All that can change a number, as JSON: fields, tools' settings, BEHAVIOUR."""
        described: dict[str, JsonValue] = {
            item.name: as_json(getattr(self, item.name))
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
    name with the reason; a difference that is not listed raises DefinitionError. `free_source`
    says where the free arm comes from: "published" with the model, "derived" here from the
    published available arm, or "ours" like the whole pair.
    """

    name: str
    free: EvalProtocol
    available: EvalProtocol
    differences: Mapping[str, str] = field(default_factory=dict)
    free_source: FreeSource = "ours"
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
