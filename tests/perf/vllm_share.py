"""`medeval run --backend vllm` beside a bare AsyncLLM.generate loop over the same token prompts.

    PYTHON_WITH_VLLM tests/perf/vllm_share.py share [--samples 32]
    PYTHON_WITH_VLLM tests/perf/vllm_share.py sweep [--samples 8]

The checkpoint is drawn here: random weights, 50 million parameters or more. It writes noise, so
the first turn of the arm with the tool is replaced by a call once it was generated; the second
turn then follows as it would. `share` alternates passes of both in one process and on one engine,
each from empty caches. `sweep` takes three checkpoints with and without reloading weights.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from medeval.evaluation.engines import SharedEngines, model_opener
from medeval.evaluation.plan import Plan, resolve
from medeval.evaluation.plan_file import read_options
from medeval.evaluation.run import RunReport, carry_out
from medeval.models.base import Reply, Request, TokenHistory
from medeval.models.checkpoints import Checkpoint
from medeval.models.vllm.engine import VLLMEngine, engine_plan
from medeval.models.vllm.lora import ModelFolder
from medeval.models.vllm.supervisor import EngineSlot, SupervisedModel
from recipes.demo_series.checkpoints import Architecture, build_checkpoint

ROOT = Path(__file__).resolve().parents[2]
LARGE = Architecture(width=768, depth=10, context_tokens=2048, image_tokens=(4, 64))
CALL = """<tool_call>
{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [200, 200, 800, 800], "label": "detail"}}
</tool_call>"""
CONCURRENCY = 16
MAX_TOKENS = 16
N_PASSES = 3
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": CONCURRENCY}

DEFINITION = """
from pathlib import Path

from medeval import Benchmark, DrawnRows, Sample

FOLDER = Path({folder!r})


def draw(index):
    return {{"image": (FOLDER / f"{{index}}.jpg").read_bytes()}}


def to_sample(row):
    return Sample(
        id=f"s{{row.index:05d}}",
        question=f"Question {{row.index}}?",
        images=(row.image("image"),),
        targets=("A",),
        options=("red", "green"),
    )


NOISE = Benchmark(
    name="noise", title="noise", rows=DrawnRows({n}, draw), to_sample=to_sample, judge="choice"
)
"""


class Silent:
    """Where a run tells nobody."""

    def __init__(self, n_missing: int) -> None:
        pass

    def advance(self, *, scored: bool) -> None:
        pass

    def tell(self, message: str) -> None:
        print(f"  {message}", file=sys.stderr)


@dataclass(slots=True)
class Pass:
    """One pass over all requests: from the first sent to the last answered.

    `began_at` is read from `time.perf_counter`; `cpu_s` are of this process alone.
    """

    n_requests: int
    began_at: float
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.n_requests / self.seconds


def told(name: str, one: Pass) -> str:
    """A line on a pass."""
    return (
        f"{name}: {one.n_requests} requests, {one.seconds:.1f} s, {one.rate:.2f}/s, "
        f"{1000 * one.cpu_s / one.n_requests:.1f} ms of this process's CPU a request"
    )


@dataclass(slots=True)
class Bench:
    """What was sent to the engine, conversation by conversation, and how long it all took.

    `call` is what the model writes in its first turn with a tool; `tell` is called after each pass.
    `starts` are the seconds until each checkpoint was ready, `notes` what was said of them.
    """

    call: str
    concurrency: int = CONCURRENCY
    tell: Callable[[str, Pass], None] = lambda name, one: print(told(name, one), flush=True)
    starts: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    conversations: dict[tuple[str, int], list[tuple[dict[str, Any], Any]]] = field(
        default_factory=dict
    )
    passes: list[tuple[str, Pass]] = field(default_factory=list)
    is_recording: bool = False

    def add(self, name: str, n_requests: int, begin: "Moment", end: "Moment") -> None:
        """Record a pass."""
        seconds, cpu_s = (last - first for last, first in zip(end, begin, strict=True))
        self.passes.append((name, Pass(n_requests, begin[0], seconds, cpu_s)))
        self.tell(*self.passes[-1])

    def shares(self) -> Iterator[float]:
        """Each of our passes as a share of the bare ones right before and after it."""
        for index, (name, one) in enumerate(self.passes):
            if name == "ours":
                beside = self.passes[max(0, index - 1) : index + 2]
                bare = [other.rate for kind, other in beside if kind == "bare"]
                if bare:
                    yield one.rate / fmean(bare)


Moment = tuple[float, float]


def now() -> Moment:
    """Seconds of the clock and of this process's CPU."""
    return time.perf_counter(), time.process_time()


