"""Flags and plan files are resolved, or refused with the reason, before any engine starts."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from medeval.errors import DefinitionError, UsageError
from medeval.evaluation.plan import Plan, cell_key, resolve
from medeval.evaluation.plan_file import PlanFile, read_options
from tests.model_folders import write_adapter, write_model, write_shards

SERVER = {"base_url": "http://127.0.0.1:8000"}


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Three steps of a training run."""
    for step in (0, 20, 40):
        write_model(tmp_path / "rl" / f"global_step_{step}")
    return tmp_path / "rl"


def plan(**options: object) -> Plan:
    return resolve(PlanFile.model_validate({"benchmarks": ["vstar"], **options}))


def served(**options: object) -> Plan:
    return plan(**SERVER, **{"model": ["m"], **options})


def toml(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_file_says_the_same_as_the_flags(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        'checkpoints = ["rl=runs/rl"]\nbenchmarks = ["vstar", "chartqa"]\nsteps = [0, 20]\n'
        "repeats = 4\ntemperature = 0.7\n[model_args]\nmax_retries = 2\n",
    )
    assert read_options(path, {}) == PlanFile(
        checkpoints=("rl=runs/rl",),
        benchmarks=("vstar", "chartqa"),
        steps=(0, 20),
        repeats=4,
        temperature=0.7,
        model_args={"max_retries": 2},
    )


def test_without_a_plan_file_the_flags_are_all() -> None:
    assert read_options(None, {"model": ("m",)}) == PlanFile(model=("m",))


def test_flags_win_over_the_plan_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = toml(tmp_path, 'benchmarks = ["vstar"]\nrepeats = 4\nseed = 1\n')
    options = read_options(path, {"repeats": 2, "benchmarks": ("chartqa",)})
    assert (options.benchmarks, options.repeats, options.seed) == (("chartqa",), 2, 1)


def test_a_single_name_is_a_list_of_one(tmp_path: Path) -> None:
    options = read_options(toml(tmp_path, 'benchmarks = "vstar"\nmodel = "m"\n'), {})
    assert (options.benchmarks, options.model) == (("vstar",), ("m",))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("benchmark = ['x']", "a plan has no option 'benchmark'; known: model,",
         "did you mean 'benchmarks'?"),
        ("data-dir = ['x']", "a plan has no option 'data-dir'", "did you mean 'data_dir'?"),
        ("zzz = 1", "a plan has no option 'zzz'", None),
        ("repeats = 0", "'repeats': Input should be greater than or equal to 1, got 0", None),
        ("steps = [1, 'x']", "'steps.1': Input should be a valid integer", None),
        ("backend = 'jax'", "'backend': Input should be 'transformers', 'vllm', 'vllm-server' or "
         "'openai', got 'jax'", None),
        ("repeats = ", "is not TOML: Invalid value", None),
        ("x = '\udcff'", "is not TOML: 'utf-8' codec can't decode", None),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_meant_names_the_key(
    tmp_path: Path, text: str, message: str, hint: str | None
) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as refused:
        read_options(path, {})
    assert message in refused.value.message
    assert refused.value.hint == hint


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the plan .*No such file"):
        read_options(tmp_path / "absent.toml", {})


def test_cells_go_by_checkpoint_then_benchmark_then_protocol(series: Path) -> None:
    resolved = plan(checkpoints=[str(series)], benchmarks=["vstar", "chartqa"], steps=[0, 40])
    cells = [
        cell_key(checkpoint, benchmark.name, protocol.value.name)
        for checkpoint, benchmark, protocol in resolved.cells()
    ]
    assert [(cell.series, cell.step, cell.benchmark, cell.protocol) for cell in cells] == [
        ("rl", step, benchmark, protocol)
        for step in (0, 40)
        for benchmark in ("vstar", "chartqa")
        for protocol in ("tool_free", "tool_available")
    ]


def test_defaults_are_the_neutral_pair_on_transformers_in_outputs(series: Path) -> None:
    resolved = plan(checkpoints=[f"my run={series}"])
    assert [pair.value.name for pair in resolved.pairs] == ["crop_zoom"]
    assert resolved.backend == "transformers"
    assert resolved.output_dir == Path("outputs/my-run")
    assert [checkpoint.id for checkpoint in resolved.checkpoints] == [
        "my run/0", "my run/20", "my run/40",
    ]  # fmt: skip


def test_a_server_means_the_openai_backend() -> None:
    resolved = served(model=["mine=org/model", "other"])
    assert resolved.backend == "openai"
    assert [(c.series, c.step, c.location) for c in resolved.checkpoints] == [
        ("mine", None, "org/model"), ("other", None, "other"),
    ]  # fmt: skip


def test_a_model_may_be_a_folder(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "qwen" / "actor" / "huggingface").parents[1]
    assert plan(model=[str(folder)]).checkpoints[0].location == str(folder / "actor/huggingface")
    monkeypatch.chdir(folder)
    assert plan(model=["."]).checkpoints[0].series == "qwen"


def test_steps_leave_out_what_is_not_asked_for_even_where_it_is_not_merged(series: Path) -> None:
    write_shards(series / "global_step_60")
    chosen = plan(checkpoints=[str(series)], steps=[20, 40]).checkpoints
    assert [checkpoint.step for checkpoint in chosen] == [20, 40]
    with pytest.raises(UsageError, match="FSDP shards"):
        plan(checkpoints=[str(series)])


def test_unfinished_steps_are_left_out_and_named(series: Path) -> None:
    (series / "checkpoint-60").mkdir()
    (series / "global_step_20" / "config.json").unlink()
    resolved = plan(checkpoints=[str(series)])
    assert [checkpoint.step for checkpoint in resolved.checkpoints] == [0, 40]
    assert resolved.notes == (
        f"rl/20 is left out: '{series}/global_step_20' is not complete: it has no config.json",
        f"rl/60 is left out: '{series}/checkpoint-60' holds no model: no config.json with "
        "*.safetensors next to it",
    )


def test_a_series_without_a_finished_step_is_refused_unless_steps_may_come(series: Path) -> None:
    for weights in series.glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UsageError, match="lacks 1 bytes"):
        plan(checkpoints=[str(series)])
    watching = plan(checkpoints=[str(series)], watch=True)
    assert (watching.checkpoints, len(watching.notes)) == ((), 3)
    assert watching.output_dir == Path("outputs/rl")


