"""`medeval list` and `show`: the shipped definitions, and one of them in full."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import click

from medeval.data.benchmark import Benchmark
from medeval.data.rows import DrawnRows, HubRows, RepeatedRows, RowSource
from medeval.errors import DefinitionError, UsageError
from medeval.evaluation.loader import load, shipped
from medeval.images.picture import prepare
from medeval.models.base import Sampling
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.rollout.render import EXAMPLE, render_difference, render_opening, shown_mark
from medeval.scoring.judge import Judge
from medeval.types.definition import Loaded
from medeval.types.sample import ImageSource, Sample

FREE_SOURCES = {
    "published": "published with the model",
    "derived": "derived here from the published available arm",
    "ours": "medeval's own, like the pair",
}

SHOWN_MARKS = 4

Definition = Loaded[Benchmark] | Loaded[EvalProtocol] | Loaded[Pair] | Loaded[Judge]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def list_command(as_json: bool) -> None:
    """List the benchmarks, protocols, pairs and judges that medeval ships."""
    tables = {
        "benchmarks": [_benchmark_row(loaded.value) for loaded in shipped(Benchmark)],
        "pairs": [_pair_row(loaded.value) for loaded in shipped(Pair)],
        "protocols": [_protocol_row(loaded.value) for loaded in shipped(EvalProtocol)],
        "judges": [_judge_row(loaded.value) for loaded in shipped(Judge)],
    }
    if as_json:
        click.echo(json.dumps(tables, indent=2))
        return
    for title, rows in tables.items():
        click.secho(title, bold=True)
        click.echo(f"{_table(rows)}\n")
    click.echo("hint: medeval show NAME shows one; a path to a .py file is a name too", err=True)


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows under the names of their columns, without tabulate, whose import slows the start."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _benchmark_row(benchmark: Benchmark) -> dict[str, object]:
    return {
        "name": benchmark.name,
        "samples": benchmark.count,
        "judge": benchmark.judge,
        "what": benchmark.title,
    }


def _pair_row(pair: Pair) -> dict[str, object]:
    return {
        "name": pair.name,
        "free arm": pair.free.name,
        "available arm": pair.available.name,
        "free arm is": pair.free_source,
        "what": pair.title,
    }


def _protocol_row(protocol: EvalProtocol) -> dict[str, object]:
    return {
        "name": protocol.name,
        "tools": ", ".join(tool.name for tool in protocol.tools) or None,
        "calls": protocol.call_syntax,
        "what": protocol.title,
    }


def _judge_row(judge: Judge) -> dict[str, object]:
    return {"name": judge.name, "metric": judge.metric, "correct at": judge.correct_at}


@click.command("show")
@click.argument("name")
@click.option(
    "--image",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, readable=True),
    metavar="FILE",
    help="Put this image into the messages, and show how it would be sent.",
)
@click.option("--question", metavar="TEXT", help="Put this question into the messages.")
@click.option("--benchmark", metavar="NAME", help="Take the sample from this benchmark.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read that benchmark's rows from a local folder, not the hub.",
)
@click.option("--sample-id", metavar="ID", help="Take this sample, not the first.")
@click.option(
    "--render", is_flag=True, help="Only the messages; for a pair, those of both arms and a diff."
)
def show_command(
    name: str,
    image: Path | None,
    question: str | None,
    benchmark: str | None,
    data_dir: Path | None,
    sample_id: str | None,
    render: bool,
) -> None:
    """Show a definition; for a protocol or pair, the exact messages that a model would read.

    NAME is a shipped name, a path to a .py file or a dotted module; FILE.py::NAME chooses one of
    several. A benchmark's rows are read only with --data-dir or --sample-id.
    """
    definition = _find(name, benchmark_last=render and not (data_dir or sample_id))
    value = definition.value
    if isinstance(value, Benchmark) and benchmark is None and (data_dir or sample_id):
        benchmark = name
    sample = _sample(benchmark, data_dir, sample_id)
    if question is not None:
        sample = replace(sample, question=question)
    if image is not None:
        sample = _of_image(sample, image)
    sections = [] if render else [("", _lines(_fields(definition)))]
    if isinstance(value, Benchmark):
        if benchmark is not None:
            sections.append(("a sample", _lines(_sample_fields(sample))))
    elif not isinstance(value, Judge):
        sections += _messages(value, sample)
    if not sections:
        raise UsageError(
            f"{name!r} has no messages to render",
            hint="name a protocol or a pair, or a benchmark with --data-dir or --sample-id",
        )
    for title, text in sections:
        if title:
            click.secho(f"\n--- {title}", bold=True)
        click.echo(text)


def _of_image(sample: Sample, image: Path) -> Sample:
    """The sample with another image, and without targets in the image."""
    source = ImageSource(name=str(image), read=image.read_bytes)
    return replace(
        sample,
        images=(source,),
        target_boxes=(),
        target_lines=(),
        target_points=(),
        transform=None,
    )


def _messages(value: EvalProtocol | Pair, sample: Sample) -> list[tuple[str, str]]:
    """Sections with the messages of each arm, a pair's diff, and the sample's targets."""
    arms = value.arms if isinstance(value, Pair) else (value,)
    sections = [(arm.name, _opening(arm, sample)) for arm in arms]
    if isinstance(value, Pair):
        sections.append(("what differs", render_difference(value, sample)))
    marked = _mark_fields(sample)
    if marked:
        hidden = [("targets", list(sample.targets)), *marked]
        sections.append(("what the model is not told", _lines(hidden)))
    return sections


def _lines(fields_shown: Sequence[tuple[str, object]]) -> str:
    return "\n".join(f"{key}: {_cell(value)}" for key, value in fields_shown)


def _find(name: str, *, benchmark_last: bool) -> Definition:
    """A definition of any kind.

    Of several with the same name, a benchmark is found before a pair, that before a protocol, and
    that before a judge. With `benchmark_last`, a benchmark is found last.
    """
    finders: tuple[Callable[[], Definition], ...] = (
        lambda: load(name, Benchmark),
        lambda: load(name, Pair),
        lambda: load(name, EvalProtocol),
        lambda: load(name, Judge),
    )
    problems: list[DefinitionError] = []
    for find in finders[1:] + finders[:1] if benchmark_last else finders:
        try:
            return find()
        except DefinitionError as error:
            problems.append(error)
    if "." in name or "::" in name:
        chosen = [error for error in problems if error.hint and "choose one" in error.hint]
        raise (chosen or problems)[0]
    hints = [error.hint for error in problems if error.hint and "mean" in error.hint]
    raise DefinitionError(
        f"no benchmark, pair, protocol or judge named {name!r}",
        hint=hints[0] if hints else "medeval list shows the names",
    )


def _fields(definition: Definition) -> Sequence[tuple[str, object]]:
    value, source = definition.value, definition.source
    shown: list[tuple[str, object]] = [("name", value.name)]
    if isinstance(value, Benchmark):
        shown += [
            ("title", value.title),
            ("rows", _rows(value.rows)),
            ("published samples", value.count),
            ("judge", value.judge),
            ("known elsewhere as", ", ".join(value.aliases)),
            ("groups", ", ".join(value.groups) or "none"),
            ("aggregate", value.aggregate),
            ("suite", value.suite),
            ("chance", None if value.chance is None else f"{value.chance:.3f}"),
            ("licence", value.licence),
            ("citation", value.citation),
        ]
    elif isinstance(value, Judge):
        shown += [
            ("metric", value.metric),
            ("correct at", value.correct_at),
            ("reads", ", ".join(value.reads)),
            ("asks a model", "yes" if value.needs_endpoint else "no"),
            ("source", value.source),
            *([("licence of its prompt", value.licence)] if value.licence else []),
        ]
    elif isinstance(value, Pair):
        shown += [
            ("title", value.title),
            ("arms", f"{value.free.name}, {value.available.name}"),
            ("free arm is", FREE_SOURCES[value.free_source]),
            *_protocol_fields(value.available),
            ("differences besides the tools", _differences(value)),
        ]
    else:
        shown += [("title", value.title), *_protocol_fields(value)]
    return [*shown, ("file", source.path), ("sha256", source.sha256)]


def _rows(source: RowSource) -> str:
    """The source of rows, in words."""
    if isinstance(source, RepeatedRows):
        return f"{_rows(source.rows)}, each {source.times} times"
    if isinstance(source, DrawnRows):
        return f"{source.count} drawn by the definition"
    revision = f"revision {source.revision or 'the newest'}"
    if isinstance(source, HubRows):
        repositories = " or ".join((source.repo, *source.mirrors))
        config = f" {source.config}" if source.config else ""
        return f"hub {repositories},{config} {source.split}, {revision}"
    return f"hub {source.repo}, {', '.join(source.tables)}, {revision}"


def _differences(pair: Pair) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in pair.differences.items()) or "none"


def _protocol_fields(protocol: EvalProtocol) -> Sequence[tuple[str, object]]:
    return [
        ("tools", ", ".join(tool.name for tool in protocol.tools) or "none"),
        ("call syntax", protocol.call_syntax),
        ("coordinate frame", protocol.frame),
        ("replies", protocol.max_generations),
        ("executed calls", protocol.max_calls),
        ("answer rules", ", ".join(protocol.answer_rules)),
        ("at a limit", "no answer" if protocol.at_limit == "no_answer" else "the last reply's"),
        ("what counts as a use of a tool", f"{protocol.used} calls"),
        ("stop strings", ", ".join(protocol.stop) or "none"),
        ("sampling", _settings(protocol.sampling)),
        ("pixel budget", protocol.pixel_budget or "original bytes"),
        ("source", protocol.source),
        ("licence", protocol.licence),
    ]


def _settings(sampling: Sampling) -> str:
    given = ((item.name, getattr(sampling, item.name)) for item in fields(sampling))
    return ", ".join(f"{name} {value}" for name, value in given if value is not None)


def _sample(benchmark: str | None, data_dir: Path | None, sample_id: str | None) -> Sample:
    if benchmark is None:
        return EXAMPLE
    from medeval.evaluation.plan import plan_benchmarks
    from medeval.evaluation.plan_file import PlanFile

    options = PlanFile(
        benchmarks=(benchmark,),
        data_dir=() if data_dir is None else (str(data_dir),),
        sample_id=() if sample_id is None else (sample_id,),
        allow_count_mismatch=True,
    )
    samples = plan_benchmarks(options)[0].samples(options)
    for sample in samples:
        return sample
    raise UsageError(f"benchmark {benchmark!r} has no sample {sample_id!r}")


def _sample_fields(sample: Sample) -> Sequence[tuple[str, object]]:
    return [
        ("id", sample.id),
        ("question", sample.question),
        ("options", list(sample.options)),
        ("instruction", sample.instruction),
        ("targets", list(sample.targets)),
        ("groups", dict(sample.groups)),
        ("images", [image.name for image in sample.images]),
        *_mark_fields(sample),
    ]


def _mark_fields(sample: Sample) -> Sequence[tuple[str, object]]:
    """The targets in the first image, and the transform that was applied to it."""
    marks = (
        ("target boxes", sample.target_boxes),
        ("target lines", sample.target_lines),
        ("target points", sample.target_points),
    )
    fields_shown: list[tuple[str, object]] = [
        (name, _few([shown_mark(mark) for mark in listed])) for name, listed in marks if listed
    ]
    return fields_shown + ([("transform", sample.transform)] if sample.transform else [])


def _few(shown: Sequence[str]) -> str:
    more = len(shown) - SHOWN_MARKS
    return "; ".join(shown[:SHOWN_MARKS]) + (f"; and {more} more" if more > 0 else "")


def _opening(protocol: EvalProtocol, sample: Sample) -> str:
    """The opening messages, and how each image would be sent; the example has no real image."""
    pictures = None
    if sample.images != EXAMPLE.images:
        pictures = [
            prepare(source.read(), name=source.name, budget=protocol.pixel_budget)
            for source in sample.images
        ]
    return render_opening(protocol, sample, pictures).rstrip("\n")
