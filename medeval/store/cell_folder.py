"""The folder of one cell: its fingerprint, and what was appended to it as samples ended."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from medeval.errors import RecordError
from medeval.store.endings import Ending
from medeval.store.files import (
    Appender,
    explained,
    make_folder,
    read_lines,
    set_aside_torn_line,
    write_whole,
)
from medeval.store.fingerprints import differences
from medeval.store.keys import CellKey
from medeval.store.locks import Lock
from medeval.store.packed import Numbered, SampleKey, SampleKeys, VerdictKey, VerdictKeys
from medeval.store.records import CellRecord, FailureRecord, TrajectoryRecord, VerdictRecord
from medeval.store.schema import AnyRecord, parse_record
from medeval.types.trajectory import Trajectory
from medeval.types.verdict import Verdict

logger = logging.getLogger(__name__)

WRITER_NAME = re.compile(r"[A-Za-z0-9_-]+")
SHORT_WAIT_S = 60.0
MAX_LINES = 1 << 40

LineKind = Literal["trajectory", "verdict"]

# Lines begin with their key, so that finding what is done need not parse whole conversations.
_TEXT = rb'("(?:[^"\\]|\\.)*+")'
TRAJECTORY_KEY = re.compile(rb'\{"schema_version":1,"sample_id":' + _TEXT + rb',"repeat":(\d+),')
VERDICT_KEY = re.compile(TRAJECTORY_KEY.pattern + rb'"judge":' + _TEXT + rb",")


class CellWriter:
    """Appends to one cell what ends; made by `CellFolder.writer`. Safe to use from threads."""

    def __init__(self, path: Path, trajectories: Appender, verdicts: Appender) -> None:
        self._path = path
        self._trajectories = trajectories
        self._verdicts = verdicts

    def append_trajectory(self, trajectory: Trajectory) -> None:
        """Append a trajectory; raises RecordError where it cannot be written."""
        self._trajectories.append(TrajectoryRecord.from_trajectory(trajectory).line())

    def append_verdict(self, verdict: Verdict) -> None:
        """Append a verdict; a later one by the same judge takes the place of an earlier one."""
        self._verdicts.append(VerdictRecord.from_verdict(verdict).line())

    def copy(self, kind: LineKind, line: bytes) -> None:
        """Append a line that another cell of the same settings holds, byte for byte."""
        (self._trajectories if kind == "trajectory" else self._verdicts).append(line)

    def append_failure(self, failure: FailureRecord) -> None:
        """Append a failure. All writers share one file, so each takes its turn."""
        turn = Lock(
            self._path / ".failures.lock",
            subject=f"the list of failures in {self._path}",
            wait_s=SHORT_WAIT_S,
        )
        with turn, Appender(self._path / "failures.jsonl") as failures:
            failures.append(failure.line())


class CellFolder:
    """Everything about one cell; made by `RunFolder.cell`. Reading needs no lock."""

    def __init__(self, path: Path, key: CellKey) -> None:
        self.path = path
        self.key = key

    def __repr__(self) -> str:
        return f"CellFolder({str(self.path)!r})"

    @property
    def _subject(self) -> str:
        return f"cell {self.key.checkpoint!r} x {self.key.benchmark!r} x {self.key.protocol!r}"

    def record(self) -> CellRecord | None:
        """What cell.json says, or None where the cell was never claimed."""
        return read_record(CellRecord, self.path / "cell.json")

    def claim(self, fields: Mapping[str, object], recorded: Mapping[str, object]) -> None:
        """Say what the cell is evaluated with, before anything is written to it.

        `fields` are all that can change its numbers; `recorded` is written down beside them.
        Raises RecordError, naming each differing field, where the cell was begun with others.
        """
        now = CellRecord.of(fields, recorded)
        with self._claiming():
            before = self.record()
            if before is None:
                self._refuse_unclaimed_lines()
                write_whole(self.path / "cell.json", [now.pretty()])
            elif before.fingerprint != now.fingerprint:
                raise self._of_another_run(before, now)
            elif now.recorded[0] not in before.recorded:
                both = CellRecord.of(before.fields, *before.recorded, *now.recorded)
                write_whole(self.path / "cell.json", [both.pretty()])

    def _claiming(self) -> Lock:
        make_folder(self.path)
        return Lock(self.path / ".claim.lock", subject=self._subject, wait_s=SHORT_WAIT_S)

    @property
    def is_unclaimed(self) -> bool:
        """Whether there are trajectories, but nothing says what they were made with."""
        return self.record() is None and bool(self._files("trajectories"))

    def _refuse_unclaimed_lines(self) -> None:
        if self.is_unclaimed:
            raise RecordError(
                f"{self._subject} has trajectories but no cell.json, in {str(self.path)!r}",
                hint="restore cell.json, or start the cell anew with --fresh",
            )

    def _of_another_run(self, before: CellRecord, now: CellRecord) -> RecordError:
        lines = "".join(f"\n  {line}" for line in differences(before.fields, now.fields))
        return RecordError(
            f"{self._subject} was begun with other settings:{lines}",
            hint="run with the settings it was begun with, start the cell anew with --fresh, "
            "or name another folder with --output-dir",
        )

    def clear(self) -> None:
        """Delete everything in the cell; raises RecordError while something writes to it."""
        with self._claiming(), ExitStack() as stack:
            for lock in sorted(self.path.glob(".writer-*.lock")):
                stack.enter_context(Lock(lock, subject=self._subject))
            # A kill on the way leaves no verdict without its trajectory, and no trajectory
            # without the settings it was made with.
            order = {"verdicts": 0, "trajectories": 1, "failures": 2, "cell": 3}
            for path in sorted(
                self.path.iterdir(), key=lambda path: order.get(path.name.split(".")[0], 0)
            ):
                if path.suffix != ".lock":
                    with explained("delete", path):
                        path.unlink()

    @contextmanager
    def writer(self, name: str = "0") -> Iterator[CellWriter]:
        """Open the cell for appending under a writer's name; one process may hold each name.

        Torn last lines that a killed process left are set aside first, and verdicts whose
        trajectory is gone are dropped: it will be made anew. Raises RecordError where the cell was
        not claimed, or the name is in use.
        """
        if not WRITER_NAME.fullmatch(name):
            raise RecordError(f"a writer's name is letters, digits, '_' and '-', seen {name!r}")
        if self.record() is None:
            raise RecordError(f"{self._subject} has no cell.json", hint="claim the cell first")
        subject = f"{self._subject}, writer {name!r},"
        with (
            Lock(self.path / f".writer-{name}.lock", subject=subject),
            Appender(self.path / f"trajectories.{name}.jsonl") as trajectories,
            self._verdict_appender(name) as verdicts,
        ):
            yield CellWriter(self.path, trajectories, verdicts)

    def _verdict_appender(self, name: str) -> Appender:
        path = self.path / f"verdicts.{name}.jsonl"
        set_aside_torn_line(path)
        done = self.done()
        orphans = {number for number, key in _verdict_keys(path) if key[:2] not in done}
        if orphans:
            logger.warning("%s: dropped %d verdicts without a trajectory", path, len(orphans))
            kept = [line for number, line in read_lines(path) if number not in orphans]
            write_whole(path, kept)
        return Appender(path)

    def _files(self, kind: str) -> list[Path]:
        """The files of all writers by name; verdicts of "0" last, for only that one judges anew."""
        own = "verdicts.0.jsonl"
        found = self.path.glob(f"{kind}.*.jsonl")
        return sorted(found, key=lambda path: (path.name == own, path.name))

    def trajectories(self) -> Iterator[Trajectory]:
        """Each trajectory of all writers, by writer's name and then as they ended.

        A second trajectory of the same sample and repeat is skipped with a warning. Raises
        RecordError at a line, other than a torn last one, that cannot be read.
        """
        for where, _, line in self._trajectory_lines():
            yield parse_record(TrajectoryRecord, line, where).trajectory()

    def endings(self) -> Iterator[Ending]:
        """How each of `trajectories` ended; their conversations are not read."""
        for where, _, line in self._trajectory_lines():
            yield parse_record(Ending, line, where)

    def trajectory_lines(self) -> Iterator[tuple[SampleKey, bytes]]:
        """The sample id and repeat, and the line as it is written, of each of `trajectories`."""
        for _, key, line in self._trajectory_lines():
            yield key, line

    def _trajectory_lines(self) -> Iterator[tuple[str, SampleKey, bytes]]:
        seen = SampleKeys()
        for path in self._files("trajectories"):
            for number, line in read_lines(path):
                key, where = _trajectory_key(path, number, line), _where(path, number)
                n_seen = len(seen)
                if seen.add(key) < n_seen:
                    logger.warning("%s: skipped a second trajectory of %r", where, key)
                    continue
                yield where, key, line

    def done(self) -> AbstractSet[SampleKey]:
        """The sample id and repeat of each trajectory, without reading the conversations."""
        return SampleKeys(self.done_keys())

    def done_keys(self) -> Iterator[SampleKey]:
        """Those of `done` one after the other, as they lie in the files."""
        return (key for path in self._files("trajectories") for key in _trajectory_keys(path))

    def verdicts(self) -> Iterator[Verdict]:
        """The last verdict on each sample and repeat by each judge, by writer's name."""
        for where, _, line in self._verdict_lines():
            yield parse_record(VerdictRecord, line, where).verdict()

    def verdicts_by(self, judge: str) -> Iterator[Verdict]:
        """Every verdict of one judge; of two on a sample and repeat, the last one holds."""
        for path in self._files("verdicts"):
            for number, line in read_lines(path):
                if _verdict_key(path, number, line)[2] == judge:
                    yield parse_record(VerdictRecord, line, _where(path, number)).verdict()

    def verdict_lines(self) -> Iterator[tuple[VerdictKey, bytes]]:
        """The sample id, repeat and judge, and the line as it is written, of each of `verdicts`."""
        for _, key, line in self._verdict_lines():
            yield key, line

    def _verdict_lines(self) -> Iterator[tuple[str, VerdictKey, bytes]]:
        files = self._files("verdicts")
        last: dict[str, Numbered] = {}
        for place, (sample_id, repeat, judge), _ in _verdict_places(files):
            if judge not in last:
                last[judge] = Numbered()
            last[judge][sample_id, repeat] = place
        for place, key, line in _verdict_places(files):
            sample_id, repeat, judge = key
            if judge in last and last[judge].get((sample_id, repeat)) == place:
                index, number = divmod(place, MAX_LINES)
                yield _where(files[index], number), key, line

    def judged(self) -> AbstractSet[VerdictKey]:
        """The sample id, repeat and judge identity of each verdict."""
        return VerdictKeys(
            key for path in self._files("verdicts") for _, key in _verdict_keys(path)
        )

    def judged_by(self, judge: str) -> AbstractSet[SampleKey]:
        """The sample id and repeat of each verdict by one judge."""
        return SampleKeys(
            (sample_id, repeat)
            for path in self._files("verdicts")
            for _, (sample_id, repeat, by) in _verdict_keys(path)
            if by == judge
        )

    def failures(self) -> Iterator[FailureRecord]:
        """Each failure, in the order they happened."""
        path = self.path / "failures.jsonl"
        for number, line in read_lines(path):
            yield parse_record(FailureRecord, line, _where(path, number))


