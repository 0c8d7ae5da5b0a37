"""A run of several checkpoints prepares each image once, and deletes the images at its end."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import medeval
from medeval.evaluation.merge import merge
from medeval.evaluation.run import carry_out
from medeval.evaluation.workers.ray_actor import RemoteEvaluation
from medeval.images.cache import FOLDER, ImageCache
from medeval.images.resize import PixelBudget
from medeval.models.base import Model, Request
from medeval.models.checkpoints import Checkpoint
from medeval.models.scripted import ScriptedModel
from tests.evaluation.test_kill_and_resume import lines
from tests.evaluation.test_run import Recorded, Told, planned
from tests.evaluation.workers.test_pool import at_work, records
from tests.images.test_cache import file, held
from tests.medeval_processes import MedevalMain, Serve
from tests.small_benchmark import play, write_judge
from tests.stub_server import StubServer

# Each of another colour and all of one length; none is sent as it is.
DEFINITION = """
import io

from PIL import Image

from medeval import Benchmark, DrawnRows, Sample


def draw(index):
    image = Image.new("P", (200, 160))
    image.putpalette([index % {period}, 90, 7])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {{"image": buffer.getvalue()}}


SMALL = Benchmark(
    name="small",
    title="drawn for tests",
    rows=DrawnRows({n}, draw),
    count={n},
    columns=("image",),
    to_sample=lambda row: Sample(
        id=f"s{{row.index:03d}}",
        question=f"Question {{row.index}}?",
        images=(row.image("image"),),
        targets=("ABCD"[row.index % 4],),
    ),
    judge={judge!r},
)
"""
PAIR = """
from medeval import EvalProtocol, Pair, PixelBudget, crop_and_zoom

