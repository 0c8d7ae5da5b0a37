import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import medeval
from medeval.data.benchmark import Benchmark
from medeval.data.rows import DrawnRows, Row
from medeval.errors import DataError, ModelError, RecordError
from medeval.evaluation.plan import Plan, PlannedBenchmark, resolve
from medeval.evaluation.plan_file import read_options
from medeval.evaluation.run import RunReport, carry_out, preview
from medeval.models.base import Model, Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel
from medeval.models.weights import weight_fingerprint
from medeval.rollout.images import kept_image
from medeval.store.run_folder import RunFolder
from medeval.types.definition import Loaded, Source
from medeval.types.sample import ImageSource, Sample
from tests.model_folders import write_adapter, write_model
from tests.png_encodings import counted_encodings
from tests.small_benchmark import (
    offers_tools,
    play,
    png,
    question_number,
    scripted,
    write_benchmark,
    write_judge,
    write_pair,
)


class Told:
    """Progress that remembers each report."""

    def __init__(self) -> None:
        self.n_missing = 0
        self.scored: Counter[bool] = Counter()
        self.messages: list[str] = []

    def open(self, n_missing: int) -> "Told":
        self.n_missing = n_missing
        return self

    def advance(self, *, scored: bool) -> None:
        self.scored[scored] += 1

    def tell(self, message: str) -> None:
        self.messages.append(message)


class Recorded:
    """Opens scripted models and keeps them by checkpoint."""

    def __init__(self, replies: Callable[[Request], str] = play) -> None:
        self.models: list[tuple[str, ScriptedModel]] = []
        self._replies = replies

    def __call__(self, checkpoint: Checkpoint) -> Model:
        model = ScriptedModel(self._replies)
        self.models.append((checkpoint.id, model))
        return model

    @property
    def requests(self) -> list[Request]:
        return [request for _, model in self.models for request in model.requests]


class Unstartable(ScriptedModel):
    async def start(self) -> None:
        raise ModelError("no memory left on the device")

    def notes(self) -> tuple[str, ...]:
        return ("top_k is left out",)


def planned(folder: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "model": ("m",),
        "benchmarks": (str(folder / "small.py"),),
        "pairs": (str(folder / "small_pair.py"),),
        "output_dir": str(folder / "run"),
        **changes,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return resolve(read_options(None, given), has_own_models=True)


def small(folder: Path, n: int = 4, **changes: Any) -> Plan:
    write_benchmark(folder, n)
    write_pair(folder)
    return planned(folder, **changes)


def carried_out(plan: Plan, open_model: Callable[[Checkpoint], Model] = scripted) -> RunReport:
    return carry_out(plan, open_model, Told().open)


def series(folder: Path, name: str, *steps: int) -> str:
    for step in steps:
        write_model(folder / name / f"global_step_{step}")
    return f"{name}={folder / name}"


def append_a_comment(path: Path) -> None:
    path.write_text(f"{path.read_text()}# changed\n")


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.glob("cells/**/*.json*")}


