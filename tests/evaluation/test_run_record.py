"""What run.json records about medeval itself."""

import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import medeval
from medeval.evaluation import run_record
from medeval.evaluation.run_record import session
from medeval.store.records import now

PACKAGE = Path(medeval.__file__).parent


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_time_is_in_utc_to_the_second() -> None:
    told = datetime.fromisoformat(now())
    assert told.utcoffset() == timedelta(0)
    assert told.microsecond == 0


def test_a_session_tells_command_version_plan_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["medeval", "run", "--seed", "3"])
    told = session({"seed": 3}, seed=3, extra={"note": "x"})
    assert told.command == ("medeval", "run", "--seed", "3")
    assert (told.medeval_version, told.seed) == (medeval.__version__, 3)
    assert (told.plan, told.extra) == ({"seed": 3}, {"note": "x"})
    assert told.python == ".".join(map(str, sys.version_info[:3]))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the module believes to be installed."""
    (tmp_path / "medeval" / "evaluation").mkdir(parents=True)
    shutil.copy(PACKAGE / "evaluation" / "run_record.py", tmp_path / "medeval" / "evaluation")
    monkeypatch.setattr(
        run_record, "__file__", str(tmp_path / "medeval" / "evaluation" / "run_record.py")
    )
    return tmp_path


def test_the_commit_is_that_of_medevals_own_checkout(copy: Path) -> None:
    git(copy, "init", "--quiet")
    assert session({}, seed=0).git_commit is None
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "-m", "first")
    assert session({}, seed=0).git_commit == git(copy, "rev-parse", "HEAD")


def test_an_installed_copy_has_no_commit(copy: Path) -> None:
    assert session({}, seed=0).git_commit is None


def test_a_machine_without_git_has_no_commit(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / ".git").mkdir()
    monkeypatch.setenv("PATH", str(copy))
    assert session({}, seed=0).git_commit is None
