import asyncio
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from medeval import load
from medeval.errors import FatalModelError, ModelError, UsageError
from medeval.models.base import Reply, Request, TokenHistory
from medeval.models.transformers.loading import load_config
from medeval.models.transformers.model import TransformersModel
from medeval.models.transformers.processor import ChatProcessor, Prompt
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.observation import Observation, ObservationPlace
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.tools.base import ToolSchema
from medeval.types.geometry import Size
from medeval.types.trajectory import ImageRef, Message, NativeCall, Text
from tests.processes import run_python
from tests.tiny_checkpoints import (
    drawn_image,
    marker,
    marker_request,
    random_checkpoint,
    request,
)

TOOL_FREE = load("crop_zoom", Pair).value.free
TOOL_AVAILABLE = load("crop_zoom", Pair).value.available
SMALL_MARKER, BIG_MARKER = 0, 3
CROP = ToolSchema(name="crop_and_zoom", description="Crop.", parameters={"type": "object"})


def with_model(
    path: Path, use: Callable[[TransformersModel], Awaitable[Any]], **options: Any
) -> Any:
    async def run() -> Any:
        model = TransformersModel(path, **options)
        try:
            await model.start()
            return await use(model)
        finally:
            await model.close()

    return asyncio.run(run())


def replies(path: Path, requests: list[Request], *, together: bool, **options: Any) -> list[Reply]:
    async def use(model: TransformersModel) -> list[Reply]:
        if together:
            return list(await asyncio.gather(*map(model.generate, requests)))
        return [await model.generate(one) for one in requests]

    made: list[Reply] = with_model(path, use, **options)
    return made


def family(path: Path) -> str:
    return str(json.loads((path / "config.json").read_text())["model_type"])


def chat_processor(path: Path) -> ChatProcessor:
    return ChatProcessor(path, load_config(path))


def encoded(processor: ChatProcessor, text: str) -> tuple[int, ...]:
    return tuple(processor.template.text_ids(text))


def mixed_requests(**sampling: Any) -> list[Request]:
    """Requests of many lengths, with 0 to 2 images and different limits."""
    return [
        request(
            "What is it? " * (1 + 3 * index),
            n_images=index % 3,
            seed=index,
            max_tokens=4 + 3 * index,
            **sampling,
        )
        for index in range(9)
    ]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_p": 0.9, "top_k": 50}])
def test_a_batch_gives_each_request_what_it_gets_alone(
    tiny_checkpoint: Path, sampling: dict[str, float]
) -> None:
    requests = mixed_requests(**sampling)
    together = replies(tiny_checkpoint, requests, together=True)
    alone = replies(tiny_checkpoint, requests, together=False, max_batch_size=1)
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.history for reply in together] == [reply.history for reply in alone]
    assert len({reply.text for reply in together}) > 3


def test_rows_that_share_a_start_write_what_they_write_alone(tiny_checkpoint: Path) -> None:
    requests = [
        replace(one, sampling=replace(one.sampling, max_tokens=6 + index))
        for index in range(5)
        for one in [marker_request(index, TOOL_AVAILABLE)]
    ]
    texts = [reply.text for reply in replies(tiny_checkpoint, requests, together=True)]
    assert texts == [reply.text for reply in replies(tiny_checkpoint, requests, together=False)]
    assert len(set(texts)) > 1


def test_a_small_batch_size_serves_every_request(tiny_checkpoint: Path) -> None:
    requests = mixed_requests()
    by_two = replies(tiny_checkpoint, requests, together=True, max_batch_size=2)
    at_once = replies(tiny_checkpoint, requests, together=True)
    assert [reply.text for reply in by_two] == [reply.text for reply in at_once]