FREE = EvalProtocol(
    name="free",
    user="$question",
    call_syntax="hermes",
    stop=("</tool_call>",),
    pixel_budget=PixelBudget(min_px=784, max_px=100 * 80, factor=4),
)
AVAILABLE = FREE.with_tools(
    crop_and_zoom(budget=None),
    name="available",
    prompt="<tools>\\n$tools\\n</tools>",
    max_generations=3,
    max_calls=2,
)
PAIR = Pair(name="pair", free=FREE, available=AVAILABLE)
"""
N = 6


def definitions(folder: Path, n: int = N, period: int = 256) -> dict[str, Any]:
    """Options with the benchmark and the pair; images repeat after `period` samples."""
    judge = str(write_judge(folder))
    (folder / "small.py").write_text(DEFINITION.format(n=n, period=period, judge=judge))
    (folder / "small_pair.py").write_text(PAIR)
    return {"benchmarks": folder / "small.py", "pairs": folder / "small_pair.py"}


class Watcher(Recorded):
    """Opens scripted models, after a callback has inspected the run folder."""

    def __init__(self, look: Callable[[Path], None], run: Path) -> None:
        super().__init__()
        self._look = look
        self._run = run

    def __call__(self, checkpoint: Checkpoint) -> Model:
        self._look(self._run / FOLDER)
        return super().__call__(checkpoint)


def run_models(
    folder: Path, *models: str, look: Callable[[Path], None], n: int = N, period: int = 256
) -> Path:
    run = folder / "-".join(models)
    asked = definitions(folder, n, period)
    opened = Watcher(look, run)
    medeval.run(model=models, output_dir=run, open_model=opened, concurrency=4, **asked)
    return run


def swap(folder: Path) -> None:
    """Replace the content of each cached image by another's."""
    paths = sorted(folder.iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def sent(run: Path, model: str) -> dict[str, str]:
    """The SHA-256 of the image that each sample was sent with, the same in both arms."""
    found: dict[str, str] = {}
    for path in run.glob(f"cells/{model}/*/*/*/trajectories.*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            sha256 = record["images"][0]["sha256"]
            assert found.setdefault(record["sample_id"], sha256) == sha256
    return found


def is_swapped(run: Path, model: str, expected: dict[str, str]) -> bool:
    """Whether a checkpoint was sent the swapped images, not the ones made from the files."""
    now = sent(run, model)
    assert sorted(now.values()) == sorted(expected.values())
    return all(now[name] != expected[name] for name in expected)


def test_checkpoints_that_share_images_have_the_records_of_separate_runs(tmp_path: Path) -> None:
    n_held: list[int] = []

    def look(folder: Path) -> None:
        n_held.append(len(list(folder.iterdir())) if folder.exists() else -1)

    both = run_models(tmp_path, "a", "b", look=look)
    assert n_held == [0, N], "the second finds what the first left"
    alone = {model: run_models(tmp_path, model, look=look) for model in ("a", "b")}
    assert n_held == [0, N, -1, -1], "nothing is written where one checkpoint is all"
    for model, run in alone.items():
        for kind in ("trajectories", "verdicts"):
            pattern = f"cells/{model}/*/*/*/{kind}.0.jsonl"
            assert lines(both, pattern) == lines(run, pattern)
            assert lines(both, pattern)
    assert lines(both, "samples/*.jsonl") == lines(alone["a"], "samples/*.jsonl")


@pytest.mark.parametrize(("period", "is_kept"), [(3, True), (11, True), (12, False)])
def test_one_checkpoint_keeps_the_images_that_many_samples_have_in_common(
    period: int, is_kept: bool, tmp_path: Path
) -> None:
    seen: list[bool] = []
    run = run_models(tmp_path, "a", n=13, period=period, look=lambda of: seen.append(of.exists()))
    assert seen == [is_kept]
    assert not (run / FOLDER).exists()
    shas = sent(run, "a")
    assert len(shas) == 13
    assert len(set(shas.values())) == period


def test_the_second_checkpoint_is_sent_what_is_kept_and_the_end_deletes_it(tmp_path: Path) -> None:
    looked: list[Path] = []

    def look(folder: Path) -> None:
        if looked:
            swap(folder)
        looked.append(folder)

    run = run_models(tmp_path, "a", "b", look=look)
    assert is_swapped(run, "b", sent(run, "a"))
    assert not looked[-1].exists()
    assert not list(run.rglob("*.tmp"))


class Ended(ScriptedModel):
    """A model during whose work the process is asked to end."""

    def __init__(self, at: int) -> None:
        super().__init__(self._reply)
        self._left = at

    def _reply(self, request: Request) -> str:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)
        return play(request)


def ended(folder: Path, *models: ScriptedModel) -> int:
    """The report of a run of two checkpoints with these models in turn."""
    definitions(folder)
    waiting = list(models)
    plan = planned(folder, model=("a", "b"), concurrency=1)
    return carry_out(plan, lambda _: waiting.pop(0), Told().open).exit_code


def test_an_interrupted_run_keeps_its_images_for_the_resume_and_no_longer(tmp_path: Path) -> None:
    assert ended(tmp_path, ScriptedModel(play), Ended(at=5)) == 3
    folder = tmp_path / "run" / FOLDER
    assert len(held(folder)) == N
    before = set(sent(tmp_path / "run", "b"))
    assert 0 < len(before) < N
    swap(folder)
    (folder / "left.0.tmp").write_bytes(b"by somebody who was killed")
    assert ended(tmp_path, ScriptedModel(play)) == 0
    first, second = sent(tmp_path / "run", "a"), sent(tmp_path / "run", "b")
    assert all((second[name] != first[name]) is (name not in before) for name in first)
    assert not folder.exists()


def test_what_a_killed_run_left_is_used_and_deleted_although_one_checkpoint_is_left(
    tmp_path: Path,
) -> None:
    options = definitions(tmp_path)
    expected = sent(run_models(tmp_path, "a", look=lambda _: None), "a")
    run = tmp_path / "b"
    leave_swapped(run)
    (run / FOLDER / "draft.tmp").write_bytes(b"by somebody who was killed")
    (run / FOLDER / ("5e" * 24)).write_bytes(b"medeval\x01 as an earlier version kept them")
    medeval.run(model="b", output_dir=run, open_model=lambda _: ScriptedModel(play), **options)
    assert is_swapped(run, "b", expected)
    assert not (run / FOLDER).exists()


def files(n: int = N) -> Iterator[bytes]:
    """The files of the benchmark."""
    for index in range(n):
        image = Image.new("P", (200, 160))
        image.putpalette([index, 90, 7])
        yield file(image, "PNG")


def leave_swapped(run: Path) -> None:
    """Make the cache of an earlier start in a run folder, with swapped contents."""
    (run / FOLDER).mkdir(parents=True)
    images = ImageCache(run / FOLDER)
    budget = PixelBudget(min_px=784, max_px=100 * 80, factor=4)
    for data in files():
        images.prepare(data, name="a file", budget=budget)
    assert len(held(run / FOLDER)) == N
    swap(run / FOLDER)


def test_a_run_that_fails_leaves_no_image_behind(tmp_path: Path) -> None:
    def look(folder: Path) -> None:
        if list(folder.iterdir()):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_models(tmp_path, "a", "b", look=look)
    assert not (tmp_path / "a-b" / FOLDER).exists()


def test_a_complete_run_started_again_deletes_what_was_left(tmp_path: Path) -> None:
    run = run_models(tmp_path, "a", look=lambda _: None)
    leave_swapped(run)
    run_models(tmp_path, "a", look=lambda _: None)
    assert not (run / FOLDER).exists()


def test_merging_takes_no_prepared_image_along(tmp_path: Path) -> None:
    run = run_models(tmp_path, "a", look=lambda _: None)
    leave_swapped(run)
    merge(tmp_path / "out", [run])
    assert not (tmp_path / "out" / FOLDER).exists()
    assert (run / FOLDER).exists()


def test_a_signal_in_the_last_request_of_all_keeps_nothing(tmp_path: Path) -> None:
    assert ended(tmp_path, ScriptedModel(play), Ended(at=3 * N)) == 3
    assert len(sent(tmp_path / "run", "b")) == N
    assert not (tmp_path / "run" / FOLDER).exists()


def served(folder: Path, server: StubServer, *more: object) -> list[object]:
    options = definitions(folder)
    return [
        *("run", "--model", "a", "--model", "b", "--base-url", server.base_url),
        *("--benchmarks", options["benchmarks"], "--pairs", options["pairs"], *more),
    ]


def test_workers_share_the_images_and_an_interrupted_one_leaves_them(
    tmp_path: Path, medeval_main: MedevalMain, serve: Serve
) -> None:
    server = serve(StubServer(models=("a", "b"), latency_s=0.2))
    alone, run = tmp_path / "alone", tmp_path / "run"
    arguments = served(tmp_path, server, "--output-dir", run, "--workers", 2, "--concurrency", 2)
    with at_work(arguments, run, n=4) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 3
    assert 0 < len(held(run / FOLDER)) < N
    server.latency_s = 0
    assert medeval_main(*arguments) == 0
    assert not (run / FOLDER).exists()
    assert medeval_main(*served(tmp_path, server, "--output-dir", alone)) == 0
    for kind in ("trajectories", "verdicts"):
        assert records(run, kind) == records(alone, kind)

    another = tmp_path / "another"
    leave_swapped(another)
    arguments = served(tmp_path, server, "--output-dir", another, "--workers", 2)
    assert medeval_main(*arguments) == 0
    assert is_swapped(another, "a", sent(alone, "a"))
    assert is_swapped(another, "b", sent(alone, "b"))


@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_worker_elsewhere_finds_the_images_where_it_reaches_the_run_folder(
    is_reachable: bool, tmp_path: Path, serve: Serve
) -> None:
    server = serve(StubServer(models=("a",)))
    definition = definitions(tmp_path)
    expected = sent(run_models(tmp_path, "a", look=lambda _: None), "a")
    if is_reachable:
        leave_swapped(tmp_path / "run")
    remote = RemoteEvaluation(
        {
            "model": ["a"],
            "base_url": server.base_url,
            "benchmarks": [str(definition["benchmarks"])],
            "pairs": [str(definition["pairs"])],
            "output_dir": str(tmp_path / "run"),
        }
    )
    told_of = asyncio.run(_evaluated(remote))
    remote._scratch.cleanup()  # as the end of its process does
    found = {
        line["sample_id"]: line["images"][0]["sha256"]
        for message in told_of
        if message.get("kind") == "trajectories"
        for line in [json.loads(message["line"])]
    }
    assert sorted(found.values()) == sorted(expected.values())
    assert all((found[name] != expected[name]) is is_reachable for name in expected)


async def _evaluated(remote: RemoteEvaluation) -> list[Any]:
    done: dict[str, Any] = {"a x small x free": [], "a x small x available": []}
    return [message async for message in remote.evaluate("a", done)]
