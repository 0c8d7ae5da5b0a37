"""Loads definition files by path, as a test runner loads test files.

A reference takes three forms: a shipped name (`vstar`), a path (`./mine.py`) and a dotted module
(`my_pkg.my_bench`). A file that holds several values of one kind takes `::name` after it.
Nothing is registered, and neither the working directory nor `sys.path` is touched.
"""

import difflib
import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from medeval.data.benchmark import Benchmark
from medeval.errors import DefinitionError
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.scoring.judge import Judge
from medeval.types.definition import Loaded, Source

T = TypeVar("T", Benchmark, EvalProtocol, Pair, Judge)

FOLDERS = {Benchmark: "benchmarks", EvalProtocol: "protocols", Pair: "protocols", Judge: "judges"}
NOUNS = {Benchmark: "benchmark", EvalProtocol: "protocol", Pair: "pair", Judge: "judge"}


def load(reference: str, kind: type[T]) -> Loaded[T]:
    """The definition that a reference names.

    Raises DefinitionError if there is none, if there are several, or if the file cannot be
    executed.
    """
    location, _, name = reference.partition("::")
    if location.endswith(".py") or os.sep in location:
        return _choose(load_file(Path(location), kind), kind, reference, name)
    if "." in location:
        return _choose(_load_module(location, kind), kind, reference, name)
    for path in sorted(_files(kind), key=lambda path: _distance(path, location)):
        for loaded in load_file(path, kind):
            if reference in _names(loaded.value):
                return loaded
    return _by_name(shipped(kind), kind, reference)


def _files(kind: type[T]) -> Sequence[Path]:
    """The shipped files that may define values of one kind."""
    return sorted((_root() / FOLDERS[kind]).glob("*.py"))


def _distance(path: Path, name: str) -> int:
    """How unlikely a file defines `name`, 0 to 3; the likeliest file is executed first."""
    if path.stem == name:
        return 0
    if f'"{name}"' in path.read_text(encoding="utf-8"):
        return 1
    return 2 if name.lower().startswith(path.stem) else 3


def shipped(kind: type[T]) -> tuple[Loaded[T], ...]:
    """Every definition of one kind that medeval ships, sorted by name.

    Raises DefinitionError if two files claim one name.
    """
    found = [loaded for path in _files(kind) for loaded in load_file(path, kind)]
    refuse_shared_names(found, kind)
    return tuple(sorted(found, key=lambda loaded: loaded.value.name))


def load_file(path: Path, kind: type[T]) -> tuple[Loaded[T], ...]:
    """The values of one kind in a definition file, in the order they are written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DefinitionError(
            f"cannot read the definition file {str(path)!r}: {error.strerror}",
            hint="a reference is a shipped name, a path to a .py file, or a dotted module",
        ) from error
    source = Source(path.resolve(), hashlib.sha256(content).hexdigest())
    return _values(_execute(source, content), kind, source)


def refuse_shared_names(definitions: Sequence[Loaded[T]], kind: type[T]) -> None:
    """Raise DefinitionError if two different definitions claim one name or alias."""
    seen: dict[str, Loaded[T]] = {}
    for loaded in definitions:
        for name in _names(loaded.value):
            first = seen.setdefault(name, loaded)
            if first.source != loaded.source or first.value != loaded.value:
                raise DefinitionError(
                    f"two definitions claim the {NOUNS[kind]} name {name!r}: "
                    f"{first.source.path} and {loaded.source.path}",
                    hint="rename one of them",
                )


def _names(value: Benchmark | EvalProtocol | Pair | Judge) -> tuple[str, ...]:
    """The name of a definition, and its names in other harnesses."""
    return (value.name, *value.aliases) if isinstance(value, Benchmark) else (value.name,)


def _root() -> Path:
    """The folder that holds benchmarks/, protocols/ and judges/."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_shipped", package.parent):
        if all((root / folder).is_dir() for folder in set(FOLDERS.values())):
            return root
    raise DefinitionError(
        f"no definition folders next to {package}", hint="the installation is incomplete: reinstall"
    )


