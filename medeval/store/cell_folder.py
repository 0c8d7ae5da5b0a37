"""The folder of one cell: its fingerprint, and its trajectories, verdicts and failures."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from medeval.errors import RecordError
from medeval.store.files import (
    Appender,
    explained,
    make_folder,
    read_lines,
    set_aside_torn_line,
    write_whole,
)
from medeval.store.fingerprints import CellRecord, differences
from medeval.store.keys import CellKey, SampleKey, VerdictKey
from medeval.store.locks import Lock
from medeval.store.records import line, parse_record, pretty
from medeval.types.failure import FailureRecord
from medeval.types.trajectory import Trajectory
from medeval.types.verdict import Verdict

logger = logging.getLogger(__name__)

WRITER_NAME = re.compile(r"[A-Za-z0-9_-]+")
SHORT_WAIT_S = 60.0

LineKind = Literal["trajectory", "verdict"]
T = TypeVar("T")

# Lines begin with their key, so that finding the finished samples parses no conversations.
_TEXT = rb'("(?:[^"\\]|\\.)*+")'
_KEY = rb'"sample_id":' + _TEXT + rb',"repeat":(\d+),'
TRAJECTORY_KEY = re.compile(rb'\{"schema_version":[12],' + _KEY)
VERDICT_KEY = re.compile(rb'\{"schema_version":1,' + _KEY + rb'"judge":' + _TEXT + rb",")


class CellWriter:
    """Appends records to one cell; made by `CellFolder.writer`. Safe to use from threads."""

    def __init__(self, path: Path, trajectories: Appender, verdicts: Appender) -> None:
        self._path = path
        self._trajectories = trajectories
        self._verdicts = verdicts

    def append_trajectory(self, trajectory: Trajectory) -> None:
        """Append a trajectory; raises RecordError if it cannot be written."""
        subject = f"trajectory of sample {trajectory.sample_id!r}"
        self._trajectories.append(line(trajectory, subject))

    def append_verdict(self, verdict: Verdict) -> None:
        """Append a verdict; it replaces an earlier one by the same judge."""
        self._verdicts.append(line(verdict, f"verdict on sample {verdict.sample_id!r}"))

    def copy(self, kind: LineKind, data: bytes) -> None:
        """Append a line of another cell with the same settings, byte for byte."""
        (self._trajectories if kind == "trajectory" else self._verdicts).append(data)

    def append_failure(self, failure: FailureRecord) -> None:
        """Append a failure. All writers share one file, so each locks it."""
        lock = Lock(
            self._path / ".failures.lock",
            subject=f"the list of failures in {self._path}",
            wait_s=SHORT_WAIT_S,
        )
        with lock, Appender(self._path / "failures.jsonl") as failures:
            failures.append(line(failure))


class CellFolder:
    """The folder of one cell; made by `RunFolder.cell`. Reading needs no lock."""

    def __init__(self, path: Path, key: CellKey) -> None:
        self.path = path
        self.key = key

    def __repr__(self) -> str:
        return f"CellFolder({str(self.path)!r})"

    @property
    def _subject(self) -> str:
        return f"cell {self.key.checkpoint!r} x {self.key.benchmark!r} x {self.key.protocol!r}"

    def record(self) -> CellRecord | None:
        """The record in cell.json, or None if the cell was never claimed."""
        return read_record(CellRecord, self.path / "cell.json")

    def claim(self, fields: Mapping[str, object], recorded: Mapping[str, object]) -> None:
        """Record the settings of the cell, before anything else is written to it.

        `fields` are all settings that can change its numbers; `recorded` is written next to them.
        Raises RecordError, naming each different field, if the cell has other settings already.
        """
        now = CellRecord.of(fields, recorded)
        with self._claiming():
            before = self.record()
            if before is None:
                self._refuse_unclaimed_lines()
                write_whole(self.path / "cell.json", [pretty(now)])
            elif before.fingerprint != now.fingerprint:
                raise self._other_settings(before, now)
            elif now.recorded[0] not in before.recorded:
                both = CellRecord.of(before.fields, *before.recorded, *now.recorded)
                write_whole(self.path / "cell.json", [pretty(both)])

    def _claiming(self) -> Lock:
        make_folder(self.path)
        return Lock(self.path / ".claim.lock", subject=self._subject, wait_s=SHORT_WAIT_S)

    @property
    def is_unclaimed(self) -> bool:
        """Whether the cell has trajectories, but no record of their settings."""
        return self.record() is None and bool(self._files("trajectories"))

    def _refuse_unclaimed_lines(self) -> None:
        if self.is_unclaimed:
            raise RecordError(
                f"{self._subject} has trajectories but no cell.json, in {str(self.path)!r}",
                hint="restore cell.json, or start the cell anew with --fresh",
            )

    def _other_settings(self, before: CellRecord, now: CellRecord) -> RecordError:
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
            # If this process is killed, no verdict stays without its trajectory, and no
            # trajectory without its settings.
            order = {"verdicts": 0, "trajectories": 1, "failures": 2, "cell": 3}
            for path in sorted(
                self.path.iterdir(), key=lambda path: order.get(path.name.split(".")[0], 0)
            ):
                if path.suffix != ".lock":
                    with explained("delete", path):
                        path.unlink()

    @contextmanager
    def writer(self, name: str = "0") -> Iterator[CellWriter]:
        """Open the cell for appending under a writer's name, which only one process may use.

        Torn last lines of a killed process are moved away first, and verdicts without trajectory
        are dropped, since the trajectory will be made again. Raises RecordError if the cell was
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
            kept = [data for number, data in read_lines(path) if number not in orphans]
            write_whole(path, kept)
        return Appender(path)

    def _files(self, kind: str) -> list[Path]:
        """The files of all writers by name; verdicts of "0" last: only it judges again."""
        last = "verdicts.0.jsonl"
        found = self.path.glob(f"{kind}.*.jsonl")
        return sorted(found, key=lambda path: (path.name == last, path.name))

    def trajectories(self) -> Iterator[Trajectory]:
        """Each trajectory of all writers, by writer's name and then in the order of writing.

        A second trajectory of the same sample and repeat is skipped with a warning. Raises
        RecordError at an unreadable line, except a torn last one.
        """
        for where, _, data in self._trajectory_lines():
            yield parse_record(Trajectory, data, where)

    def trajectory_lines(self) -> Iterator[tuple[SampleKey, bytes]]:
        """The key and the line in the file of each of `trajectories`."""
        for _, key, data in self._trajectory_lines():
            yield key, data

    def _trajectory_lines(self) -> Iterator[tuple[str, SampleKey, bytes]]:
        seen: set[SampleKey] = set()
        for path in self._files("trajectories"):
            for number, data in read_lines(path):
                key, where = _trajectory_key(path, number, data), _where(path, number)
                if key in seen:
                    logger.warning("%s: skipped a second trajectory of %r", where, key)
                    continue
                seen.add(key)
                yield where, key, data

    def done(self) -> set[SampleKey]:
        """The sample id and repeat of each trajectory, without reading the conversations."""
        return {key for path in self._files("trajectories") for key in _trajectory_keys(path)}

    def verdicts(self) -> Iterator[Verdict]:
        """The last verdict by each judge on each sample and repeat, by writer's name."""
        for where, _, data in self._verdict_lines():
            yield parse_record(Verdict, data, where)

    def verdicts_by(self, judge: str) -> Iterator[Verdict]:
        """Every verdict of one judge; of two on the same sample and repeat, the last one counts."""
        for path in self._files("verdicts"):
            for number, data in read_lines(path):
                if _verdict_key(path, number, data)[2] == judge:
                    yield parse_record(Verdict, data, _where(path, number))

    def verdict_lines(self) -> Iterator[tuple[VerdictKey, bytes]]:
        """The key and the line in the file of each of `verdicts`."""
        for _, key, data in self._verdict_lines():
            yield key, data

    def _verdict_lines(self) -> Iterator[tuple[str, VerdictKey, bytes]]:
        files = self._files("verdicts")
        last = {key: (path, number) for path in files for number, key in _verdict_keys(path)}
        for path in files:
            for number, data in read_lines(path):
                key = _verdict_key(path, number, data)
                if last.get(key) == (path, number):
                    yield _where(path, number), key, data

    def judged(self) -> set[VerdictKey]:
        """The sample id, repeat and judge identity of each verdict."""
        return {key for path in self._files("verdicts") for _, key in _verdict_keys(path)}

    def judged_by(self, judge: str) -> set[SampleKey]:
        """The sample id and repeat of each verdict by one judge."""
        return {(sample_id, repeat) for sample_id, repeat, by in self.judged() if by == judge}

    def failures(self) -> Iterator[FailureRecord]:
        """Each failure, in the order of occurrence."""
        path = self.path / "failures.jsonl"
        for number, data in read_lines(path):
            yield parse_record(FailureRecord, data, _where(path, number))