def test_a_run_leaves_every_record_that_the_design_names(tmp_path: Path) -> None:
    report = carried_out(small(tmp_path))
    assert report.exit_code == 0
    assert report.closing_words == f"run folder: {tmp_path / 'run'}"
    found = {
        str(path.relative_to(tmp_path / "run"))
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    cells = {
        f"cells/m/{step}/small/{arm}/{name}"
        for step in [path.name for path in (tmp_path / "run/cells/m").iterdir()]
        for arm in ("free", "available")
        for name in ("cell.json", "trajectories.0.jsonl", "verdicts.0.jsonl")
    }
    assert cells <= found
    assert {"run.json", "samples/small.jsonl", "tables/summary.csv"} <= found
    assert {name for name in found if name.startswith("definitions/")} == {
        "definitions/benchmark-small.py",
        "definitions/judge-letter.py",
        "definitions/protocol-available.py",
        "definitions/protocol-free.py",
    }
    assert (tmp_path / "run/definitions/benchmark-small.py").read_bytes() == (
        tmp_path / "small.py"
    ).read_bytes()


def test_both_arms_get_the_same_bytes_and_the_same_seeds(tmp_path: Path) -> None:
    opened = Recorded()
    carried_out(small(tmp_path, 6, repeats=3, seed=5), opened)
    first_turns = [request for request in opened.requests if len(request.images) == 1]
    free = [request for request in first_turns if not offers_tools(request)]
    available = [request for request in first_turns if offers_tools(request)]

    def sent(requests: Sequence[Request]) -> set[tuple[int, int, bytes]]:
        return {(question_number(r), r.seed, r.images[0].encoded()) for r in requests}

    assert len(free) == len(available) == 18
    assert sent(free) == sent(available)
    assert len({request.seed for request in free}) == 18


def test_seeds_differ_by_repeat_and_turn_and_follow_the_run_seed(tmp_path: Path) -> None:
    seeds = []
    for seed in (1, 2):
        opened = Recorded()
        carried_out(small(tmp_path, 2, seed=seed, output_dir=str(tmp_path / f"{seed}")), opened)
        seeds.append({request.seed for request in opened.requests})
    assert all(len(found) == 2 * 2 for found in seeds), "one seed a sample and turn"
    assert not seeds[0] & seeds[1]


def counting_benchmark(folder: Path, n: int) -> tuple[PlannedBenchmark, Counter[str]]:
    """A benchmark that counts how often the bytes of each image are read."""
    reads: Counter[str] = Counter()
    lock = threading.Lock()

    def to_sample(row: Row) -> Sample:
        name = f"s{row.index}"

        def read() -> bytes:
            with lock:
                reads[name] += 1
            return png((row.index, 0, 0))

        image = ImageSource(name=name, read=read)
        question = f"Question {row.index}?"
        return Sample(id=name, question=question, images=(image,), targets=("A",))

    benchmark = Benchmark(
        name="counted",
        title="",
        rows=DrawnRows(n, lambda index: {"index": index}),
        to_sample=to_sample,
        judge="choice",
    )
    source = Source(folder / "small.py", "0" * 64)
    judges = planned(folder).benchmarks[0].judges
    return PlannedBenchmark(loaded=Loaded(benchmark, source), data_dir=None, judges=judges), reads


@pytest.mark.parametrize(("most_kept", "expected"), [(6, 1), (5, 1), (4, 3)])
def test_rows_are_read_once_a_run_unless_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_kept: int, expected: int
) -> None:
    """Once for the records, and once for each of the two checkpoints."""
    monkeypatch.setattr("medeval.data.dataset.MOST_KEPT", most_kept)
    plan = small(tmp_path, model=("m", "n"))
    made: Counter[int] = Counter()
    counted, _ = counting_benchmark(tmp_path, 5)
    to_sample = counted.loaded.value.to_sample

    def counting(row: Row) -> Sample:
        made[row.index] += 1
        return to_sample(row)

    definition = replace(counted.loaded.value, to_sample=counting)
    benchmark = replace(counted, loaded=Loaded(definition, counted.loaded.source))
    carried_out(replace(plan, benchmarks=(benchmark,)))
    assert made == dict.fromkeys(range(5), expected)


def test_an_image_is_encoded_once_for_both_arms_and_all_repeats(tmp_path: Path) -> None:
    plan = small(tmp_path, repeats=2)
    counted, reads = counting_benchmark(tmp_path, 5)
    plan = Plan(
        **{name: getattr(plan, name) for name in Plan.__slots__ if name != "benchmarks"},
        benchmarks=(counted,),
    )
    assert carried_out(plan).exit_code == 0
    # once for its size and hash in samples/, once to be sent
    assert reads == {f"s{number}": 2 for number in range(5)}


def test_a_resume_makes_only_what_is_missing(tmp_path: Path) -> None:
    def fails_once(request: Request) -> str:
        if question_number(request) in (1, 2):
            raise ModelError("the server is gone")
        return play(request)

    plan = small(tmp_path)
    report = carried_out(plan, Recorded(fails_once))
    assert (report.unscored, report.exit_code) == (4, 1)
    assert "4 unscored: failures.jsonl" in report.closing_words

    opened, told = Recorded(), Told()
    report = carry_out(plan, opened, told.open)
    assert (report.unscored, report.exit_code) == (0, 0)
    assert told.n_missing == 4
    assert told.scored == {True: 4}
    assert {question_number(request) for request in opened.requests} == {1, 2}


def test_a_complete_run_opens_no_engine(tmp_path: Path) -> None:
    plan, opened = small(tmp_path), Recorded()
    carried_out(plan)
    assert carried_out(plan, opened).exit_code == 0
    assert opened.models == []