def test_with_watch_a_folder_may_have_no_step_yet_and_steps_may_be_in_another_form(
    series: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert plan(checkpoints=[str(tmp_path / "empty")], watch=True).checkpoints == ()
    write_shards(series / "global_step_60")
    watching = plan(checkpoints=[str(series)], watch=True, steps=[40, 60, 80])
    assert [checkpoint.step for checkpoint in watching.checkpoints] == [40]
    assert "FSDP shards" in watching.notes[0]


def test_a_model_beside_its_steps_is_named_as_left_out(series: Path) -> None:
    write_model(series)
    resolved = plan(checkpoints=[str(series)])
    assert len(resolved.checkpoints) == 3
    assert resolved.notes == (
        f"{series} is a model itself, which is left out: its steps are evaluated; "
        f"--model {series} evaluates it",
    )


def test_adapters_have_the_base_they_name_or_that_of_the_command_line(tmp_path: Path) -> None:
    named, given = write_model(tmp_path / "named"), write_model(tmp_path / "given")
    write_adapter(tmp_path / "sft" / "checkpoint-10", base=named)
    write_adapter(tmp_path / "single", base=named)
    models = {"checkpoints": [str(tmp_path / "sft")], "model": [str(tmp_path / "single")]}
    for options, base in (({}, named), ({"base": str(given)}, given)):
        resolved = plan(**models, **options)
        assert [checkpoint.base for checkpoint in resolved.checkpoints] == [str(base)] * 2
        note = f"adapters name {str(named)!r} as their base, and are put on --base {given}"
        assert resolved.notes == ((note,) if options else ())
    asked = plan(**SERVER, checkpoints=[str(tmp_path / "sft")])
    assert asked.checkpoints[0].base is None, "a server has its own base"


def test_a_baseline_is_step_0_of_its_own_series_and_comes_first(series: Path) -> None:
    resolved = plan(
        checkpoints=[str(series)], steps=[20, 40], baseline=str(write_model(series / "b"))
    )
    assert resolved.baseline is not None
    assert resolved.baseline.id == "baseline/0"
    assert resolved.all_checkpoints == (resolved.baseline, *resolved.checkpoints)


def test_without_a_baseline_the_checkpoints_are_all(series: Path) -> None:
    resolved = plan(checkpoints=[str(series)])
    assert resolved.all_checkpoints == resolved.checkpoints


REFUSED: list[tuple[Mapping[str, object], str]] = [
    ({"benchmarks": []}, "no benchmark to run"),
    ({}, "no checkpoint to evaluate"),
    ({"backend": "openai", "model": ["m"]}, "the openai backend needs a server"),
    ({**SERVER, "backend": "transformers", "model": ["m"]},
     "--base-url names a server, but the backend is 'transformers'"),
    ({"checkpoints": ["{rl}"], "steps": [20, 30]},
     "series 'rl' has no step [30]; found: [0, 20, 40]"),
    ({"checkpoints": ["{rl}"], "baseline": "base"},
     "--baseline is step 0 of every series, and so is 'rl/0'"),
    ({"model": ["baseline=m"], "baseline": "base"}, "'baseline' is the name of step 0"),
    ({"model": ["baseline=m"]}, "'baseline' is the name of step 0"),
    ({"checkpoints": ["{rl}", "{rl}"]}, "two folders of --checkpoints give the series 'rl'"),
    ({"checkpoints": ["a={rl}", "a={rl}"]}, "two checkpoints are called 'a/0'"),
    ({"model": ["a=x", "a=y"]}, "two checkpoints are called 'a'"),
    ({**SERVER, "model": ["m"], "pairs": ["crop_zoom"], "protocols": ["tool_free"]},
     "give --pairs or --protocols, not both"),
    ({**SERVER, "model": ["m"], "benchmarks": ["vstar", "chartqa"], "data_dir": ["rows"]},
     "--data-dir 'rows' does not name its benchmark"),
    ({**SERVER, "model": ["m"], "data_dir": ["chartqa=rows"]},
     "--data-dir 'chartqa=rows' names no benchmark of this run: vstar"),
    ({**SERVER, "model": ["m"], "data_dir": ["a", "vstar=b"]},
     "--data-dir names 2 folders for 'vstar': ['a', 'b']"),
    ({**SERVER, "model": ["m"], "judge": ["chartqa=choice"]},
     "names no benchmark of this run: vstar"),
    ({"model": ["qwen"]}, "no model folder 'qwen', and no name of a model on the hub"),
    ({"checkpoints": ["{rl}"], "base": "qwen"}, "--base names the base of LoRA adapters, and no"),
    ({"watch": True, "model": ["m"]}, "--watch evaluates the steps that training writes"),
    ({"watch": True, "checkpoints": ["{rl}"], "model": ["m"]}, "--watch evaluates the steps that"),
    ({"watch": True, "checkpoints": ["{rl}/absent"]}, "no checkpoint directory"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_a_plan_that_cannot_be_carried_out_is_refused(
    series: Path, options: Mapping[str, object], message: str
) -> None:
    filled = {
        name: [
            item.replace("{rl}", str(series)) if isinstance(item, str) else item for item in value
        ]
        if isinstance(value, list)
        else value
        for name, value in options.items()
    }
    with pytest.raises(UsageError) as refused:
        plan(**filled)
    assert message in refused.value.message


@pytest.mark.parametrize("option", ["benchmarks", "pairs", "protocols", "judge"])
def test_a_name_that_is_not_known_is_refused(option: str) -> None:
    with pytest.raises(DefinitionError, match="named 'nonsense'"):
        served(**{option: ["nonsense"]})


def test_single_protocols_take_the_place_of_pairs() -> None:
    resolved = served(protocols=["tool_available_native"])
    assert resolved.pairs == ()
    assert [protocol.value.name for protocol in resolved.protocols] == ["tool_available_native"]


def test_pairs_that_share_an_arm_run_it_once(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("protocols/crop_zoom.py").read_text("utf-8")
    again = (
        'SECOND = Pair(name="second", free=TOOL_FREE, available=TOOL_FREE.with_tools(\n'
        '    CROP_AND_ZOOM, name="one_call", max_generations=2, max_calls=1))\n'
    )
    path = tmp_path / "mine.py"
    path.write_text(text + again, encoding="utf-8")
    resolved = served(pairs=[f"{path}::crop_zoom", f"{path}::second"], temperature=0.5)
    assert [protocol.value.name for protocol in resolved.protocols] == [
        "tool_free", "tool_available", "one_call",
    ]  # fmt: skip


def test_two_protocols_of_one_name_are_refused(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("protocols/crop_zoom.py").read_text("utf-8")
    (tmp_path / "copy.py").write_text(text, encoding="utf-8")
    with pytest.raises(DefinitionError, match="two definitions claim the protocol name"):
        served(pairs=["crop_zoom", f"{tmp_path / 'copy.py'}::crop_zoom"])


def test_sampling_overrides_hold_in_both_arms() -> None:
    resolved = served(pairs=["crop_zoom", "crop_zoom_native"], temperature=0.7, max_tokens=64)
    assert len(resolved.protocols) == 4
    arms = [arm for pair in resolved.pairs for arm in pair.value.arms]
    for protocol in [*arms, *(loaded.value for loaded in resolved.protocols)]:
        assert (protocol.sampling.temperature, protocol.sampling.max_tokens) == (0.7, 64)


def test_sampling_is_the_protocols_own_where_nothing_is_said() -> None:
    for protocol in served().protocols:
        assert (protocol.value.sampling.temperature, protocol.value.sampling.max_tokens) == (
            0.0, 2048,
        )  # fmt: skip


def test_data_dirs_and_judges_go_to_the_benchmarks_they_name(tmp_path: Path) -> None:
    resolved = served(
        benchmarks=["vstar", "chartqa", "vstar"],
        data_dir=["chartqa=rows/c", f"vstar={tmp_path}"],
        judge=["vstar=exact_match", "vstar=choice"],
    )
    assert [
        (b.name, b.data_dir, [judge.value.name for judge in b.judges]) for b in resolved.benchmarks
    ] == [
        ("vstar", tmp_path, ["exact_match", "choice"]),
        ("chartqa", Path("rows/c"), ["relaxed_accuracy"]),
    ]


def test_a_bare_data_dir_is_of_the_one_benchmark_and_a_bare_judge_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "a=b"
    folder.mkdir()
    assert served(data_dir=[str(folder)]).benchmarks[0].data_dir == folder
    resolved = served(benchmarks=["vstar", "chartqa"], judge=["exact_match"])
    assert [b.judges[0].value.name for b in resolved.benchmarks] == ["exact_match"] * 2


def test_an_output_folder_may_be_named() -> None:
    assert served(output_dir="x/y").output_dir == Path("x/y")
    assert served(model=["org/model v1.0"]).output_dir == Path("outputs/org-model-v1.0")
