from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from medeval.cli.demo import SERIES_DIRECTORY, shipped_checkpoints
from medeval.evaluation.loader import load
from medeval.models.weights import weight_fingerprint
from medeval.rollout.protocol import Pair
from recipes.demo_series.tokenizer import CHAT_TEMPLATE
from tests.recipes.controls import controls
from tests.tiny_checkpoints import marker

MAX_BYTES = 20_000_000


def test_the_shipped_series_is_ordinary_directories_of_twenty_megabytes_at_most() -> None:
    paths = shipped_checkpoints()
    assert paths[0].name == "global_step_0"
    assert 7 <= len(paths) <= 9
    assert len({weight_fingerprint(path) for path in paths}) == len(paths)
    files = [path for path in SERIES_DIRECTORY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert (SERIES_DIRECTORY / "README.md").is_file()


def test_the_template_loops_where_vllm_looks_for_it() -> None:
    # It looks for a loop over `messages` whose `content` goes to a macro that loops over its
    # parts, by these very names; where it finds none, it joins an image and a text with a line
    # break that training never showed.
    tree = jinja2.Environment().parse(CHAT_TEMPLATE)
    loops = [one for one in tree.find_all(nodes.For) if one.iter == nodes.Name("messages", "load")]
    content = nodes.Getattr(nodes.Name("message", "load"), "content", "load")
    calls = [call for loop in loops for call in loop.find_all(nodes.Call) if call.args == [content]]
    (macro,) = tree.find_all(nodes.Macro)
    assert calls[0].node == nodes.Name(macro.name, "load")
    (over_parts,) = macro.find_all(nodes.For)
    assert over_parts.iter == nodes.Name(macro.args[0].name, "load")
    for path in shipped_checkpoints():
        assert (path / "chat_template.jinja").read_text() == CHAT_TEMPLATE


@pytest.mark.parametrize("path", shipped_checkpoints(), ids=lambda path: path.name)
def test_a_shipped_checkpoint_loads_without_special_code(path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(path)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert len(tokenizer("[220, 530]")["input_ids"]) == 6


@pytest.mark.parametrize("path", shipped_checkpoints(), ids=lambda path: path.name)
def test_a_shipped_checkpoint_ends_its_reply_under_plain_generate(path: Path) -> None:
    model: Any = AutoModelForImageTextToText.from_pretrained(path)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    sample, picture = marker(3)
    image = AutoImageProcessor.from_pretrained(path)(images=[picture.pixels()], return_tensors="pt")
    system, user = load("crop_zoom", Pair).value.free.opening(sample)
    content = [{"type": "image"}, {"type": "text", "text": user.text}]
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": system.text}, {"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=False,
    ).replace("<|image_pad|>", 4 * "<|image_pad|>")
    prompt = tokenizer(text, return_tensors="pt")
    written = model.generate(**prompt, **image, max_new_tokens=200)[0, prompt.input_ids.shape[1] :]
    assert len(written) < 200
    assert written[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in written[:-1]


def test_the_last_checkpoint_answers_from_what_it_sees(trained_checkpoint: Path) -> None:
    small = [index for index in range(80) if marker(index)[0].groups["size"] == "small"]
    shares = controls(trained_checkpoint, small)
    assert shares.gold_crop > 0.9
    assert shares.other_crop > 0.8
    assert shares.other_crop_own_colour < 0.5
    assert shares.blank < 0.5
