"""`medeval leaderboard`: every format, with names that try to break it."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from medeval.cli import group
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import Metric
from tests.analysis.outcome_lines import outcome, run_of

HOSTILE = "<b>a_b & 50% $x|{"


def lines(series: str) -> list[OutcomeRecord]:
    marks = {0: ["000"] * 30, 10: ["111"] * 20 + ["011"] * 10}
    return [
        outcome(f"s{number}", each, step=step, series=series)
        for step, each_of in marks.items()
        for number, each in enumerate(each_of)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_of(tmp_path / "run", lines(HOSTILE)).path


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(
        group, ["leaderboard", *map(str, arguments)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_markdown_marks_the_best_the_gap_and_the_baseline(run: Path) -> None:
    text = printed(run)
    rows = [line for line in text.splitlines() if line.startswith("| \\<b")]
    assert len(rows) == 2
    assert re.search(r"/10 +\| +30 \| +\*\*66.7\*\* \[", rows[0])
    assert "33.3**\\*\\* [" in rows[0]
    assert re.search(r"\| +30 \| +0.0 \[", rows[1])
    assert rows[1].startswith(r"| \<b\>a\_b & 50% \$x\|{/0 (baseline) ")
    assert "Bold: better than every other row" in text
    header = next(line for line in text.splitlines() if line.startswith("| checkpoint"))
    assert {line.replace(r"\|", "").count("|") for line in rows} == {header.count("|")}


def test_html_escapes_every_name(run: Path) -> None:
    text = printed(run, "--format", "html")
    assert "<b>" not in text
    assert "&lt;b&gt;a_b &amp; 50% $x|{/0 (baseline)" in text
    assert "<strong>66.7</strong>" in text

    class Tags(HTMLParser):
        opened = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.opened += 1

        def handle_endtag(self, tag: str) -> None:
            self.opened -= 1

    tags = Tags()
    tags.feed(text)
    assert tags.opened == 0


def test_latex_is_booktabs_with_every_special_character_escaped(run: Path) -> None:
    text = printed(run, "--format", "latex")
    assert r"\textless{}b\textgreater{}a\_b \& 50\% \$x|\{/0 (baseline)" in text
    assert r"\textbf{66.7}" in text
    assert r"\textbf{33.3}\textsuperscript{*}\textsuperscript{*} {\scriptsize [" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "30" in line]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {10}


def test_csv_has_every_number(run: Path) -> None:
    frame = pd.read_csv(StringIO(printed(run, "--format", "csv", "--sort", "step")))
    assert list(frame["step"]) == [0, 10]
    assert list(frame["series"]) == [HOSTILE] * 2
    assert frame["gap"].tolist() == pytest.approx([0.0, 1 / 3])
    assert {"available_low", "q_value", "best", "metric", "pairing"} <= set(frame.columns)


def test_several_runs_and_pairs_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = [replace(line, pair="rotate") for line in lines("sft") if line.step == 10]
    folder = run_of(tmp_path / "other", [])
    folder.write_outcomes("sft", 10, "small", "rotate", other)
    text = printed(run, folder.path, "--steps", "10")
    assert "| other: sft/10 rotate " in text
    assert "/10 crop\\_zoom " in text


def test_marks_of_metric_pairing_and_missing_are_told(tmp_path: Path) -> None:
    numbered = [
        outcome(f"line-{number:06}", "110", step=step)
        for step in (0, 1)
        for number in range(3 + step)
    ]
    folder = run_of(tmp_path / "run", numbered)
    judge = numbered[0].judge
    metrics = {judge: Metric(name="ANLS", correct_at=0.5)}
    folder.write_record(replace(folder.record(), judges={"small": judge}, metrics=metrics))
    text = printed(folder.path, "--allow-missing")
    assert "Metric: share correct, ANLS \\>= 0.5." in text
    assert "Pairing: position" in text
    assert "Missing: allowed" in text
