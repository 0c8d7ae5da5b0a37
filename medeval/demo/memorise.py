"""Teach a tiny checkpoint a transcript by heart, whatever the image and the question.

What comes out looks at nothing: it writes the same call and the same answer for every sample. It
exists so that the loop of calls and observations runs on real engines. Trained on a CPU in about
a minute, on the prompts that the evaluation itself makes.
"""

import json
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from medeval.definitions import EvalProtocol, Observed
from medeval.errors import MedevalError
from medeval.images import made_picture
from medeval.models.loading import load_model
from medeval.models.processor import ChatProcessor, ImageInput
from medeval.models.quiet import quiet
from medeval.models.weights import read_configuration
from medeval.types import (
    EncodedImage,
    ImageSource,
    JsonValue,
    Message,
    Sample,
    Text,
)

N_TRAINING_IMAGES: Final = 96
N_HELD_OUT: Final = 24
BATCH_SIZE: Final = 8
GROUP_SIZE: Final = 2
LEARNING_RATE: Final = 3e-3
WARM_UP_STEPS: Final = 10
# Short of this, a differently rounded image or another engine's arithmetic may tip a token.
SURE: Final = 0.8
SUBJECTS: Final = (
    "which year", "what colour", "how many", "what percentage of people", "which country",
    "what is the sum of the values", "what is the difference between the largest and the smallest",
    "is the sign on the left", "who is", "where is the smallest number", "by how much",
)  # fmt: skip
RESTS: Final = (
    "in the chart", "recorded the lowest use of pesticides by the United Kingdom", "in 2004",
    "of the population that lives in cities", "shown in the figure", "above the red line",
    "between Men and Women in the age of 16-24", "of the marker", "next to the door", "as of Q3",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What is learned by heart: the replies under one protocol, an image observed between two."""

    protocol: EvalProtocol
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """A whole conversation; `targets` are the positions of ids that the model must write."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    images: tuple[ImageInput, ...]


def memorise(
    directory: Path,
    transcripts: Sequence[Transcript],
    *,
    steps: int,
    seed: int,
    snapshots: Mapping[int, Path] | None = None,
    further_rounds: int = 2,
) -> Path:
    """Train the checkpoint in `directory` until it has the transcripts by heart, and save it.

    `snapshots` maps a number of steps to a copy of the directory that gets the weights of that
    moment. Uses one thread. Where `steps` did not suffice, as many are added for each of
    `further_rounds`. Raises MedevalError where another text is still likely for an image and
    a question that were not trained on.
    """
    model_type = str(read_configuration(directory)["model_type"])
    with _one_thread(), quiet():
        processor = ChatProcessor(directory, model_type)
        model = load_model(
            directory, dtype="float32", device="cpu", attention=None, trust_remote_code=False
        ).model
        chance = random.Random(seed)
        pool = [_random_image(chance) for _ in range(N_TRAINING_IMAGES)]
        for step in _train(model, processor, transcripts, pool, steps, chance):
            if step in (snapshots or {}):
                _save(model, (snapshots or {})[step])
        _save(model, directory)
        unsure = _unsure_share(directory, processor, transcripts, chance)
        for _ in range(further_rounds if unsure else 0):
            for _ in _train(model, processor, transcripts, pool, steps, chance):
                pass
            _save(model, directory)
            unsure = _unsure_share(directory, processor, transcripts, chance)
            if not unsure:
                break
    if unsure:
        raise MedevalError(
            f"the checkpoint in {str(directory)!r} has not learned its transcripts: "
            f"{unsure:.1%} of the tokens are not sure on unseen samples",
            hint="train for more steps",
        )
    return directory


def _train(
    model: Any,
    processor: ChatProcessor,
    transcripts: Sequence[Transcript],
    pool: Sequence[EncodedImage],
    steps: int,
    chance: random.Random,
) -> Iterator[int]:
    """Yield the number of steps made, after each. The vision tower stays as it is."""
    model.train()
    model.model.visual.requires_grad_(requires_grad=False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(1, steps + 1):
        rate = LEARNING_RATE * min(1.0, step / WARM_UP_STEPS, 1.1 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        examples = [
            _example(processor, transcripts[index % len(transcripts)], pool, chance)
            for index in range(BATCH_SIZE)
        ]
        n_targets = sum(len(example.targets) for example in examples)
        optimiser.zero_grad()
        for alike in _of_one_length(examples):
            logits, wanted = _predict(model, processor, alike)
            loss = functional.cross_entropy(logits, wanted, reduction="sum") / n_targets
            torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        yield step


def _of_one_length(examples: Sequence[_Example]) -> list[list[_Example]]:
    """The examples in groups that differ little in length: padding costs as much as text."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    return [ordered[start : start + GROUP_SIZE] for start in range(0, len(ordered), GROUP_SIZE)]


def _predict(
    model: Any, processor: ChatProcessor, examples: Sequence[_Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits before every target of the examples, (targets, vocabulary), and the targets."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), processor.pad_id)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
    images = [image for example in examples for image in example.images]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=(ids == processor.image_id).int(),
        pixel_values=torch.cat([image.patches for image in images]),
        image_grid_thw=torch.tensor([image.grid for image in images]),
    ).logits
    rows = [row for row, example in enumerate(examples) for _ in example.targets]
    places = [place for example in examples for place in example.targets]
    return output[rows, [place - 1 for place in places]], ids[rows, places]


def _example(
    processor: ChatProcessor,
    transcript: Transcript,
    pool: Sequence[EncodedImage],
    chance: random.Random,
) -> _Example:
    """A conversation as the evaluation would hold it, about a random image and question."""
    protocol = transcript.protocol
    native = protocol.call_syntax == "openai"
    tools = [tool.schema for tool in protocol.tools] if native else []
    images = [chance.choice(pool) for _ in transcript.replies]
    messages = list(protocol.opening(_sample(processor, chance)))
    prompt = processor.opening(messages, images, tools)
    ids: list[int] = list(prompt.ids)
    targets: list[int] = []
    n_said = 0
    for turn, text in enumerate(transcript.replies):
        if turn:
            prompt = processor.extension(ids, n_said, messages, images, tools)
            ids = list(prompt.ids)
        reply = processor.encode(text)
        # the token that ends the turn is learned as well; it comes with the next prompt
        targets.extend(range(len(ids), len(ids) + len(reply) + 1))
        ids.extend(reply)
        n_said = len(messages) + 1
        messages.extend(_reply_and_observation(protocol, text, turn))
    return _Example((*ids, int(processor.end_id or 0)), tuple(targets), prompt.images)


def _reply_and_observation(protocol: EvalProtocol, text: str, turn: int) -> tuple[Message, ...]:
    call_id = f"call_{turn}" if protocol.call_syntax == "openai" else None
    reply = Message(role="assistant", content=(Text(text),))
    return (reply, *protocol.observe([Observed(native_id=call_id, image=turn + 1)]))


def _unsure_share(
    directory: Path,
    processor: ChatProcessor,
    transcripts: Sequence[Transcript],
    chance: random.Random,
) -> float:
    """The share of the transcripts' tokens that might come out otherwise, on unseen samples.

    Reads the saved weights. Greedy decoding writes a transcript exactly where, after each of its
    tokens, the next one is the likeliest; here it must have a probability over `SURE`.
    """
    model = load_model(
        directory, dtype="float32", device="cpu", attention=None, trust_remote_code=False
    ).model
    pool = [_random_image(chance) for _ in range(N_HELD_OUT)]
    sure = wanted = 0
    for transcript in transcripts:
        for _ in range(N_HELD_OUT // BATCH_SIZE):
            examples = [_example(processor, transcript, pool, chance) for _ in range(BATCH_SIZE)]
            with torch.inference_mode():
                logits, targets = _predict(model, processor, examples)
            shares = logits.softmax(-1).gather(1, targets[:, None])
            sure += int((shares > SURE).sum())
            wanted += len(targets)
    return 1 - sure / wanted


def _sample(processor: ChatProcessor, chance: random.Random) -> Sample:
    question = _random_question(processor, chance)
    options = tuple(_word(chance) for _ in range(chance.choice((0, 0, 4))))
    instruction = chance.choice(("", "Answer with one word.", "Answer with the option's letter."))
    image = ImageSource(name="drawn for training", read=bytes)
    return Sample(
        id="training",
        question=question,
        images=(image,),
        targets=(),
        options=options,
        instruction=instruction,
    )


def _random_question(processor: ChatProcessor, chance: random.Random) -> str:
    """A question of 1 to 40 words: phrases, letters at random, or tokens at random."""
    kind = chance.choice(("phrases", "words", "tokens"))
    if kind == "tokens":
        return processor.random_text(chance, chance.randint(4, 60))
    if kind == "phrases":
        phrases = [chance.choice(SUBJECTS), *chance.choices(RESTS, k=chance.randint(1, 4))]
        return " ".join(phrases).capitalize() + "?"
    words = [_word(chance) for _ in range(chance.randint(1, 40))]
    return " ".join(words) + chance.choice("?.:")


def _word(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(chance.choice((*SUBJECTS, *RESTS)).split())
    letters = string.ascii_letters + string.digits + "%,-'()€é"
    return "".join(chance.choices(letters, k=chance.randint(1, 9)))


def _random_image(chance: random.Random) -> EncodedImage:
    """Blots of random colours under noise of random strength, of any shape up to 4 to 1."""
    from PIL import Image

    size = (chance.randint(40, 160), chance.randint(40, 160))
    coarse = (chance.randint(1, 6), chance.randint(1, 6))
    seed = chance.randrange(2**31)
    blots = Image.frombytes("RGB", coarse, chance.randbytes(3 * coarse[0] * coarse[1]))
    grains = Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))
    image = Image.blend(blots.resize(size), grains, chance.choice((0.0, 0.0, 0.1, 0.5)))
    return made_picture(image, budget=None).encoded


def _save(model: Any, directory: Path) -> None:
    """Write the weights in bf16 and leave the model as it is."""
    rounded = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    model.save_pretrained(directory, state_dict=rounded)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two threads on a busy machine train several times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def call_text(name: str, arguments: Mapping[str, JsonValue]) -> str:
    """A Hermes call as the tiny checkpoints' chat template writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': dict(arguments)})}\n</tool_call>"
