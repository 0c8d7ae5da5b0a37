import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.data.rows import DrawnRows, HubFiles, HubRows, Origin, RepeatedRows, open_rows
from medeval.errors import DataError
from medeval.types.geometry import Size

HUB = HubRows("owner/nowhere", split="test")


def png(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / ".cache"))


JSON_OBJECTS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "key"),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=4,
    ),
    max_size=4,
)

RECORDS = [
    {"id": "one", "question": "Which?\tThis?", "answer": "NA", "number": "1.50"},
    {"id": "two", "question": 'Say "ü"\nplease', "answer": "007", "number": "2"},
]


def write_table(folder: Path, kind: str) -> Path:
    import pandas

    folder.mkdir(exist_ok=True)
    table = folder / f"rows.{kind}"
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        images = [{"bytes": png(), "path": None}, {"bytes": png(), "path": "a.png"}]
        rows = [{**record, "image": image} for record, image in zip(RECORDS, images, strict=True)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), table)
        return table
    rows = [{**record, "image": base64.b64encode(png()).decode()} for record in RECORDS]
    if kind == "tsv":
        pandas.DataFrame(rows).to_csv(table, sep="\t", index=False)
    elif kind == "jsonl":
        write_lines(table, *rows)
    else:
        table.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return table


@pytest.mark.parametrize("kind", ["parquet", "tsv", "jsonl", "json"])
@pytest.mark.parametrize("by_file", [False, True])
def test_the_same_rows_come_from_every_kind_of_table(
    tmp_path: Path, kind: str, by_file: bool
) -> None:
    table = write_table(tmp_path / "data [1]", kind)
    rows = open_rows(HUB, table if by_file else table.parent)
    assert len(rows) == 2
    for _ in range(2):
        assert [{column: row.text(column) for column in RECORDS[0]} for row in rows] == RECORDS
    assert [row.image("image").read() for row in rows] == [png(), png()]
    assert rows[1].image_size("image") == Size(8, 6)
    assert rows.origin == Origin(
        description=f"local {table if by_file else table.parent}",
        revision=None,
        files=((table.name, table.stat().st_size),),
    )


def test_an_index_beyond_the_rows_raises(tmp_path: Path) -> None:
    rows = open_rows(HUB, write_lines(tmp_path / "rows.jsonl", {"a": 1}))
    with pytest.raises(IndexError, match="row 1 of 1"):
        rows[1]


def test_a_table_in_parts_is_one_table(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for part in range(2):
        table = pyarrow.Table.from_pylist([{"id": f"row-{part}"}])
        parquet.write_table(table, tmp_path / f"test-0000{part}-of-00002.parquet")
    rows = open_rows(HUB, tmp_path)
    assert [row.text("id") for row in rows] == ["row-0", "row-1"]
    assert len(rows.origin.files) == 2

    (tmp_path / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="one of 2 parts, but 1 are in"):
        open_rows(HUB, tmp_path)


def test_a_json_list_may_hold_anything_that_json_may(tmp_path: Path) -> None:
    rows = [{"text": 'brackets ]}[{ and \\"quotes\\" \\'}, {"nested": [{"a": [1, []]}]}, {}]
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode())
    assert [dict(row) for row in open_rows(HUB, path)] == rows


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.none() | st.integers() | st.text() | st.lists(st.dictionaries(st.text(), st.text())),
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_json_comes_back_as_it_was_written(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    (tmp_path / "list.json").write_text(json.dumps(rows), encoding="utf-8")
    lines = "".join(f"{json.dumps(row)}\r\n\n" for row in rows)
    (tmp_path / "lines.jsonl").write_text(lines, encoding="utf-8")
    for name in ("list.json", "lines.jsonl"):
        assert [dict(row) for row in open_rows(HUB, tmp_path / name)] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "rows.jsonl, line 2 is not JSON: "),
        (b'{"a": 1}\n\n\n{"a": 2}x\n', "rows.jsonl, line 4 is not JSON: "),
        (b'{"a": 1}\n[1]\n', "rows.jsonl, line 2 is not a JSON object, got '[1]"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl, line 2 is not JSON: "),
        (b'{"a": 1}\n' + b"[" * 100_000, "rows.jsonl, line 2 is not JSON: "),
    ],
)
def test_a_garbled_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        open_rows(HUB, path)
    assert raised.value.message.startswith(message)


@given(st.dictionaries(st.text(max_size=8), JSON_OBJECTS, min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_object_of_json_objects_is_rows_with_their_keys(
    tmp_path: Path, written: dict[str, dict[str, object]]
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False), encoding="utf-8")
    expected = [{"key": key, **row} for key, row in written.items()]
    assert [dict(row) for row in open_rows(HUB, path)] == expected


def test_several_tables_are_read_one_after_the_other(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"id": 1}, {"id": 2})
    write_lines(tmp_path / "b.jsonl", {"id": 3})
    rows = open_rows(HubFiles("owner/nowhere", table=("a.jsonl", "b.jsonl")), tmp_path)
    assert [(row.index, row.table, row["id"]) for row in rows] == [
        (0, "a.jsonl", 1),
        (1, "a.jsonl", 2),
        (2, "b.jsonl", 3),
    ]
    assert [name for name, _ in rows.origin.files] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(DataError, match=r"b\.jsonl, row 0: no column 'x'"):
        rows[2]["x"]
    twice = RepeatedRows(HubFiles("owner/nowhere", table=("a.jsonl", "b.jsonl")), times=2)
    assert [row["id"] for row in open_rows(twice, tmp_path)] == [1, 1, 2, 2, 3, 3]


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": NaN}\r\n')
    (row,) = open_rows(HUB, tmp_path)
    assert str(row["a"]) == "nan"


