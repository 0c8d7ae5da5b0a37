"""A checkpoint of Qwen2.5-VL-7B's shape on one GPU: vLLM beside its own loop, swaps, transformers.

    PYTHON_WITH_VLLM tests/perf/gpu.py [--shape 7b] [--samples 200] [--folder DIR]

Each sample has an image of 1024x1024 pixels and two turns: the first is replaced by a call of the
crop tool once it was generated. Two checkpoints with random weights are drawn first; nothing is
downloaded. Each part is a process of its own with a time limit, so that all end within 10 minutes:
a part that fails is named, and the others go on. The table is followed by one line of JSON. The
folder needs 34 GB for two checkpoints of 7b; with --folder it is kept, with the log of each part.

`--shape tiny` runs the same on a CPU in minutes. The GPU's busy share is nvidia-smi's, the share of
the time in which any kernel ran, asked once a second; it is empty without nvidia-smi.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from medeval import load
from medeval.evaluation.engines import SharedEngines, model_opener
from medeval.evaluation.plan import Plan
from medeval.evaluation.run import RunReport, carry_out
from medeval.models.base import Reply, Request, TokenHistory
from medeval.models.transformers.model import TransformersModel
from medeval.rollout.protocol import EvalProtocol
from recipes.demo_series.checkpoints import Architecture, build_checkpoint
from tests.perf.vllm_share import (
    Bench,
    Pass,
    Scripted,
    Silent,
    beside_bare,
    call_for,
    plan,
)

ARM = "tool_available"
EDGE_PX = 1024
TOTAL_S = 585.0
# The most seconds of each part; together they leave some for the images.
LIMITS_S = {"checkpoint 0": 60.0, "checkpoint 1": 60.0, "vllm": 275.0, "transformers": 165.0}
# After this share of its time, the transformers part takes no more samples.
TAKES_SAMPLES = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A checkpoint's numbers, in the words of its config.json, and how engines are to run it."""

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool
    image_tokens: tuple[int, int]
    engine: Mapping[str, Any]
    concurrency: int
    max_tokens: int


SHAPES = {
    # config.json and preprocessor_config.json of Qwen/Qwen2.5-VL-7B-Instruct
    "7b": Shape(
        text={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [16, 24, 24],
            },
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "initializer_range": 0.02,
        },
        tied=False,
        image_tokens=(4, 16384),
        engine={"dtype": "bfloat16", "max_model_len": 8192},
        concurrency=256,
        max_tokens=128,
    ),
    "tiny": Shape(
        text={"vocab_size": 4096},
        vision={},
        tied=True,
        image_tokens=(4, 64),
        engine={"dtype": "float32", "enforce_eager": True, "max_num_seqs": 16},
        concurrency=16,
        max_tokens=16,
    ),
}


class Figures:
    """What the parts have measured, a line of JSON each, written at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, what: str, **values: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"what": what, **values}) + "\n")

    def of(self, what: str) -> list[dict[str, Any]]:
        """The figures of one kind, in the order of their measuring."""
        if not self._path.exists():
            return []
        lines = map(json.loads, self._path.read_text().splitlines())
        return [one for one in lines if one["what"] == what]


class BusyLog:
    """The GPU's busy share, once a second while a block runs."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while (percent := asked_of_gpu("utilization.gpu")) is not None:
            self._seen.append((time.perf_counter(), float(percent) / 100))
            if self._ended.wait(1.0):
                return

    def share(self, one: Pass) -> float | None:
        """The mean during a pass, 0 to 1; None where nothing was seen."""
        end = one.began_at + one.seconds
        seen = [share for at, share in self._seen if one.began_at <= at <= end]
        return fmean(seen) if seen else None


