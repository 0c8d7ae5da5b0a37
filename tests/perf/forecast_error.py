"""How far off the time left is that `medeval run` shows, from a tenth of a run to nine tenths.

    python tests/perf/forecast_error.py [--kinds plain,mixed,steps,full,workers,tail]
        [--seeds 3] [--scale 1]

Each run is that of `medeval run`, against a stub server of its own; what the bar would show is
noted at each step. How long a reply takes is drawn from a lognormal distribution, by the question,
the turn and the checkpoint. Each sample has a conversation of one turn and one of three.

    plain    one benchmark
    mixed    three benchmarks that differ in number, size of images and seconds a reply
    steps    the same with two checkpoints, of which the second writes a fifth more
    full     the first, where the server works on half of what it is sent at once
    workers  the two checkpoints side by side in `--workers 2`
    tail     the three benchmarks, with replies of which one in a thousand takes 40 times as long

`still` is for how much of a run the machine stood still, as virtual machines do whose neighbours
are busy: nobody can foresee it. A run of which that is over a twentieth is told of and repeated.

Prints, by the share of the conversations that have ended, the error of the time left as a share of
the time that was really left (positive: too long), and the worst from a tenth to nine tenths as a
share of the whole run. Then how far off `--dry-run`, which knows the runs of the same kind before
it, was in tokens and engine-seconds.
"""

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)

from aiohttp import web  # noqa: E402
from PIL import Image, ImageChops  # noqa: E402

from medeval.evaluation.engines import model_opener  # noqa: E402
from medeval.evaluation.estimate import Estimate  # noqa: E402
from medeval.evaluation.plan import Plan, read_options, resolve  # noqa: E402
from medeval.evaluation.run import RunReport, carry_out, preview  # noqa: E402
from tests.stub_server import Body, StubServer, running  # noqa: E402

CONCURRENCY = 16
N_PICTURES = 4
TENTHS = range(1, 10)
BEAT_S = 0.05
MOST_STILL = 0.05
MOST_REPEATS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A benchmark: how many samples, the size of their images, seconds and tokens a reply."""

    n: int
    size: tuple[int, int]
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of run; `checkpoints` are how much each writes, `spread` the sigma of the seconds."""

    benchmarks: dict[str, Drawn]
    checkpoints: tuple[float, ...] = (1.0,)
    spread: float = 0.7
    places: int = 1000
    options: tuple[tuple[str, object], ...] = ()


