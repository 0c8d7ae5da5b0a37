"""`medeval fetch`: download benchmarks to the hub's cache, for machines without a network."""

import json
from typing import Any

import click

from medeval.cli.parsing import CommaSeparated


@click.command("fetch")
@click.argument("names", nargs=-1, required=True, type=CommaSeparated())
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
@click.pass_context
def fetch_command(ctx: click.Context, names: tuple[tuple[str, ...], ...], as_json: bool) -> None:
    """Download the rows and images of benchmarks to the hub's cache, and print their sizes.

    NAMES are as in `medeval list`, or paths. The cache is the hub's own (HF_HOME): copy it to a
    machine without a network, and runs find it there. Where the hub does not answer, the newest
    revision in the cache is reported. The exit code is 1 where a benchmark is neither on the hub
    nor in the cache.
    """
    from medeval.data.benchmark import Benchmark
    from medeval.errors import DataError
    from medeval.evaluation.loader import load

    loaded = [load(name, Benchmark).value for group in names for name in group]
    failed = False
    for benchmark in {benchmark.name: benchmark for benchmark in loaded}.values():
        click.echo(f"fetching {benchmark.name} ...", err=True)
        try:
            fetched = _fetched(benchmark)
        except DataError as error:
            failed = True
            click.echo(f"error: {benchmark.name}: {error}", err=True)
            continue
        click.echo(json.dumps(fetched) if as_json else _line(fetched))
    ctx.exit(1 if failed else 0)


def _fetched(benchmark: Any) -> dict[str, object]:
    """Download a benchmark; returns its row count, size, origin and revision."""
    from medeval.data.rows import open_rows

    rows = open_rows(benchmark.rows)
    return {
        "benchmark": benchmark.name,
        "rows": len(rows),
        "published": benchmark.count,
        "size_bytes": rows.origin.cached_bytes,
        "origin": rows.origin.description,
        "revision": rows.origin.revision,
        "offline": rows.origin.offline,
    }


def _line(fetched: dict[str, Any]) -> str:
    size = fetched["size_bytes"]
    parts = [
        f"{fetched['benchmark']}: {fetched['rows']:,} rows",
        "nothing to fetch" if size is None else _size_text(size),
        fetched["origin"] + (f" at {fetched['revision']}" if fetched["revision"] else ""),
    ]
    if fetched["offline"]:
        parts.append("from the cache, the hub did not answer")
    if fetched["published"] not in (None, fetched["rows"]):
        parts.append(f"but {fetched['published']:,} rows were published")
    return ", ".join(parts)


def _size_text(size: int) -> str:
    """A number of bytes in the unit that fits, to three figures.

    >>> _size_text(430_000_000), _size_text(999)
    ('430 MB', '999 B')
    """
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}"
