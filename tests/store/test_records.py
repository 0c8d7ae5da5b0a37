import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.analysis.summary import Tally
from medeval.errors import RecordError
from medeval.store.fingerprints import CellRecord
from medeval.store.records import line, parse_record, pretty
from medeval.types.geometry import (
    IDENTITY,
    PERMILLE,
    RELATIVE,
    Affine,
    AxisLine,
    Box,
    Point,
    Size,
    pixels,
)
from medeval.types.json import MAX_DEPTH
from medeval.types.run import BenchmarkRecord, DefinitionCopy, Metric, RunRecord, Session
from medeval.types.sample import ImageRecord, ImageSource, JsonValue, Sample, SampleRecord
from medeval.types.trajectory import (
    Answer,
    ImageRef,
    Message,
    NativeCall,
    Text,
    ToolCall,
    Trajectory,
    TrajectoryImage,
    Turn,
    Usage,
)
from medeval.types.verdict import Verdict

PHOTO = TrajectoryImage(
    index=0,
    sha256="aa" * 32,
    media_type="image/jpeg",
    parent=None,
    root=0,
    operation=None,
    arguments={},
    to_root=IDENTITY,
    raw=Size(640, 480),
    sent=Size(640, 480),
    model=Size(644, 476),
    exif_orientation=6,
)
CROP = TrajectoryImage(
    index=1,
    pixels_sha256="bb" * 32,
    parent=0,
    root=0,
    operation="crop",
    arguments={"box_px": [1, 2, 3, 4], "label": "sign"},
    to_root=Affine(0.5, 0, 1, 0, 0.5, 2),
    raw=Size(2, 2),
    sent=Size(4, 4),
)
REPLY = '<tool_call>{"name": "crop"}</tool_call>'
TRAJECTORY = Trajectory(
    sample_id="7",
    repeat=1,
    protocol="tool_available",
    messages=(
        Message(role="user", content=(ImageRef(0), Text("Which colour?"))),
        Message(role="assistant", content=(Text(REPLY),), reasoning="let me look"),
        Message(role="tool", content=(ImageRef(1),), call_id="c1"),
        Message(
            role="assistant",
            content=(Text("<answer>red</answer>"),),
            native_calls=(NativeCall(id="c1", name="crop", arguments="{}"),),
        ),
    ),
    images=(PHOTO, CROP),
    turns=(
        Turn(
            text=REPLY,
            reasoning="let me look",
            native_calls=(),
            finish="stop",
            seed=2**63,
            usage=Usage(prompt_tokens=10, completion_tokens=5),
            seconds=0.5,
        ),
        Turn(
            text="<answer>red</answer>",
            reasoning="",
            native_calls=(NativeCall(id="c1", name="crop", arguments="{}"),),
            finish="stop",
            seed=3,
            usage=Usage(prompt_tokens=20, completion_tokens=6, cached_tokens=10),
            seconds=0.25,
        ),
    ),
    calls=(
        ToolCall(
            turn=0,
            name="crop",
            raw_text=REPLY,
            arguments={"box": [0, 0.5, 1]},
            status="executed",
            image=1,
            observed=True,
            seconds=0.01,
        ),
        ToolCall(
            turn=1, name=None, raw_text="{", arguments=None, status="malformed", error="no name"
        ),
    ),
    answer=Answer(text="red", how_found="answer_tag", reply="<answer>red</answer>"),
    stop="answered",
    seconds=0.76,
    engine_seconds=0.05,
)


def read_back(trajectory: Trajectory) -> Trajectory:
    return parse_record(Trajectory, line(trajectory), "a line")


def test_trajectory_reads_back_as_it_was() -> None:
    assert read_back(TRAJECTORY) == TRAJECTORY


