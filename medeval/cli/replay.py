"""`medeval replay`: recorded conversations, read as a protocol would read them."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from medeval.errors import DefinitionError
from medeval.evaluation.loader import load
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.rollout.replay import Replayed, ReplayReport, replay_file

# Ends that disagree with the recorded ones, of which the first few are shown.
DIFFERING = ("stops earlier", "goes on")
SHOWN_DISAGREEMENTS = 10
SHOWN_REASONS = 5
REASON_WIDTH = 88


@click.command("replay")
@click.argument(
    "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE"
)
@click.option("--protocol", required=True, metavar="NAME", help="A protocol, or a pair.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, call by call.")
def replay_command(file: Path, protocol: str, as_json: bool) -> None:
    """Read recorded conversations as a protocol would, before any model is run.

    FILE holds JSON lines, each with the "messages" of one conversation; the trajectories of a run
    are such a file. Each call gets the status that the protocol would give it, and each
    conversation the reply at which it would stop. Of a pair, the available arm is used.

    A call is "unchecked", with the reason, where the recording lacks something that the call needs.
    Sizes come from an image part's "width" and "height" or its data URL; pixels, which only a tool
    of your own needs, from a data URL; named regions from a line's "metadata".
    """
    report = replay_file(file, _protocol(protocol))
    if as_json:
        click.echo(json.dumps(_as_json(report), ensure_ascii=False))
        return
    for title, counts in (
        ("calls", report.calls), ("stops", report.stops), ("recorded ends", report.agreement),
    ):  # fmt: skip
        click.secho(f"{title} ({report.protocol}, {len(report.conversations)} conversations)")
        for name, count in counts.items():
            click.echo(f"  {count:>7}  {name}")
    _show_reasons(report)
    differing = [item for item in report.conversations if item.agreement in DIFFERING]
    for item in differing[:SHOWN_DISAGREEMENTS]:
        click.echo(_end_line(item))
    if len(differing) > SHOWN_DISAGREEMENTS:
        click.echo(f"and {len(differing) - SHOWN_DISAGREEMENTS} more; --json shows all", err=True)


def _show_reasons(report: ReplayReport) -> None:
    """Show why calls were not carried out, the most frequent reasons first."""
    reasons = Counter(
        f"{call.status}: {call.error}"
        for item in report.conversations
        for call in item.calls
        if call.error is not None
    )
    if reasons:
        click.secho("reasons, the most frequent first")
    for reason, count in reasons.most_common(SHOWN_REASONS):
        shown = reason if len(reason) <= REASON_WIDTH else f"{reason[: REASON_WIDTH - 3]}..."
        click.echo(f"  {count:>7}  {shown}")
    if len(reasons) > SHOWN_REASONS:
        click.echo(f"and {len(reasons) - SHOWN_REASONS} more; --json shows all", err=True)


def _end_line(item: Replayed) -> str:
    """Where the protocol ends a conversation that the recording ends elsewhere."""
    if item.stop is None:
        return f"line {item.number}: goes on after the last of {item.n_replies} replies"
    return (
        f"line {item.number}: {item.stop} at reply {(item.stopped_at or 0) + 1} of {item.n_replies}"
    )


def _protocol(name: str) -> EvalProtocol:
    """The protocol of a name, or the available arm of a pair of that name."""
    try:
        return load(name, Pair).value.available
    except DefinitionError as no_pair:
        try:
            return load(name, EvalProtocol).value
        except DefinitionError as no_protocol:
            # of the two errors, prefer the one that suggests a name
            suggests = no_pair.hint is not None and "mean" in no_pair.hint
            raise (no_pair if suggests else no_protocol) from None


def _as_json(report: ReplayReport) -> dict[str, object]:
    return {
        "protocol": report.protocol,
        "n_conversations": len(report.conversations),
        "calls": report.calls,
        "stops": report.stops,
        "agreement": report.agreement,
        "conversations": [asdict(item) for item in report.conversations],
    }