def read_record(kind: type[T], path: Path) -> T | None:
    """The record in the file `path`, or None if there is no such file."""
    with explained("read", path):
        if not path.exists():
            return None
        data = path.read_bytes()
    return parse_record(kind, data, str(path))


def _where(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _trajectory_keys(path: Path) -> Iterator[SampleKey]:
    return (_trajectory_key(path, number, data) for number, data in read_lines(path))


def _trajectory_key(path: Path, number: int, data: bytes) -> SampleKey:
    match = TRAJECTORY_KEY.match(data)
    if match and data.endswith(b"}\n"):
        return _string(match[1]), int(match[2])
    trajectory = parse_record(Trajectory, data, _where(path, number))
    return trajectory.sample_id, trajectory.repeat


def _verdict_keys(path: Path) -> Iterator[tuple[int, VerdictKey]]:
    for number, data in read_lines(path):
        yield number, _verdict_key(path, number, data)


def _verdict_key(path: Path, number: int, data: bytes) -> VerdictKey:
    match = VERDICT_KEY.match(data)
    if match and data.endswith(b"}\n"):
        return _string(match[1]), int(match[2]), _string(match[3])
    verdict = parse_record(Verdict, data, _where(path, number))
    return verdict.sample_id, verdict.repeat, verdict.judge


def _string(token: bytes) -> str:
    return str(json.loads(token)) if b"\\" in token else token[1:-1].decode()