def test_samples_repeats_benchmarks_and_checkpoints_extend_a_run(tmp_path: Path) -> None:
    small(tmp_path, 10)
    more = str(write_benchmark(tmp_path, 3, name="more"))
    both = (str(tmp_path / "small.py"), more)
    wider: list[tuple[dict[str, Any], int]] = [
        ({"limit": 4}, 4),
        ({"limit": 6}, 2),
        ({"sample_id": ("s008",)}, 1),
        ({}, 3),
        ({"repeats": 2}, 10),
        ({"repeats": 2, "benchmarks": both}, 6),
        ({"repeats": 2, "benchmarks": both, "model": ("m", "other")}, 26),
        ({"limit": 2, "model": ("third",)}, 2),
    ]
    for changes, new in wider:
        opened = Recorded()
        assert carried_out(planned(tmp_path, **changes), opened).exit_code == 0
        assert len(opened.requests) == 3 * new, changes
    run = medeval.load_run(tmp_path / "run")
    assert run.outcomes.groupby(["checkpoint", "benchmark"]).size().to_dict() == {
        ("m", "small"): 20,
        ("m", "more"): 6,
        ("other", "small"): 20,
        ("other", "more"): 6,
        ("third", "small"): 2,
    }
    unscored = run.summary.set_index(["checkpoint", "benchmark", "protocol"]).unscored
    assert unscored["m", "more", "free"] == 0
    assert unscored["third", "small", "free"] == 0, "of the two samples that were asked of it"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed: recorded 0, now 1"),
        ({"temperature": 0.5}, "protocol.sampling.temperature: recorded 0, now 0.5"),
        ({"max_tokens": 9}, "protocol.sampling.max_tokens: recorded 64, now 9"),
    ],
)
def test_a_cell_begun_with_other_settings_is_refused_by_field_and_kept(
    changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    carried_out(small(tmp_path))
    before, opened = snapshot(tmp_path / "run"), Recorded()
    report = carried_out(planned(tmp_path, **changes), opened)
    assert report.exit_code == 1
    assert list(report.stopped) == ["m x small x free", "m x small x available"]
    assert all(field in reason for reason in report.stopped.values())
    assert opened.models == []
    assert snapshot(tmp_path / "run") == before

    report = carried_out(planned(tmp_path, **changes, fresh=True), opened)
    assert report.exit_code == 0
    assert len(opened.requests) == 12
    assert carried_out(planned(tmp_path, **changes), opened).exit_code == 0
    assert len(opened.requests) == 12


def test_a_refused_cell_keeps_its_outcomes_when_the_judge_has_changed_too(tmp_path: Path) -> None:
    carried_out(small(tmp_path))
    before = medeval.load_run(tmp_path / "run").outcomes
    append_a_comment(tmp_path / "small.py")
    append_a_comment(tmp_path / "judge_letter.py")
    report = carried_out(planned(tmp_path))
    assert report.exit_code == 1
    assert (
        "stopped: m x small x free: it was begun with other settings of benchmark.definition\n"
        in (report.closing_words)
    )
    after = medeval.load_run(tmp_path / "run").outcomes
    assert len(after) == len(before) > 0
    assert set(after.judge) != set(before.judge)
    assert after.free_correct.tolist() == before.free_correct.tolist()


def test_a_changed_definition_is_refused_by_name(tmp_path: Path) -> None:
    carried_out(small(tmp_path))
    append_a_comment(tmp_path / "small.py")
    report = carried_out(planned(tmp_path))
    assert report.exit_code == 1
    assert "benchmark.definition: recorded" in report.stopped["m x small x free"]

    write_benchmark(tmp_path, 4)
    append_a_comment(tmp_path / "small_pair.py")
    report = carried_out(planned(tmp_path))
    assert "protocol.definition: recorded" in report.stopped["m x small x available"]


def test_a_changed_engine_is_refused_once_it_is_known(tmp_path: Path) -> None:
    class Other(ScriptedModel):
        def identity(self) -> dict[str, Any]:
            return {"engine": "scripted", "dtype": "float8"}

    carried_out(small(tmp_path, limit=2))
    report = carried_out(planned(tmp_path), lambda _: Other(play))
    assert report.exit_code == 1
    assert "model.dtype: recorded nothing, now" in report.stopped["m x small x free"]


def test_concurrency_address_and_judge_may_change(tmp_path: Path) -> None:
    carried_out(small(tmp_path, limit=2))
    other = write_judge(tmp_path, "other")
    report = carried_out(
        planned(tmp_path, concurrency=3, base_url="http://127.0.0.1:1", judge=(str(other),))
    )
    assert report.exit_code == 0
    cell = RunFolder(tmp_path / "run").cell(report.folder.cells()[0]).record()
    assert cell is not None
    assert [entry["concurrency"] for entry in cell.recorded] == [96, 3]
    assert len(medeval.load_run(tmp_path / "run").outcomes) == 4


def test_a_second_process_in_the_run_folder_is_refused_by_host_and_process(
    tmp_path: Path,
) -> None:
    plan = small(tmp_path)
    with (
        RunFolder(tmp_path / "run").lock(),
        pytest.raises(RecordError, match=r"is in use by host \S+ pid \d+"),
    ):
        carried_out(plan)


def test_a_checkpoint_that_cannot_start_does_not_hold_up_the_next(tmp_path: Path) -> None:
    plan, told = small(tmp_path, model=("bad", "good")), Told()
    report = carry_out(
        plan, lambda c: Unstartable(play) if c.id == "bad" else ScriptedModel(play), told.open
    )
    assert report.exit_code == 1
    assert set(report.stopped) == {"bad x small x free", "bad x small x available"}
    assert [s.score.n for s in report.summaries] == [0, 0, 4, 4]
    assert [s.unscored for s in report.summaries] == [4, 4, 0, 0]
    assert "bad x small x free stopped: no memory left on the device" in told.messages
    assert "bad: top_k is left out" in told.messages
    assert "stopped: bad x small x free: no memory left" in report.closing_words


def test_benchmarks_are_spread_evenly_and_the_largest_begins(tmp_path: Path) -> None:
    small_one = write_benchmark(tmp_path, 5, name="more")
    small(tmp_path, 20)
    plan = planned(tmp_path, concurrency=1, benchmarks=(str(small_one), str(tmp_path / "small.py")))
    model = ScriptedModel(play)
    carried_out(plan, lambda _: model)
    run = tmp_path / "run"
    assert "Question 0?" in model.requests[0].messages[-1].text
    ends = [path.stat().st_mtime_ns for path in sorted(run.glob("cells/*/*/*/*/trajectories*"))]
    assert len(ends) == 4
    colours = [request.images[0].sha256 for request in model.requests]
    twice = [sha256 for sha256, n in Counter(colours).items() if n == 6]
    places = sorted({colours.index(sha256) for sha256 in twice})
    assert len(twice) == 5, "the five that both benchmarks have"
    assert places[-1] > 10, "they do not all come first"


def test_a_complete_cell_is_not_stopped_by_an_engine_that_cannot_start(tmp_path: Path) -> None:
    small(tmp_path)
    arm = f"{tmp_path / 'small_pair.py'}::free"
    carried_out(planned(tmp_path, pairs=None, protocols=(arm,)))
    report = carried_out(planned(tmp_path), lambda _: Unstartable(play))
    assert list(report.stopped) == ["m x small x available"]
    assert report.unscored == 4


def test_a_cell_without_its_record_is_not_claimed_anew(tmp_path: Path) -> None:
    carried_out(small(tmp_path, limit=2))
    next((tmp_path / "run").glob("cells/*/*/*/free/cell.json")).unlink()
    report = carried_out(planned(tmp_path))
    assert report.exit_code == 1
    assert "no cell.json" in report.stopped["m x small x free"]


def test_a_complete_cell_of_other_weights_is_refused_without_an_engine(tmp_path: Path) -> None:
    first = series(tmp_path, "first", 20).partition("=")[2]
    carried_out(small(tmp_path, model=None, checkpoints=(f"rl={first}",)))
    other = series(tmp_path, "other", 20).partition("=")[2]
    write_model(Path(other) / "global_step_20", b"1")
    opened = Recorded()
    plan = planned(tmp_path, model=None, checkpoints=(f"rl={other}",))
    report = carried_out(plan, opened)
    assert (report.exit_code, opened.models) == (1, [])
    assert "checkpoint.weights: recorded" in report.stopped["rl/20 x small x free"]
    assert {cell.refusal is not None for cell in preview(plan)} == {True}


def test_a_cell_that_was_being_cleared_is_refused(tmp_path: Path) -> None:
    carried_out(small(tmp_path))
    for path in (tmp_path / "run").glob("cells/*/*/*/*/cell.json"):
        path.unlink()
    report = carried_out(planned(tmp_path))
    assert report.exit_code == 1
    assert "no cell.json with their settings" in report.stopped["m x small x free"]


def test_a_judge_that_changes_on_extension_judges_what_was_there_as_well(tmp_path: Path) -> None:
    carried_out(small(tmp_path, model=("one",)))
    lenient = str(write_judge(tmp_path, "lenient", correct_at=0.0))
    carried_out(planned(tmp_path, model=("two",), judge=(lenient,)))
    outcomes = medeval.load_run(tmp_path / "run").outcomes
    assert set(outcomes.checkpoint) == {"one", "two"}
    assert {judge.split("#")[0] for judge in outcomes.judge} == {"lenient"}


def test_deferred_grading_leaves_the_primary_judge_as_it_was(tmp_path: Path) -> None:
    carried_out(small(tmp_path, limit=2))
    before = RunFolder(tmp_path / "run").record().judges
    append_a_comment(tmp_path / "judge_letter.py")
    carried_out(planned(tmp_path, defer_grading=True))
    assert RunFolder(tmp_path / "run").record().judges == before


def test_tables_keep_the_cells_that_a_later_plan_does_not_name(tmp_path: Path) -> None:
    carried_out(small(tmp_path, model=("one",)))
    report = carried_out(planned(tmp_path, model=("two",)))
    assert {summary.checkpoint for summary in report.summaries} == {"two"}
    summary = (tmp_path / "run/tables/summary.csv").read_text()
    assert "\none," in summary
    assert "\ntwo," in summary


def test_a_baseline_alone_moves_to_the_series_that_comes_later(tmp_path: Path) -> None:
    carried_out(small(tmp_path, baseline="base"))
    folder = RunFolder(tmp_path / "run")
    assert "baseline" in {key.series for key in folder.outcome_keys()}
    later = (series(tmp_path, "later", 20),)
    carried_out(planned(tmp_path, model=None, checkpoints=later))
    assert {(key.series, key.step) for key in folder.outcome_keys()} == {
        ("m", None), ("later", 0), ("later", 20),
    }  # fmt: skip


def test_a_baseline_is_evaluated_once_and_shared_by_all_series(tmp_path: Path) -> None:
    checkpoints = (series(tmp_path, "a", 20, 40), series(tmp_path, "b", 20))
    opened = Recorded()
    plan = small(tmp_path, model=None, checkpoints=checkpoints, baseline="base")
    assert carried_out(plan, opened).exit_code == 0
    assert [name for name, _ in opened.models] == ["baseline/0", "a/20", "a/40", "b/20"]
    run = medeval.load_run(tmp_path / "run")
    assert run.outcomes.groupby(["series", "step"]).size().to_dict() == {
        ("a", 0): 4,
        ("a", 20): 4,
        ("a", 40): 4,
        ("b", 0): 4,
        ("b", 20): 4,
    }
    assert set(run.outcomes[run.outcomes.step == 0].checkpoint) == {"baseline/0"}


def test_a_baseline_does_not_take_the_place_of_a_series_own_step_0(tmp_path: Path) -> None:
    own = series(tmp_path, "own", 0, 20)
    carried_out(small(tmp_path, model=None, checkpoints=(own,)))
    later = (series(tmp_path, "later", 20),)
    carried_out(planned(tmp_path, model=None, checkpoints=later, baseline="base"))
    outcomes = medeval.load_run(tmp_path / "run").outcomes
    at_0 = outcomes[outcomes.step == 0].groupby("series").checkpoint.first()
    assert at_0.to_dict() == {"own": "own/0", "later": "baseline/0"}


def test_a_baseline_of_a_single_model_is_a_series_of_its_own(tmp_path: Path) -> None:
    carried_out(small(tmp_path, baseline="base"))
    outcomes = medeval.load_run(tmp_path / "run").outcomes
    assert set(outcomes.series) == {"baseline", "m"}


@pytest.mark.parametrize(("kept", "n_images"), [(0, 0), (2, 2), (-1, 4)])
def test_tool_made_images_are_kept_for_the_first_samples(
    kept: int, n_images: int, tmp_path: Path
) -> None:
    plan = small(tmp_path, keep_images=kept)
    with counted_encodings() as written:
        carried_out(plan)
    files = sorted(path.stem for path in (tmp_path / "run").glob("images/*.png"))
    assert len(files) == n_images
    # besides the samples' own, which are drawn, an image is encoded only to be kept
    assert sorted(written) == [(40, 32)] * n_images + [(48, 40)] * 4
    run = RunFolder.open(tmp_path / "run")
    made = [
        image
        for key in run.cells()
        for trajectory in run.cell(key).trajectories()
        for image in trajectory.images[1:]
    ]
    assert len(made) == 4
    assert files == sorted(image.identity for image in made if kept_image(run, image))


def test_only_the_samples_asked_for_are_run(tmp_path: Path) -> None:
    opened = Recorded()
    report = carried_out(small(tmp_path, 9, sample_id=("s007", "s002"), limit=3), opened)
    assert report.exit_code == 0
    assert {question_number(request) for request in opened.requests} == {2, 7}


def test_a_sample_id_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sample 's09'"):
        carried_out(small(tmp_path, sample_id=("s09",)))


def test_a_data_set_of_another_length_is_refused_unless_allowed(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 4, count=9)
    write_pair(tmp_path)
    with pytest.raises(DataError, match="has 4 rows here, but 9 were published") as error:
        carried_out(planned(tmp_path))
    assert "--allow-count-mismatch" in str(error.value.hint)
    assert not (tmp_path / "run").exists()
    assert carried_out(planned(tmp_path, allow_count_mismatch=True)).exit_code == 0
    assert carried_out(planned(tmp_path, limit=2)).exit_code == 0


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    write_benchmark(tmp_path, 4, period=3)
    write_pair(tmp_path)
    with pytest.raises(DataError, match="has the sample id 's000' twice"):
        carried_out(planned(tmp_path))
    assert not (tmp_path / "run/run.json").exists()


def test_rows_without_a_column_that_is_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"picture": "a.png"}\n')
    plan = small(tmp_path, data_dir=(str(tmp_path / "rows.jsonl"),), limit=1)
    with pytest.raises(DataError, match="row 0 has no column 'image'; its columns: picture"):
        carried_out(plan)


