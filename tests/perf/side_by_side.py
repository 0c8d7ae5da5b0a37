"""One stub server, several clients in turn: share of the ideal rate, CPU a conversation, memory.

    python tests/perf/side_by_side.py [--samples 500] [--rounds 3] [--turns 1] [--profile FILE]

The server takes `--latency` seconds for a request and works on `--places` at once, so that the
ideal rate is known. Each client is a process of its own; within a round they take turns, so that a
busy machine slows all alike. Clients: plain aiohttp as the lower bound, medeval, and for single
turns Inspect AI and lmms-eval where MEDEVAL_INSPECT_PYTHON and MEDEVAL_LMMS_EVAL_PYTHON name a
Python that has them. Each has its fastest settings for a server: Inspect AI keeps no images in its
log, and lmms-eval sends JPEG, not PNG, by its asynchronous client. Any other is named by
MEDEVAL_OTHER_CLIENT, a command in which {url}, {folder}, {n} and {concurrency} are filled in.

medeval computes the SHA-256 of each image, which plain aiohttp does not, to record what was shown;
a processor without instructions for it takes four times as long. So "hashing aiohttp" runs as well,
which says how much of what medeval adds is the hash. "sweep" is a run of two checkpoints without
and with the tool schema: four conversations a sample, all of which end with the first reply, told
by the conversation. CPU is told as a multiple of the same round's, too.

With `--turns 2` the model first asks for a crop. "cropping aiohttp" takes the hash and makes the
crop, by medeval's own tool in a thread; plain aiohttp sends one that was made beforehand. What the
crop itself takes, or the hash, is measured before each client: alone, and with two threads at once,
which slow each other down.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from medeval.images.request_image import sha256_of
from tests.perf.measuring import (
    CROP,
    DEFINITION,
    cpu_s,
    cropped,
    cropping,
    file_name,
    measured,
    medeval,
    photos,
    stub_server,
    told,
    write_rows,
)

CLIENTS = Path(__file__).parent / "clients"
PEERS = {"Inspect AI": "MEDEVAL_INSPECT_PYTHON", "lmms-eval": "MEDEVAL_LMMS_EVAL_PYTHON"}
PLAIN = "plain aiohttp"
HASHING = "hashing aiohttp"
CROPPING = "cropping aiohttp"
# What plain aiohttp takes that does, beside sending, what medeval has to: by the number of turns.
DOING_THE_SAME = {1: HASHING, 2: CROPPING}
OPTIONS = {PLAIN: (), HASHING: ("--hash",), CROPPING: ("--crop",)}
SWEEP = "medeval sweep"
# A sweep's two checkpoints, each without and with the tool schema.
CHECKPOINTS = ("early", "late")
ARMS = ("tool_free", "tool_available")
BOX = (200, 200, 600, 600)
CALL = f"""<tool_call>
{json.dumps({"name": "crop_and_zoom", "arguments": CROP})}
</tool_call>"""
# Few enough to leave start-up alone, so that the difference is the samples' own.
N_FEW = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one client took for `n` conversations."""

    n: int
    cpu_s: float
    peak_mb: float
    start_s: float
    span_s: float
    most_in_flight: int


def draw(folder: Path, n: int, edge_px: int) -> None:
    """Distinct JPEGs of about 400 KB at 1024 x 1024, and a crop of each as PNG."""
    folder.mkdir()
    for index, photo in enumerate(photos(n, (edge_px, edge_px), noise=13)):
        jpeg = folder / file_name(index)
        photo.save(jpeg, quality=90)
        photo.crop(BOX).save(jpeg.with_suffix(".png"), compress_level=1)
    write_rows(folder, n, n)


def crop_cpu_s(folder: Path, n_threads: int, n: int = 20) -> float:
    """CPU seconds of the crop itself: the tool's decode, crop, resize and encode, alone."""
    images = [cropping(path.read_bytes(), path.name) for path in sorted(folder.glob("*.jpg"))[:n]]
    return cpu_s(cropped, images, n_threads)


def hash_cpu_s(folder: Path, n_threads: int, n: int = 50) -> float:
    """CPU seconds of one image's SHA-256."""
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:n]]
    return cpu_s(sha256_of, images, n_threads)


