import gc
import weakref
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medeval.models.base import TokenHistory
from medeval.models.hardware import free_memory
from medeval.models.transformers.conversation_cache import (
    CPU_SHARE,
    ConversationStates,
    KeptStates,
    default_max_bytes,
)
from medeval.models.transformers.kv_cache import Start, States

# keys and values of one token, in two layers
TOKEN_BYTES = 2 * 2 * 4


def made(n_tokens: int) -> States:
    return [(torch.ones(1, 1, n_tokens, 1), torch.ones(1, 1, n_tokens, 1)) for _ in range(2)]


def keep(conversations: ConversationStates, n_tokens: int) -> KeptStates | None:
    return conversations.keep(
        lambda: made(n_tokens), n_bytes=n_tokens * TOKEN_BYTES, n_tokens=n_tokens, n_images=1
    )


def tokens(kept: Iterable[KeptStates | None]) -> list[int | None]:
    return [None if one is None else one.n_tokens for one in kept]


def test_the_oldest_make_room() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    kept = [keep(conversations, n_tokens) for n_tokens in (2, 3, 4)]
    assert tokens(kept) == [2, 3, 4]
    kept.append(keep(conversations, 3))
    assert tokens(kept) == [0, 3, 4, 3]
    kept.append(keep(conversations, 10))
    assert tokens(kept) == [0, 0, 0, 0, 10]
    assert kept[0] is not None
    assert (kept[0].layers, kept[0].n_images, kept[0].n_bytes) == ([], 0, 0)


def test_what_is_larger_than_all_room_drops_nothing() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    small = keep(conversations, 1)
    assert keep(conversations, 11) is None
    assert tokens([small]) == [1]
    assert keep(ConversationStates(0), 1) is None


def test_a_conversation_that_ended_takes_its_states_with_it() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    going_on = keep(conversations, 4)
    history = TokenHistory((1, 2), 3, keep(conversations, 6))
    assert conversations.n_bytes == 10 * TOKEN_BYTES
    gc.disable()
    try:
        del history
        assert conversations.n_bytes == 4 * TOKEN_BYTES
    finally:
        gc.enable()
    assert tokens([going_on, keep(conversations, 6)]) == [4, 6]


def test_what_is_dropped_is_freed_while_a_batch_that_began_with_it_lives() -> None:
    kept = keep(ConversationStates(10 * TOKEN_BYTES), 4)
    assert kept is not None
    start = Start([0], kept.layers, kept.n_tokens)
    tensors = [weakref.ref(tensor) for layer in kept.layers for tensor in layer]
    gc.disable()
    try:
        kept.drop()
        assert [tensor() for tensor in tensors] == [None] * 4
    finally:
        gc.enable()
    assert start.states == []


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans())))
def test_no_more_is_ever_kept_than_allowed(turns: list[tuple[int, bool]]) -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    alive: list[KeptStates | None] = []
    for n_tokens, ends in turns:
        alive.append(keep(conversations, n_tokens))
        if ends:
            alive.pop(0)
        held = sum(one.n_tokens for one in alive if one is not None)
        assert conversations.n_bytes == held * TOKEN_BYTES <= 10 * TOKEN_BYTES


def test_memory_that_runs_out_drops_what_is_kept() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    kept = keep(conversations, 4)

    def too_much() -> States:
        raise torch.OutOfMemoryError

    assert conversations.keep(too_much, n_bytes=1, n_tokens=1, n_images=0) is None
    assert tokens([kept]) == [0]


def test_some_can_be_spared_when_the_others_are_dropped() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    mine, other = keep(conversations, 4), keep(conversations, 4)
    assert mine is not None
    assert conversations.drop(but=[mine])
    assert tokens([mine, other]) == [4, 0]
    assert not conversations.drop(but=[mine])
    assert conversations.drop()
    assert not conversations.drop()


def test_states_are_found_in_the_history_that_carries_them_and_by_their_keeper_alone() -> None:
    conversations = ConversationStates(10 * TOKEN_BYTES)
    kept = keep(conversations, 2)
    carrying = TokenHistory((1, 2), 3, kept)
    assert conversations.found(carrying) is kept
    assert ConversationStates(100).found(carrying) is None
    assert conversations.found(TokenHistory((1, 2), 3)) is None
    assert conversations.found(None) is None
    # equal ids may be of other images
    assert carrying == TokenHistory((1, 2), 3)
    assert "states" not in repr(carrying)


def test_a_share_of_the_free_memory_is_for_states() -> None:
    bound = default_max_bytes(torch.device("cpu"))
    assert bound == pytest.approx(CPU_SHARE * free_memory(), rel=0.3)
