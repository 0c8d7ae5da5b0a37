"""The demo's training run: three checkpoints of one tiny model, made on the spot."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medeval.definitions import EvalProtocol, Pair
from medeval.demo.checkpoints import Architecture, Family, build_checkpoint
from medeval.demo.tokenizer import CHAT_TEMPLATE, DEFAULT_TEXTS
from medeval.errors import MedevalError, UsageError
from medeval.loader import load
from medeval.models.weights import weight_fingerprint
from medeval.types import JsonValue, Sample

if TYPE_CHECKING:
    from medeval.demo.memorise import Transcript

MANIFEST: Final = "manifest.json"


# Noise ends where the context does: the random checkpoint must not cost much time.
# Two layers learn the transcript, but not for every question; three do.
DEMO_ARCHITECTURE: Final = Architecture(context_tokens=1024, depth=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a demo series is made; equal recipes make equal series on one machine.

    `half_way` and `steps` are the training steps behind `global_step_10` and `global_step_20`.
    `free_answer` and `available_answer` are what the last checkpoint answers to everything,
    without and with tools; `box_permille` is the box it then always cuts out first.
    """

    family: Family = "qwen2_5_vl"
    seed: int = 0
    half_way: int = 14
    steps: int = 80
    free_answer: str = "red"
    available_answer: str = "blue"
    box_permille: tuple[int, int, int, int] = (250, 250, 750, 750)
    pairs: tuple[str, ...] = ("crop_zoom", "crop_zoom_native")
    architecture: Architecture = DEMO_ARCHITECTURE


DEMO_RECIPE: Final = Recipe()


def demo_checkpoints(directory: Path, recipe: Recipe = DEMO_RECIPE) -> list[Path]:
    """The checkpoints `global_step_0`, `_10` and `_20` in a directory, made where they are not.

    The first has random weights and writes noise. The last has one transcript by heart: offered
    the tool it calls it once and then answers, else it answers at once, always the same whatever
    the image. The middle one is half way between. Takes about a minute on one core; a series of
    the same recipe that is there already is kept.

    Raises UsageError where the directory holds checkpoints that are not the demo's.
    """
    protocols = _protocols(recipe)
    digest = _digest(recipe, protocols)
    places = {name: directory / name for name in _names()}
    if _recorded(directory, digest):
        return list(places.values())
    _clear(directory, list(places.values()))
    building = directory / ".building"
    shutil.rmtree(building, ignore_errors=True)
    made = _build(building, recipe, protocols)
    fingerprints = {path.name: weight_fingerprint(path) for path in made}
    # written before anything is moved, so that an interrupted move is known as the demo's own
    _write_manifest(directory, digest, fingerprints)
    for path in made:
        path.rename(places[path.name])
    building.rmdir()
    return list(places.values())


def _names() -> tuple[str, str, str]:
    return ("global_step_0", "global_step_10", "global_step_20")


def _build(building: Path, recipe: Recipe, protocols: list[EvalProtocol]) -> list[Path]:
    from medeval.demo.memorise import memorise

    random, half, last = (building / name for name in _names())
    transcripts = _transcripts(recipe, protocols)
    build_checkpoint(
        random,
        family=recipe.family,
        seed=recipe.seed,
        texts=_texts(transcripts),
        architecture=recipe.architecture,
    )
    shutil.copytree(random, half)
    shutil.copytree(random, last)
    memorise(
        last,
        transcripts,
        steps=recipe.steps,
        seed=recipe.seed,
        snapshots={recipe.half_way: half},
    )
    return [random, half, last]


def _protocols(recipe: Recipe) -> list[EvalProtocol]:
    return [arm for name in recipe.pairs for arm in load(name, Pair).value.arms]


def _transcripts(recipe: Recipe, protocols: list[EvalProtocol]) -> "list[Transcript]":
    """What the last checkpoint says: one call of the protocol's first tool, then an answer."""
    from medeval.demo.memorise import Transcript, call_text

    made = []
    for protocol in protocols:
        replies: tuple[str, ...] = (f"<answer>{recipe.free_answer}</answer>",)
        if protocol.tools:
            arguments: dict[str, JsonValue] = {"bbox_2d": list[JsonValue](recipe.box_permille)}
            call = call_text(protocol.tools[0].name, arguments)
            replies = (call, f"<answer>{recipe.available_answer}</answer>")
        made.append(Transcript(protocol=protocol, replies=replies))
    return made


def _texts(transcripts: "list[Transcript]") -> list[str]:
    nothing = Sample(id="tokenizer", question="", images=(), targets=())
    prompts = [
        message.text
        for transcript in transcripts
        for message in transcript.protocol.opening(nothing)
    ]
    return [*prompts, *(reply for transcript in transcripts for reply in transcript.replies)]


def _digest(recipe: Recipe, protocols: list[EvalProtocol]) -> str:
    """The sha256 of all that goes into a series, the protocols' own texts included."""
    described = {
        "recipe": asdict(recipe),
        "protocols": [protocol.describe() for protocol in protocols],
        "chat_template": CHAT_TEMPLATE,
        "texts": DEFAULT_TEXTS,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _recorded(directory: Path, digest: str) -> bool:
    """Whether the directory holds the whole series of this recipe, unchanged."""
    recorded = _read_manifest(directory)
    if recorded.get("recipe") != digest:
        return False
    fingerprints = recorded.get("weights", {})
    try:
        return all(fingerprints[name] == weight_fingerprint(directory / name) for name in _names())
    except (MedevalError, KeyError, TypeError):
        return False


def _read_manifest(directory: Path) -> dict[str, Any]:
    try:
        recorded = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _write_manifest(directory: Path, digest: str, fingerprints: dict[str, str]) -> None:
    recorded = {"made_by": "medeval demo", "recipe": digest, "weights": fingerprints}
    (directory / MANIFEST).write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")


def _clear(directory: Path, places: list[Path]) -> None:
    """Remove an earlier demo series; anything else that is in the way is refused."""
    there = [place for place in places if place.exists()]
    if there and _read_manifest(directory).get("made_by") != "medeval demo":
        raise UsageError(
            f"{str(there[0])!r} is in the way, and the demo did not make it",
            hint="give the demo an empty directory",
        )
    for place in there:
        shutil.rmtree(place)
