"""`medeval list`, `show` and `validate`: data on stdout, mistakes told without a traceback."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from medeval.evaluation.loader import load, shipped
from medeval.rollout.protocol import EvalProtocol
from medeval.scoring.judge import Judge
from tests.medeval_processes import MedevalMain
from tests.small_benchmark import png, write_benchmark, write_judge

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]

PROTOCOL = """from medeval import EvalProtocol, Pair, PixelBudget, Sampling, crop_and_zoom

BUDGET = PixelBudget(min_px=784, max_px=1600, factor=28)
FREE = EvalProtocol(name="small_free", user="$question", call_syntax="openai", pixel_budget=BUDGET)
PAIR = Pair(
    name="small_pair",
    free=FREE,
    available=EvalProtocol(
        name="small_available", user="Look: $question", call_syntax="openai", pixel_budget=BUDGET,
        tools=(crop_and_zoom(),), max_generations=2, max_calls=1, sampling=Sampling(top_p=0.9),
    ),
    differences={"user": "as published", "sampling": "as published"},
)
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(png())
    return path


def test_list_shows_every_definition_in_tables(medeval_main: MedevalMain, capsys: Capture) -> None:
    assert medeval_main("list") == 0
    shown = capsys.readouterr()
    for name in ("vstar", "chartqa", "crop_zoom_native", "tool_available", "anls"):
        assert f"\n{name} " in shown.out
    assert shown.err.startswith("hint: medeval show NAME")
    assert "\x1b" not in shown.out


def test_list_as_json_is_one_object(medeval_main: MedevalMain, capsys: Capture) -> None:
    assert medeval_main("list", "--json") == 0
    shown = capsys.readouterr()
    tables = json.loads(shown.out)
    assert list(tables) == ["benchmarks", "pairs", "protocols", "judges"]
    assert [row["name"] for row in tables["protocols"]] == [
        loaded.value.name for loaded in shipped(EvalProtocol)
    ]
    assert {"name": "anls", "metric": "ANLS", "correct at": 0.5} in tables["judges"]
    assert shown.err == ""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("vstar", ["title: V*Bench", "published samples: 191", "judge: choice"]),
        ("choice", ["metric: accuracy", "correct at: 1.0", "reads: targets, options"]),
        ("tool_free", ["call syntax: hermes", "tools: none", "replies: 1", "[user]",
                       "What is written on the sign?",
                       "sampling: temperature 0.0, max_tokens 2048"]),
        ("crop_zoom", ["arms: tool_free, tool_available", "differences besides the tools: none",
                       "stop strings: </tool_call>", "--- tool_free", "--- tool_available",
                       "--- what differs", "+# Tools"]),
    ],
)  # fmt: skip
def test_show_tells_what_a_definition_says(
    medeval_main: MedevalMain, capsys: Capture, name: str, lines: list[str]
) -> None:
    assert medeval_main("show", name) == 0
    shown = capsys.readouterr()
    assert [line for line in lines if line not in shown.out.splitlines()] == []
    assert f"name: {name}\n" in shown.out
    assert shown.err == ""


def test_show_names_the_file_and_its_hash(medeval_main: MedevalMain, capsys: Capture) -> None:
    source = load("anls", Judge).source
    medeval_main("show", "anls")
    assert f"file: {source.path}\nsha256: {source.sha256}\n" in capsys.readouterr().out


def test_show_tells_declared_differences_and_given_settings(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PROTOCOL)
    assert medeval_main("show", path) == 0
    shown = capsys.readouterr().out
    assert "differences besides the tools: user: as published; sampling: as published\n" in shown
    assert "sampling: temperature 0.0, max_tokens 2048, top_p 0.9\n" in shown
    assert "[tools, in the request]" in shown


def test_show_puts_an_image_and_a_question_into_the_messages(
    medeval_main: MedevalMain, capsys: Capture, image: Path
) -> None:
    assert medeval_main("show", "tool_free", "--image", image, "--question", "How many?") == 0
    shown = capsys.readouterr().out
    size = image.stat().st_size
    assert f"<image 0: 48x40, sent as 48x40 image/png, {size} bytes, sha256 " in shown
    assert "\nHow many?\n" in shown


