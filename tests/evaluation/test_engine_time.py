import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.evaluation.engine_time import EngineTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 9))))
def test_the_parts_of_all_conversations_add_up_to_the_time_in_which_any_was_under_way(
    events: list[tuple[float, int]],
) -> None:
    clock = Clock()
    engine = EngineTime(clock)
    under_way: list[float] = []
    parts: list[float] = []
    busy_s = 0.0
    for pause_s, choice in [*events, *((1.0, 9) for _ in events)]:
        clock.now += pause_s
        busy_s += pause_s if under_way else 0.0
        if choice < 5:
            under_way.append(engine.begin())
        elif under_way:
            parts.append(engine.end(under_way.pop(choice % len(under_way))))
    parts += [engine.end(begun) for begun in under_way]
    assert all(part >= 0 for part in parts)
    assert math.fsum(parts) == pytest.approx(busy_s, rel=1e-9, abs=1e-6)


def test_one_that_is_alone_for_a_while_has_all_of_that_time() -> None:
    clock = Clock()
    engine = EngineTime(clock)
    long = engine.begin()
    clock.now += 10
    short = engine.begin()
    clock.now += 4
    assert engine.end(short) == 2.0
    clock.now += 1
    assert engine.end(long) == 13.0
    clock.now += 50
    assert engine.end(engine.begin()) == 0.0
