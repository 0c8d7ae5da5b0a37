"""HR-Bench: 200 questions, each four times with its options moved round."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubRows, open_rows
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import in_base64, picture, prompt, samples_of, without_images

HRBENCH_4K = load("hrbench_4k", Benchmark).value

OPTIONS = ["The umbrella is red", "The umbrella is blue", "The umbrella is white", "It is black"]


def row(index: int, cycle: int, image: bytes = b"") -> dict[str, object]:
    """A row in the data set's columns, with the options moved round by `cycle` places."""
    moved = OPTIONS[cycle:] + OPTIONS[:cycle]
    return {
        "index": index,
        "question": "What is the color of the umbrella?",
        "answer": "ABCD"[moved.index(OPTIONS[1])],
        "category": "single",
        **dict(zip("ABCD", moved, strict=True)),
        "cycle_category": f"cycle_{cycle}",
        "image": in_base64(image or picture(64, 48)),
    }


@pytest.mark.parametrize(
    ("name", "split", "alias", "other"),
    [
        ("hrbench_4k", "hrbench_4k", "HRBench4K", "hrbench4k"),
        ("hrbench_8k", "hrbench_8k", "HRBench8K", "hrbench8k"),
    ],
)
def test_it_is_the_published_split(name: str, split: str, alias: str, other: str) -> None:
    benchmark = load(alias, Benchmark).value
    assert benchmark is load(name, Benchmark).value is load(other, Benchmark).value
    assert benchmark.rows == HubRows("DreamMr/HR-Bench", split, config="hrbench_version_split")
    assert (benchmark.name, benchmark.count, benchmark.judge) == (name, 800, "choice")
    assert (benchmark.aggregate, benchmark.cluster_size) == ("mean over cycles", 4)
    assert (benchmark.chance, benchmark.groups) == (0.25, ("category", "cycle"))


def test_a_row_becomes_this_sample_and_prompt() -> None:
    (sample,) = samples_of(HRBENCH_4K, row(5, 1))
    assert sample.cluster is not None
    assert without_images(sample) == Sample(
        id="5",
        question="What is the color of the umbrella?",
        images=(),
        targets=("A",),
        options=(
            "The umbrella is blue",
            "The umbrella is white",
            "It is black",
            "The umbrella is red",
        ),
        instruction="Answer the option letter directly.",
        groups={"category": "single", "cycle": "cycle_1"},
        cluster=sample.cluster,
        chance=0.25,
    )
    assert [image.read() for image in sample.images] == [picture(64, 48)]
    assert prompt(sample) == (
        "What is the color of the umbrella?\n"
        "A. The umbrella is blue\n"
        "B. The umbrella is white\n"
        "C. It is black\n"
        "D. The umbrella is red\n"
        "Answer the option letter directly."
    )


def test_the_four_rotations_of_a_question_share_a_cluster_and_nothing_else_does() -> None:
    rotations = [row(index, index) for index in range(4)]
    same_words = [row(index + 4, index, picture(65, 48)) for index in range(4)]
    samples = samples_of(HRBENCH_4K, *rotations, *same_words)
    assert sorted(Counter(sample.cluster for sample in samples).values()) == [4, 4]
    assert {sample.cluster for sample in samples[:4]} != {sample.cluster for sample in samples[4:]}
    assert [sample.targets for sample in samples[:4]] == [("B",), ("A",), ("D",), ("C",)]


@pytest.mark.parametrize("missing", [{"C": None, "D": None}, {"C": "", "D": ""}])
def test_options_that_are_not_there_are_left_out(missing: Mapping[str, object]) -> None:
    (sample,) = samples_of(HRBENCH_4K, {**row(0, 0), **missing})
    assert (len(sample.options), sample.chance) == (2, 0.5)


@pytest.mark.parametrize("kind", ["parquet", "tsv"])
def test_a_local_copy_in_the_hubs_layouts_gives_the_same_samples(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import pandas

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / ".cache"))
    table = pandas.DataFrame([row(index, index) for index in range(4)])
    path = tmp_path / f"hr_bench_4k.{kind}"
    if kind == "tsv":
        table.to_csv(path, sep="\t", index=False)
    else:
        table.to_parquet(path)
    samples = [HRBENCH_4K.to_sample(found) for found in open_rows(HRBENCH_4K.rows, tmp_path)]
    expected = samples_of(HRBENCH_4K, *(row(index, index) for index in range(4)))
    assert list(map(without_images, samples)) == list(map(without_images, expected))
    assert samples[0].images[0].read() == picture(64, 48)