def _execute(source: Source, content: bytes) -> ModuleType:
    """The module that the hashed bytes define; no bytecode file is read or written."""
    path = source.path
    if path.suffix != ".py":
        raise DefinitionError(f"{str(path)!r} is not a Python file", hint="its name ends in .py")
    path_hash = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"medeval_definition_{path.stem}_{path_hash}_{source.sha256[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__, module.__package__ = str(path), ""
    # dataclasses look up their own module during its execution
    sys.modules[name] = module
    try:
        with _as_definition_errors(str(path), path):
            exec(compile(content, str(path), "exec"), vars(module))
    except DefinitionError:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _as_definition_errors(what: str, path: Path | None) -> Iterator[None]:
    """Turn any error from executing a file into a DefinitionError that names the line."""
    try:
        yield
    except DefinitionError as error:
        raise DefinitionError(f"{what}: {error.message}", hint=error.hint) from error
    except (Exception, SystemExit) as error:
        hint = None
        if isinstance(error, ImportError):
            hint = (
                "this module of medeval has moved: CHANGELOG.md has its name, under Breaking"
                if (error.name or "").startswith("medeval.")
                else "modules must be installed in this environment; name a file as ./mine.py"
            )
        raise DefinitionError(
            f"{what} cannot be loaded: {_described_error(error, path)}", hint=hint
        ) from error


def _described_error(error: BaseException, path: Path | None) -> str:
    """The last line that ran, of `path` or (None) of any file, and then the error."""
    line: object = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
        elif path is None and not frame.filename.startswith("<frozen"):
            line = f"{frame.lineno} of {frame.filename}"
    message = str(error)
    if isinstance(error, SyntaxError):
        message = error.msg
        line = error.lineno if path is not None else f"{error.lineno} of {error.filename}"
    location = "" if line is None else f"line {line}: "
    return f"{location}{type(error).__name__}: {message}"


def _load_module(dotted: str, kind: type[T]) -> tuple[Loaded[T], ...]:
    with _as_definition_errors(f"the module {dotted!r}", None):
        module = importlib.import_module(dotted)
    if module.__file__ is None:
        raise DefinitionError(
            f"the module {dotted!r} has no file", hint="name a module, not a folder"
        )
    path = Path(module.__file__)
    source = Source(path, hashlib.sha256(path.read_bytes()).hexdigest())
    return _values(module, kind, source)


def _values(module: ModuleType, kind: type[T], source: Source) -> tuple[Loaded[T], ...]:
    values = [value for value in vars(module).values() if isinstance(value, kind)]
    unique = list({id(value): value for value in values}.values())
    return tuple(Loaded(value, source) for value in unique)


def _choose(found: Sequence[Loaded[T]], kind: type[T], reference: str, name: str) -> Loaded[T]:
    refuse_shared_names(found, kind)
    if name:
        return _by_name(found, kind, name)
    if not found:
        raise DefinitionError(
            f"{reference!r} holds no {NOUNS[kind]}",
            hint=f"a definition file has a {kind.__name__}(...) value at its top level",
        )
    if len(found) > 1:
        names = ", ".join(loaded.value.name for loaded in found)
        raise DefinitionError(
            f"{reference!r} holds several {NOUNS[kind]}s: {names}",
            hint=f"choose one: {reference}::{found[0].value.name}",
        )
    return found[0]


def _by_name(found: Sequence[Loaded[T]], kind: type[T], name: str) -> Loaded[T]:
    for loaded in found:
        if name in _names(loaded.value):
            return loaded
    names = [loaded.value.name for loaded in found]
    every_name = [known for loaded in found for known in _names(loaded.value)]
    near = difflib.get_close_matches(name, every_name, n=1)
    raise DefinitionError(
        f"no {NOUNS[kind]} named {name!r}; known: {', '.join(names) or 'none'}",
        hint=f"did you mean {near[0]!r}?" if near else "give a path to a .py file to use your own",
    )
