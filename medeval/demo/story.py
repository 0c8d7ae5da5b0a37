"""What the tables of a demo run mean, in two lines that are read off the numbers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from medeval.analysis.report import Analysis


def story(analysis: "Analysis") -> tuple[str, str]:
    """Where tools did most harm, by each of its two ways, and what they are worth at the end."""
    explain, measure = analysis.explain, analysis.measure
    schema, call = _worst(explain, "schema_harm"), _worst(explain, "call_harm")
    harm = (
        f"Harm: at step {schema['step']} the mere sight of the tool's schema costs "
        f"{_points(schema, 'schema_harm')} (schema harm); at step {call['step']} calls whose crops "
        f"mislead cost {_points(call, 'call_harm')} (call harm)."
    )
    last, final = measure.iloc[-1], explain.iloc[-1]
    gain = (
        f"Gain: at step {last['step']} the model calls on {last['called']:.0%} of the samples, and "
        f"the tool is worth {_points(last, 'gap')}: {_points(final, 'call_gain')} won by calls, "
        f"{_points(final, 'call_harm')} lost by them."
    )
    return harm, gain


def _worst(explain: "pd.DataFrame", term: str) -> Any:
    return explain.sort_values(term, ascending=False, kind="stable").iloc[0]


def _points(row: Any, name: str) -> str:
    low, high = (100 * row[f"{name}_{end}"] for end in ("low", "high"))
    return f"{100 * row[name]:.1f} points [{low:.1f}, {high:.1f}]"