def test_a_row_that_to_sample_trips_over_is_named(tmp_path: Path) -> None:
    small(tmp_path)
    definition = tmp_path / "small.py"
    definition.write_text(definition.read_text().replace("[row.index % 4]", "[row.index * 2]"))
    plan = planned(tmp_path)
    with pytest.raises(DataError, match=r"to_sample failed on row 2: IndexError: string index"):
        carried_out(plan)


def test_data_that_changed_since_the_run_began_is_refused(tmp_path: Path) -> None:
    carried_out(small(tmp_path, limit=2))
    before = (tmp_path / "run/run.json").read_bytes()
    write_benchmark(tmp_path, 4, shade=8)
    with pytest.raises(RecordError, match="sample 's000' of benchmark 'small' is not the one"):
        carried_out(planned(tmp_path))
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_a_preview_counts_what_is_wanted_and_done_and_writes_nothing(tmp_path: Path) -> None:
    plan = small(tmp_path, repeats=2)
    assert [(cell.wanted, cell.done) for cell in preview(plan)] == [(8, 0), (8, 0)]
    assert not (tmp_path / "run").exists()
    carried_out(planned(tmp_path, limit=3))
    assert [(cell.wanted, cell.done) for cell in preview(plan)] == [(8, 3), (8, 3)]
    fresh = planned(tmp_path, fresh=True)
    assert [(cell.wanted, cell.done) for cell in preview(fresh)] == [(4, 0), (4, 0)]


