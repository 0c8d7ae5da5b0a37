"""A protocol says how a sample is put to a model; a pair of protocols is two arms to compare."""

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
    CallResult,
    Observation,
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
from medeval.tools.base import FrameKind, Tool, check_template
from medeval.tools.calls.find import BEHAVIOUR, PARSERS, CallRules, CallSyntax
from medeval.tools.focus_regions import NAME_PLACEHOLDERS, region_names
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Answer, Content, ImageRef, Message, Text

# Who wrote a pair's free arm: the model's authors; medeval, from their available arm; or medeval.
FreeSource: TypeAlias = Literal["published", "derived", "ours"]

USER_PLACEHOLDERS = frozenset({"question", "options", "instruction", "images", *NAME_PLACEHOLDERS})


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How a sample is put to a model, from the prompt to the answer.

    **Prompt.** `system` and `user` are `string.Template` texts, where `$$` is a dollar sign.
    `user_open` replaces `user` for samples without options, unless it is empty. Images stand before
    the text, after it with `images_after`, or at `$images`. Placeholders in `user`: `$question`;
    `$options`, each on a line of its own after a newline; `$instruction`, after a newline;
    `$columns`, `$rows`, `$x_values` and `$y_values`, the names of the sample's regions as a Python
    list; and the names of `wordings`. In `system`: `$tools`, one JSON schema a line.
    `pixel_budget` resizes a sample's images before they are sent; None sends the original bytes.

    **Calls.** `tools` are on offer. Calls are read as `call_syntax` and `call_rules` say; without
    tools in the same syntax, or as Hermes blocks where that one reads no text, and then a call is
    recorded and ends the trajectory. `frame` is what coordinates mean; "pixels_model" is the image
    after the engine's processor, in the size that the engine reports or else by `model_budget`.
    `observation` says how results are shown. `on_malformed` says what happens to a call that cannot
    be read: the model is shown the error ("observe"), the trajectory ends ("end"), the call is
    passed over ("ignore"), or the first tool runs without arguments ("carry_out"). `on_error` says
    the same of a call that a tool refuses. `used` is which calls the published figures count as a
    use of the tool; all are recorded.

    **Limits.** `max_generations` bounds the replies, `max_calls` the executed calls, `max_images`
    all images of a conversation, `max_context_tokens` prompt and reply of one turn, and
    `max_response_tokens` all tokens after the first prompt; None for no bound. Limits of tokens
    hold only where the engine counts tokens. `stop` strings end a reply right after them.

    **Answer.** `answer_rules` are tried in order on the reply without a call, or with `answer_over`
    "all_replies" on all replies joined. At a limit there is no answer, or with `at_limit`
    "last_reply" the one that the rules find in the last reply.
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
                hint="not every engine reports the size after its processor",
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
        """The same protocol with tools on offer, and with `prompt` after the system text."""
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
        """The messages before the first reply: the system text, then the question with images."""
        system = Template(self.system).substitute(tools=self.tools_text)
        options = "".join(
            f"\n{option_letter(index)}. {option}" for index, option in enumerate(sample.options)
        )
        template = self.user if sample.options or not self.user_open else self.user_open
        names_regions = not NAME_PLACEHOLDERS.keys().isdisjoint(
            Template(template).get_identifiers()
        )
        values = {
            "question": sample.question,
            "options": options,
            "instruction": f"\n{sample.instruction}" if sample.instruction else "",
            **(region_names(sample.metadata) if names_regions else {}),
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

    def observe(self, results: Sequence[CallResult], question: str = "") -> tuple[Message, ...]:
        """The messages that show the model the results of one reply's calls.

        `question` is the sample's, for protocols that ask it again.
        """
        return observation_messages(self.observation, results, question)

    def after_calls(
        self, messages: Sequence[Message], results: Sequence[CallResult], question: str = ""
    ) -> tuple[Message, ...]:
        """All messages, once the model is shown the results of the last reply's calls."""
        observed = self.observe(results, question)
        if self.observation.place == "rewritten" and observed:
            return rewritten(messages, observed)
        return (*messages, *observed)

    def extract(self, reply: str, *, complete: bool = True, where: str = "") -> Answer | None:
        """The final answer of a reply, or None where no rule finds one.

        `complete` is False for a reply that was cut off, in which only a closed answer counts.
        `where` is added to the rule's name in `how_found`.
        """
        for rule in self.answer_rules:
            text = found_answer(reply, rule, complete=complete)
            if text is not None:
                return Answer(text=text, how_found=f"{rule}{where}", reply=reply)
        return None

    def describe(self) -> dict[str, JsonValue]:
        """All that can change a number, as JSON: the fields, the tools' settings, BEHAVIOUR."""
        described: dict[str, JsonValue] = {
            item.name: as_json(getattr(self, item.name))
            for item in fields(self)
            if item.name not in ("tools", "title", "source", "licence")
        }
        described["tools"] = [
            {**tool.schema.as_json(), "settings": dict(tool.settings)} for tool in self.tools
        ]
        return {**described, "behaviour": BEHAVIOUR}


# The fields in which a pair's arms may differ without saying so: those that offering tools changes.
TOOL_FIELDS = frozenset(
    {"name", "title", "tools", "max_generations", "max_calls", "max_images", "source", "licence"}
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two arms of a comparison: protocols that differ in the tools on offer.

    `differences` maps each other field in which the arms differ to the reason; a difference that
    is not listed raises DefinitionError. `free_source` says where the free arm comes from:
    "published" with the model, "derived" by medeval from the published available arm, or "ours".
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
