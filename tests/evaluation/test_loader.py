"""Three forms of reference, one loader, no traces."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from medeval.data.benchmark import Benchmark
from medeval.errors import DefinitionError
from medeval.evaluation.loader import FOLDERS, load, load_file, refuse_shared_names, shipped
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.scoring.judge import Judge
from tests.processes import run_python

ROOT = Path(__file__).parents[2]

JUDGE = """from medeval import Grade, Judge


def grade(sample, answer):
    return Grade(score={score})


{value} = Judge(name="{name}", metric="m", grade=grade)
"""


def judge(name: str, *, score: float = 1.0) -> str:
    return JUDGE.format(name=name, score=score, value=name.upper())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """An importable package with the given name, a new one for each test."""
    folder = tmp_path / "site" / name
    folder.mkdir(parents=True)
    write(folder / "__init__.py", "")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def test_a_shipped_name_is_found_with_its_file_and_hash() -> None:
    loaded = load("choice", Judge)
    path = ROOT / "judges" / "choice.py"
    assert loaded.value.name == "choice"
    assert loaded.source.path == path
    assert loaded.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", FOLDERS)
def test_everything_shipped_is_found_by_its_name(kind: type[Judge]) -> None:
    names = [loaded.value.name for loaded in shipped(kind)]
    assert names == sorted(names)
    assert names
    for name in names:
        assert load(name, kind).value.name == name


@pytest.mark.parametrize(
    ("kind", "name", "files"),
    [
        ("Benchmark", "vstar", ["vstar"]),
        ("Benchmark", "VStarBench", ["vstar"]),
        ("Benchmark", "hrbench_4k", ["hrbench"]),
        ("Pair", "crop_zoom", ["crop_zoom"]),
        ("Judge", "anls_lmms", ["anls"]),
    ],
)
def test_a_shipped_name_executes_its_own_file_alone(kind: str, name: str, files: list[str]) -> None:
    code = (
        "import sys\nfrom medeval.evaluation import loader\n"
        "loader.load(sys.argv[2], getattr(loader, sys.argv[1]))\n"
        "prefix = 'medeval_definition_'\n"
        "executed = [name for name in sys.modules if name.startswith(prefix)]\n"
        "print(*(name.removeprefix(prefix).rsplit('_', 2)[0] for name in executed))\n"
    )
    assert run_python(code, kind, name).split() == files


def test_a_path_is_loaded_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.py", judge("mine"))
    monkeypatch.chdir(tmp_path)
    for reference in (str(path), "mine.py", "./mine.py"):
        loaded = load(reference, Judge)
        assert (loaded.value.name, loaded.source.path) == ("mine", path.resolve())
        assert loaded.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_dotted_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path, monkeypatch, "pkg_plain")
    path = write(folder / "my_judge.py", judge("mine") + judge("other"))
    loaded = load("pkg_plain.my_judge::other", Judge)
    assert (loaded.value.name, loaded.source.path) == ("other", path)
    assert loaded.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_of_several_values_is_chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "two.py", judge("first") + judge("second"))
    assert load(f"{path}::second", Judge).value.name == "second"
    assert [loaded.value.name for loaded in load_file(path, Judge)] == ["first", "second"]
    with pytest.raises(DefinitionError, match="holds several judges: first, second") as refused:
        load(str(path), Judge)
    assert refused.value.hint == f"choose one: {path}::first"


def test_a_value_with_two_variables_is_one_value(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.py", judge("mine") + "AGAIN = MINE\n")
    assert load(str(path), Judge).value.name == "mine"


@pytest.mark.parametrize(
    ("reference", "kind", "message", "hint"),
    [
        ("vstr", Benchmark, "no benchmark named 'vstr'; known: ", "did you mean 'vstar'?"),
        ("crop_zom", Pair, "no pair named 'crop_zom'; known: chain_of_focus", "did you mean"),
        ("tool_fre", EvalProtocol, "no protocol named 'tool_fre'", "did you mean 'tool_free'?"),
        ("", Judge, "no judge named ''", "give a path to a .py file"),
        ("choice::choice", Judge, "no judge named 'choice::choice'", "did you mean 'choice'?"),
        ("zzz", Judge, "no judge named 'zzz'", "give a path to a .py file"),
        ("./absent.py", Judge, "cannot read the definition file 'absent.py'", "a reference is"),
        ("judges/README.md/x", Judge, "cannot read the definition file", "a reference is"),
        ("./judges", Judge, "cannot read the definition file 'judges'", "a reference is"),
        ("./judges/README.md", Judge, "is not a Python file", "its name ends in .py"),
        ("no_such_pkg.judge", Judge, "No module named 'no_such_pkg'", "must be installed"),
        ("..judge", Judge, "the module '..judge' cannot be loaded", None),
        ("xml.dom", Judge, "'xml.dom' holds no judge", "has a Judge(...) value"),
        ("medeval.types.geometry::a", Judge, "no judge named 'a'; known: none", "give a path"),
    ],
)
def test_a_reference_that_names_nothing_says_what_would(
    reference: str,
    kind: type[Judge],
    message: str,
    hint: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(DefinitionError) as refused:
        load(reference, kind)
    assert message in refused.value.message
    assert (hint or "") in (refused.value.hint or "")


def test_a_misspelt_name_in_a_file_suggests_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "two.py", judge("first") + judge("second"))
    with pytest.raises(DefinitionError) as refused:
        load(f"{path}::secund", Judge)
    assert refused.value.message == "no judge named 'secund'; known: first, second"
    assert refused.value.hint == "did you mean 'second'?"


FAULTS = [
    ("x = 1\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
    ("x = 1\n\nx.y\n", "line 3: AttributeError: 'int' object has no attribute 'y'"),
    ("import json\njson.loads('{')\n", "line 2: JSONDecodeError"),
    ("def f():\n    raise SystemExit(3)\nf()\n", "line 2: SystemExit: 3"),
    ("from . import sibling\n", "line 1: ImportError: attempted relative import"),
    ("a\0b\n", "null bytes"),
    ("x = '\udcff'\n", "SyntaxError"),
]


@pytest.mark.parametrize(("text", "told"), FAULTS)
def test_a_file_that_cannot_be_executed_names_the_line(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "faulty.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for _ in range(2):
        with pytest.raises(DefinitionError) as refused:
            load(str(path), Judge)
        assert refused.value.message.startswith(f"{path.resolve()} cannot be loaded: ")
        assert told in refused.value.message
    assert not [name for name in sys.modules if "faulty" in name]


def test_a_definition_that_cannot_be_meant_names_its_file(tmp_path: Path) -> None:
    text = 'from medeval import EvalProtocol\nP = EvalProtocol(name="p", user="$x")\n'
    path = write(tmp_path / "unclear.py", text)
    with pytest.raises(DefinitionError) as refused:
        load(str(path), EvalProtocol)
    assert refused.value.message.startswith(f"{path}: protocol 'p': user uses ['x']")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("pkg_syntax", "x = (\n", "line 1 of "),
        ("pkg_raises", "\nx = 1 / 0\n", "line 2 of "),
        ("pkg_unclear", "from medeval import Pair\nPair()\n", "TypeError"),
        ("pkg_exits", "raise SystemExit(1)\n", "SystemExit: 1"),
    ],
)
def test_a_module_that_cannot_be_imported_names_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
) -> None:
    write(package(tmp_path, monkeypatch, name) / "faulty.py", text)
    with pytest.raises(DefinitionError) as refused:
        load(f"{name}.faulty", Judge)
    assert refused.value.message.startswith(f"the module '{name}.faulty' cannot be loaded: ")
    assert told in refused.value.message


def test_a_folder_of_modules_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package(tmp_path, monkeypatch, "pkg_spaces") / "inner").mkdir()
    with pytest.raises(DefinitionError, match="has no file") as refused:
        load("pkg_spaces.inner", Judge)
    assert refused.value.hint == "name a module, not a folder"


def test_two_files_that_claim_one_name_are_refused(tmp_path: Path) -> None:
    first = load(str(write(tmp_path / "a.py", judge("mine"))), Judge)
    second = load(str(write(tmp_path / "b.py", judge("mine"))), Judge)
    refuse_shared_names([first, first], Judge)
    with pytest.raises(DefinitionError) as refused:
        refuse_shared_names([first, second], Judge)
    assert refused.value.message == (
        f"two definitions claim the judge name 'mine': {first.source.path} and {second.source.path}"
    )


def test_two_values_of_one_file_that_claim_one_name_are_refused(tmp_path: Path) -> None:
    text = judge("mine") + judge("mine").replace("MINE", "OTHER")
    path = write(tmp_path / "clash.py", text)
    for reference in (str(path), f"{path}::mine"):
        with pytest.raises(DefinitionError, match="two definitions claim the judge name 'mine'"):
            load(reference, Judge)


def test_loading_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "definitions"
    folder.mkdir()
    path = write(folder / "mine.py", judge("mine"))
    write(folder / "sibling.py", "")
    before = (os.getcwd(), list(sys.path))  # noqa: PTH109 - the process's own, to be compared
    load(str(path), Judge)
    load("choice", Judge)
    assert (os.getcwd(), list(sys.path)) == before  # noqa: PTH109
    assert sorted(entry.name for entry in folder.iterdir()) == ["mine.py", "sibling.py"]


def test_a_file_is_executed_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", judge("mine", score=1.0))
    first = load(str(path), Judge)
    assert load(str(path), Judge).value is first.value
    write(path, judge("mine", score=0.5))
    changed = load(str(path), Judge)
    assert changed.value is not first.value
    assert changed.source.sha256 != first.source.sha256


def test_exactly_the_hashed_bytes_are_executed(tmp_path: Path) -> None:
    """Even if a second file has the same time and size, by which Python recognises bytecode."""
    path = write(tmp_path / "mine.py", judge("mine", score=0.1))
    times = (path.stat().st_atime, path.stat().st_mtime)
    assert load(str(path), Judge).value.grade(None, None).score == 0.1  # type: ignore
    write(path, judge("mine", score=0.2))
    os.utime(path, times)
    assert load(str(path), Judge).value.grade(None, None).score == 0.2  # type: ignore


def test_one_file_may_define_values_of_several_kinds(tmp_path: Path) -> None:
    pair = (ROOT / "protocols" / "crop_zoom.py").read_text(encoding="utf-8")
    path = write(tmp_path / "all.py", pair + judge("mine"))
    assert load(str(path), Judge).value.name == "mine"
    assert load(f"{path}::crop_zoom", Pair).value.name == "crop_zoom"
    assert load(f"{path}::tool_free", EvalProtocol).value.name == "tool_free"


def test_a_definition_may_use_dataclasses_and_its_own_file(tmp_path: Path) -> None:
    text = (
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "@dataclass\nclass Rule:\n    score: 'float'\n"
        "assert Path(__file__).name == 'mine.py'\n"
    )
    path = write(tmp_path / "mine.py", text + judge("mine"))
    assert load(str(path), Judge).value.name == "mine"


@pytest.mark.parametrize("shipped_at", ["", "medeval/_shipped", None])
def test_definitions_are_found_beside_the_package_and_inside_an_installed_one(
    tmp_path: Path, shipped_at: str | None
) -> None:
    shutil.copytree(ROOT / "medeval", tmp_path / "medeval")
    for folder in set(FOLDERS.values()) if shipped_at is not None else ():
        shutil.copytree(ROOT / folder, tmp_path / str(shipped_at) / folder)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from medeval import load\nfrom medeval.evaluation.loader import Judge\n"
        "from medeval.errors import DefinitionError\n"
        "try:\n    print(load('choice', Judge).source.path)\n"
        "except DefinitionError as error:\n    print(error.message)\n"
    )
    told = run_python(code, str(tmp_path)).strip()
    if shipped_at is None:
        assert told == f"no definition folders next to {tmp_path / 'medeval'}"
    else:
        assert told == str(tmp_path / shipped_at / "judges" / "choice.py")


BENCHMARK = """from medeval import Benchmark, DrawnRows, Sample


