"""A known mixture of calls over real tables, through `medeval run` and back from its folder."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from medeval.analysis.report import analyze
from medeval.images.picture import Picture, prepare
from medeval.store.run_folder import RunFolder
from medeval.tools import remake
from medeval.types.trajectory import Trajectory
from tests.medeval_processes import MedevalMain, Serve
from tests.rollout.tool_mixture import (
    TABLES,
    Script,
    Table,
    native5_script,
    played,
    player,
    read_tables,
    vtool_script,
    write_tables,
)
from tests.stub_server import StubServer

N = 24

pytestmark = pytest.mark.skipif(
    not TABLES.is_dir(), reason="needs the tables in ../shared/data/tablevqa_rendered"
)


def ran(
    folder: Path,
    pair: str,
    tables: Sequence[Table],
    scripts: Sequence[Script],
    medeval_main: MedevalMain,
    serve: Serve,
) -> dict[str, list[Trajectory]]:
    """The trajectories of each arm, by its protocol, in the order of the samples."""

    def is_offered(prompt: str) -> bool:
        return "<tools>" in prompt or "def focus_on_" in prompt

    server = serve(StubServer(respond=player(tables, scripts, is_offered), keep=False))
    code = medeval_main(
        *("run", "--model", "stub", "--base-url", server.base_url),
        *("--benchmarks", write_tables(folder, tables), "--pairs", pair),
        *("--output-dir", folder / "run"),
    )
    assert code == 0
    kept = RunFolder.open(folder / "run")
    return {
        key.protocol: sorted(kept.cell(key).trajectories(), key=lambda each: each.sample_id)
        for key in kept.cells()
    }


def remade(trajectory: Trajectory, original: Picture) -> list[str]:
    """The hashes of a conversation's images, each made again from its parent by its recipe."""
    pictures = [original]
    for image in trajectory.images[1:]:
        assert image.operation is not None and image.parent is not None
        pictures.append(remake(image.operation, image.arguments, pictures[image.parent]))
    return [picture.sent_image.sha256 for picture in pictures]


def shows(trajectory: Trajectory, table: Table) -> bool:
    """Whether the first image that a call made shows the whole row in question."""
    image = trajectory.images[1]
    left, top = image.to_root.apply(0, 0)
    right, bottom = image.to_root.apply(image.sent.width_px, image.sent.height_px)
    width, height = trajectory.images[0].raw.width_px, trajectory.images[0].raw.height_px
    x1, y1, x2, y2 = table.target
    return (
        left <= x1 * width and top <= y1 * height and x2 * width <= right and y2 * height <= bottom
    )


@pytest.mark.parametrize(
    ("pair", "free", "available", "script"),
    [
        ("native5", "native5_free", "native5_tools", native5_script),
        ("vtool_r1", "vtool_r1_free", "vtool_r1_focus", vtool_script),
    ],
)
def test_a_run_records_exactly_the_mixture_that_was_played(
    pair: str,
    free: str,
    available: str,
    script: Callable[[int, Table], Script],
    tmp_path: Path,
    medeval_main: MedevalMain,
    serve: Serve,
) -> None:
    tables = read_tables(N)
    scripts = [script(number, table) for number, table in enumerate(tables)]
    arms = ran(tmp_path, pair, tables, scripts, medeval_main, serve)
    assert all(each.calls == () and each.stop == "answered" for each in arms[free])
    assert len(arms[free]) == len(arms[available]) == N
    recorded = Counter(
        (call.name, str(call.status)) for each in arms[available] for call in each.calls
    )
    assert recorded == played(scripts)
    tools = analyze(tmp_path / "run", resamples=20).process["process_tools"]
    assert {
        row["tool"]: (row["calls"], round(row["calls"] * row["executed"], 9))
        for row in tools.to_dict(orient="records")
    } == {
        name or "(unreadable)": (
            sum(count for (other, _), count in recorded.items() if other == name),
            recorded[name, "executed"],
        )
        for name, _ in recorded
    }
    for table, played_here, trajectory in zip(tables, scripts, arms[available], strict=True):
        assert [(call.name, call.status) for call in trajectory.calls] == list(played_here.calls)
        assert trajectory.answer is not None
        assert (trajectory.answer.text == "yes") == played_here.is_right
        if pair == "native5" and len(played_here.calls) == 1 and trajectory.executed:
            assert shows(trajectory, table) == (int(trajectory.sample_id[1:]) % 8 == 0)
        original = prepare((TABLES / table.image).read_bytes(), name=table.image)
        assert remade(trajectory, original) == [image.identity for image in trajectory.images]