def asked_of_gpu(name: str) -> str | None:
    """A value of the first visible GPU from nvidia-smi; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={name}", "--format=csv,noheader,nounits"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return asked.stdout.strip() if asked.returncode == 0 else None


def version_of(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def model_folder(folder: Path, index: int) -> Path:
    return folder / "models" / f"global_step_{index}"


def enlarged(small: Any, shape: Shape) -> Any:
    """The configuration of a checkpoint with the numbers of a shape."""
    values = small.to_dict()
    for name, changed in {"text_config": shape.text, "vision_config": shape.vision}.items():
        values[name] |= {**changed}
    # one for each layer of the small one
    values["text_config"].pop("layer_types", None)
    values["text_config"]["tie_word_embeddings"] = values["tie_word_embeddings"] = shape.tied
    return type(small)(**values)


def draw_checkpoint(folder: Path, shape: Shape, index: int, figures: Figures) -> None:
    """Write a checkpoint with random weights in bf16, drawn on the GPU where there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    began = time.perf_counter()
    making = folder / f"making_{index}"
    arm = load(ARM, EvalProtocol).value
    # a small one first, for its tokenizer, chat template and processor
    build_checkpoint(
        making,
        family="qwen2_5_vl",
        seed=index,
        texts=(str(arm.system), arm.user),
        architecture=Architecture(image_tokens=shape.image_tokens, context_tokens=32768),
    )
    config = enlarged(AutoConfig.from_pretrained(making), shape)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(index)
    with torch.device(device):
        auto: Any = AutoModelForImageTextToText
        model = auto.from_config(config, dtype=torch.bfloat16)
    drawn_s = time.perf_counter() - began
    model.generation_config = GenerationConfig.from_pretrained(making)
    (making / "model.safetensors").unlink()
    model.save_pretrained(making, max_shard_size="5GB")
    place = model_folder(folder, index)
    place.parent.mkdir(exist_ok=True)
    making.rename(place)
    figures.add(
        "checkpoint",
        parameters=sum(one.numel() for one in model.parameters()),
        drawn_s=drawn_s,
        written_s=time.perf_counter() - began - drawn_s,
    )


def planned(folder: Path, shape: Shape, n_samples: int, run: str, **options: Any) -> Plan:
    """A run over both checkpoints with the first one again, or over those that there are."""
    there = [path for path in map(model_folder, (folder,) * 2, range(2)) if path.exists()]
    if not there:
        sys.exit("there is no checkpoint")
    given: dict[str, Any] = {
        "protocols": (ARM,),
        "concurrency": shape.concurrency,
        "max_tokens": shape.max_tokens,
        "backend": run,
        "edge_px": EDGE_PX,
    }
    models = (there * 3)[: 3 if run == "vllm" else 1]
    return plan(folder, n_samples, run, models, **(given | options))


def bench_of(how: Plan, shape: Shape, figures: Figures, busy: BusyLog) -> Bench:
    """A bench that writes down each pass when it ends."""

    def tell(name: str, one: Pass) -> None:
        figures.add(
            "pass",
            backend=how.backend,
            loop=name,
            requests=one.n_requests,
            seconds=one.seconds,
            requests_per_s=one.rate,
            gpu_busy=busy.share(one),
            cpu_ms_a_request=1000 * one.cpu_s / one.n_requests,
        )
        shares = list(bench.shares())
        figures.add("state", backend=how.backend, shares=shares, starts=bench.starts)

    bench = Bench(call_for(how), concurrency=shape.concurrency, tell=tell)
    return bench


def run_vllm(folder: Path, shape: Shape, n_samples: int, figures: Figures) -> None:
    """Passes of medeval and of the bare loop in turn, over three checkpoints on one engine."""
    how = planned(folder, shape, n_samples, "vllm", model_args={**shape.engine})
    busy = BusyLog()
    bench = bench_of(how, shape, figures, busy)
    with busy.running():
        report = beside_bare(how, bench)
    check(report, bench)


class ScriptedTransformers(Scripted):
    """A model of the transformers backend."""

    def _history(self, request: Request, reply: Reply) -> TokenHistory:
        from medeval.models.transformers.processor import Prompt

        assert reply.history is not None
        assert isinstance(reply.history.states, Prompt)
        whole, n = reply.history.states, reply.usage.prompt_tokens
        opening = Prompt(whole.ids[:n], {name: row[:n] for name, row in whole.kinds.items()})
        engine = self._model._engine
        states = opening.followed_by(engine.processor.template.text_ids(self._bench.call))
        return TokenHistory(states.ids, reply.history.n_messages, states)


def run_transformers(
    folder: Path, shape: Shape, n_samples: int, figures: Figures, limit_s: float
) -> None:
    """One pass of the transformers backend in bf16, over as many samples as the time allows."""
    how = planned(
        folder,
        shape,
        n_samples,
        "transformers",
        model_args={"dtype": "bfloat16"},
        concurrency=min(64, shape.concurrency),
        time_limit=TAKES_SAMPLES * limit_s,
    )
    busy, engines = BusyLog(), model_opener(how)
    assert isinstance(engines, SharedEngines)
    bench = bench_of(how, shape, figures, busy)

    def opened(checkpoint: Any) -> Any:
        model = engines(checkpoint)
        assert isinstance(model, TransformersModel)
        return ScriptedTransformers(model, bench)

    with busy.running():
        report = carry_out(how, SharedEngines(opened, engines.aclose), Silent)
    check(report, bench)


