"""The cost of trajectories: measured engine-seconds, and an estimate for a plan."""

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SUMMARY = "tables/summary.csv"


@dataclass(slots=True)
class EngineTime:
    """Divides an engine's seconds equally among the conversations that run at the same time.

    The parts of all conversations add up to the time in which at least one was running. Each call
    takes constant time, however many conversations run.

    >>> seconds = iter([0.0, 2.0, 6.0, 7.0])
    >>> engine = EngineTime(clock=lambda: next(seconds))
    >>> one, other = engine.begin(), engine.begin()
    >>> engine.end(one), engine.end(other)
    (4.0, 3.0)
    """

    clock: Callable[[], float] = time.monotonic
    _seconds_each: float = 0.0
    _n_running: int = 0
    _counted_at: float = 0.0

    def begin(self) -> float:
        """Start a conversation; pass the returned value to `end`."""
        self._count()
        self._n_running += 1
        return self._seconds_each

    def end(self, started: float) -> float:
        """End a conversation; returns its part of the engine's time in seconds."""
        self._count()
        self._n_running -= 1
        return self._seconds_each - started

    def _count(self) -> None:
        now = self.clock()
        if self._n_running:
            self._seconds_each += (now - self._counted_at) / self._n_running
        self._counted_at = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The expected cost of trajectories; None if no earlier run recorded it."""

    tokens: float | None
    engine_s: float | None


class EarlierCosts:
    """The mean cost of a trajectory in earlier runs, by benchmark and protocol."""

    def __init__(self, tables: Iterable[Path]) -> None:
        self._rows: dict[tuple[str, str], list[Mapping[str, str]]] = {}
        for table in tables:
            with table.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    # older versions wrote no such column
                    if row.get("trajectories", "0") not in ("", "0"):
                        self._rows.setdefault((row["benchmark"], row["protocol"]), []).append(row)

    @classmethod
    def near(cls, output_dir: Path) -> "EarlierCosts":
        """The costs in the summaries of a run folder and of the run folders next to it."""
        tables = [output_dir / SUMMARY, *output_dir.parent.glob(f"*/{SUMMARY}")]
        return cls({table.resolve() for table in tables if table.is_file()})

    def estimate(self, benchmark: str, protocol: str, n_trajectories: int) -> Estimate:
        """The expected cost of `n_trajectories`."""
        rows = self._rows.get((benchmark, protocol), [])
        prompt = _mean(rows, "prompt_tokens")
        completion = _mean(rows, "completion_tokens")
        engine_s = _mean(rows, "engine_seconds")
        known = prompt is not None and completion is not None
        return Estimate(
            tokens=n_trajectories * ((prompt or 0) + (completion or 0)) if known else None,
            engine_s=None if engine_s is None else n_trajectories * engine_s,
        )


def _mean(rows: Iterable[Mapping[str, str]], column: str) -> float | None:
    """A column's sum divided by the number of trajectories; None if no row has a value."""
    known = [(float(row[column]), int(row["trajectories"])) for row in rows if row.get(column)]
    return sum(value for value, _ in known) / sum(n for _, n in known) if known else None
