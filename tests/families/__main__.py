"""`python -m tests.families [TYPE ...]` runs families and writes their rows of docs/models.md."""

import tempfile
from pathlib import Path

import click
import torch

from tests.families.checkpoint import build
from tests.families.documentation import PAGE, table_row, table_rows, with_rows
from tests.families.equality import compare, why_not_here
from tests.families.every import FAMILIES


@click.command()
@click.argument("types", nargs=-1, type=click.Choice(list(FAMILIES)))
def main(types: tuple[str, ...]) -> None:
    """Run the families, or those of some TYPES, and write their rows of docs/models.md.

    A row whose stock processor does not load here stays as it is.
    """
    torch.set_num_threads(1)
    page = PAGE.read_text(encoding="utf-8")
    rows = table_rows(page)
    for model_type in types or FAMILIES:
        family = FAMILIES[model_type]
        if reason := why_not_here(family):
            click.echo(f"{model_type}: {reason}", err=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[model_type] = table_row(family, compare(family, build(family, Path(folder))))
        click.echo(rows[model_type].strip())
    ordered = {model_type: rows[model_type] for model_type in FAMILIES if model_type in rows}
    PAGE.write_text(with_rows(page, ordered), encoding="utf-8")


if __name__ == "__main__":
    main()