json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(st.text(), json_values, max_size=3)
seconds = st.floats(min_value=0, max_value=1e6)
native_calls = st.lists(
    st.builds(NativeCall, id=st.text(), name=st.text(), arguments=st.text()), max_size=2
).map(tuple)
counts = st.none() | st.integers(min_value=0)
usages = st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts)
turns = st.builds(
    Turn,
    text=st.text(),
    reasoning=st.text(),
    native_calls=native_calls,
    finish=st.sampled_from(["stop", "length", "tool_calls", "context", "refused"]),
    seed=st.integers(min_value=0, max_value=2**64),
    usage=usages,
    seconds=seconds,
)
calls = st.builds(
    ToolCall,
    turn=st.integers(min_value=0),
    name=st.none() | st.text(),
    raw_text=st.text(),
    arguments=st.none() | arguments,
    status=st.sampled_from(["executed", "rejected", "malformed", "over_limit", "not_offered"]),
    error=st.none() | st.text(),
    image=st.none() | st.integers(min_value=0),
    observed=st.booleans(),
    seconds=seconds,
)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.lists(
        st.builds(Text, st.text()) | st.builds(ImageRef, st.sampled_from([0, 1])), max_size=4
    ).map(tuple),
    reasoning=st.text(),
    native_calls=native_calls,
    call_id=st.none() | st.text(),
)
trajectories = st.builds(
    Trajectory,
    sample_id=st.text(),
    repeat=st.integers(min_value=0, max_value=100),
    protocol=st.text(),
    messages=st.lists(messages, max_size=4).map(tuple),
    images=arguments.map(lambda found: (PHOTO, replace(CROP, arguments=found))),
    turns=st.lists(turns, max_size=3).map(tuple),
    calls=st.lists(calls, max_size=3).map(tuple),
    answer=st.none() | st.builds(Answer, text=st.text(), how_found=st.text(), reply=st.text()),
    stop=st.sampled_from(["answered", "no_answer", "empty", "turn_limit", "context"]),
    seconds=seconds,
    engine_seconds=st.none() | seconds,
)


@given(trajectories)
def test_any_trajectory_reads_back_as_it_was(trajectory: Trajectory) -> None:
    assert line(trajectory).count(b"\n") == 1
    assert read_back(trajectory) == trajectory


def test_a_trajectory_of_an_older_run_folder_does_not_tell_its_part_of_the_engines_time() -> None:
    written = json.loads(line(TRAJECTORY))
    older = json.dumps({name: value for name, value in written.items() if name != "engine_seconds"})

    told, untold = TRAJECTORY, parse_record(Trajectory, older.encode(), "a line")
    assert untold == replace(TRAJECTORY, engine_seconds=None)
    costs = []
    for both in ([told, told], [told, untold]):
        tally = Tally()
        assert list(tally.passing(both)) == both
        costs.append(tally.cost())
    assert [cost.engine_s for cost in costs] == [2 * 0.05, None]
    assert [cost.seconds for cost in costs] == [2 * 0.76, 2 * 0.76]


def test_trajectory_line_writes_out_its_counts_and_images_by_hash() -> None:
    written = json.loads(line(TRAJECTORY))

    assert list(written)[:3] == ["schema_version", "sample_id", "repeat"]
    counts = [written[name] for name in ("attempted", "executed", "observed", "called")]
    assert counts == [2, 1, 1, True]
    assert written["messages"][0]["content"] == [
        {"type": "image", "image": 0, "sha256": "aa" * 32},
        {"type": "text", "text": "Which colour?"},
    ]
    assert written["messages"][2]["content"] == [
        {"type": "image", "image": 1, "pixels_sha256": "bb" * 32}
    ]
    assert written["usage"]["prompt_tokens"] == 30
    assert written["images"][1]["to_root"] == {"a": 0.5, "b": 0, "c": 1, "d": 0, "e": 0.5, "f": 2}


def test_an_image_made_in_schema_version_1_keeps_the_hash_of_its_png() -> None:
    written = json.loads(line(TRAJECTORY))
    for image in written["images"]:
        del image["pixels_sha256"]
    written["images"][1] |= {"sha256": "dd" * 32, "media_type": "image/png"}
    older = json.dumps(written | {"schema_version": 1}).encode()

    read = parse_record(Trajectory, older, "a line")

    made = replace(CROP, pixels_sha256=None, sha256="dd" * 32, media_type="image/png")
    assert read == replace(TRAJECTORY, images=(PHOTO, made))
    assert parse_record(Trajectory, line(read), "a line") == read


