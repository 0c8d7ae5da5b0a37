"""The example of protocols/README.md works as it stands there: a tool from one function."""

import asyncio
import io
import re
from pathlib import Path

from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import prepare
from medeval.models.base import Reply
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import Pair
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import NativeCall

README = Path(__file__).parents[2] / "protocols/README.md"


def example() -> str:
    section = README.read_text(encoding="utf-8").partition("## A tool of your own")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_has_at_most_20_lines() -> None:
    assert len(example().splitlines()) <= 20


def test_the_example_s_tool_is_offered_called_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "faint.py"
    path.write_text(example(), encoding="utf-8")
    pair = load(str(path), Pair).value
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (118, 138, 128)).save(buffer, "PNG")
    data = buffer.getvalue()
    sample = Sample(
        id="faint",
        question="What is written?",
        images=(ImageSource(name="faint", read=lambda: data),),
        targets=("A",),
    )
    model = ScriptedModel(
        [
            Reply(
                text="",
                finish="tool_calls",
                native_calls=(
                    NativeCall(id="1", name="raise_contrast", arguments='{"factor": 3}'),
                    NativeCall(id="2", name="raise_contrast", arguments='{"factor": 9}'),
                ),
            ),
            "<answer>A</answer>",
        ]
    )
    done = asyncio.run(roll_out(sample, [prepare(data, name="faint")], pair.available, model))
    assert [schema.name for schema in model.requests[0].tools] == ["raise_contrast"]
    assert "to make faint text readable" in pair.available.tools_text
    assert [(call.status, call.error) for call in done.trajectory.calls] == [
        ("executed", None),
        ("rejected", "factor is a number from 1 to 5"),
    ]
    assert done.made[1].pixels().getpixel((0, 0)) == (98, 158, 128)
    assert done.trajectory.stop == "answered"