def test_show_resizes_an_image_as_the_protocol_would(
    medeval_main: MedevalMain, capsys: Capture, image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PROTOCOL)
    assert medeval_main("show", f"{path}::small_free", "--image", image) == 0
    assert "<image 0: 48x40, sent as 56x28 image/png" in capsys.readouterr().out


def test_show_renders_a_sample_of_a_benchmark(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path, image: Path
) -> None:
    benchmark = write_benchmark(tmp_path)
    assert medeval_main("show", "tool_free", "--benchmark", benchmark, "--sample-id", "s002") == 0
    shown = capsys.readouterr().out
    assert "Question 2?\nA. red\nB. green\nC. blue\nD. gray\n" in shown
    assert "<image 0: 48x40, sent as 48x40 image/png" in shown
    assert medeval_main("show", "crop_zoom", "--benchmark", benchmark, "--image", image) == 0
    assert "Question 0?" in capsys.readouterr().out


def test_show_of_a_benchmark_reads_a_sample_where_asked(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    benchmark = write_benchmark(tmp_path)
    assert medeval_main("show", benchmark) == 0
    assert "--- a sample" not in capsys.readouterr().out
    assert medeval_main("show", benchmark, "--sample-id", "s003") == 0
    shown = capsys.readouterr().out
    assert "--- a sample\nid: s003\nquestion: Question 3?\n" in shown
    assert "instruction: -\ntargets: ['D']\n" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["show", "vstr"], 2, "error: no benchmark, pair, protocol or judge named 'vstr'\n\n"
         "hint: did you mean 'vstar'?\n"),
        (["show", "qqqq"], 2, "hint: medeval list shows the names\n"),
        (["show", "./absent.py"], 2, "error: cannot read the definition file 'absent.py'"),
        (["show", "choice::x"], 2, "error: no benchmark named 'choice::x'"),
        (["show", "{two}"], 2, "holds several judges: one, other\n\nhint: choose one: "),
        (["show", "{faulty}"], 2, "faulty.py cannot be loaded: line 1: ZeroDivisionError"),
        (["show"], 2, "Missing argument 'NAME'"),
        (["show", "tool_free", "--image", "absent.png"], 2, "File 'absent.png' does not exist"),
        (["show", "tool_free", "--image", "{folder}"], 2, "is a directory"),
        (["show", "tool_free", "--image", "{faulty}"], 1, "is not an image we read"),
        (["show", "tool_free", "--benchmark", "{small}", "--sample-id", "x"], 2,
         "has no sample 'x'"),
        (["show", "tool_free", "--benchmark", "nonsense"], 2, "no benchmark named 'nonsense'"),
        (["validate", "nonsense"], 2, "no benchmark named 'nonsense'"),
        (["validate", "{small}", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["validate", "chartqa", "--data-dir", "{folder}"], 1, "error: "),
        (["list", "--jsn"], 2, "No such option"),
        (["lst"], 2, "No such command 'lst'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_on_stderr_without_a_traceback(
    medeval_main: MedevalMain,
    capsys: Capture,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    two = write_judge(tmp_path, "one")
    two.write_text(two.read_text() + 'OTHER = Judge(name="other", metric="m", grade=grade)\n')
    faulty = tmp_path / "faulty.py"
    faulty.write_text("1 / 0\n")
    (tmp_path / "empty").mkdir()
    places = {
        "two": two,
        "faulty": faulty,
        "folder": tmp_path / "empty",
        "small": write_benchmark(tmp_path),
    }
    assert medeval_main(*(argument.format(**places) for argument in arguments)) == code
    shown = capsys.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("markers", "200 drawn by the definition"),
        ("chartqa", "hub lmms-lab-encoder/ChartQA or lmms-lab/ChartQA, test, revision the newest"),
        ("docvqa", "hub lmms-lab-encoder/DocVQA or lmms-lab/DocVQA, DocVQA validation, "
         "revision the newest"),
        ("vstar", "hub craigwu/vstar_bench, test_questions.jsonl, revision the newest"),
    ],
)  # fmt: skip
def test_show_tells_in_words_where_rows_come_from(
    medeval_main: MedevalMain, capsys: Capture, name: str, rows: str
) -> None:
    assert medeval_main("show", name) == 0
    assert f"\nrows: {rows}\n" in capsys.readouterr().out


