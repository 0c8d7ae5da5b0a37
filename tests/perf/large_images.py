"""What medeval adds to the least that a large image costs, sent as it is and resized.

    python tests/perf/large_images.py [--samples 8] [--rounds 3]

For 4096x3072 and 7680x4320 JPEGs, drawn here. `as it is` is compared with reading, hashing and
base64 alone; `resized` with one decode, one resize and one PNG by Pillow, from which the ratio of
CPU a sample is taken. CPU of medeval is that of a run of so many samples beyond a run of one; of
samples sent as they are there are ten times as many, whose files differ in a comment. `again` is a
checkpoint after the first, which finds its images resized in the run folder, four times as many,
against the same least as `resized`.

The least is one image after the other. Two things that nobody is spared are told beside it: the
same with two threads at once, which slow each other down, and the SHA-256 of the file, which the
records need; the second ratio is of those together. All are taken before and after each run, since
a machine's speed may change; a ratio is the median of the rounds.
"""

import argparse
import base64
import io
import os
import shutil
import statistics
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from medeval.images.cache import FOLDER, ImageCache
from medeval.images.request_image import sha256_of
from medeval.images.resize import PixelBudget
from tests.perf.measuring import (
    DEFINITION,
    PROTOCOL,
    RESIZED,
    cpu_s,
    file_name,
    measured,
    medeval,
    stub_server,
    told,
    write_photos,
    write_rows,
)

SIZES = ((4096, 3072), (7680, 4320))
SENT = (1120, 840)
BUDGETS = {"as it is": "None", "resized": RESIZED, "again": RESIZED}
BUDGET = PixelBudget(min_px=784, max_px=SENT[0] * SENT[1], factor=28)
# sending an image as it is takes so little that start-up's own noise would hide it
TIMES = {"as it is": 10, "resized": 1, "again": 4}


def passed_on(data: bytes) -> None:
    sha256_of(data)
    base64.b64encode(data)


def resized(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        small = image.resize(SENT, Image.Resampling.BICUBIC)
    small.save(io.BytesIO(), "PNG", compress_level=1)


def write_copies(images: Path, n: int, times: int) -> None:
    """Write each image again with a comment of its own: the same pixels in another file."""
    for index in range(n, n * times):
        data = (images / file_name(index % n)).read_bytes()
        comment = struct.pack(">2sHI", b"\xff\xfe", 6, index)
        (images / file_name(index)).write_bytes(data[:2] + comment + data[2:])


LEAST: dict[str, Callable[[bytes], None]] = {
    "as it is": passed_on,
    "resized": resized,
    "again": resized,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """CPU seconds an image: of the work alone, of two threads of it at once, of the SHA-256."""

    alone_s: float
    beside_s: float
    hash_s: float

    @classmethod
    def taken(cls, how: str, images: Path, n: int) -> "Least":
        files = [path.read_bytes() for path in sorted(images.glob("*.jpg"))[:n]]
        # sending as it is has the hash within
        hashed = 0.0 if LEAST[how] is passed_on else cpu_s(sha256_of, files, 1)
        return cls(
            alone_s=cpu_s(LEAST[how], files, 1),
            beside_s=cpu_s(LEAST[how], files, 2),
            hash_s=hashed,
        )

    @property
    def whole_s(self) -> float:
        return self.beside_s + self.hash_s

    def mean(self, other: "Least") -> "Least":
        return Least(
            alone_s=(self.alone_s + other.alone_s) / 2,
            beside_s=(self.beside_s + other.beside_s) / 2,
            hash_s=(self.hash_s + other.hash_s) / 2,
        )


def prepare_ahead(images: Path, n: int, kept: Path) -> None:
    """Prepare the first images as the first checkpoint of a sweep does."""
    kept.mkdir()
    cache = ImageCache(kept)
    for path in sorted(images.glob("*.jpg"))[:n]:
        cache.prepare(path.read_bytes(), name=path.name, budget=BUDGET)


def run_cpu_s(url: str, n: int, images: Path, folder: Path, kept: Path | None) -> float:
    run = folder / f"run-{images.name}"
    if kept is not None:
        shutil.copytree(kept, run / FOLDER, copy_function=os.link)
    command = medeval(
        *("run", "--model", "stub", "--base-url", url, "--concurrency", 4, "--limit", n),
        *("--benchmarks", folder / "files.py", "--data-dir", images, "--fresh"),
        *("--protocols", folder / "protocol.py", "--output-dir", run),
    )
    return measured(command, folder=folder).cpu_s


def taken_by(url: str, how: str, n: int, images: Path, folder: Path) -> tuple[float, Least]:
    """CPU seconds a sample of medeval's, and the least."""
    many = n * TIMES[how]
    kept = folder / f"kept-{images.name}" if how == "again" else None
    if kept is not None and not kept.exists():
        prepare_ahead(images, many, kept)
    before = Least.taken(how, images, n)
    one, all_of_them = (run_cpu_s(url, count, images, folder, kept) for count in (1, many))
    return (all_of_them - one) / (many - 1), before.mean(Least.taken(how, images, n))


def report(what: str, rounds: list[tuple[float, Least]]) -> None:
    ours_s = [taken for taken, _ in rounds]
    least = [least for _, least in rounds]
    print(
        f"{what:18} medeval {told_ms(ours_s)} ms of CPU a sample; least "
        f"{told_ms([one.alone_s for one in least])}, {told_ms([one.beside_s for one in least])} "
        f"two at once, hash {told_ms([one.hash_s for one in least])}; ratio "
        f"{told([mine / one.alone_s for mine, one in zip(ours_s, least, strict=True)])}, "
        f"{told([mine / one.whole_s for mine, one in zip(ours_s, least, strict=True)])} "
        "two at once with the hash",
        flush=True,
    )


def told_ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(BUDGETS), help="one way of sending")
    asked = parser.parse_args()
    n = asked.samples
    with tempfile.TemporaryDirectory() as name, stub_server(0.0, 64) as url:
        folder = Path(name)
        (folder / "files.py").write_text(DEFINITION)
        for size in SIZES:
            images = folder / f"{size[0]}x{size[1]}"
            write_photos(images, n, size, noise=60)
            n_files = n * max(TIMES.values())
            write_copies(images, n, max(TIMES.values()))
            write_rows(images, n_files, n_files)
            for how in [asked.only] if asked.only else list(BUDGETS):
                text = PROTOCOL.format(name=how.replace(" ", "_"), budget=BUDGETS[how])
                (folder / "protocol.py").write_text(text)
                rounds = [taken_by(url, how, n, images, folder) for _ in range(asked.rounds)]
                report(f"{images.name} {how}", rounds)


if __name__ == "__main__":
    main()
