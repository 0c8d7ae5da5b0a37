"""What a plan will take, by what the same benchmarks and arms took in earlier runs."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medeval.evaluation.conversation import Kind

SUMMARY = "tables/summary.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What trajectories take; None where no earlier run tells."""

    tokens: float | None
    engine_s: float | None


def earlier_runs(output_dir: Path) -> list[Path]:
    """The run folder itself and those beside it, the latest first."""
    tables = [output_dir / SUMMARY, *output_dir.parent.glob(f"*/{SUMMARY}")]
    found = {table.resolve(): table for table in tables if table.is_file()}
    return sorted(found.values(), key=lambda table: -table.stat().st_mtime)


class Earlier:
    """The mean cost of a trajectory by kind, over the summaries of earlier runs."""

    def __init__(self, tables: Iterable[Path]) -> None:
        self._rows: dict[Kind, list[Mapping[str, str]]] = {}
        for table in tables:
            for row in _rows(table):
                kind = Kind(row["benchmark"], row["protocol"])
                self._rows.setdefault(kind, []).append(row)

    def estimate(self, kind: Kind, n_trajectories: int) -> Estimate:
        """What so many trajectories of a kind will take."""
        rows = self._rows.get(kind, [])
        prompt = _mean(rows, "prompt_tokens")
        completion = _mean(rows, "completion_tokens")
        engine_s = _mean(rows, "engine_seconds")
        known = prompt is not None and completion is not None
        return Estimate(
            tokens=n_trajectories * ((prompt or 0) + (completion or 0)) if known else None,
            engine_s=None if engine_s is None else n_trajectories * engine_s,
        )


def _rows(table: Path) -> Iterator[Mapping[str, str]]:
    """The cells of a summary that tells what they took; none of one by an older version."""
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("trajectories", "0") not in ("", "0"):
                yield row


def _mean(rows: Iterable[Mapping[str, str]], column: str) -> float | None:
    told = [(float(row[column]), int(row["trajectories"])) for row in rows if row.get(column)]
    return sum(value for value, _ in told) / sum(n for _, n in told) if told else None