def check(report: RunReport, bench: Bench) -> None:
    """End with an error where samples failed, none was done, or an engine was started anew."""
    if report.stopped or (report.unscored and report.interruption is None):
        sys.exit(report.closing_words.splitlines()[0])
    if not bench.passes:
        sys.exit("no sample was done in time")
    anew = [note for note in bench.notes if "started anew" in note]
    if anew:
        sys.exit(anew[0])


def run_part(name: str, limit_s: float, folder: Path, command: list[str]) -> str | None:
    """Run a part as a process of its own; returns why it failed, None where it did not."""
    if limit_s <= 0:
        return "no time was left"
    log = folder / f"{name.replace(' ', '_')}.log"
    part = [*command, "--part", name, "--limit-s", str(limit_s)]
    with log.open("wb") as output:
        # a session of its own, so that the engine's processes end with it
        process = subprocess.Popen(part, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status == 0:
        return None
    text = log.read_text(errors="replace")
    print(f"-- the end of {log}\n{text[-3000:]}", file=sys.stderr)
    return (text.strip().splitlines() or [f"exit {status}"])[-1]


def report(figures: Figures, failed: Mapping[str, str], head: Mapping[str, Any]) -> None:
    """Print the table, the figures below it, and all of it as a line of JSON."""
    print("| pass | requests | seconds | requests/s | GPU busy | CPU ms a request |")
    print("| --- | --- | --- | --- | --- | --- |")
    passes = figures.of("pass")
    for one in passes:
        who = "bare AsyncLLM.generate" if one["loop"] == "bare" else f"medeval, {one['backend']}"
        busy = "" if one["gpu_busy"] is None else f"{one['gpu_busy']:.2f}"
        print(
            f"| {who} | {one['requests']} | {one['seconds']:.1f} | {one['requests_per_s']:.2f} "
            f"| {busy} | {one['cpu_ms_a_request']:.1f} |"
        )
    states = [one for one in figures.of("state") if one["backend"] == "vllm"]
    shares, starts = (states[-1]["shares"], states[-1]["starts"]) if states else ([], [])
    checkpoints = figures.of("checkpoint")
    found = {
        **head,
        "checkpoints": checkpoints,
        "vllm_share": median(shares) if shares else None,
        "vllm_shares": shares,
        "vllm_start_s": starts[0] if starts else None,
        "swap_s": starts[1:],
        "passes": passes,
        "failed": dict(failed),
    }
    print()
    for one in checkpoints:
        print(
            f"checkpoint: {one['parameters'] / 1e9:.3f} billion parameters, drawn in "
            f"{one['drawn_s']:.1f} s, written in {one['written_s']:.1f} s"
        )
    if shares:
        listed = ", ".join(f"{share:.3f}" for share in shares)
        print(f"share of vLLM's own throughput: {listed}; median {median(shares):.3f}")
    if starts:
        listed = ", ".join(f"{one:.1f}" for one in starts[1:]) or "not measured"
        print(
            f"vLLM ready after {starts[0]:.1f} s; seconds from one checkpoint to the next: {listed}"
        )
    for name, why in failed.items():
        print(f"FAILED {name}: {why}")
    print(json.dumps(found))


def all_parts(folder: Path, options: argparse.Namespace) -> None:
    began = time.monotonic()
    command = [sys.executable, __file__, "--shape", options.shape]
    command += ["--samples", str(options.samples), "--folder", str(folder)]
    failed: dict[str, str] = {}
    for name, limit_s in LIMITS_S.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        left_s = TOTAL_S - (time.monotonic() - began)
        why = run_part(name, min(limit_s, left_s), folder, command)
        if why is not None:
            failed[name] = why
    head = {
        "shape": options.shape,
        "samples": options.samples,
        "gpu": asked_of_gpu("name"),
        "versions": {name: version_of(name) for name in ("vllm", "transformers", "torch")},
        "total_s": time.monotonic() - began,
    }
    report(Figures(folder / "figures.jsonl"), failed, head)
    sys.exit(1 if failed else 0)


def one_part(folder: Path, options: argparse.Namespace) -> None:
    figures, shape = Figures(folder / "figures.jsonl"), SHAPES[options.shape]
    match options.part.split():
        case ["checkpoint", index]:
            draw_checkpoint(folder, shape, int(index), figures)
        case ["vllm"]:
            run_vllm(folder, shape, options.samples, figures)
        case _:
            run_transformers(folder, shape, options.samples, figures, options.limit_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="7b")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where checkpoints and logs go, and stay")
    parser.add_argument("--part", choices=list(LIMITS_S), help="run one part in this process")
    parser.add_argument("--limit-s", type=float, default=LIMITS_S["transformers"])
    options = parser.parse_args()
    work = one_part if options.part else all_parts
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        work(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            work(Path(temporary), options)


if __name__ == "__main__":
    main()
