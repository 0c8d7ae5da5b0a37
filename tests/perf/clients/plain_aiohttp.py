"""The least a client can do: file bytes, base64, one POST a turn; nothing is read or kept.

    python plain_aiohttp.py URL FOLDER N_SAMPLES CONCURRENCY N_TURNS [--hash | --crop]

With two turns, the second sends the image again and a crop of it that was made beforehand. With
`--hash` it takes the SHA-256 of each image's file, once. With `--crop` it does that and makes the
crop itself, by medeval's tool, in a thread.
"""

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiohttp

TEXT = {"type": "text", "text": "Question?"}


def body(*images: bytes, spoken: str | None = None) -> bytes:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,@{index}@"}}
        for index in range(len(images))
    ]
    messages = [{"role": "user", "content": [parts[0], TEXT]}]
    if spoken is not None:
        messages += [
            {"role": "assistant", "content": spoken},
            {"role": "user", "content": parts[1:]},
        ]
    text = json.dumps({"model": "stub", "messages": messages, "max_tokens": 64}).encode()
    for index, image in enumerate(images):
        text = text.replace(f"@{index}@".encode(), base64.b64encode(image))
    return text


async def beforehand(path: Path, _: bytes) -> bytes:
    """The crop that lies beside an image."""
    return path.with_suffix(".png").read_bytes()


def cropper() -> Callable[[Path, bytes], Awaitable[bytes]]:
    """What makes a crop of an image, whose hash it takes."""
    from tests.perf.measuring import cropped, cropping

    def crop(path: Path, image: bytes) -> bytes:
        return cropped(cropping(image, path.name))

    return lambda path, image: asyncio.to_thread(crop, path, image)


async def work(
    session: aiohttp.ClientSession,
    url: str,
    paths: Iterator[Path],
    turns: int,
    options: Sequence[str],
) -> None:
    crop = cropper() if "--crop" in options else beforehand
    for path in paths:
        image, spoken = path.read_bytes(), None
        if "--hash" in options:
            hashlib.sha256(image).hexdigest()
        crops: list[bytes] = []
        for _ in range(turns):
            data = body(image, *crops, spoken=spoken)
            async with session.post(f"{url}/chat/completions", data=data, headers=JSON) as answer:
                reply = json.loads(await answer.read())
            spoken = reply["choices"][0]["message"]["content"]
            if len(crops) < turns - 1:
                crops.append(await crop(path, image))


JSON = {"Content-Type": "application/json"}


async def main(
    url: str, folder: str, n_samples: str, concurrency: str, turns: str, *options: str
) -> None:
    paths = iter(sorted(Path(folder).glob("*.jpg"))[: int(n_samples)])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(int(concurrency)):
            group.create_task(work(session, url, paths, int(turns), options))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
