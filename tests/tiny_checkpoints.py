"""Tiny checkpoints for the tests, and requests to put to them."""

import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medeval.demo import demo_checkpoints
from medeval.demo.checkpoints import Family, build_checkpoint
from medeval.images import made_picture
from medeval.locks import Lock
from medeval.models.base import Request, Sampling
from medeval.types import EncodedImage, ImageRef, Message, Text

BUILD_S = 600.0


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
def memorised_checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo's last checkpoint; the series is kept between test runs in pytest's cache."""
    cache = getattr(request.config, "cache", None)
    if cache is None:
        return demo_checkpoints(tmp_path_factory.mktemp("medeval-demo"))[-1]
    place = cache.mkdir("medeval-demo")
    # the processes that share the tests share the series too: one makes it, the others wait
    with Lock(place / "lock", subject=str(place), wait_s=BUILD_S):
        return demo_checkpoints(place)[-1]


def drawn_image(seed: int, width_px: int = 90, height_px: int = 60) -> EncodedImage:
    """An image of coloured noise."""
    noise = random.Random(seed).randbytes(3 * width_px * height_px)
    return made_picture(Image.frombytes("RGB", (width_px, height_px), noise), budget=None).encoded


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
