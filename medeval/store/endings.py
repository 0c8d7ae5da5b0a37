"""How a trajectory ended: the few fields of its line that results need, read without the rest."""

from pydantic import ConfigDict, NonNegativeInt

from medeval.store.schema import Part, Record
from medeval.types.trajectory import StopReason, Usage


class EndingAnswer(Part):
    """The text of an answer."""

    model_config = ConfigDict(extra="ignore")

    text: str


class Ending(Record):
    """What `records.TrajectoryRecord` tells under the same names, as it was counted when written.

    The conversation is not read, so that what is wrong in it alone is not found here.
    """

    model_config = ConfigDict(extra="ignore")

    sample_id: str
    repeat: NonNegativeInt
    stop: StopReason
    answer: EndingAnswer | None
    attempted: int
    executed: int
    observed: int
    called: bool
    usage: Usage
    seconds: float
    engine_seconds: float | None = None