def test_a_row_repeated_counts_its_parts(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", {"id": "a"}, {"id": "b"})
    rows = open_rows(RepeatedRows(HUB, times=3), tmp_path)
    assert [(row.index, row["id"], row["part"]) for row in rows] == [
        (0, "a", 0),
        (1, "a", 1),
        (2, "a", 2),
        (3, "b", 0),
        (4, "b", 1),
        (5, "b", 2),
    ]
    assert rows.origin == open_rows(HUB, tmp_path).origin


def test_paths_are_of_the_repository_where_the_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write_lines(tmp_path / "tables" / "rows.jsonl", {"image": "images/a.png"})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    source = HubFiles("owner/nowhere", "tables/rows.jsonl")
    beside_table = open_rows(source, tmp_path)[0].image("image")
    with pytest.raises(DataError, match=r"no file 'images/a\.png'"):
        beside_table.read()
    rows = open_rows(replace(source, paths_from="repository"), tmp_path)
    assert rows[0].image("image").read() == png()
    assert rows[0].image_size("image") == Size(8, 6)


@pytest.mark.parametrize(
    ("value", "same"), [(b"x", "x"), ({"bytes": b"x", "path": "a"}, b"x"), ({"path": "a"}, None)]
)
def test_a_digest_is_of_what_a_cell_holds(tmp_path: Path, value: object, same: object) -> None:
    cells: list[object] = [value, same]
    rows = open_rows(DrawnRows(2, lambda index: {"image": cells[index]}))
    assert (rows[0].digest("image") == rows[1].digest("image")) is (same is not None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": []}', "rows.json, row 0: expected a JSON object, got []"),
        ('{"a": {"b": 1}, "c": 5}', "rows.json, row 1: expected a JSON object, got 5"),
        ('{"a": {"b": 1},\n"c": {"d": "2', "rows.json is not JSON: Unterminated string"),
        ('{"a": {"b": 1}} tail', "rows.json is not JSON: Extra data: line 1 column 17"),
        ("{}", "has no rows"),
        ('[{"a": 1}, 5, {"a": 2}]', "rows.json, row 1: expected a JSON object, got 5"),
        ('[{"a": 1},\n{"a": 2}', "rows.json is not JSON: Expecting ',' delimiter: line 2"),
        ("[[1]]", "rows.json, row 0: expected a JSON object, got [1]"),
        ("[" * 100_000, "rows.json is not JSON: maximum recursion depth"),
        ("5", "rows.json: expected JSON objects in a list, got 5"),
        ("[]", "has no rows"),
        ("", "rows.json is not JSON: Expecting value"),
    ],
)
def test_a_json_file_without_objects_in_a_list_or_an_object_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "rows.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.json") as raised:
        open_rows(HUB, tmp_path)
    assert message in raised.value.message


def test_a_table_that_is_replaced_while_it_is_read_stays_as_it_was(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", {"a": 1})
    rows = open_rows(HUB, path)
    path.unlink()
    write_lines(path, {"a": 2})
    assert rows[0]["a"] == 1


@pytest.mark.parametrize("name", ["rows.parquet", "rows.tsv"])
@pytest.mark.parametrize("content", [b"", b"a\tb\n1\t2\n1\t2\t3\t4\n"])
def test_a_broken_table_is_told_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_rows(HUB, tmp_path)


def test_a_tsv_with_a_long_line_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("a\tb\n1\t2\n1\t2\t3\t4\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 3"):
        open_rows(HUB, tmp_path)


def test_a_tsv_with_no_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(DataError, match="it has no rows"):
        open_rows(HUB, tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder or file .*absent") as raised:
        open_rows(HUB, tmp_path / "absent")
    assert raised.value.hint is not None


def test_a_folder_without_a_table_lists_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="found no table"):
        open_rows(HUB, tmp_path)
    with pytest.raises(DataError, match="is not a table"):
        open_rows(HUB, tmp_path / "notes.txt")


def test_two_tables_are_listed(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.json", "c.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"found 3 tables: c\.tsv, a\.jsonl, b\.json"):
        open_rows(HUB, tmp_path)


def test_a_sources_own_table_is_taken_among_others(tmp_path: Path) -> None:
    write_lines(tmp_path / "other.jsonl", {"a": "other"})
    write_lines(tmp_path / "questions.jsonl", {"a": "questions"})
    rows = open_rows(HubFiles("owner/nowhere", table="questions.jsonl"), tmp_path)
    assert rows[0].text("a") == "questions"
