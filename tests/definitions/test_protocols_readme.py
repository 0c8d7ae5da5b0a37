"""The example of protocols/README.md is loaded and rolled out as it is printed."""

import asyncio
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from medeval.evaluation.loader import load, shipped
from medeval.images.picture import prepare
from medeval.models.scripted import Script, ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import Trajectory

README = Path(__file__).parents[2] / "protocols" / "README.md"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    (tmp_path / "one_look.py").write_text(blocks[0], encoding="utf-8")
    return load(str(tmp_path / "one_look.py"), Pair).value


def trajectory(protocol: EvalProtocol, script: Script) -> Trajectory:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), "blue").save(buffer, "PNG")
    data = buffer.getvalue()
    sample = Sample(
        id="s",
        question="Which colour?",
        images=(ImageSource(name="blue", read=lambda: data),),
        targets=("blue",),
    )
    model = ScriptedModel(script)
    return asyncio.run(roll_out(sample, [prepare(data, name="blue")], protocol, model)).trajectory


def test_the_free_arm_of_the_example_answers(pair: Pair) -> None:
    ended = trajectory(pair.free, [r"So \boxed{blue}."])
    assert ended.messages[1].text == "Which colour?\nPut the final answer into \\boxed{}."
    assert ended.answer is not None
    assert (ended.answer.text, ended.answer.how_found) == ("blue", "boxed")


def test_the_available_arm_of_the_example_looks_once_in_percent(pair: Pair) -> None:
    call = '<tool_call>{"name": "look", "arguments": {"bbox_2d": [0, 50, 25, 100]}}</tool_call>'
    ended = trajectory(pair.available, [call, r"\boxed{blue}"])
    assert ended.messages[0].text.startswith(
        "You see an image. You may call a tool once.\n<tools>{"
    )
    assert ended.images[1].arguments["box_px"] == [0, 100, 100, 200]
    assert (ended.stop, ended.executed) == ("answered", 1)


def test_the_table_names_every_shipped_pair_and_its_arms() -> None:
    text = README.read_text("utf-8")
    for loaded in shipped(Pair):
        arms = ", ".join(f"`{arm.name}`" for arm in loaded.value.arms)
        assert f"| `{loaded.value.name}` | {arms} |" in text
