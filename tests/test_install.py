"""The wheel, installed in a fresh environment outside the checkout.

What medeval depends on is taken from the running environment, so that nothing is downloaded; the
checkout itself is not visible there.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from medeval.data.benchmark import Benchmark
from medeval.evaluation.loader import load

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs, with the wheel installed in it."""
    place = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    environment = place / "environment"
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    install = [str(programs / "python"), "-m", "pip", "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # paths that a .pth file adds have their own .pth files ignored: no editable install leaks in
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    return programs


def output_of(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    shown = output_of(
        installed / "python", "-c", "import medeval; print(medeval.__file__)", cwd=tmp_path
    )
    assert shown.startswith(str(installed.parent))


def test_the_wheel_carries_every_definition(installed: Path, tmp_path: Path) -> None:
    here = output_of(sys.executable, "-m", "medeval", "list", "--json", cwd=ROOT)
    there = output_of(installed / "medeval", "list", "--json", cwd=tmp_path)
    assert json.loads(there) == json.loads(here)


def test_a_definition_runs_from_the_wheel_with_the_same_hash(
    installed: Path, tmp_path: Path
) -> None:
    assert "200 rows" in output_of(installed / "medeval", "validate", "markers", cwd=tmp_path)
    shown = output_of(installed / "medeval", "show", "markers", cwd=tmp_path)
    assert load("markers", Benchmark).source.sha256 in shown


def test_the_type_marker_and_the_licence_are_in_the_wheel(installed: Path) -> None:
    (package,) = installed.parent.glob("lib/python*/site-packages/medeval")
    assert (package / "py.typed").is_file()
    assert list(package.parent.glob("medeval-*.dist-info/licenses/LICENSE"))
