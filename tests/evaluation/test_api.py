import asyncio
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.errors import DataError, FatalModelError, ModelError, RecordError, UsageError
from medeval.models.scripted import ScriptedModel
from tests.medeval_processes import Serve
from tests.small_benchmark import scripted, write_benchmark, write_pair
from tests.stub_server import StubServer


@pytest.fixture
def finished(tmp_path: Path) -> Any:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    return medeval.run(
        model="m",
        benchmarks=tmp_path / "small.py",
        pairs=[tmp_path / "small_pair.py"],
        output_dir=tmp_path / "run",
        repeats=2,
        open_model=scripted,
    )


def test_the_public_run_stays_a_function_once_everything_is_imported() -> None:
    import medeval.evaluation.api
    import medeval.evaluation.run

    assert callable(medeval.run)
    assert medeval.run is medeval.evaluation.api.run


def test_a_run_gives_its_frames(finished: Any, tmp_path: Path) -> None:
    assert repr(finished) == f"Run('{tmp_path / 'run'}')"
    assert finished.record.pairs == {"small_pair": ("free", "available")}
    assert {
        name: len(getattr(finished, name))
        for name in ("samples", "trajectories", "verdicts", "outcomes", "summary")
    } == {"samples": 4, "trajectories": 16, "verdicts": 16, "outcomes": 8, "summary": 2}


def test_frames_join_on_their_shared_columns(finished: Any) -> None:
    keys = ["checkpoint", "benchmark", "protocol", "sample_id", "repeat"]
    joined = finished.trajectories.merge(finished.verdicts, on=keys, validate="one_to_one")
    assert len(joined) == 16
    joined = joined.merge(finished.samples, on=["benchmark", "sample_id"], validate="many_to_one")
    assert (joined.answer == joined.extracted).all()
    available = joined[joined.protocol == "available"]
    assert (available.answer == available.targets.str[0]).all()
    assert set(available.n_turns) == {2}
    assert set(available.n_images) == {2}
    assert set(available.executed) == {1}


def test_a_run_folder_is_read_back(finished: Any, tmp_path: Path) -> None:
    again = medeval.load_run(tmp_path / "run")
    assert again.outcomes.equals(finished.outcomes)
    assert again.summary.equals(finished.summary)
    with pytest.raises(RecordError, match="is not a run folder"):
        medeval.load_run(tmp_path)


def test_frames_without_rows_keep_their_columns(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 4, broken=(0, 1, 2, 3))
    write_pair(tmp_path)
    run = medeval.run(
        model="m",
        benchmarks=str(tmp_path / "small.py"),
        pairs=str(tmp_path / "small_pair.py"),
        output_dir=tmp_path / "run",
        open_model=scripted,
    )
    for frame in (run.trajectories, run.verdicts, run.outcomes):
        assert frame.empty
        assert {"checkpoint", "series", "step", "benchmark", "sample_id", "repeat"} <= set(frame)
    assert list(run.summary.unscored) == [4, 4]
    assert list(run.summary.score.isna()) == [True, True]


def test_a_run_in_a_notebook_and_against_a_server(tmp_path: Path, serve: Serve) -> None:
    write_benchmark(tmp_path, 4)
    write_pair(tmp_path)
    server = serve(StubServer())

    async def cell() -> Any:
        return medeval.run(
            model="stub",
            base_url=server.base_url,
            model_args={"timeout_s": 5},
            benchmarks=str(tmp_path / "small.py"),
            pairs=str(tmp_path / "small_pair.py"),
            output_dir=tmp_path / "run",
        )

    assert len(asyncio.run(cell()).outcomes) == 4
    assert server.requests == 12


def test_a_plan_file_holds_the_options_and_arguments_win(tmp_path: Path) -> None:
    benchmark = write_benchmark(tmp_path, 4)
    pair = write_pair(tmp_path)
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'model = ["m"]\nbenchmarks = ["{benchmark}"]\npairs = ["{pair}"]\nlimit = 3\n'
        f'output_dir = "{tmp_path / "run"}"\n'
    )
    assert len(medeval.run(plan, open_model=scripted, limit=1).outcomes) == 1
    assert len(medeval.run(plan, open_model=scripted).outcomes) == 3


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"run\(\) has no option 'benchmark'; known: model, "):
        medeval.run(benchmark="vstar")


@pytest.mark.parametrize("name", ["model", "base_url", "timeout"])
def test_engine_arguments_are_those_without_a_flag_of_their_own(name: str, tmp_path: Path) -> None:
    benchmark = write_benchmark(tmp_path)
    with pytest.raises(UsageError, match=f"--model-args has '{name}'") as error:
        medeval.run(
            model="stub",
            base_url="http://127.0.0.1:1",
            model_args={name: "x"},
            benchmarks=benchmark,
            output_dir=tmp_path / "run",
        )
    assert "timeout_s" in str(error.value.hint)
    assert "base_url" not in str(error.value.hint)


def test_predictions_made_elsewhere_are_scored() -> None:
    lines = [
        {"answer": "B", "targets": ["B"], "question": "?"},
        {"answer": "C", "targets": ["B"], "question": "?"},
    ]
    assert [line["verdict"] for line in medeval.score(lines, "exact_match")] == [
        "correct",
        "incorrect",
    ]
    with pytest.raises(DataError):
        medeval.score([{"targets": ["B"]}], "exact_match")


def test_a_run_in_which_every_cell_stopped_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class WrongKey(ScriptedModel):
        async def start(self) -> None:
            raise FatalModelError("wrong key")

    write_pair(tmp_path)
    with pytest.raises(ModelError, match="every cell stopped: wrong key"):
        medeval.run(
            model="m",
            benchmarks=write_benchmark(tmp_path, 2),
            pairs=tmp_path / "small_pair.py",
            output_dir=tmp_path / "run",
            open_model=lambda _: WrongKey([]),
        )
    assert "m x small x free stopped: wrong key" in caplog.text
