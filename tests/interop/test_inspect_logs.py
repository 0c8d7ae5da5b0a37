import importlib.util
import io
from pathlib import Path

import pytest
from PIL import Image

from medeval.errors import UsageError
from medeval.images.request_image import pixels_sha256
from medeval.interop.inspect_logs import export_inspect
from tests.interop import runs
from tests.interop.runs import Cells, Reply, write_run
from tests.small_benchmark import png

IS_INSTALLED = importlib.util.find_spec("inspect_ai") is not None
needs_inspect = pytest.mark.skipif(
    not IS_INSTALLED, reason="Inspect AI is not installed: pip install 'medeval[inspect]'"
)


@pytest.mark.skipif(IS_INSTALLED, reason="Inspect AI is installed")
def test_without_inspect_the_extra_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {("m", None, "vstar"): ([Reply()], [Reply()])})
    with pytest.raises(UsageError, match=r"medeval\[inspect\]"):
        export_inspect(folder, tmp_path)


@needs_inspect
def test_inspect_reads_the_logs_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    data = png()
    monkeypatch.setattr(runs, "CROP_PIXELS_SHA256", pixels_sha256(Image.open(io.BytesIO(data))))
    wrong = Reply(is_correct=False, calls=("executed",))
    undecided = Reply(is_correct=None, stop="length")
    cells: Cells = {("crop/rl", 10, "vstar"): ([Reply(), undecided], [wrong, Reply()])}
    folder = write_run(tmp_path / "run", cells)
    folder.keep_image(runs.CROP_PIXELS_SHA256, "image/png", data)
    files = export_inspect(folder, tmp_path / "out")
    assert len(list_eval_logs(str(tmp_path / "out"))) == 2
    available, free = (read_eval_log(str(path), resolve_attachments=True) for path in files)
    assert (free.status, free.eval.task, free.eval.model) == ("success", "vstar_free", "crop/rl/10")
    assert [sample.id for sample in free.samples or []] == ["s0", "s1"]
    assert free.samples is not None
    first, second = free.samples
    assert first.scores[runs.JUDGE].value == "C"
    assert second.scores == {}
    assert second.output.stop_reason == "max_tokens"
    assert available.samples[0].scores[runs.JUDGE].value == "I"
    assert available.results.scores[0].metrics["accuracy"].value == 0.5
    assert free.results.scores[0].unscored_samples == 1
    system, user, assistant, tool, _ = available.samples[0].messages
    assert system.text == "Answer."
    assert "[image 0, sha256 cdcd" in user.text
    assert assistant.tool_calls[0].function == "crop"
    assert assistant.content[0].reasoning == "Hm."
    assert tool.content[0].image.startswith("data:image/png;base64,")


@needs_inspect
def test_a_cell_in_which_nothing_is_decided_has_no_metric(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    undecided = Reply(is_correct=None)
    folder = write_run(tmp_path / "run", {("m", None, "vstar"): ([undecided], [undecided])})
    log = read_eval_log(str(export_inspect(folder, tmp_path)[0]))
    assert log.results.scores[0].metrics == {}