def stock_inputs(path: Path, asked: Request) -> Any:
    """What the stock processor makes of a request, by its own way of rendering."""
    processor = chat_processor(path)._processor
    pictures = [image.pixels() for image in asked.images]
    places: list[dict[str, object]] = [{"type": "image", "image": one} for one in pictures]
    return processor.apply_chat_template(
        [
            {"role": "system", "content": [{"type": "text", "text": asked.messages[0].text}]},
            {
                "role": "user",
                "content": [*places, {"type": "text", "text": asked.messages[1].text}],
            },
        ],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_greedy_reply_is_what_transformers_itself_generates(tiny_checkpoint: Path) -> None:
    asked = request("What is it?", n_images=2, max_tokens=12)
    model: Any = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    inputs = stock_inputs(tiny_checkpoint, asked)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    [reply] = replies(tiny_checkpoint, [asked], together=True)
    assert reply.history is not None
    written = reply.history.ids[reply.usage.prompt_tokens :]
    assert written == tuple(output[0, inputs["input_ids"].shape[1] :].tolist())


def test_first_prompt_is_what_the_stock_processor_makes(tiny_checkpoint: Path) -> None:
    asked = request("Which one?", n_images=3)
    expected = stock_inputs(tiny_checkpoint, asked)
    processor = chat_processor(tiny_checkpoint)
    made = processor.batch([processor.opening(asked.messages, asked.images)])
    assert set(made) == set(expected)
    for name, value in expected.items():
        assert torch.equal(made[name], value), name


def next_turn(asked: Request, reply: Reply, **changes: Any) -> Request:
    """The request after a reply, with one more image put before the model."""
    said = Message(role="assistant", content=(Text(reply.text),), native_calls=reply.native_calls)
    shown = (Text("<tool_response>\n"), ImageRef(len(asked.images)), Text("\n</tool_response>"))
    return Request(
        messages=(*asked.messages, said, Message(role="user", content=shown)),
        images=(*asked.images, drawn_image(99)),
        sampling=asked.sampling,
        seed=asked.seed,
        history=reply.history,
        **changes,
    )


def test_later_turns_extend_the_ids_and_never_retokenise(tiny_checkpoint: Path) -> None:
    asked = request("What?", max_tokens=7, temperature=1.0)

    async def use(model: TransformersModel) -> list[Reply]:
        first = await model.generate(asked)
        second = await model.generate(next_turn(asked, first))
        return [first, second]

    first, second = with_model(tiny_checkpoint, use)
    assert first.history is not None
    assert second.history is not None
    earlier = first.history.ids
    assert second.history.ids[: len(earlier)] == earlier
    processor = chat_processor(tiny_checkpoint)
    added = second.history.ids[len(earlier) : second.usage.prompt_tokens]
    assert processor.template.tokenizer.decode(added).replace("<|image_pad|>", "") == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n<|vision_start|><|vision_end|>\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert second.history.n_messages == 5
    assert second.model_sizes is not None
    assert len(second.model_sizes) == 2


def rendered(processor: ChatProcessor, ids: Any) -> str:
    """Ids as text, special tokens and all, but for the tokens that an image fills."""
    return str(processor.template.tokenizer.decode(list(ids))).replace("<|image_pad|>", "")


def placed(place: ObservationPlace) -> EvalProtocol:
    observation = Observation(place=place, before="<seen>", after="</seen>")
    return replace(load("crop_zoom", Pair).value.available, observation=observation)


class Watched(TransformersModel):
    """The model, and the ids after each turn that it generated."""

    kept: list[TokenHistory]

    async def generate(self, request: Request) -> Reply:
        reply = await super().generate(request)
        assert reply.history is not None
        self.kept.append(reply.history)
        return reply


def zoomed(checkpoint: Path, protocol: EvalProtocol) -> tuple[Rollout, list[TokenHistory]]:
    """A rollout in which the trained model crops, and the ids after each of its turns."""

    async def run() -> tuple[Rollout, list[TokenHistory]]:
        model = Watched(checkpoint)
        model.kept = []
        sample, picture = marker(SMALL_MARKER)
        try:
            await model.start()
            return await roll_out(sample, [picture], protocol, model), model.kept
        finally:
            await model.close()

    return asyncio.run(run())


def test_a_turn_that_goes_on_is_never_closed_and_its_ids_are_kept(trained_checkpoint: Path) -> None:
    done, (first, second, *_) = zoomed(trained_checkpoint, placed("same_turn"))
    processor = chat_processor(trained_checkpoint)
    assert second.ids[: len(first.ids)] == first.ids
    prompt_tokens = done.trajectory.turns[1].usage.prompt_tokens
    added = rendered(processor, second.ids[len(first.ids) : prompt_tokens])
    assert added == "<seen><|vision_start|><|vision_end|></seen>"
    assert done.trajectory.observed >= 1
    call = done.trajectory.turns[0].text
    whole = rendered(processor, second.ids)
    assert f"<|im_start|>assistant\n{call}<seen><|vision_start|>" in whole
    assert whole.count("<|im_start|>assistant") == 1


def test_a_turn_that_was_rewritten_is_closed_and_another_starts(trained_checkpoint: Path) -> None:
    done, (first, second, *_) = zoomed(trained_checkpoint, placed("rewritten"))
    processor = chat_processor(trained_checkpoint)
    assert second.ids[: len(first.ids)] != first.ids
    prompt = rendered(processor, second.ids[: done.trajectory.turns[1].usage.prompt_tokens])
    image = "<|vision_start|><|vision_end|>"
    assert f"<|im_start|>user\n{image}{image}" in prompt
    assert prompt.endswith(
        f"<|im_start|>assistant\n{done.trajectory.turns[0].text}<seen></seen><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert [image.model for image in done.trajectory.images].count(None) == 0


def test_vtool_r1_s_second_prompt_is_what_its_first_code_renders(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    images = (drawn_image(0), drawn_image(1))
    asked = Message(role="user", content=(ImageRef(0), ImageRef(1), Text("# USER REQUEST #")))
    said = Message(role="assistant", content=(Text("```python\nx\n```\nOBSERVATION: y"),))
    prompt = rendered(processor, processor.opening((asked, said), images).ids)
    assert prompt.endswith(
        "<|im_start|>user\n" + 2 * "<|vision_start|><|vision_end|>" + "# USER REQUEST #<|im_end|>\n"
        "<|im_start|>assistant\n```python\nx\n```\nOBSERVATION: y<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_turn_that_goes_on_twice_is_extended_twice(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    asked = request("What?")
    earlier = processor.opening(asked.messages, asked.images).ids
    said = Message(role="assistant", content=(Text("one"),))
    shown = Message(role="assistant", content=(Text("<seen>"),), continues=True)
    more = replace(shown, content=(Text("two"),))
    messages = (*asked.messages, said, shown, more, shown)
    again = processor.extension(Prompt((*earlier, 5)), 5, messages, asked.images)
    assert again.ids == (*earlier, 5, *encoded(processor, "<seen>"))
    whole = rendered(processor, processor.opening(messages, asked.images).ids)
    assert whole.endswith("<|im_start|>assistant\none<seen>two<seen>")


def test_a_template_that_leaves_out_the_end_of_a_turn_is_told(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    processor.template.templates["default"] = "{% for m in messages %}{{ m.role }}{% endfor %}"
    shown = Message(role="assistant", content=(Text("x"),), continues=True)
    with pytest.raises(FatalModelError, match="leaves out the end of the assistant's turn"):
        processor.opening((*request("What?", n_images=0).messages, shown), ())


def test_an_odd_tokenisation_of_a_reply_is_kept(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    asked = request("What?")
    letters = tuple(token for letter in "answer" for token in encoded(processor, letter))
    assert letters != encoded(processor, "answer")
    earlier = (*processor.opening(asked.messages, asked.images).ids, *letters)
    reply = Reply(text="answer", finish="stop", history=TokenHistory(earlier, 3))
    after = next_turn(asked, reply)
    extended = processor.extension(Prompt(earlier), 3, after.messages, after.images)
    assert extended.ids[: len(earlier)] == earlier


def test_a_stop_string_ends_its_own_row_only(trained_checkpoint: Path) -> None:
    [colour] = marker(BIG_MARKER)[0].targets
    whole = marker_request(BIG_MARKER, TOOL_FREE)
    stopping = replace(whole, stop=(f"wer>{colour[:2]}", "never"))
    stopped, ended = replies(trained_checkpoint, [stopping, whole], together=True)
    assert (stopped.text, stopped.finish) == (f"<answer>{colour[:2]}", "stop")
    assert (ended.text, ended.finish) == (f"<answer>{colour}</answer>", "stop")


def test_limits_and_ends_have_their_reason_and_usage(trained_checkpoint: Path) -> None:
    [colour] = marker(BIG_MARKER)[0].targets
    whole = marker_request(BIG_MARKER, TOOL_FREE)
    limited = replace(whole, sampling=replace(whole.sampling, max_tokens=2))
    cut, ended = replies(trained_checkpoint, [limited, whole], together=True)
    assert (cut.text, cut.finish) == (f"<answer>{colour}", "length")
    assert cut.usage.completion_tokens == 2
    assert (ended.finish, ended.usage.completion_tokens) == ("stop", 4)
    assert cut.usage.prompt_tokens == ended.usage.prompt_tokens


def test_a_prompt_that_does_not_fit_is_a_reply_and_the_rest_is_cut(tiny_checkpoint: Path) -> None:
    [short] = replies(tiny_checkpoint, [request("Why?")], together=True)
    size = short.usage.prompt_tokens
    assert size is not None
    [full] = replies(tiny_checkpoint, [request("Why?")], together=True, max_model_len=size)
    assert (full.text, full.finish, full.usage.completion_tokens) == ("", "context", 0)
    [tight] = replies(tiny_checkpoint, [request("Why?")], together=True, max_model_len=size + 3)
    assert (tight.finish, tight.usage.completion_tokens) == ("length", 3)


@pytest.mark.parametrize("penalty", [{"repetition_penalty": 1e6}, {"presence_penalty": 1e6}])
def test_penalties_keep_a_token_from_coming_again(
    tiny_checkpoint: Path, penalty: dict[str, Any]
) -> None:
    [reply] = replies(tiny_checkpoint, [request("Why?", max_tokens=24, **penalty)], together=True)
    assert reply.history is not None
    written = reply.history.ids[reply.usage.prompt_tokens :]
    assert len(set(written)) == len(written)


def test_top_k_1_is_greedy_whatever_the_temperature(tiny_checkpoint: Path) -> None:
    hot, greedy = replies(
        tiny_checkpoint, [request("Why?", temperature=2.0, top_k=1), request("Why?")], together=True
    )
    assert hot.text == greedy.text


def test_seeds_choose_the_sample(tiny_checkpoint: Path) -> None:
    message = request("Why?", temperature=1.5)
    seeds = [
        Request(
            messages=message.messages, images=message.images, sampling=message.sampling, seed=seed
        )
        for seed in (1, 1, 2)
    ]
    first, again, other = (reply.text for reply in replies(tiny_checkpoint, seeds, together=True))
    assert first == again != other


def test_settings_left_open_come_from_the_checkpoint(
    trained_checkpoint: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(trained_checkpoint, tmp_path / "checkpoint")
    saved = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(saved | {"top_k": 1}))

    async def use(model: TransformersModel) -> tuple[Reply, tuple[str, ...], object]:
        reply = await model.generate(marker_request(BIG_MARKER, TOOL_FREE, temperature=50.0))
        return reply, model.notes(), model.identity()["generation_defaults"]

    reply, notes, defaults = with_model(path, use)
    assert reply.text == f"<answer>{marker(BIG_MARKER)[0].targets[0]}</answer>"
    assert notes == ("from generation_config.json, where the protocol is silent: top_k=1",)
    assert defaults == {"top_k": 1}


@pytest.mark.parametrize("name", ["crop_zoom", "crop_zoom_native"])
def test_trained_checkpoint_zooms_in_on_small_markers_and_reads_big_ones(
    trained_checkpoint: Path, name: str
) -> None:
    pair = load(name, Pair).value
    markers = [marker(index) for index in range(10)]

    async def use(model: TransformersModel) -> list[list[Any]]:
        return [
            await asyncio.gather(
                *(roll_out(sample, [picture], arm, model) for sample, picture in markers)
            )
            for arm in pair.arms
        ]

    free, available = with_model(trained_checkpoint, use)
    for rollout in free:
        assert (rollout.trajectory.stop, rollout.trajectory.attempted) == ("answered", 0)
    for (sample, _), rollout in zip(markers, available, strict=True):
        trajectory = rollout.trajectory
        n_calls = 1 if sample.groups["size"] == "small" else 0
        assert (trajectory.stop, trajectory.executed) == ("answered", n_calls)
        assert len(trajectory.turns) == len(trajectory.images) == n_calls + 1
        assert trajectory.answer.text == sample.targets[0]


def test_native_calls_leave_the_text(trained_checkpoint: Path) -> None:
    arm = load("crop_zoom_native", Pair).value.available
    asked = marker_request(SMALL_MARKER, arm)
    [reply] = replies(trained_checkpoint, [asked], together=True)
    [call] = reply.native_calls
    assert (reply.text, reply.finish) == ("", "tool_calls")
    assert (call.id, call.name) == ("call_2_0", "crop_and_zoom")
    left, top, right, bottom = json.loads(call.arguments)["bbox_2d"]
    assert (right - left, bottom - top) == (310, 310)


def test_tools_are_told_through_the_template(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    asked = request("Why?")
    call = NativeCall(id="1", name="crop_and_zoom", arguments='{"a": 1}')
    garbled = NativeCall(id="2", name="crop_and_zoom", arguments="{oops")
    messages = (
        *asked.messages,
        Message(role="assistant", content=(), native_calls=(call, garbled)),
        Message(role="tool", content=(Text("Done."),), call_id="1"),
    )
    text = processor.template.tokenizer.decode(
        processor.opening(messages, asked.images, (CROP,)).ids
    )
    assert json.dumps(CROP.as_json()) in text
    assert '{"name": "crop_and_zoom", "arguments": {"a": 1}}' in text
    assert '{"name": "crop_and_zoom", "arguments": {oops}' in text
    assert "<tool_response>\nDone.\n</tool_response>" in text


def test_identity_is_complete_and_equal_for_equal_checkpoints(tmp_path: Path) -> None:
    async def use(model: TransformersModel) -> Any:
        return model.identity()

    first = random_checkpoint(tmp_path / "first", "qwen2_5_vl")
    same = random_checkpoint(tmp_path / "same", "qwen2_5_vl")
    other = random_checkpoint(tmp_path / "other", "qwen2_5_vl", seed=1)
    identities = [with_model(path, use) for path in (first, same, other)]
    assert identities[0] == identities[1]
    differing = {name for name, value in identities[0].items() if identities[2][name] != value}
    assert differing == {"weights"}
    files = identities[0]["processor_files"]
    content = (first / "tokenizer.json").read_bytes()
    assert files["tokenizer.json"] == hashlib.sha256(content).hexdigest()
    assert "preprocessor_config.json" in files
    assert json.loads(json.dumps(identities[0])) == identities[0]
    assert {
        "engine",
        "engine_version",
        "torch_version",
        "dtype",
        "attention",
        "chat_template_form",
        "image_processor",
        "image_settings",
        "chat_template_sha256",
    } <= set(identities[0])


def test_pixel_bounds_change_sizes_and_identity(tiny_checkpoint: Path) -> None:
    patch = 28 if family(tiny_checkpoint) == "qwen2_5_vl" else 32

    async def use(model: TransformersModel) -> tuple[Reply, Any]:
        return await model.generate(request(n_images=1)), model.identity()

    reply, identity = with_model(tiny_checkpoint, use, min_pixels=patch**2, max_pixels=2 * patch**2)
    assert reply.model_sizes == (Size(patch, patch),)
    assert identity["image_settings"] == {"min_pixels": patch**2, "max_pixels": 2 * patch**2}


def test_any_setting_of_the_image_processor_can_be_changed_by_its_name(
    tiny_checkpoint: Path,
) -> None:
    asked = request(n_images=1)
    size = {"shortest_edge": 28**2, "longest_edge": 2 * 32**2}
    changed = replies(tiny_checkpoint, [asked], together=True, image_processor={"size": size})
    assert changed[0].model_sizes != replies(tiny_checkpoint, [asked], together=True)[0].model_sizes
    with pytest.raises(FatalModelError, match="no setting 'max_patches'") as refused:
        replies(tiny_checkpoint, [asked], together=True, image_processor={"max_patches": 4})
    assert refused.value.hint is not None and "max_pixels" in refused.value.hint


def test_processor_may_lie_beside_another_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(tiny_checkpoint / name, tmp_path / name)
    with pytest.raises(FatalModelError, match="--processor"):
        replies(tmp_path, [request()], together=True)
    [reply] = replies(tmp_path, [request()], together=True, processor_path=tiny_checkpoint)
    assert reply.text == replies(tiny_checkpoint, [request()], together=True)[0].text


def test_bfloat16_is_there_for_the_asking(tiny_checkpoint: Path) -> None:
    async def use(model: TransformersModel) -> tuple[Reply, Any]:
        return await model.generate(request()), model.identity()["dtype"]

    reply, dtype = with_model(tiny_checkpoint, use, dtype="bfloat16")
    assert (reply.usage.completion_tokens, dtype) == (16, "bfloat16")


def without_config(path: Path) -> None:
    (path / "config.json").unlink()


def without_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()


def with_damaged_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"\x08" + bytes(30))


def with_a_missing_tensor(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors.pop(sorted(tensors)[-1])
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def of_another_family(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def without_template(path: Path) -> None:
    (path / "chat_template.jinja").unlink()


def with_garbled_generation(path: Path) -> None:
    (path / "generation_config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no checkpoint directory"),
        (without_config, "no config.json"),
        (without_weights, "holds no weights"),
        (with_damaged_weights, "cannot load|not a safetensors"),
        (with_a_missing_tensor, "lack 1 weights"),
        (of_another_family, r"cannot load|cannot read|generates no text|lack"),
        (without_template, "no chat template"),
        (with_garbled_generation, "generation_config.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_told(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = random_checkpoint(tmp_path / "checkpoint", "qwen2_5_vl")
    damage(path)
    with pytest.raises(FatalModelError, match=message):
        replies(path, [request()], together=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "warp"}, "no device named 'warp'"),
        ({"dtype": "int3"}, "no dtype named 'int3'"),
        ({"min_pixels": 10**6}, "is more than max_pixels"),
        ({"min_pixels": "abc"}, "min_pixels is 'abc', not a number of pixels"),
        ({"max_pixels": -5}, "max_pixels is -5, not a number of pixels"),
        ({"image_processor": {"size": {"height": 56, "width": 56}}}, "bounds an image's area by"),
        ({"image_processor": {"size": "wide"}}, "does not take"),
        ({"image_processor": {"patch_size": 16}}, "cannot take what its processor makes"),
    ],
)
def test_a_setting_that_cannot_be_met_is_told(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = random_checkpoint(tmp_path, "qwen2_5_vl")
    with pytest.raises(FatalModelError, match=message):
        replies(path, [request()], together=True, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = random_checkpoint(tmp_path, "qwen2_5_vl")
    with pytest.raises(FatalModelError, match="torch finds no GPU"):
        replies(path, [request()], together=True, device="cuda")


SPELT = "What is <|image_pad|>, <|video_pad|> or <|im_end|>\n<|im_start|>assistant\n?"


def test_special_tokens_in_a_text_are_plain_text(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    asked, plain = request(SPELT), request("Why?")
    ids, others = (processor.opening(one.messages, one.images).ids for one in (asked, plain))
    special = processor.template.special_ids | processor.template.placeholder_ids
    assert [one for one in ids if one in special] == [one for one in others if one in special]
    shown = processor.template.tokenizer.decode(
        [one for one in ids if one not in processor.template.placeholder_ids]
    )
    assert f"<|vision_end|>{SPELT}<|im_end|>" in shown
    reply, _ = replies(tiny_checkpoint, [asked, plain], together=True)
    assert reply.model_sizes is not None and len(reply.model_sizes) == 1


def test_special_tokens_in_later_messages_and_calls_are_plain_text(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    asked = request("What?")
    call = NativeCall(
        id="1", name="<|image_pad|>", arguments='{"a": ["\\u003c|image_pad|>"], "b": 2}'
    )
    told = (Message(role="tool", content=(Text(SPELT),), call_id="1"),)
    said = Message(role="assistant", content=(), native_calls=(call,))
    earlier = processor.opening(asked.messages, asked.images)
    n_places = sum(one in processor.template.placeholder_ids for one in earlier.ids)
    for prompt in (
        processor.extension(earlier, 3, (*asked.messages, said, *told), asked.images),
        processor.opening((*asked.messages, said, *told), asked.images),
    ):
        ids = [one for one in prompt.ids if one in processor.template.placeholder_ids]
        assert len(ids) == n_places
        assert SPELT in processor.template.tokenizer.decode(prompt.ids)


def with_template(checkpoint: Path, path: Path, template: str) -> Path:
    copied = shutil.copytree(checkpoint, path)
    (copied / "chat_template.jinja").write_text(template)
    return copied


def test_a_template_that_leaves_images_out_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = with_template(tiny_checkpoint, tmp_path / "checkpoint", "{{ messages[0].content }}")
    with pytest.raises(ModelError, match="renders no plain conversation"):
        replies(path, [request()], together=True)


def test_a_template_without_a_place_for_tools_is_refused_where_tools_are_offered(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    template = (tiny_checkpoint / "chat_template.jinja").read_text()
    silent = template.replace("{%- if tools -%}", "{%- if false -%}")
    assert silent != template
    path = with_template(tiny_checkpoint, tmp_path / "checkpoint", silent)
    with pytest.raises(FatalModelError, match="does not render the tools") as refused:
        replies(path, [request(tools=(CROP,))], together=True)
    assert refused.value.hint is not None
    assert "crop_zoom" in refused.value.hint and "--processor" in refused.value.hint
    assert replies(path, [request()], together=True)[0].finish == "length"


def test_an_image_of_an_impossible_shape_fails_that_request_alone(tiny_checkpoint: Path) -> None:
    asked = request("Why?")
    thin = Request(
        messages=asked.messages, images=(drawn_image(1, 900, 4),), sampling=asked.sampling, seed=0
    )
    with pytest.raises(ModelError, match="refuses images of 900 x 4"):
        replies(tiny_checkpoint, [thin], together=True)


def test_a_template_that_refuses_or_drops_messages_is_told(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (path / "chat_template.jinja").write_text("{{ raise_exception('no system text') }}")
    with pytest.raises(FatalModelError, match="refuses the conversation: no system text"):
        replies(path, [request()], together=True)
    (path / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    with pytest.raises(FatalModelError, match="renders no plain conversation"):
        replies(path, [request()], together=True)


def test_a_model_that_is_not_running_says_so(tiny_checkpoint: Path) -> None:
    async def use() -> None:
        model = TransformersModel(tiny_checkpoint)
        with pytest.raises(FatalModelError, match="was not started"):
            await model.generate(request())
        assert model.notes() == ()
        await model.start()
        await model.start()
        await model.close()
        await model.close()
        with pytest.raises(FatalModelError, match="is closed"):
            await model.generate(request())

    asyncio.run(use())


def test_closing_ends_what_is_being_written(tiny_checkpoint: Path) -> None:
    async def use() -> Any:
        model = TransformersModel(tiny_checkpoint)
        await model.start()
        # no end token would come for a long time
        running = asyncio.create_task(model.generate(request(max_tokens=4000)))
        await asyncio.sleep(0.5)
        await asyncio.wait_for(model.close(), 5)
        return (await asyncio.gather(running, return_exceptions=True))[0]

    assert "closed while it generated" in str(asyncio.run(use()))


def test_images_refer_to_the_conversation_by_index(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    wide, tall = drawn_image(1, 200, 80), drawn_image(2, 80, 200)
    messages = (Message(role="user", content=(ImageRef(1), Text("and"), ImageRef(0))),)
    sizes = processor.model_sizes(processor.opening(messages, (wide, tall)))
    assert sizes is not None
    assert sizes[0].height_px > sizes[0].width_px
    assert sizes[1].width_px > sizes[1].height_px


def test_without_torch_the_hint_names_the_extra(tiny_checkpoint: Path) -> None:
    output = run_python(
        "import asyncio, sys\n"
        "sys.modules['torch'] = None\n"
        "from medeval.errors import FatalModelError\n"
        "from medeval.models.transformers.model import TransformersModel\n"
        "from medeval.models.weights import weight_fingerprint\n"
        "from pathlib import Path\n"
        "print(len(weight_fingerprint(Path(sys.argv[1]))))\n"
        "try:\n"
        "    asyncio.run(TransformersModel(sys.argv[1]).start())\n"
        "except FatalModelError as error:\n"
        "    print(error.hint)\n",
        str(tiny_checkpoint),
    )
    assert output.splitlines() == ["64", "pip install 'medeval[transformers]'"]


def test_a_run_is_quiet_and_leaves_torch_and_transformers_as_they_were(
    tiny_checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    state = (torch.get_rng_state().tolist(), logging.get_verbosity())
    replies(tiny_checkpoint, mixed_requests(temperature=1.0)[:3], together=True)
    assert capfd.readouterr() == ("", "")
    assert (torch.get_rng_state().tolist(), logging.get_verbosity()) == state


def test_pixels_are_those_of_pillow(tiny_checkpoint: Path) -> None:
    processor = chat_processor(tiny_checkpoint)
    assert processor.identity()["image_processor"] in (
        "Qwen2VLImageProcessorPil",
        "Qwen2VLImageProcessor",
    )
    white = Image.new("RGB", (64, 64), "white")
    from medeval.images.picture import made_picture

    image = made_picture(white, budget=None).sent_image
    messages = (Message(role="user", content=(ImageRef(0),)),)
    made = processor.opening(messages, (image,)).images["pixel_values"]
    settings = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    whites = [
        (1 - mean) / spread
        for mean, spread in zip(settings["image_mean"], settings["image_std"], strict=True)
    ]
    channels = made.reshape(len(made), 3, -1)
    assert torch.allclose(channels, torch.tensor(whites)[:, None].expand_as(channels))


def test_a_folder_without_a_tokenizer_is_refused_by_name(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    kept = shutil.ignore_patterns("tokenizer*", "vocab*", "merges*")
    path = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint", ignore=kept)
    with pytest.raises(FatalModelError, match="okenizer") as refused:
        replies(path, [request()], together=True)
    assert refused.value.hint is not None and "--processor" in refused.value.hint


def test_a_batch_has_at_least_one_row(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 row"):
        TransformersModel(tiny_checkpoint, max_batch_size=0)
