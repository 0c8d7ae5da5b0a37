import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from importlib import import_module

import pytest
from hypothesis import settings

from medeval import cli
from tests.medeval_processes import MedevalMain, Serve, serving
from tests.untraced import untraced

# Two cores are enough for the tests; a library that takes all of them slows the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more about a busy machine than about what is tested.
# The same examples each time, so that a red test says something of the change at hand; to look for
# new ones: HYPOTHESIS_PROFILE=explore.
settings.register_profile("medeval", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "medeval"))

# What takes seconds to import, and twice as many where coverage is traced meanwhile.
HEAVY = (
    "torch",
    "accelerate",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "scipy.signal",
    "scipy.stats",
    "statsmodels.stats.multitest",
    "math_verify",
    "pyarrow.parquet",
    "matplotlib.backends.backend_agg",
)


def import_heavy() -> None:
    for name in HEAVY:
        with suppress(ImportError):
            import_module(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Measure coverage only where tests run, and not of the imports of others' packages.

    A worker of the whole suite collects every file, and so imports all of them anyway.
    """
    if hasattr(session.config, "workerinput"):
        untraced(import_heavy)
    elif session.config.pluginmanager.hasplugin("dsession"):
        sys.settrace(None)


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: looking through them for garbage takes half a second.

    A model that is closed collects garbage, which many tests do.
    """
    gc.freeze()


@pytest.fixture
def medeval_main(monkeypatch: pytest.MonkeyPatch) -> MedevalMain:
    """The command line in this process: a function from arguments to the exit code."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["medeval", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return code if isinstance(code, int) else 0

    return run


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a stub server beside the test; it ends with the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(serving(server))
