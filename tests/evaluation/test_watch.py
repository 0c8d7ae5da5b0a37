"""A training run is evaluated step by step while it is written."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from medeval.evaluation.interrupt import Interrupt
from medeval.evaluation.plan import Plan
from medeval.evaluation.run import RunReport, carry_out
from medeval.evaluation.watch import watch
from medeval.models.weights import weight_fingerprint
from tests.evaluation.test_run import Told, small
from tests.medeval_processes import MedevalMain, Serve, run_medeval, start_medeval
from tests.model_folders import write_model, write_sharded, write_shards
from tests.small_benchmark import scripted, write_benchmark, write_pair
from tests.stub_server import StubServer

LOOK_EVERY_S = 0.15


class Training:
    """Writes a model slowly into a step's folder: its files grow, and the tokenizer is last."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self._pause_s = seconds / 8
        self._model = write_sharded(folder.parent / "trained")

    def save(self, step: int) -> None:
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for name in sorted(path.name for path in self._model.iterdir()):
            data = (self._model / name).read_bytes()
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                with (folder / name).open("ab") as file:
                    file.write(part)
                time.sleep(self._pause_s)
        (folder / "tokenizer.json").write_text("{}")

    def run(self, *steps: int) -> threading.Thread:
        thread = threading.Thread(target=lambda: deque(map(self.save, steps), maxlen=0))
        thread.start()
        return thread


class Evaluations:
    """Carries plans out with a scripted model, and keeps what was evaluated and how it stood."""

    def __init__(self, then: Callable[[Plan, Interrupt], object] = lambda *_: None) -> None:
        self.steps: list[list[str]] = []
        self.files: list[set[str]] = []
        self.weights: list[str] = []
        self._then = then

    def __call__(self, plan: Plan, interrupt: Interrupt) -> RunReport:
        self.steps.append([checkpoint.id for checkpoint in plan.all_checkpoints])
        for checkpoint in plan.all_checkpoints:
            folder = Path(checkpoint.location)
            self.files.append({path.name for path in folder.iterdir()})
            self.weights.append(weight_fingerprint(folder))
        report = carry_out(plan, scripted, Told().open, interrupt)
        self._then(plan, interrupt)
        return report


def watched(
    plan: Plan, evaluate: Evaluations, interrupt: Interrupt | None = None
) -> tuple[RunReport, list[str]]:
    messages: list[str] = []
    report = watch(
        plan, evaluate, interrupt or Interrupt(), messages.append, look_every_s=LOOK_EVERY_S
    )
    return report, messages


def watching(folder: Path, **changes: object) -> Plan:
    (folder / "rl").mkdir(exist_ok=True)
    options: dict[str, Any] = {
        "model": None,
        "checkpoints": (str(folder / "rl"),),
        "watch": True,
        **changes,
    }
    return small(folder, **options)


def test_each_step_is_evaluated_once_and_whole_while_training_writes(tmp_path: Path) -> None:
    plan = watching(tmp_path, steps=(1, 2, 3, 4))
    training = Training(tmp_path / "rl", seconds=1.0)
    thread = training.run(1, 2, 3, 4)
    evaluate = Evaluations()
    report, messages = watched(plan, evaluate)
    thread.join()
    assert evaluate.steps == [["rl/1"], ["rl/2"], ["rl/3"], ["rl/4"]]
    whole = tmp_path / "rl" / "checkpoint-1"
    assert evaluate.files == [{path.name for path in whole.iterdir()}] * 4
    assert evaluate.weights == [weight_fingerprint(whole)] * 4
    assert [summary.checkpoint for summary in report.summaries[::2]] == [
        "rl/1", "rl/2", "rl/3", "rl/4",
    ]  # fmt: skip
    assert (report.exit_code, report.unscored) == (0, 0)
    waiting = f"waiting for new steps in {tmp_path / 'rl'}; Ctrl-C ends the run"
    assert messages.count(waiting) == 4, "once before each step"


def test_steps_that_are_there_are_evaluated_together_in_order(tmp_path: Path) -> None:
    plan = watching(tmp_path, steps=(5, 20, 100))
    for step in (100, 20, 5):
        write_model(tmp_path / "rl" / f"global_step_{step}")
    evaluate = Evaluations()
    watched(plan, evaluate)
    assert evaluate.steps == [["rl/5", "rl/20", "rl/100"]]


