"""CPU of one request with an image: medeval's client and plain aiohttp with `json=`, in turns.

    python tests/perf/client_cpu.py [--requests 400] [--rounds 5] [--image-kb 400]

The stub server is a process of its own. Each round has both clients send as many requests, 32 in
flight, and measures this process's CPU time.
"""

import argparse
import asyncio
import base64
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2]))

from medeval.images.request_image import FileImage
from medeval.models.base import Request, Sampling
from medeval.models.openai.client import OpenAIModel
from medeval.types.trajectory import ImageRef, Message, Text
from tests.perf.measuring import stub_server, told

CONCURRENCY = 32

Send = Callable[[FileImage], Awaitable[object]]


def with_medeval(model: OpenAIModel) -> Send:
    messages = (Message(role="user", content=(ImageRef(0), Text("Question?"))),)
    sampling = Sampling(max_tokens=64)

    async def send(image: FileImage) -> object:
        return await model.generate(
            Request(messages=messages, images=(image,), sampling=sampling, seed=0)
        )

    return send


def with_aiohttp(session: aiohttp.ClientSession, base_url: str) -> Send:
    async def send(image: FileImage) -> object:
        url = f"data:image/jpeg;base64,{base64.b64encode(image.data).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "Question?"},
        ]
        message = {"role": "user", "content": content}
        body = {"model": "stub", "messages": [message], "max_tokens": 64}
        async with session.post(f"{base_url}/chat/completions", json=body) as answer:
            return await answer.json()

    return send


async def cpu_ms(send: Send, images: list[FileImage], n: int) -> float:
    """CPU milliseconds of one request among `n`."""
    numbers = iter(range(n))

    async def work() -> None:
        for number in numbers:
            await send(images[number % len(images)])

    began_s = time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return 1000 * (time.process_time() - began_s) / n


async def compare(base_url: str, how: argparse.Namespace) -> None:
    drawn = random.Random(0)
    images = [
        FileImage(
            data=drawn.randbytes(1000 * how.image_kb),
            media_type="image/jpeg",
            sha256="0" * 64,
            width_px=1024,
            height_px=1024,
        )
        for _ in range(8)
    ]
    model = OpenAIModel(model="stub", base_url=base_url)
    await model.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        ours, plain = with_medeval(model), with_aiohttp(session, base_url)
        pairs = [
            (await cpu_ms(plain, images, how.requests), await cpu_ms(ours, images, how.requests))
            for _ in range(how.rounds + 1)
        ][1:]
    await model.close()
    print(f"plain aiohttp, json=  {told([theirs for theirs, _ in pairs])} ms of CPU a request")
    print(
        f"medeval               {told([mine for _, mine in pairs])} ms, "
        f"{told([mine / theirs for theirs, mine in pairs])} x plain aiohttp"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-kb", type=int, default=400)
    how = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with stub_server(0.01, 1000) as base_url:
        asyncio.run(compare(base_url, how))


if __name__ == "__main__":
    main()
