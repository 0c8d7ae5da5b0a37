"""Markers: the colour of a patch inside a marker that is mostly too small to read at a glance.

Drawn by medeval from a seed, nothing is stored or downloaded. Three of five markers are small
(14 px of 224) and need a crop once the image is shrunk to what a tiny model sees; the others are
big (40 px). It exists for the demo and the tests, where models have a million parameters: a
score on it says nothing about a model of any use.
"""

from collections.abc import Mapping

from medeval import Benchmark, Box, DrawnRows, Row, Sample
from medeval.data.scenes import BIG, COLOURS, SMALL, draw_scene

COUNT = 200
# training scenes have other seeds, so that no sample here was ever trained on
SEED = "markers held out"


def draw(index: int) -> Mapping[str, object]:
    """The row at a position: 0 to COUNT - 1."""
    is_small = index % 5 < 3
    scene = draw_scene(f"{SEED} {index}", SMALL if is_small else BIG)
    return {
        "id": f"marker-{index:04d}",
        "image": scene.png,
        "colour": scene.colour,
        "size": "small" if is_small else "big",
        "box": scene.box,
    }


def to_sample(row: Row) -> Sample:
    """A sample of a row."""
    box = row["box"]
    assert isinstance(box, Box)
    return Sample(
        id=row.text("id"),
        question="What colour is the patch inside the marker?",
        instruction=f"Answer with one word: {', '.join(COLOURS)}.",
        images=(row.image("image"),),
        targets=(row.text("colour"),),
        groups={"size": row.text("size")},
        chance=1 / len(COLOURS),
        target_boxes=(box,),
    )


MARKERS = Benchmark(
    name="markers",
    title="coloured patches in small and big markers, drawn by medeval",
    rows=DrawnRows(COUNT, draw),
    count=COUNT,
    columns=("id", "image", "colour", "size", "box"),
    to_sample=to_sample,
    judge="exact_match",
    groups=("size",),
    chance=1 / len(COLOURS),
    licence="MIT",
)
