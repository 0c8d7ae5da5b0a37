"""The keys of cells and outcomes in a run folder, and their paths."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from medeval.errors import RecordError

SINGLE = "single"

# The sample id and the repeat, from 0; the key of a verdict has the judge's identity as well.
SampleKey = tuple[str, int]
VerdictKey = tuple[str, int, str]


def quoted(name: str) -> str:
    """A name as one component of a path: special characters and a leading dot become `%xx`.

    >>> quoted("Qwen/Qwen3-VL"), quoted("v1.5"), quoted("..")
    ('Qwen%2FQwen3-VL', 'v1.5', '%2E%2E')
    """
    if not name:
        raise RecordError("a name in a run folder is empty", hint="give it at least one character")
    safe = quote(name, safe="")
    return safe.replace(".", "%2E") if safe.startswith(".") else safe


def unquoted(component: str) -> str:
    """The name from which `quoted` made this component."""
    return unquote(component)


def checkpoint_path(series: str, step: int | None) -> Path:
    """The folder of a checkpoint below `cells/` and `outcomes/`."""
    return Path(quoted(series)) / (SINGLE if step is None else str(step))


def _step(folder: str) -> int | None:
    return None if folder == SINGLE else int(folder)


def _order_of(step: int | None) -> int:
    return -1 if step is None else step


@dataclass(frozen=True, slots=True)
class CellKey:
    """One cell of a run: checkpoint x benchmark x protocol.

    `step` is None for a single model or an API.
    """

    series: str
    step: int | None
    benchmark: str
    protocol: str

    @property
    def checkpoint(self) -> str:
        """The checkpoint's id: `<series>/<step>`, or the series alone without a step."""
        return self.series if self.step is None else f"{self.series}/{self.step}"

    @property
    def order(self) -> tuple[str, int, str, str]:
        """The sort key of cells; a cell without step comes first."""
        return (self.series, _order_of(self.step), self.benchmark, self.protocol)

    @property
    def relative_path(self) -> Path:
        """The cell's folder below `cells/`."""
        checkpoint = checkpoint_path(self.series, self.step)
        return checkpoint / quoted(self.benchmark) / quoted(self.protocol)

    @classmethod
    def from_path(cls, relative_path: Path) -> "CellKey":
        """The key with this `relative_path`."""
        series, step, benchmark, protocol = relative_path.parts
        return cls(unquoted(series), _step(step), unquoted(benchmark), unquoted(protocol))


@dataclass(frozen=True, slots=True)
class OutcomeKey:
    """One file of outcomes: checkpoint x benchmark x pair, under one judge.

    `judge` is None for the benchmark's primary judge.
    """

    series: str
    step: int | None
    benchmark: str
    pair: str
    judge: str | None = None

    @property
    def order(self) -> tuple[str, int, str, str, str]:
        """The sort key of outcomes; those without step or judge come first."""
        return (self.series, _order_of(self.step), self.benchmark, self.pair, self.judge or "")

    @property
    def relative_path(self) -> Path:
        """The file below `outcomes/`: `<series>/<step>/<benchmark>/<pair>[.<judge>].jsonl`."""
        # The first dot ends the pair's name, so the name itself has none.
        pair = quoted(self.pair).replace(".", "%2E")
        name = f"{pair}.jsonl" if self.judge is None else f"{pair}.{quoted(self.judge)}.jsonl"
        return checkpoint_path(self.series, self.step) / quoted(self.benchmark) / name

    @classmethod
    def from_path(cls, relative_path: Path) -> "OutcomeKey":
        """The key with this `relative_path`."""
        series, step, benchmark, name = relative_path.parts
        pair, _, judge = name.removesuffix(".jsonl").partition(".")
        return cls(
            unquoted(series),
            _step(step),
            unquoted(benchmark),
            unquoted(pair),
            unquoted(judge) if judge else None,
        )


# The series of a shared baseline, which is step 0 of every other series.
BASELINE = "baseline"
# The folder of engines' logs in a run folder.
LOGS = "logs"