def test_a_single_protocol_gives_cells_and_no_outcomes(tmp_path: Path) -> None:
    arm = f"{tmp_path / 'small_pair.py'}::free"
    report = carried_out(small(tmp_path, pairs=None, protocols=(arm,)))
    assert [summary.protocol for summary in report.summaries] == ["free"]
    run = medeval.load_run(tmp_path / "run")
    assert run.outcomes.empty
    assert "sample_id" in run.outcomes

    carried_out(planned(tmp_path))
    assert len(medeval.load_run(tmp_path / "run").outcomes) == 4


def test_trajectories_without_a_verdict_are_judged_on_resume(tmp_path: Path) -> None:
    carried_out(small(tmp_path))
    for path in (tmp_path / "run").glob("cells/*/*/*/*/verdicts.0.jsonl"):
        kept = path.read_bytes().splitlines(keepends=True)[:1]
        path.write_bytes(b"".join(kept))
    opened = Recorded()
    assert carried_out(planned(tmp_path), opened).exit_code == 0
    assert opened.models == []
    assert len(medeval.load_run(tmp_path / "run").outcomes) == 4


def test_a_run_may_be_started_where_an_event_loop_runs(tmp_path: Path) -> None:
    plan = small(tmp_path)

    async def notebook() -> RunReport:
        return carried_out(plan)

    assert asyncio.run(notebook()).exit_code == 0


