"""Tiny checkpoints for the tests, and requests to put to them."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medeval.cli.demo import shipped_checkpoints
from medeval.data.benchmark import Benchmark
from medeval.data.rows import open_rows
from medeval.evaluation.loader import load
from medeval.images.picture import Picture, made_picture, prepare
from medeval.models.base import Request, Sampling
from medeval.rollout.protocol import EvalProtocol
from medeval.types.sample import RequestImage, Sample
from medeval.types.trajectory import ImageRef, Message, Text
from recipes.demo_series.checkpoints import Family, build_checkpoint


def random_checkpoint(directory: Path, family: Family, seed: int = 0) -> Path:
    """A checkpoint with random weights."""
    return build_checkpoint(directory, family=family, seed=seed)


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def tiny_checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint with random weights, of each family in turn."""
    return random_checkpoint(tmp_path_factory.mktemp("random"), request.param)


@pytest.fixture(scope="session")
def trained_checkpoint() -> Path:
    """The last of the shipped checkpoints: it zooms in on small markers, and reads big ones."""
    return shipped_checkpoints()[-1]


def marker(index: int) -> tuple[Sample, Picture]:
    """A sample of the benchmark `markers` with its image; 0 to 2 of five are small."""
    benchmark = load("markers", Benchmark).value
    sample = benchmark.to_sample(open_rows(benchmark.rows)[index])
    return sample, prepare(sample.images[0].read(), name=sample.id)


def marker_request(index: int, protocol: EvalProtocol, **changes: Any) -> Request:
    """The first request of a rollout of that sample; `changes` are to its sampling."""
    sample, picture = marker(index)
    native = protocol.call_syntax == "openai"
    return Request(
        messages=protocol.opening(sample),
        images=(picture.sent_image,),
        sampling=replace(protocol.sampling, max_tokens=64, **changes),
        seed=0,
        stop=protocol.stop,
        tools=tuple(tool.schema for tool in protocol.tools) if native else (),
    )


def drawn_image(seed: int, width_px: int = 90, height_px: int = 60) -> RequestImage:
    """An image of coloured noise."""
    noise = random.Random(seed).randbytes(3 * width_px * height_px)
    return made_picture(
        Image.frombytes("RGB", (width_px, height_px), noise), budget=None
    ).sent_image


def request(
    *texts: str, n_images: int = 1, max_tokens: int = 16, seed: int = 0, **changes: Any
) -> Request:
    """A request with a system text, then images and a question."""
    sampling = {name: changes.pop(name) for name in list(changes) if name in Sampling.__slots__}
    question = texts[-1] if texts else "What is it?"
    images = tuple(drawn_image(seed + index, 60 + 40 * index) for index in range(n_images))
    places = tuple(ImageRef(index) for index in range(n_images))
    return Request(
        messages=(
            Message(role="system", content=(Text("You are a helpful assistant."),)),
            Message(role="user", content=(*places, Text(question))),
        ),
        images=images,
        sampling=Sampling(max_tokens=max_tokens, **sampling),
        seed=seed,
        **changes,
    )
