"""medeval: what a vision-language model gains and loses from its visual tools.

Every checkpoint is evaluated twice, without and with the tool schema, sample by sample. The
names below are the public ones; each is imported when it is first used, so that the command
line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medeval.analysis.report import Analysis as Analysis
    from medeval.analysis.report import analyze as analyze
    from medeval.data.benchmark import Benchmark as Benchmark
    from medeval.data.rows import DrawnRows as DrawnRows
    from medeval.data.rows import HubFiles as HubFiles
    from medeval.data.rows import HubRows as HubRows
    from medeval.data.rows import RepeatedRows as RepeatedRows
    from medeval.data.rows import Row as Row
    from medeval.errors import MedevalError as MedevalError
    from medeval.evaluation.api import load_run as load_run
    from medeval.evaluation.api import run as run
    from medeval.evaluation.api import score as score
    from medeval.evaluation.loader import load as load
    from medeval.images.resize import PixelBudget as PixelBudget
    from medeval.models.base import Sampling as Sampling
    from medeval.rollout.observation import Observation as Observation
    from medeval.rollout.observation import Wording as Wording
    from medeval.rollout.protocol import EvalProtocol as EvalProtocol
    from medeval.rollout.protocol import Pair as Pair
    from medeval.scoring.judge import Judge as Judge
    from medeval.tools.base import Tool as Tool
    from medeval.tools.calls.find import CallRules as CallRules
    from medeval.tools.crop import crop_and_zoom as crop_and_zoom
    from medeval.tools.crop_rules import CropRules as CropRules
    from medeval.tools.crop_rules import Target as Target
    from medeval.tools.draw import draw_line as draw_line
    from medeval.tools.draw import draw_point as draw_point
    from medeval.tools.focus import focus_tools as focus_tools
    from medeval.tools.function import tool as tool
    from medeval.tools.rotate_flip import flip as flip
    from medeval.tools.rotate_flip import rotate as rotate
    from medeval.types.geometry import AxisLine as AxisLine
    from medeval.types.geometry import Box as Box
    from medeval.types.geometry import Point as Point
    from medeval.types.geometry import pixels as pixels
    from medeval.types.sample import Sample as Sample
    from medeval.types.trajectory import Answer as Answer
    from medeval.types.verdict import Grade as Grade

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "medeval.analysis.report",
    "analyze": "medeval.analysis.report",
    "load_run": "medeval.evaluation.api",
    "run": "medeval.evaluation.api",
    "score": "medeval.evaluation.api",
    "AxisLine": "medeval.types.geometry",
    "Box": "medeval.types.geometry",
    "Point": "medeval.types.geometry",
    "pixels": "medeval.types.geometry",
    "Benchmark": "medeval.data.benchmark",
    "EvalProtocol": "medeval.rollout.protocol",
    "Judge": "medeval.scoring.judge",
    "Observation": "medeval.rollout.observation",
    "Pair": "medeval.rollout.protocol",
    "MedevalError": "medeval.errors",
    "PixelBudget": "medeval.images.resize",
    "load": "medeval.evaluation.loader",
    "Sampling": "medeval.models.base",
    "Wording": "medeval.rollout.observation",
    "DrawnRows": "medeval.data.rows",
    "HubFiles": "medeval.data.rows",
    "HubRows": "medeval.data.rows",
    "RepeatedRows": "medeval.data.rows",
    "Row": "medeval.data.rows",
    "Tool": "medeval.tools.base",
    "CallRules": "medeval.tools.calls.find",
    "crop_and_zoom": "medeval.tools.crop",
    "CropRules": "medeval.tools.crop_rules",
    "Target": "medeval.tools.crop_rules",
    "focus_tools": "medeval.tools.focus",
    "tool": "medeval.tools.function",
    "draw_line": "medeval.tools.draw",
    "draw_point": "medeval.tools.draw",
    "flip": "medeval.tools.rotate_flip",
    "rotate": "medeval.tools.rotate_flip",
    "Answer": "medeval.types.trajectory",
    "Grade": "medeval.types.verdict",
    "Sample": "medeval.types.sample",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