def test_rows_that_fail_halfway_end_the_run_with_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row may be readable when samples are recorded, but not when its sample starts."""
    monkeypatch.setattr("medeval.data.dataset.MOST_KEPT", 3)
    plan = small(tmp_path, concurrency=1)
    read: Counter[int] = Counter()

    def to_sample(row: Row) -> Sample:
        read[row.index] += 1
        if row.index == 2 and read[2] > 1:
            raise DataError("the disk is gone")
        image = ImageSource(name="image", read=png)
        question = f"Question {row.index}?"
        return Sample(id=f"s{row.index}", question=question, images=(image,), targets=("A",))

    counted, _ = counting_benchmark(tmp_path, 4)
    definition = Benchmark(
        name="small",
        title="",
        rows=DrawnRows(4, lambda index: {"index": index}),
        to_sample=to_sample,
        judge="choice",
    )
    benchmark = PlannedBenchmark(
        loaded=Loaded(definition, counted.loaded.source), data_dir=None, judges=counted.judges
    )
    plan = Plan(
        **{name: getattr(plan, name) for name in Plan.__slots__ if name != "benchmarks"},
        benchmarks=(benchmark,),
    )
    with pytest.raises(DataError, match="the disk is gone"):
        carried_out(plan)
    folder = RunFolder(tmp_path / "run")
    assert [len(folder.cell(key).done()) for key in folder.cells()] == [2, 2]


def test_a_run_folder_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    plan = small(tmp_path)

    def vandal(request: Request) -> str:
        """A folder replaces the file of failures."""
        for cell in (tmp_path / "run").glob("cells/*/*/*/*"):
            (cell / "failures.jsonl").mkdir(exist_ok=True)
        raise ModelError("the server is gone")

    with pytest.raises(RecordError, match=r"failures\.jsonl"):
        carried_out(plan, Recorded(vandal))


def test_protocols_are_recorded_with_the_run(tmp_path: Path) -> None:
    carried_out(small(tmp_path))
    carried_out(planned(tmp_path, temperature=0.5, fresh=True))
    record = RunFolder(tmp_path / "run").record()
    assert record.pairs == {"small_pair": ("free", "available")}
    assert record.benchmarks["small"].count == 4
    assert [session.seed for session in record.sessions] == [0, 0]
    cells = RunFolder(tmp_path / "run")
    fields = [cells.cell(key).record() for key in cells.cells()]
    assert all(f is not None and json.dumps(0.5) in json.dumps(f.fields) for f in fields)


def test_a_cell_of_an_adapter_is_known_by_adapter_and_base_and_names_what_came_from_the_hub(
    tmp_path: Path,
) -> None:
    base, other = write_model(tmp_path / "base"), write_model(tmp_path / "other", b"1")
    adapter = write_adapter(tmp_path / "sft" / "checkpoint-10", base=base)
    series: dict[str, Any] = {"model": None, "checkpoints": (str(tmp_path / "sft"),)}
    plan = small(tmp_path, **series)
    (step,) = plan.checkpoints
    commits = ("owner/base@abc",)
    carried_out(replace(plan, checkpoints=(replace(step, hub_commits=commits),)))
    cell = json.loads((tmp_path / "run/cells/sft/10/small/free/cell.json").read_text())
    assert cell["fields"]["checkpoint"] == {
        "weights": weight_fingerprint(adapter, base),
        "base": weight_fingerprint(base),
        "arguments": {},
    }
    (recorded,) = cell["recorded"]
    assert (recorded["location"], recorded["base"]) == (str(adapter), str(base))
    assert recorded["hub_commits"] == list(commits)
    (session,) = RunFolder(tmp_path / "run").record().sessions
    assert session.extra["hub_commits"] == list(commits)

    report = carried_out(planned(tmp_path, **series, base=str(other)))
    assert report.exit_code == 1
    assert "checkpoint.base: recorded" in report.stopped["sft/10 x small x free"]
