import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from medeval import cli
from medeval.known_files import CACHE_VARIABLE
from tests.medeval_processes import MedevalMain, Serve, serving

# Two cores are enough for the tests; a library that takes all of them slows the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test finds what another one left in the user's cache, nor anything of the user's own.
os.environ[CACHE_VARIABLE] = ""

# How long an example takes says more about a busy machine than about what is tested.
# The same examples each time, so that a red test says something of the change at hand; to look for
# new ones: HYPOTHESIS_PROFILE=explore.
settings.register_profile("medeval", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "medeval"))


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