class Scripted:
    """A living model whose first turn with a tool becomes a call; passes are timed around it."""

    def __init__(self, model: Any, bench: Bench) -> None:
        self._model = model
        self._bench = bench
        self._first: Moment | None = None
        self._last = (0.0, 0.0)
        self._n = 0

    async def start(self) -> None:
        begin = time.perf_counter()
        await self._model.start()
        self._bench.starts.append(time.perf_counter() - begin)
        self._bench.notes += self._model.notes()

    async def generate(self, request: Request) -> Reply:
        self._first = self._first or now()
        reply: Reply = await self._model.generate(request)
        self._last = now()
        self._n += 1
        offers = any("<tools>" in message.text for message in request.messages)
        if offers and request.history is None:
            history = self._history(request, reply)
            return replace(reply, text=self._bench.call, finish="stop", history=history)
        return replace(reply, text="<answer>A</answer>")

    def _history(self, request: Request, reply: Reply) -> TokenHistory:
        """The ids of the reply's prompt, with those of the call after them."""
        raise NotImplementedError

    async def close(self) -> None:
        if self._first is not None and self._n:
            self._bench.add("ours", self._n, self._first, self._last)
            self._n = 0
            await self._follow()
        await self._model.close()

    async def _follow(self) -> None:
        """What is done after a pass, while the model lives."""

    def identity(self) -> Mapping[str, Any]:
        return self._model.identity()  # type: ignore[no-any-return]

    def notes(self) -> tuple[str, ...]:
        return self._model.notes()  # type: ignore[no-any-return]


class BesideBare(Scripted):
    """A model on vLLM's engine, with a pass of the bare loop after each of its own."""

    async def start(self) -> None:
        self._bench.is_recording = False
        await super().start()
        self._bench.is_recording = not self._bench.passes

    @property
    def _engine(self) -> VLLMEngine:
        engine = self._model._engine
        assert isinstance(engine, VLLMEngine)
        return engine

    def _history(self, request: Request, reply: Reply) -> TokenHistory:
        assert reply.history is not None
        template = self._engine._template
        prompt = template.opening_ids(request.messages)
        ids = (*prompt, *template.text_ids(self._bench.call))
        return TokenHistory(ids, reply.history.n_messages)

    async def _follow(self) -> None:
        await self._bare_pass()

    async def _bare_pass(self) -> None:
        engine = self._engine._engine
        for reset in (engine.reset_mm_cache, engine.reset_encoder_cache, engine.reset_prefix_cache):
            await reset()
        places = asyncio.Semaphore(self._bench.concurrency)
        numbers = iter(range(10**9))
        n_requests = 0

        async def converse(turns: list[tuple[dict[str, Any], Any]]) -> None:
            nonlocal n_requests
            async with places:
                for inputs, sampling in turns:
                    # the engine lets go of a request's images
                    shown = {name: list(each) for name, each in inputs["multi_modal_data"].items()}
                    asked = {**inputs, "multi_modal_data": shown}
                    async for _ in engine.generate(asked, sampling, f"bare-{next(numbers)}"):
                        pass
                    n_requests += 1

        begin = now()
        await asyncio.gather(*map(converse, self._bench.conversations.values()))
        self._bench.add("bare", n_requests, begin, now())
        for reset in (engine.reset_mm_cache, engine.reset_encoder_cache, engine.reset_prefix_cache):
            await reset()


class Recording(VLLMEngine):
    """An engine that notes what it was sent in the first pass, by conversation."""

    bench: Bench

    async def _generate(self, inputs: dict[str, Any], sampling: Any) -> Any:
        if self.bench.is_recording:
            # an arm is known by how long its text before the image is
            ids = inputs["prompt_token_ids"]
            begin = next(n for n, one in enumerate(ids) if one in self._template.placeholder_ids)
            key = (inputs["multi_modal_uuids"]["image"][0], begin)
            turns = self.bench.conversations.setdefault(key, [])
            decoded = [image.copy() for image in inputs["multi_modal_data"]["image"]]
            turns.append(({**inputs, "multi_modal_data": {"image": decoded}}, sampling))
        return await super()._generate(inputs, sampling)