def timing(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/timing", timeout=10) as answer:
        return dict(json.load(answer))


def conversations(client: str) -> int:
    """How many conversations a client has of each sample."""
    return len(CHECKPOINTS) * len(ARMS) if client == SWEEP else 1


def figures_of(client: str, n: int, images: Path, url: str, how: argparse.Namespace) -> Figures:
    folder = images.parent
    command = command_of(client, n, images, folder, url, how)
    environment = {
        "STUB_API_KEY": "x",
        "STUB_BASE_URL": url,
        # lmms-eval's: the key it insists on, its faster encoding, no other place for its data
        "OPENAI_API_KEY": "x",
        "LMMS_IMAGE_ENCODE_FORMAT": "JPEG",
        "HF_HOME": str(folder / "hub"),
    }
    timing(url)
    began_at = time.monotonic()
    taken = measured(command, folder=folder, environment=environment)
    seen = timing(url)
    n_conversations = n * conversations(client)
    if seen["requests"] != n_conversations * how.turns:
        sys.exit(f"{shlex.join(command)} sent {seen['requests']} requests for {n} samples")
    return Figures(
        n=n_conversations,
        cpu_s=taken.cpu_s,
        peak_mb=taken.peak_mb,
        start_s=seen["first_at"] - began_at,
        span_s=seen["last_at"] - seen["first_at"],
        most_in_flight=int(seen["most_in_flight"]),
    )


def command_of(
    client: str, n: int, images: Path, folder: Path, url: str, how: argparse.Namespace
) -> list[str]:
    places = str(how.places)
    if client in OPTIONS:
        plain = [sys.executable, str(CLIENTS / "plain_aiohttp.py")]
        return [*plain, url, str(images), str(n), places, str(how.turns), *OPTIONS[client]]
    if client in ("medeval", SWEEP):
        definition = folder / "files.py"
        definition.write_text(DEFINITION)
        arms = ARMS if client == SWEEP else (ARMS[how.turns - 1],)
        models = CHECKPOINTS if client == SWEEP else CHECKPOINTS[:1]
        profiler = ["py-spy", "record", "-o", how.profile, "-f", "raw", "-r", "200", "-t", "--"]
        return [
            *(profiler if how.profile and n > N_FEW else ()),
            *medeval("run", *(f"--model={name}=stub" for name in models), "--base-url", url),
            *("--concurrency", places, "--benchmarks", str(definition), "--limit", str(n)),
            *("--protocols", ",".join(arms)),
            *("--data-dir", str(images), "--output-dir", str(folder / "run"), "--fresh"),
        ]
    if client == "lmms-eval":
        arguments = f"model_version=stub,base_url={url},num_cpus={places}"
        return [
            *(os.environ[PEERS[client]], "-m", "lmms_eval", "--model", "async_openai"),
            *("--model_args", arguments, "--tasks", "files", "--limit", str(n)),
            *("--include_path", str(CLIENTS / "lmms_eval"), "--log_samples"),
            *("--batch_size", "1", "--output_path", str(folder / "lmms_eval")),
        ]
    if client == "Inspect AI":
        task = f"{CLIENTS / 'inspect_task.py'}@stub"
        python = os.environ[PEERS[client]]
        return [
            *(python, "-m", "inspect_ai", "eval", task, "-T", f"folder={images}", "-T", f"n={n}"),
            *("--model", "openai-api/stub/stub", "--display", "none", "--log-dir", str(folder)),
            *("--max-connections", places, "--max-samples", places),
            *("--no-log-images", "--no-log-realtime"),
        ]
    filled = {"url": url, "folder": str(images), "n": n, "concurrency": places}
    return shlex.split(os.environ["MEDEVAL_OTHER_CLIENT"].format(**filled))


def cpu_s_of(few: list[Figures], many: list[Figures]) -> list[float]:
    """CPU seconds of one more conversation, by round."""
    return [
        (figures.cpu_s - before.cpu_s) / (figures.n - before.n)
        for before, figures in zip(few, many, strict=True)
    ]


def report(
    client: str,
    few: dict[str, list[Figures]],
    many: dict[str, list[Figures]],
    how: argparse.Namespace,
) -> None:
    ideal_s = how.samples * conversations(client) * how.turns * how.latency / how.places
    ours = cpu_s_of(few[client], many[client])
    ratios = ""
    for other in (PLAIN, DOING_THE_SAME[how.turns]):
        if other in few and client != other:
            beside = zip(ours, cpu_s_of(few[other], many[other]), strict=True)
            ratios += f", {told([mine / least for mine, least in beside])} x {other}"
    print(
        f"{client:16} share of the ideal {told([ideal_s / one.span_s for one in many[client]])}  "
        f"CPU a conversation {told([1000 * taken for taken in ours])} ms{ratios}  first request "
        f"after {min(figures.start_s for figures in few[client]):.1f} s  peak "
        f"{max(figures.peak_mb for figures in many[client]):.0f} MB  "
        f"most in flight {max(figures.most_in_flight for figures in many[client])}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, choices=(1, 2), default=1)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--places", type=int, default=64)
    parser.add_argument("--edge-px", type=int, default=1024)
    parser.add_argument("--profile", help="where py-spy writes medeval's stacks")
    parser.add_argument("--only", help="one client")
    how = parser.parse_args()
    clients = [PLAIN, DOING_THE_SAME[how.turns], "medeval"]
    if how.turns == 1:
        clients.append(SWEEP)
        clients += [peer for peer, variable in PEERS.items() if os.environ.get(variable)]
    if os.environ.get("MEDEVAL_OTHER_CLIENT"):
        clients.append("other")
    clients = [how.only] if how.only else clients
    few: dict[str, list[Figures]] = {client: [] for client in clients}
    many: dict[str, list[Figures]] = {client: [] for client in clients}
    with (
        tempfile.TemporaryDirectory() as name,
        stub_server(how.latency, how.places, call=CALL, n_calls=how.turns - 1) as url,
    ):
        folder = Path(name)
        images = folder / "images"
        draw(images, how.samples, how.edge_px)
        beside: dict[int, list[float]] = {1: [], 2: []}
        work = crop_cpu_s if how.turns == 2 else hash_cpu_s
        for _ in range(how.rounds):
            for client in clients:
                for n_threads, taken in beside.items():
                    taken.append(work(images, n_threads))
                for n, kept in ((min(N_FEW, how.samples), few), (how.samples, many)):
                    kept[client].append(figures_of(client, n, images, url, how))
        name = "crop itself" if how.turns == 2 else "SHA-256 of an image"
        alone, two = (told([1000 * one for one in taken]) for taken in beside.values())
        print(f"the {name}: {alone} ms of CPU, {two} two at once")
        for client in clients:
            report(client, few, many, how)


if __name__ == "__main__":
    main()