def test_the_baseline_does_not_wait_for_a_step(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    evaluate = Evaluations(lambda plan, _: write_model(tmp_path / "rl" / "checkpoint-10"))
    watched(watching(tmp_path, baseline=str(base), steps=(10,)), evaluate)
    assert evaluate.steps == [["baseline/0"], ["rl/10"]]


def test_a_step_in_another_form_is_named_once_and_evaluated_after_its_conversion(
    tmp_path: Path,
) -> None:
    step = tmp_path / "rl" / "global_step_10"
    step.mkdir(parents=True)
    plan = watching(tmp_path, steps=(10,))

    def train_and_merge() -> None:
        time.sleep(4 * LOOK_EVERY_S)
        write_shards(step)
        time.sleep(4 * LOOK_EVERY_S)
        write_model(step / "actor" / "huggingface")

    training = threading.Thread(target=train_and_merge)
    training.start()
    evaluate = Evaluations()
    _, messages = watched(plan, evaluate)
    training.join()
    assert evaluate.steps == [["rl/10"]]
    empty, shards = [message for message in messages if message.startswith("rl/10 waits: ")]
    assert "holds no model" in empty
    assert "FSDP shards" in shards
    assert "hint: python -m verl.model_merger merge" in shards


def test_fresh_deletes_the_cells_of_a_step_before_it_is_evaluated_and_not_again(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "rl" / "checkpoint-10")
    watched(watching(tmp_path, steps=(10,), limit=2), Evaluations())
    evaluate = Evaluations(lambda *_: write_model(tmp_path / "rl" / "checkpoint-20"))
    report, _ = watched(watching(tmp_path, steps=(10, 20), fresh=True, limit=1), evaluate)
    assert [len(lines) for lines in trajectories(tmp_path).values()] == [1] * 4
    assert report.exit_code == 0


def trajectories(folder: Path) -> dict[str, list[bytes]]:
    paths = (folder / "run").glob("cells/rl/*/small/*/trajectories.0.jsonl")
    return {path.parent.as_posix(): path.read_bytes().splitlines() for path in paths}


def test_an_interrupt_during_a_step_ends_the_run_after_it(tmp_path: Path) -> None:
    write_model(tmp_path / "rl" / "checkpoint-10")
    evaluate = Evaluations(lambda _, interrupt: interrupt.ask("SIGTERM"))
    report, messages = watched(watching(tmp_path), evaluate)
    assert (evaluate.steps, report.exit_code) == ([["rl/10"]], 3)
    assert len(messages) == 1, "it waits before that step, not after it"


def flags(folder: Path, server: StubServer, *more: object) -> list[object]:
    write_benchmark(folder, 4)
    write_pair(folder)
    return [
        *("run", "--checkpoints", folder / "rl", "--base-url", server.base_url),
        *("--benchmarks", folder / "small.py", "--pairs", folder / "small_pair.py"),
        *("--output-dir", folder / "run", *more),
    ]


def lines_until(process: Popen[str], text: str) -> str:
    """The messages of a process up to the one with the text."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"the run ended by itself: {seen}")


def test_ctrl_c_while_waiting_ends_the_run_and_it_goes_on_with_or_without_watching(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve(StubServer(models=None))
    write_model(tmp_path / "rl" / "checkpoint-10")
    for n_steps in (1, 2):
        with start_medeval(*flags(tmp_path, server, "--watch")) as process:
            lines_until(process, "waiting for new steps")
            shown = lines_until(process, "waiting for new steps")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert f"rl/{10 * n_steps} " in shown, "the new step's table, on stderr"
        assert output.count("available") == n_steps, "the table of all steps, on stdout"
        assert "ended early (SIGINT); the same command resumes" in errors
        assert "Traceback" not in errors
        assert "in flight" not in errors
        assert server.requests == 12 * n_steps, "nothing was asked twice"
        write_model(tmp_path / "rl" / f"checkpoint-{10 * n_steps + 10}")
    resumed = run_medeval(*flags(tmp_path, server))
    assert resumed.returncode == 0, resumed.stderr
    assert (server.requests, resumed.stdout.count("available")) == (36, 3)


def test_sigterm_while_waiting_ends_the_run(tmp_path: Path, serve: Serve) -> None:
    server = serve(StubServer(models=None))
    (tmp_path / "rl").mkdir()
    with start_medeval(*flags(tmp_path, server, "--watch")) as process:
        lines_until(process, "waiting for new steps")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (3, "")
    assert "ended early (SIGTERM); the same command resumes" in errors


def test_a_time_limit_ends_the_wait_for_a_step(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rl").mkdir()
    server = serve(StubServer(models=None))
    began = time.monotonic()
    assert medeval_main(*flags(tmp_path, server, "--watch", "--time-limit", 0.5)) == 3
    assert time.monotonic() - began < 3
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "ended early (time limit); the same command resumes" in seen.err


def test_a_dry_run_shows_what_is_there_and_ends(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "rl" / "checkpoint-10")
    (tmp_path / "rl" / "checkpoint-20").mkdir()
    server = serve(StubServer(models=None))
    assert medeval_main(*flags(tmp_path, server, "--watch", "--dry-run")) == 0
    seen = capsys.readouterr()
    assert seen.out.count("rl/10") == 2
    assert "rl/20 is left out: " in seen.err
    assert server.requests == 0