def test_validate_of_sound_rows_exits_with_0(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    assert medeval_main("validate", write_benchmark(tmp_path)) == 0
    shown = capsys.readouterr()
    assert shown.out == "small: 8 rows, drawn by the definition\n"
    assert shown.err == "8 samples checked, 0 problems\n"


def test_validate_names_each_problem_on_stdout_and_exits_with_1(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = write_benchmark(tmp_path, 4, count=5, broken=(1,))
    assert medeval_main("validate", path) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1] == "all: 4 rows here, 5 were published"
    assert shown.out.splitlines()[2].startswith("s001: image ")
    assert shown.err == "4 samples checked, 2 problems\n"
    assert medeval_main("validate", path, "--limit", 1) == 0
    assert capsys.readouterr().err == "1 sample checked, 0 problems\n"


def marked_benchmark(folder: Path) -> Path:
    path = write_benchmark(folder, 2)
    text = path.read_text().replace(
        "Benchmark, DrawnRows", "Benchmark, Box, DrawnRows, Point, pixels"
    )
    marks = "target_boxes=(Box(1, 2, 3.5, 4, pixels(48, 40)),) * 6, "
    marks += "target_points=(Point(5, 6, pixels(48, 40)),), transform='rotate_90',"
    path.write_text(text.replace("        options=", f"        {marks}\n        options="))
    return path


def test_show_and_validate_tell_what_is_marked_in_the_image(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path, image: Path
) -> None:
    path = marked_benchmark(tmp_path)
    assert medeval_main("validate", path) == 0
    told = "12 target boxes, 2 target points in 2 samples\n2 samples checked, 0 problems\n"
    assert capsys.readouterr().err == told
    boxes = "; ".join(["[1, 2, 3.5, 4] pixels"] * 4)
    marked = (
        f"target boxes: {boxes}; and 2 more\ntarget points: (5, 6) pixels\ntransform: rotate_90\n"
    )
    assert medeval_main("show", path, "--sample-id", "s000") == 0
    assert capsys.readouterr().out.endswith(marked)
    asked = ("show", "crop_zoom", "--render", "--benchmark", path, "--sample-id", "s000")
    assert medeval_main(*asked) == 0
    assert f"--- what the model is not told\ntargets: ['A']\n{marked}" in capsys.readouterr().out
    # another image has other places
    assert medeval_main(*asked, "--image", image) == 0
    assert "not told" not in capsys.readouterr().out


def test_validate_says_where_it_stopped(
    medeval_main: MedevalMain, capsys: Capture, tmp_path: Path
) -> None:
    path = write_benchmark(tmp_path, 5)
    path.write_text(path.read_text().replace('"ABCD"[row.index % 4]', '"ABC"[row.index]'))
    assert medeval_main("validate", path) == 1
    shown = capsys.readouterr()
    assert "no row after this one was checked" in shown.out
    assert shown.err == "stopped after 3 of 5 samples, 1 problem\n"
    assert medeval_main("validate", path, "--limit", 3) == 0


def coloured(variables: dict[str, str]) -> str:
    """What `medeval list` prints on a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **variables}
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "medeval", "list"]
        with subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            os.close(theirs)
            chunks = iter(lambda: _read(ours), b"")
            output = b"".join(chunks).decode()
        assert process.returncode == 0
    finally:
        os.close(ours)
    return output


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end was closed
        return b""


def test_a_terminal_gets_bold_titles_unless_no_color_is_set() -> None:
    assert "\x1b[1mbenchmarks" in coloured({"NO_COLOR": ""})
    assert "\x1b" not in coloured({"NO_COLOR": "1"})


def test_no_color_changes_nothing_where_there_is_no_terminal(
    medeval_main: MedevalMain, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert medeval_main("list") == 0
    plain = capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert medeval_main("list") == 0
    assert capsys.readouterr().out == plain


def test_show_takes_the_pair_of_a_benchmark_s_name_where_messages_are_asked_for(
    medeval_main: MedevalMain, capsys: Capture
) -> None:
    assert medeval_main("show", "refocus_chart") == 0
    assert "published samples: 826" in capsys.readouterr().out
    assert medeval_main("show", "refocus_chart", "--render") == 0
    assert "--- refocus_chart_focus" in capsys.readouterr().out