def to_sample(row):
    return Sample(id="s", question="?", images=(), targets=())


{value} = Benchmark(
    name="{name}", aliases={aliases!r}, title="t", rows=DrawnRows(1, lambda index: {{}}),
    to_sample=to_sample, judge="choice",
)
"""


def benchmark(name: str, *aliases: str) -> str:
    return BENCHMARK.format(name=name, value=name.upper(), aliases=aliases)


def test_an_alias_names_a_benchmark_as_its_name_does(tmp_path: Path) -> None:
    path = write(tmp_path / "two.py", benchmark("first", "Old_First") + benchmark("second"))
    assert load(f"{path}::Old_First", Benchmark) == load(f"{path}::first", Benchmark)
    with pytest.raises(DefinitionError, match="known: first, second") as refused:
        load(f"{path}::Old_Frist", Benchmark)
    assert refused.value.hint == "did you mean 'Old_First'?"


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (("a", "x"), ("b", "x"), "x"),
        (("a",), ("b", "a"), "a"),
        (("a", "b"), ("b",), "b"),
    ],
)
def test_two_definitions_that_claim_one_alias_are_refused(
    tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], name: str
) -> None:
    path = write(tmp_path / "two.py", benchmark(*first) + benchmark(*second))
    with pytest.raises(DefinitionError, match=f"claim the benchmark name '{name}'"):
        load(f"{path}::{name}", Benchmark)


def test_every_alias_of_a_shipped_benchmark_finds_it() -> None:
    aliases = {alias: one.value for one in shipped(Benchmark) for alias in one.value.aliases}
    assert len(aliases) >= 15
    for alias, value in aliases.items():
        assert load(alias, Benchmark).value is value


def test_a_module_that_moved_is_looked_up_in_the_changelog(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from medeval.text import collapsed\n")
    with pytest.raises(DefinitionError) as caught:
        load(str(path), Judge)
    assert caught.value.hint == (
        "this module of medeval has moved: CHANGELOG.md has its name, under Breaking"
    )
