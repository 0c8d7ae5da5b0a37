from typing import Any

import pytest

from medeval.models.vllm.arguments import EngineArguments


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ({}, ""),
        (
            {"tensor_parallel": 2, "data_parallel": 4},
            "--tensor-parallel-size 2 --data-parallel-size 4",
        ),
        (
            {"enforce_eager": True, "trust_remote_code": False},
            "--enforce-eager --no-trust-remote-code",
        ),
        ({"limit_mm_per_prompt": 8}, '--limit-mm-per-prompt {"image": 8}'),
        ({"limit_mm_per_prompt": {"video": 0}}, '--limit-mm-per-prompt {"video": 0}'),
        (
            {"max_pixels": 9, "min_pixels": 4},
            '--mm-processor-kwargs {"min_pixels": 4, "max_pixels": 9}',
        ),
        ({"engine_args": {"max-num-batched-tokens": 8192}}, "--max-num-batched-tokens 8192"),
        ({"reasoning_parser": "qwen3"}, "--reasoning-parser qwen3"),
    ],
)
def test_short_names_become_the_servers_flags(given: dict[str, Any], flags: str) -> None:
    assert " ".join(EngineArguments(tool_call_parser="", **given).flags()) == flags


def test_calls_are_read_by_the_server_unless_told_otherwise() -> None:
    assert EngineArguments().flags() == [
        "--enable-auto-tool-choice",
        "--tool-call-parser",
        "hermes",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, None),
        ({"kv_offloading_size": 32, "kv-offloading-backend": "native"}, None),
        ({"quantization": "fp8"}, "quantized weights are not reloaded"),
        ({"quantization-config.linear": "fp8"}, "quantized weights are not reloaded"),
        ({"kv_offloading_backend": "lmcache"}, "a connector may keep"),
        ({"kv-transfer-config": {"kv_connector": "NixlConnector"}}, "a connector may keep"),
    ],
)
def test_what_hinders_a_reload_is_found_in_what_vllm_gets(
    given: dict[str, Any], told: str | None
) -> None:
    hindrance = EngineArguments(engine_args=given).hindrance()
    assert hindrance is None if told is None else hindrance and hindrance.startswith(told)
    assert EngineArguments(quantization="fp8").hindrance() == "quantized weights are not reloaded"


def test_how_an_engine_is_spread_is_no_part_of_what_shapes_a_reply() -> None:
    engine = EngineArguments(tensor_parallel=8, gpu_memory_utilization=0.5, max_pixels=9, seed=3)
    assert engine.shaping() == {"max_pixels": 9, "seed": 3, "tool_call_parser": "hermes"}