PLAIN = {"chart": Drawn(n=200, size=(640, 480), seconds=0.5, tokens=300)}
MIXED = {
    "small": Drawn(n=120, size=(256, 256), seconds=0.25, tokens=100),
    "medium": Drawn(n=80, size=(1024, 768), seconds=0.6, tokens=900),
    "large": Drawn(n=24, size=(2048, 1536), seconds=1.5, tokens=3000),
}
HALVES = {
    name: Drawn(n=drawn.n // 2, size=drawn.size, seconds=drawn.seconds, tokens=drawn.tokens)
    for name, drawn in MIXED.items()
}
SETTINGS = {
    "plain": Setting(benchmarks=PLAIN),
    "mixed": Setting(benchmarks=MIXED),
    "steps": Setting(benchmarks=HALVES, checkpoints=(1.0, 1.2)),
    "full": Setting(benchmarks=PLAIN, places=CONCURRENCY // 2),
    "workers": Setting(benchmarks=MIXED, checkpoints=(1.0, 1.2), options=(("workers", 2),)),
    "tail": Setting(benchmarks=MIXED, spread=1.2),
}

DEFINITION = """
from pathlib import Path

from medeval import Benchmark, DrawnRows, Sample

FILES = [Path(name) for name in {files!r}]

ONE = Benchmark(
    name="{name}",
    title="drawn",
    rows=DrawnRows({n}, lambda index: {{"image": FILES[index % len(FILES)].read_bytes()}}),
    columns=("image",),
    to_sample=lambda row: Sample(
        id=f"s{{row.index:04d}}",
        question=f"Question {{row.index}} of {name}?",
        images=(row.image("image"),),
        targets=("A",),
    ),
    judge="exact_match",
)
"""
PAIR = """
from medeval import EvalProtocol, Pair, crop_and_zoom

FREE = EvalProtocol(name="free", user="$question", call_syntax="hermes")
AVAILABLE = FREE.with_tools(
    crop_and_zoom(), name="available", prompt="<tools>\\n$tools\\n</tools>",
    max_generations=4, max_calls=3,
)
PAIR = Pair(name="drawn_pair", free=FREE, available=AVAILABLE)
"""


class DrawnServer(StubServer):
    """Takes as long, and as many tokens, as a setting says of a question, turn and checkpoint."""

    def __init__(self, setting: Setting, seed: int) -> None:
        names = tuple(f"step_{number}" for number in range(len(setting.checkpoints)))
        super().__init__(models=names, places=setting.places, n_calls=2, keep=False)
        self._setting = setting
        self._seed = seed

    async def _work(self, request: web.Request, index: int, raw: bytes) -> web.StreamResponse:
        body: Body = json.loads(raw)
        async with self._slots:
            await asyncio.sleep(self._length(body) * self._benchmark(body).seconds)
        return await self._answer(request, index, raw)

    def _complete(self, body: Body) -> web.Response:
        document = json.loads(super()._complete(body).text or "")
        n_images = len(_parts(body, "image_url"))
        document["usage"] = {
            "prompt_tokens": 200 + n_images * self._benchmark(body).tokens,
            "completion_tokens": round(100 * self._length(body)),
        }
        return web.json_response(document)

    def _benchmark(self, body: Body) -> Drawn:
        return self._setting.benchmarks[_question(body).split(" of ")[1].split("?")[0]]

    def _length(self, body: Body) -> float:
        """How long a reply is, around 1: the same whenever it is asked for."""
        spread, model = self._setting.spread, str(body["model"])
        told = (
            self._seed,
            model,
            _question(body),
            len(body["messages"]),
            len(_parts(body, "image_url")),
        )
        drawn = random.Random(str(told)).gauss(-(spread**2) / 2, spread)
        return math.exp(drawn) * self._setting.checkpoints[int(model.rpartition("_")[2])]


def _parts(body: Body, kind: str) -> list[Body]:
    contents = [message["content"] for message in body["messages"]]
    lists = [content for content in contents if isinstance(content, list)]
    return [part for parts in lists for part in parts if part["type"] == kind]


def _question(body: Body) -> str:
    return next(
        str(part["text"]) for part in _parts(body, "text") if "Question" in str(part["text"])
    )


class Noted:
    """Progress that notes what is shown, and when: once for each conversation that ends."""

    def __init__(self) -> None:
        self.began_at = time.monotonic()
        self.seen: list[tuple[float, float | None]] = []
        self._shown: float | None = None

    def expect(self, n_trajectories: int) -> None:
        pass

    def left(self, seconds: float | None) -> None:
        self._shown = seconds

    def advance(self, *, scored: bool) -> None:
        self.seen.append((time.monotonic(), self._shown))
        if not scored:
            sys.exit("a sample was left unscored")

    def tell(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")

    def error_at(self, tenth: int) -> tuple[float, float]:
        """The error of the time left as a share of what was left, and of the whole run."""
        moment, left = self.seen[len(self.seen) * tenth // 10 - 1]
        ended_at = self.seen[-1][0]
        missed = (left or 0.0) - (ended_at - moment)
        return missed / (ended_at - moment), missed / (ended_at - self.began_at)


class Pulse:
    """Beats while a block runs; `still_s` is how long beats were late by more than one more."""

    def __enter__(self) -> "Pulse":
        self.still_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()
        return self

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._over.wait(BEAT_S):
            now = time.monotonic()
            late_s = now - last - BEAT_S
            self.still_s += late_s if late_s > BEAT_S else 0.0
            last = now

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def draw(folder: Path, name: str, drawn: Drawn, scale: float) -> str:
    """A benchmark's definition and its images; the definition's path."""
    # easily encoded: the time that is foreseen is to be the server's
    plain = Image.radial_gradient("L").resize(drawn.size)
    files = [folder / f"{name}_{index}.jpg" for index in range(N_PICTURES)]
    for index, file in enumerate(files):
        ImageChops.offset(plain, 31 * index, 17 * index).convert("RGB").save(file, quality=85)
    text = DEFINITION.format(name=name, n=round(drawn.n * scale), files=[str(f) for f in files])
    (folder / f"{name}.py").write_text(text)
    return str(folder / f"{name}.py")


@contextmanager
def serving(kind: str, seed: int) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", kind, "--seeds", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def planned(folder: Path, kind: str, seed: int, url: str, benchmarks: Sequence[str]) -> Plan:
    setting = SETTINGS[kind]
    values: dict[str, object] = {
        "model": tuple(f"step_{number}" for number in range(len(setting.checkpoints))),
        "base_url": url,
        "benchmarks": tuple(benchmarks),
        "pairs": (str(folder / "pair.py"),),
        "concurrency": CONCURRENCY,
        "output_dir": str(folder / f"run_{seed}"),
        **dict(setting.options),
    }
    return resolve(read_options(None, values))


def cost_of(report: RunReport) -> tuple[float, float]:
    """Tokens and engine-seconds that a run took."""
    costs = [summary.cost for summary in report.summaries]
    tokens = sum(
        (cost.usage.prompt_tokens or 0) + (cost.usage.completion_tokens or 0) for cost in costs
    )
    return tokens, sum(cost.engine_s or 0.0 for cost in costs)


def carried_out(kind: str, how: argparse.Namespace) -> list[Noted]:
    noted: list[Noted] = []
    n_repeats = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pair.py").write_text(PAIR)
        drawn = SETTINGS[kind].benchmarks
        paths = [draw(folder, name, benchmark, how.scale) for name, benchmark in drawn.items()]
        while len(noted) < how.seeds:
            seed = len(noted)
            with serving(kind, seed) as url:
                plan = planned(folder, kind, seed, url, paths)
                estimates = [cell.estimate for cell in preview(plan)]
                one = Noted()
                with Pulse() as pulse:
                    report = carry_out(plan, model_opener(plan), one)
            took_s = one.seen[-1][0] - one.began_at
            still = pulse.still_s / took_s
            tell(kind, seed, one, took_s, still)
            if still > MOST_STILL:
                n_repeats += 1
                if n_repeats > MOST_REPEATS:
                    sys.exit("this machine stands still too often to measure anything")
                print(f"{'':8} repeated: the machine stood still", flush=True)
                shutil.rmtree(plan.output_dir)
                continue
            noted.append(one)
            if seed:
                compare(estimates, report, took_s)
    return noted


def compare(estimates: Sequence[Estimate], report: RunReport, took_s: float) -> None:
    tokens, engine_s = cost_of(report)
    foreseen = sum(estimate.tokens or 0.0 for estimate in estimates)
    foreseen_s = sum(estimate.engine_s or 0.0 for estimate in estimates)
    print(
        f"{'':8} --dry-run: tokens {foreseen / tokens - 1:+.0%}, engine-seconds "
        f"{foreseen_s / engine_s - 1:+.0%} ({foreseen_s:.1f}, of a run of {took_s:.1f} s)",
        flush=True,
    )


def tell(kind: str, seed: int, noted: Noted, took_s: float, still: float) -> None:
    errors = [noted.error_at(tenth) for tenth in TENTHS]
    worst = max((whole for _, whole in errors), key=abs)
    cells = " ".join(f"{left:+5.0%}" for left, _ in errors)
    print(f"{kind:8} {seed:4} {took_s:6.1f} s {still:5.0%}  {cells}   {worst:+5.0%}", flush=True)


def summarise(runs: dict[str, list[Noted]]) -> None:
    print("\nmedian and worst of the errors' size, by the share that has ended")
    for kind, noted in runs.items():
        sizes = [[abs(one.error_at(tenth)[0]) for one in noted] for tenth in TENTHS]
        cells = " ".join(f"{statistics.median(each):3.0%}/{max(each):3.0%}" for each in sizes)
        print(f"{kind:8} {cells}")


async def serve(kind: str, seed: int) -> None:
    async with running(DrawnServer(SETTINGS[kind], seed)) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    how = parser.parse_args()
    if how.serve:
        asyncio.run(serve(how.serve, how.seeds))
    shares = " ".join(f"{tenth:4}0%" for tenth in TENTHS)
    print(f"{'kind':8} seed     took still  {shares}   worst of the whole")
    summarise({kind: carried_out(kind, how) for kind in how.kinds.split(",")})


if __name__ == "__main__":
    main()