@pytest.mark.parametrize("hashes", [{}, {"sha256": "aa", "pixels_sha256": "bb"}])
def test_an_image_has_one_hash(hashes: dict[str, str]) -> None:
    written = json.loads(line(TRAJECTORY))
    written["images"][1] |= {"sha256": None, "pixels_sha256": None, **hashes}
    with pytest.raises(RecordError, match=r"line 3: field 'images\.1'.*either a sha256"):
        parse_record(Trajectory, json.dumps(written).encode(), "line 3")


def with_arguments(found: dict[str, JsonValue]) -> Trajectory:
    return replace(TRAJECTORY, calls=(replace(TRAJECTORY.calls[0], arguments=found),))


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 190, 260, 900])
def test_arguments_nested_too_deep_are_cut_off_and_the_line_still_reads(depth: int) -> None:
    deep = with_arguments({"a": nested(depth), "b": {"c": 2}})

    found = read_back(deep).calls[0].arguments

    assert found is not None
    assert found["b"] == {"c": 2}
    assert str(found["a"]).strip("[]'") == f"(nested deeper than {MAX_DEPTH})"


def test_arguments_nested_up_to_the_limit_are_kept() -> None:
    kept = with_arguments({"a": nested(MAX_DEPTH - 1)})

    assert read_back(kept) == kept


def test_numbers_that_json_lacks_are_written_as_strings() -> None:
    odd = with_arguments({"a": [math.inf, -math.inf]})

    assert read_back(odd).calls[0].arguments == {"a": ["Infinity", "-Infinity"]}


@pytest.mark.parametrize(
    ("written", "kept"), [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "\U0001f600")]
)
def test_lone_surrogates_are_replaced_and_pairs_joined(written: str, kept: str) -> None:
    odd = replace(
        with_arguments({"key": [written, True]}),
        answer=Answer(text=written, how_found="answer_tag", reply=written),
    )

    back = read_back(odd)

    assert back.answer == Answer(text=kept, how_found="answer_tag", reply=kept)
    assert back.calls[0].arguments == {"key": [kept, True]}


SAMPLE = Sample(
    id="s1",
    question="Which?",
    images=(ImageSource(name="row 1", read=lambda: b"bytes"),),
    targets=("B",),
    options=("red", "blue"),
    instruction="Answer with the letter.",
    groups={"category": "colour"},
    cluster="c1",
    chance=0.5,
    metadata={"answers": ["blue"], "depth": 2},
    target_boxes=(Box(1, 2, 3, 4, PERMILLE), Box(0, 0, 5, 5, pixels(10, 10))),
    transform="rotate 90",
    target_lines=(AxisLine("x", 0.5, RELATIVE), AxisLine("y", 3, pixels(10, 10))),
    target_points=(Point(500, 250, PERMILLE),),
)
IMAGE = ImageRecord(
    source="row 1",
    sha256="cc" * 32,
    width_px=640,
    height_px=480,
    media_type="image/jpeg",
    size_bytes=5,
)


def test_sample_reads_back_in_full_but_for_its_images() -> None:
    written = line(SampleRecord.from_sample(SAMPLE, [IMAGE]))
    record = parse_record(SampleRecord, written, "a line")

    assert record.sample() == replace(SAMPLE, images=())
    assert record.images == (IMAGE,)


def test_sample_of_an_older_run_folder_has_no_target_lines_and_points() -> None:
    written = json.loads(line(SampleRecord.from_sample(SAMPLE, [IMAGE])))
    older = {name: value for name, value in written.items() if not name.startswith("target_")}
    older["target_boxes"] = written["target_boxes"]

    record = parse_record(SampleRecord, json.dumps(older).encode(), "a line")

    assert record.sample() == replace(SAMPLE, images=(), target_lines=(), target_points=())


def test_sample_with_an_unreadable_image_is_kept_with_the_error() -> None:
    broken = ImageRecord(source="row 1", error="no such file")

    record = SampleRecord.from_sample(SAMPLE, [broken])

    assert parse_record(SampleRecord, line(record), "a line") == record


