"""The table of docs/models.md, made of what the families' conversations came to."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.families.checkpoint import Family
from tests.families.equality import Result

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
COLUMNS = (
    "type",
    "class",
    "contents",
    "system text",
    "images",
    "a batch's images",
    "native tools",
    "needs",
    "equal replies",
    "remark",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|\n"
ROW = re.compile(r"^\| `(\w+)` \|.*\n", re.MULTILINE)


def table_rows(page: str) -> dict[str, str]:
    """The rows of a page's table by model type."""
    return {row[1]: row[0] for row in ROW.finditer(page)}


def with_rows(page: str, rows: Mapping[str, str]) -> str:
    """The page with these rows below the table's header."""
    before, after = page.split(HEADER)
    return before + HEADER + "".join(rows.values()) + ROW.sub("", after)


def table_row(family: Family, result: Result) -> str:
    """One row: what was found when the checkpoint was loaded, and how its replies compare."""
    form = result.form
    remarks = [family.remark] if family.remark else []
    if result.is_rendered_anew:
        remarks.insert(0, "every turn is rendered anew")
    cells = (
        f"`{family.model_type}`",
        f"`{result.identity['model_class']}`",
        "parts" if form.as_parts else "strings",
        "opens the user's" if form.merges_system else "own message",
        form.image_place or "none",
        str(result.identity["image_batches"]) if form.image_place else "none",
        "yes" if result.renders_tools else "no",
        ", ".join(family.needs) or "nothing",
        f"{result.n_equal} of {result.n_replies}",
        "; ".join(remarks) or "none",
    )
    return f"| {' | '.join(cells)} |\n"
