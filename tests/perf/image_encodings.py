"""PNG encodings and CPU of conversations whose tools make images, in process and with a server.

    OMP_NUM_THREADS=1 python tests/perf/image_encodings.py [--samples 100] [--rounds 3]
    OMP_NUM_THREADS=1 python tests/perf/image_encodings.py --other CHECKOUT

A scripted model in the process and the stub server ask for `--crops` crops of each photo, so the
first crop is sent that many times. `transformers` is the last shipped checkpoint on the demo's
images, which calls by itself. Samples' own images are prepared before the count begins. With
`--other`, another checkout of medeval does the same, alternating with this one.
"""

import argparse
import asyncio
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(os.environ.get("MEASURED_CHECKOUT", Path(__file__).resolve().parents[2]))
# of the tests' modules, another checkout may lack `png_encodings`
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parents[1])]

from png_encodings import counted_encodings  # type: ignore[import-not-found] # noqa: E402

from medeval import load  # noqa: E402
from medeval.cli.demo import shipped_checkpoints  # noqa: E402
from medeval.images.picture import Picture, prepare  # noqa: E402
from medeval.models.base import Model, Request  # noqa: E402
from medeval.models.openai.client import OpenAIModel  # noqa: E402
from medeval.models.scripted import ScriptedModel  # noqa: E402
from medeval.rollout.conversation import roll_out  # noqa: E402
from medeval.rollout.protocol import Pair  # noqa: E402
from medeval.types.sample import ImageSource, Sample  # noqa: E402
from tests.perf.measuring import CROP, photos, stub_server, told  # noqa: E402
from tests.tiny_checkpoints import marker  # noqa: E402

ENGINES = ("scripted", "server", "transformers")
CALL = f"<tool_call>\n{json.dumps({'name': 'crop_and_zoom', 'arguments': CROP})}\n</tool_call>"
ANSWER = "<answer>A</answer>"
AT_ONCE = 32

Conversation = tuple[Sample, Picture]


async def measured(model: Model, conversations: Sequence[Conversation]) -> dict[str, float]:
    """The images made, the PNGs encoded, and CPU milliseconds, each a sample."""
    protocol = load("crop_zoom", Pair).value.available
    places = asyncio.Semaphore(AT_ONCE)

    async def one(sample: Sample, picture: Picture) -> int:
        async with places:
            return len((await roll_out(sample, (picture,), protocol, model)).made)

    await model.start()
    await one(*conversations[0])  # loads what is loaded late
    started = time.process_time()
    with counted_encodings() as written:
        made = await asyncio.gather(*(one(*each) for each in conversations))
    cpu_s = time.process_time() - started
    await model.close()
    n = len(conversations)
    return {"made": sum(made) / n, "encoded": len(written) / n, "cpu_ms": 1000 * cpu_s / n}


def photographed(n: int, edge_px: int) -> Iterator[Conversation]:
    """Samples with distinct JPEGs."""
    for index, photo in enumerate(photos(n, (edge_px, edge_px), 30)):
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=90)
        image = ImageSource(name=f"{index}.jpg", read=buffer.getvalue)
        sample = Sample(id=f"s{index}", question="?", images=(image,), targets=("A",))
        yield sample, prepare(buffer.getvalue(), name=image.name)


def one_engine(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure the engine that `--engine` names, in this process."""
    n = arguments.samples
    if arguments.engine == "transformers":
        from medeval.models.transformers.model import TransformersModel

        model = TransformersModel(shipped_checkpoints()[-1], device="cpu", dtype="float32")
        return asyncio.run(measured(model, [marker(index) for index in range(n)]))
    samples = list(photographed(n, arguments.edge))
    if arguments.engine == "scripted":

        def reply(request: Request) -> str:
            return CALL if len(request.images) <= arguments.crops else ANSWER

        return asyncio.run(measured(ScriptedModel(reply), samples))
    with stub_server(0.0, AT_ONCE, call=CALL, n_calls=arguments.crops) as url:
        return asyncio.run(measured(OpenAIModel(model="stub", base_url=url), samples))


def in_a_process(engine: str, checkout: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of one engine, by the medeval of a checkout."""
    command = [
        *(sys.executable, __file__, "--engine", engine, "--samples", str(arguments.samples)),
        *("--crops", str(arguments.crops), "--edge", str(arguments.edge)),
    ]
    environment = {**os.environ, "MEASURED_CHECKOUT": str(checkout), "PYTHONPATH": str(checkout)}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--edge", type=int, default=1024, help="pixels of a photo's sides")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--other", type=Path, help="another checkout of medeval")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(one_engine(arguments)))
        return
    checkouts = {"this": ROOT, "other": arguments.other}
    for engine in arguments.engines.split(","):
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for name in random.sample(sorted(checkouts), len(checkouts)):
                if checkouts[name] is not None:
                    found = in_a_process(engine, checkouts[name], arguments)
                    rounds.setdefault(name, []).append(found)
        for name, figures in sorted(rounds.items(), reverse=True):
            made, encoded = figures[0]["made"], figures[0]["encoded"]
            cpu = told([each["cpu_ms"] for each in figures])
            print(f"{engine:13}{name:6} a sample: {made:.2f} made, {encoded:.2f} encoded, {cpu} ms")


if __name__ == "__main__":
    main()