def test_sample_with_images_that_are_not_described_is_refused() -> None:
    with pytest.raises(RecordError, match="sample 's1' has 1 images, but 0 are described"):
        SampleRecord.from_sample(SAMPLE, [])


def test_metadata_without_json_form_is_refused_with_its_sample_and_field() -> None:
    odd = replace(SAMPLE, metadata={"when": {1, 2}})  # type: ignore[dict-item]

    with pytest.raises(RecordError, match=r"sample 's1': field 'metadata\.when'"):
        line(SampleRecord.from_sample(odd, [IMAGE]), "sample 's1'")


VERDICT = Verdict(
    sample_id="7",
    repeat=0,
    judge="choice#12345678",
    status="undecided",
    score=None,
    extracted="B",
    reason="two letters",
)


def test_verdict_reads_back_as_it_was() -> None:
    assert parse_record(Verdict, line(VERDICT), "a line") == VERDICT


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_score_that_is_no_finite_number_is_refused(score: float) -> None:
    with pytest.raises(RecordError, match="verdict on sample '7': field 'score'"):
        line(replace(VERDICT, status="correct", score=score), "verdict on sample '7'")


VERDICT_LINE = json.loads(line(VERDICT))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schema_version": 1, "sam', "line 3 is garbled"),
        (
            json.dumps({**VERDICT_LINE, "schema_version": 2}).encode(),
            "line 3: schema version 2, but this medeval reads 1",
        ),
        (json.dumps({**VERDICT_LINE, "mood": "good"}).encode(), "field 'mood'"),
        (json.dumps({**VERDICT_LINE, "status": "maybe"}).encode(), "field 'status'.*'maybe'"),
        (json.dumps({**VERDICT_LINE, "repeat": "x" * 900}).encode(), r"seen 'x{199}\.\.\."),
        (b"[1]", "line 3: field ''"),
    ],
)
def test_line_that_is_no_record_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_record(Verdict, data, "line 3")


def test_cell_record_with_an_edited_field_is_refused() -> None:
    written = pretty(CellRecord.of({"seed": 0}, {"concurrency": 8}))

    with pytest.raises(RecordError, match="the fingerprint is not that of the fields"):
        parse_record(CellRecord, written.replace(b'"seed": 0', b'"seed": 1'), "cell.json")


def session(created: str) -> Session:
    return Session(
        created=created,
        medeval_version="0.1.0",
        command=("medeval", "run"),
        plan={"benchmarks": ["vstar"]},
        git_commit=None,
        python="3.11",
        platform="linux",
        seed=0,
    )


def definition(sha256: str) -> DefinitionCopy:
    return DefinitionCopy(
        kind="benchmark", name="vstar", path="vstar", sha256=sha256, copy_name="vstar.py"
    )


def test_extended_run_keeps_every_session_and_takes_the_later_judge() -> None:
    origin = BenchmarkRecord(origin="hub", revision=None, count=10, expected_count=191)
    first = RunRecord(
        sessions=(session("monday"),),
        definitions=(definition("aa"),),
        judges={"vstar": "choice#1"},
        benchmarks={"vstar": origin},
        pairs={"crop_zoom": ("tool_free", "tool_available")},
    )
    later = RunRecord(
        sessions=(session("tuesday"),),
        definitions=(definition("aa"), definition("bb")),
        judges={"vstar": "choice#2", "chartqa": "anls#3"},
        metrics={"anls#3": Metric(name="ANLS", correct_at=0.5)},
    )

    both = first.extended(later)

    assert [item.created for item in both.sessions] == ["monday", "tuesday"]
    assert [item.sha256 for item in both.definitions] == ["aa", "bb"]
    assert both.judges == {"vstar": "choice#2", "chartqa": "anls#3"}
    assert both.benchmarks == {"vstar": origin}
    assert both.pairs == first.pairs
    assert both.metrics == later.metrics
    assert parse_record(RunRecord, pretty(both), "run.json") == both