def checkpoints(folder: Path, n: int) -> list[Path]:
    """Checkpoints of one architecture with random weights; told how large they are."""
    made = []
    for seed in range(n):
        place = folder / f"global_step_{seed}"
        build_checkpoint(place, family="qwen2_5_vl", seed=seed, architecture=LARGE)
        made.append(place)
    header = (made[0] / "model.safetensors").open("rb").read(1 << 20)
    length = int.from_bytes(header[:8], "little")
    entries = json.loads(header[8 : 8 + length])
    sizes = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
    n_parameters = sum(end - begin for begin, end in sizes) // 2
    assert n_parameters >= 50_000_000, n_parameters
    print(f"checkpoint: {n_parameters / 1e6:.1f} M parameters, random weights")
    return made


def plan(
    folder: Path, n: int, run: str, models: Sequence[Path], *, edge_px: int = 448, **options: Any
) -> Plan:
    """A run over `n` images of noise, with options of a plan file beside or instead of ours."""
    from PIL import Image

    for index in range(n):
        path = folder / f"{index}.jpg"
        if not path.exists():
            noise = Image.effect_noise((edge_px, edge_px), 20 + index % 100)
            noise.convert("RGB").save(path, quality=90)
    definition = folder / "noise.py"
    definition.write_text(DEFINITION.format(n=n, folder=str(folder)))
    values = {
        "model": tuple(f"m{index}={path}" for index, path in enumerate(models)),
        "benchmarks": (str(definition),),
        "backend": "vllm",
        "model_args": ENGINE,
        "concurrency": CONCURRENCY,
        "max_tokens": MAX_TOKENS,
        "output_dir": str(folder / run),
    }
    return resolve(read_options(None, values | options))


def beside_bare(planned: Plan, bench: Bench) -> RunReport:
    """Carry out a plan on one engine of vLLM, the bare loop after each checkpoint."""
    Recording.bench = bench
    engine = engine_plan(planned.options.model_args, planned.output_dir / "logs")

    async def launch(folder: ModelFolder) -> VLLMEngine:
        return await Recording.launch(folder, engine)

    slot = EngineSlot(launch, keep=engine.reload_weights)

    def opened(checkpoint: Checkpoint) -> Any:
        return BesideBare(SupervisedModel(Path(checkpoint.location), slot), bench)

    return carry_out(planned, SharedEngines(opened, slot.aclose), Silent)


def call_for(planned: Plan) -> str:
    """A call of the plan's tool."""
    tool = next(arm.value.tools[0].name for arm in planned.protocols if arm.value.tools)
    return CALL.replace("image_zoom_in_tool", tool)


def share(folder: Path, n_samples: int) -> None:
    models = checkpoints(folder / "models", 1)
    # the same checkpoint again and again: passes on one engine, its weights reloaded in between
    planned = plan(folder, n_samples, "run", models * N_PASSES, pairs=("crop_zoom",))
    bench = Bench(call_for(planned))
    report = beside_bare(planned, bench)
    assert not report.unscored, report.closing_words
    shares = list(bench.shares())
    listed = ", ".join(f"{one:.2f}" for one in shares)
    print(f"share of the bare loop's throughput beside it: {listed}; median {median(shares):.3f}")


class Timed:
    """A model whose start is timed: it ends with a reply where the engine is started as well."""

    def __init__(self, model: Any, waits: list[float]) -> None:
        self._model = model
        self._waits = waits

    async def start(self) -> None:
        begin = time.perf_counter()
        await self._model.start()
        self._waits.append(time.perf_counter() - begin)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def sweep(folder: Path, n_samples: int) -> None:
    models = checkpoints(folder / "models", 3)
    for reload_weights in (True, False):
        name = "reloaded" if reload_weights else "cold"
        arguments = {**ENGINE, "reload_weights": reload_weights}
        planned = plan(folder, n_samples, name, models, model_args=arguments, pairs=("crop_zoom",))
        opened, waits = model_opener(planned), list[float]()
        assert isinstance(opened, SharedEngines)
        begin = time.perf_counter()
        report = carry_out(
            planned, SharedEngines(partial(_timed, opened, waits), opened.aclose), Silent
        )
        total_s = time.perf_counter() - begin
        assert not report.unscored, report.closing_words
        told = ", ".join(f"{wait:.1f}" for wait in waits)
        how = "weights reloaded" if reload_weights else "cold starts"
        print(f"{how}: ready after {told} s; {total_s:.1f} s in all", flush=True)


def _timed(opened: SharedEngines, waits: list[float], checkpoint: Checkpoint) -> Any:
    return Timed(opened(checkpoint), waits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["share", "sweep"])
    parser.add_argument("--samples", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.what == "share":
            share(folder, options.samples or 32)
        else:
            sweep(folder, options.samples or 8)


if __name__ == "__main__":
    main()
