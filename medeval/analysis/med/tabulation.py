"""The tables of an analysis as rows: one dict a row, rates as value, low and high."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medeval.analysis.med.analysis_set import AnalysisSet
from medeval.analysis.med.changes import GAP, Change, ChangeMaker
from medeval.analysis.med.contribution import contributions
from medeval.analysis.med.curves import Population
from medeval.analysis.med.outcomes import Step
from medeval.analysis.med.quantities import factors, gap, gap_strata, mean_share, within_variance
from medeval.analysis.med.terms import PARTITIONS, TERMS
from medeval.analysis.statistics.bootstrap import Bootstrap
from medeval.analysis.statistics.intervals import discordance, minimum_detectable_effect, moments
from medeval.analysis.statistics.noise import noise_floor
from medeval.analysis.statistics.rate import UNDEFINED, Rate, TableRow, effective_size
from medeval.analysis.statistics.significance import benjamini_hochberg, exact_test, mean_test

EXPLAINED = (*TERMS, "gross_gain", "gross_harm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tabulation:
    """The rows of a series' tables, for its benchmarks, groups or mean of benchmarks.

    A step without outcomes is a row whose numbers are missing and whose `note` says why.
    """

    found: AnalysisSet
    populations: list[Population]
    bootstrap: Bootstrap
    change_maker: ChangeMaker
    _known_changes: dict[tuple[str, str | None, Step, Step], list[Change]] = field(
        default_factory=dict, repr=False
    )

    @property
    def has_drift(self) -> bool:
        """Whether the series has a baseline and a later step."""
        return len(self.found.outcomes.steps) > 1

    def _rows(self) -> Iterator[tuple[Population, Step, TableRow]]:
        for population in self.populations:
            for step in self.found.outcomes.steps:
                yield population, step, self._head(population, step)

    def _head(self, population: Population, step: Step) -> TableRow:
        head = self._names(population) | {"step": step, "n": population.n}
        return head | {"note": self._note(population, step)}

    def _names(self, population: Population) -> TableRow:
        outcomes = self.found.outcomes
        names = {"series": outcomes.series, "pair": outcomes.pair}
        group = {} if population.group is None else {"group": population.group}
        return {**names, "benchmark": population.benchmark, **group}

    def _note(self, population: Population, step: Step) -> str:
        names = {curve.benchmark for curve in population.curves}
        if population.is_mean:
            # a benchmark without any outcome leaves every mean undefined
            names |= set(self.found.outcomes.benchmarks)
        return "; ".join(
            f"{item.benchmark}: {item.reason}"
            for item in self.found.outcomes.missing
            if item.step == step and item.benchmark in names
        )

    def has(self, population: Population, step: Step) -> bool:
        """Whether a step has outcomes on all benchmarks of a population."""
        return step in population.steps and not (
            population.is_mean and self._note(population, step)
        )

    def measure(self) -> list[TableRow]:
        """Both arms, the gap with its test, calls and drifts; one row a population and step."""
        rows = []
        for population, step, head in self._rows():
            if self.has(population, step):
                head |= self._arms(population, step) | self._gap(population, step)
                head |= self._calls(population, step) | self._drifts(population, step)
            rows.append(head)
        for is_mean in (False, True):
            family = [row for row in rows if "p_value" in row and self._is_mean(row) == is_mean]
            adjusted = benjamini_hochberg([row["p_value"] for row in family])
            for row, q_value in zip(family, adjusted, strict=True):
                row["q_value"] = q_value
        return rows

    def _is_mean(self, row: TableRow) -> bool:
        return any(
            population.is_mean and population.benchmark == row["benchmark"]
            for population in self.populations
        )

    def _arms(self, population: Population, step: Step) -> TableRow:
        first = population.curves[0]
        metrics = dict.fromkeys(curve.metric for curve in population.curves)
        row: TableRow = {
            "metric": " / ".join(metrics),
            "clusters": sum(curve.n_clusters for curve in population.curves),
            "repeats": first.repeats[first.steps.index(step)],
        }
        for arm in ("free", "available"):
            row |= mean_share(population, step, arm).columns(arm)
            row[f"{arm}_within_variance"] = within_variance(population, step, arm)
        return row

    def _gap(self, population: Population, step: Step) -> TableRow:
        strata = gap_strata(population, step)
        found = moments(strata)
        row = gap(population, step).columns("gap")
        if population.is_mean:
            p_value = mean_test(strata)
        else:
            (curve,) = population.curves
            repeats = curve.repeats[curve.steps.index(step)]
            p_value = exact_test(curve, strata[0].values * repeats)
        gains, losses = discordance(strata)
        size = float(population.n)
        if found is not None:
            spread = gains + losses - (gains - losses) ** 2
            size = effective_size(spread, found.variance, found.effective_clusters)
        effect = minimum_detectable_effect(gains + losses, size)
        return row | {"p_value": p_value, "q_value": None, "minimum_detectable_gap": effect}

    def _calls(self, population: Population, step: Step) -> TableRow:
        row = mean_share(population, step, "called").columns("called")
        counts = np.mean([curve.calls_at(step) for curve in population.curves], axis=0)
        names = ("calls_attempted", "calls_executed", "calls_observed")
        return row | dict(zip(names, counts.tolist(), strict=True))

    def _drifts(self, population: Population, step: Step) -> TableRow:
        """Drifts since the baseline; undefined where that or the step has no outcomes."""
        baseline = self.found.baseline
        row: TableRow = {"baseline": baseline}
        rates = dict.fromkeys(("free_drift", "available_drift", "tool_drift"), UNDEFINED)
        if self.has_drift and step == baseline:
            rates = dict.fromkeys(rates, Rate(value=0.0, low=0.0, high=0.0, n=population.n))
        elif self.has_drift and self.has(population, baseline):
            found = {
                change.quantity: change.change
                for change in self._changes(population, baseline, step)
            }
            rates = {
                "free_drift": found["free"],
                "available_drift": found["available"],
                "tool_drift": found[GAP],
            }
        for name, rate in rates.items():
            row |= rate.columns(name)
        return row

    def _changes(self, population: Population, since: Step, step: Step) -> list[Change]:
        key = (population.benchmark, population.group, since, step)
        if key not in self._known_changes:
            found = list(self.change_maker.changes(population, since, step))
            self._known_changes[key] = found
        return self._known_changes[key]

    def explain(self) -> list[TableRow]:
        """The four terms, gross gain and harm, and the gap they sum to."""
        rows = []
        for population, step, head in self._rows():
            if self.has(population, step):
                for name in EXPLAINED:
                    head |= mean_share(population, step, name).columns(name)
                head |= gap(population, step).columns("gap")
            rows.append(head)
        return rows

    def diagnose(self) -> list[TableRow]:
        """Each term's factors on each partition; one row a population, step, partition, term."""
        return [
            {**head, "partition": partition, "term": term, **numbers}
            for population, step, head in self._rows()
            for partition in PARTITIONS
            for term, numbers in self._factors(population, step, partition).items()
        ]

    def _factors(
        self, population: Population, step: Step, partition: Any
    ) -> Mapping[str, TableRow]:
        baseline = step if partition == "current" else self.found.baseline
        if not (self.has(population, step) and self.has(population, baseline)):
            return {term: {} for term in TERMS}
        rows: dict[str, TableRow] = {}
        for term, rates in factors(population, step, baseline, partition).items():
            rows[term] = {}
            for name, rate in rates.items():
                rows[term] |= rate.columns(name)
            rows[term] |= {"n_mass": rates["policy"].n, "n_policy": rates["quality"].n}
        return rows

    def changes(self) -> list[TableRow]:
        """Changes of every quantity since the baseline and since the step before."""
        rows = []
        steps = self.found.outcomes.steps
        for population in self.populations:
            for position, step in enumerate(steps[1:], start=1):
                for since in dict.fromkeys((steps[0], steps[position - 1])):
                    if self.has(population, since) and self.has(population, step):
                        for change in self._changes(population, since, step):
                            row = {"step": step, "since": since, "quantity": change.quantity}
                            row |= change.change.columns("change")
                            rows.append(self._names(population) | row | {"n": change.change.n})
        return rows

    def contribution(self) -> list[TableRow]:
        """Both forms of the tool contribution; undefined without outcomes at the baseline."""
        rows = []
        for population in self.populations:
            steps = [step for step in self.found.outcomes.steps if self.has(population, step)]
            head = self._names(population) | {"n": population.n, "steps": len(steps)}
            if len(steps) < 2 or steps[0] != self.found.baseline:
                rows.append({**head, "note": "no baseline, or no step beside it"})
                continue
            note = "" if len(steps) == len(self.found.outcomes.steps) else "some steps are gaps"
            for found in contributions(population, self.bootstrap, swaps=self.bootstrap.resamples):
                rows.append(
                    head
                    | {
                        "form": found.form,
                        "value": found.value,
                        "value_low": found.low,
                        "value_high": found.high,
                        "expected_without_effect": found.expected,
                        "p_value": found.p_value,
                        "area_intrinsic": found.intrinsic,
                        "area_tool_positive": found.positive,
                        "area_tool_negative": found.negative,
                        "note": note,
                    }
                )
        return rows

    def noise_floor(self) -> list[TableRow]:
        """How far two repeats of the free arm differ, next to gross gain and harm."""
        rows = []
        for population, step, head in self._rows():
            if self.has(population, step):
                head |= noise_floor(population, step).columns("floor")
                for name in ("gross_gain", "gross_harm"):
                    head |= mean_share(population, step, name).columns(name)
            rows.append(head)
        return rows
