from pathlib import Path
from typing import Any

import pytest

from medeval.errors import UsageError
from medeval.evaluation.engines import concurrency_of, model_opener
from medeval.evaluation.plan import Plan, resolve
from medeval.evaluation.plan_file import read_options
from medeval.models.openai.client import OpenAIModel
from tests.model_folders import write_model
from tests.small_benchmark import write_benchmark


def plan(folder: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "model": ("m",),
        "benchmarks": (str(write_benchmark(folder)),),
        **changes,
    }
    return resolve(read_options(None, values))


def test_a_server_is_asked_for_the_checkpoints_name(tmp_path: Path) -> None:
    resolved = plan(
        tmp_path, base_url="http://127.0.0.1:9/v1", model_args={"timeout_s": 3, "max_retries": 0}
    )
    model = model_opener(resolved)(resolved.checkpoints[0])
    assert isinstance(model, OpenAIModel)
    assert model.identity()["model"] == "m"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 96),
        ({"backend": "vllm"}, 256),
        ({"backend": "vllm-server"}, 256),
        ({"base_url": "http://127.0.0.1:9"}, 32),
        ({"backend": "vllm", "concurrency": 7}, 7),
    ],
)
def test_samples_in_flight_suit_the_backend_unless_asked_for(
    tmp_path: Path, changes: dict[str, Any], expected: int
) -> None:
    model = str(write_model(tmp_path / "model"))
    assert concurrency_of(plan(tmp_path, model=model, **changes)) == expected


def test_a_local_engine_gets_the_checkpoints_folder_and_its_processor(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from medeval.models.transformers.model import TransformersModel

    resolved = plan(
        tmp_path,
        model=str(write_model(tmp_path / "model")),
        processor=str(tmp_path),
        model_args={"dtype": "float32"},
    )
    model = model_opener(resolved)(resolved.checkpoints[0])
    assert isinstance(model, TransformersModel)


@pytest.mark.parametrize("server", [{"base_url": "http://127.0.0.1:9"}, {}])
@pytest.mark.parametrize("name", ["flux", "model", "base_url", "path", "processor_path"])
def test_an_argument_that_an_engine_does_not_take_is_refused(
    server: dict[str, str], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    model = "m" if server else str(write_model(tmp_path / "model"))
    resolved = plan(tmp_path, model=model, model_args={name: "x"}, **server)
    with pytest.raises(UsageError, match=f"--model-args has '{name}'"):
        model_opener(resolved)