def read_record(kind: type[AnyRecord], path: Path) -> AnyRecord | None:
    """The record that is a whole file, or None where there is no such file."""
    with explained("read", path):
        if not path.exists():
            return None
        data = path.read_bytes()
    return parse_record(kind, data, str(path))


def _where(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _trajectory_keys(path: Path) -> Iterator[SampleKey]:
    return (_trajectory_key(path, number, line) for number, line in read_lines(path))


def _trajectory_key(path: Path, number: int, line: bytes) -> SampleKey:
    match = TRAJECTORY_KEY.match(line)
    if match and line.endswith(b"}\n"):
        return _string(match[1]), int(match[2])
    record = parse_record(TrajectoryRecord, line, _where(path, number))
    return record.sample_id, record.repeat


def _verdict_places(files: Sequence[Path]) -> Iterator[tuple[int, VerdictKey, bytes]]:
    """Each verdict's line with its key, and a number for its place: the file's and its own."""
    for index, path in enumerate(files):
        for number, line in read_lines(path):
            yield index * MAX_LINES + number, _verdict_key(path, number, line), line


def _verdict_keys(path: Path) -> Iterator[tuple[int, VerdictKey]]:
    for number, line in read_lines(path):
        yield number, _verdict_key(path, number, line)


def _verdict_key(path: Path, number: int, line: bytes) -> VerdictKey:
    match = VERDICT_KEY.match(line)
    if match and line.endswith(b"}\n"):
        return _string(match[1]), int(match[2]), _string(match[3])
    record = parse_record(VerdictRecord, line, _where(path, number))
    return record.sample_id, record.repeat, record.judge


def _string(token: bytes) -> str:
    return str(json.loads(token)) if b"\\" in token else token[1:-1].decode()
