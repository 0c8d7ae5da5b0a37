from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from medeval.models.transformers.kv_cache import (
    KEPT_TEXTS,
    LEAST_SHARED,
    RoomyLayer,
    SharedStarts,
    Start,
    States,
    bytes_of_token,
    copied_row,
    grouped_attention,
    joined,
    shared_start,
)
from medeval.models.transformers.loading import load_model


def layers_of(cache: Cache) -> list[Any]:
    return list(cache.layers)


PICTURED = frozenset({7})
START = tuple(range(100, 100 + LEAST_SHARED))


@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    rows=st.integers(1, 3),
)
def test_a_roomy_layer_holds_what_a_plain_one_does(sizes: list[int], rows: int) -> None:
    roomy, plain = RoomyLayer(), DynamicLayer()
    for n_tokens in sizes:
        keys, values = torch.randn(2, rows, 2, n_tokens, 4)
        for got, expected in zip(
            roomy.update(keys, values), plain.update(keys, values), strict=True
        ):
            assert torch.equal(got, expected)
    assert roomy.get_seq_length() == plain.get_seq_length() == sum(sizes)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([(*START, 1, 2), (*START, 3)], START),
        # one id of each prompt is left over to be asked about
        ([START, (*START, 3)], ()),
        ([(*START, 7, 1, 2), (*START, 7, 1, 3)], START),
        ([(7, *START, 1), (7, *START, 2)], ()),
        ([(*START[1:], 1), (*START[1:], 2)], ()),
        ([(*START, 1, 2)], ()),
    ],
    ids=["shared", "none left", "to the image", "image first", "too short", "alone"],
)
def test_what_prompts_share_ends_before_an_image(
    prompts: list[tuple[int, ...]], expected: tuple[int, ...]
) -> None:
    assert shared_start(prompts, PICTURED) == expected


@pytest.mark.parametrize("n_tokens", [1, 5])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("masked", [True, False])
def test_grouped_attention_is_attention(n_tokens: int, groups: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, n_tokens, 8, generator=generator)
    key, value = torch.randn(2, 3, groups, 11, 8, generator=generator)
    mask = torch.rand(3, 1, n_tokens, 11, generator=generator) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    module: Any = SimpleNamespace(num_key_value_groups=4 // groups, is_causal=True)
    got, _ = grouped_attention(module, query, key, value, mask, scaling=0.3)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert got.shape == expected.shape == (3, n_tokens, 4, 8)
    torch.testing.assert_close(got, expected)


def test_the_states_of_a_shared_start_are_computed_once_for_the_last_few(
    trained_checkpoint: Path,
) -> None:
    model = load_model(
        trained_checkpoint,
        dtype="float32",
        device="cpu",
        attention=None,
        trust_remote_code=False,
    ).model
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    starts = SharedStarts(model)
    texts = [tuple(range(first, first + LEAST_SHARED)) for first in range(KEPT_TEXTS + 1)]
    with torch.inference_mode():
        states = [starts.states(texts[0]) for _ in range(2)]
        assert states[0] is states[1]
        assert len(passes) == 1
        expected = Cache(layer_class_to_replicate=DynamicLayer)
        model(input_ids=torch.tensor([texts[0]]), past_key_values=expected, use_cache=True)
        for (keys, values), layer in zip(states[0], layers_of(expected), strict=True):
            torch.testing.assert_close(keys, layer.keys)
            torch.testing.assert_close(values, layer.values)
        passes.clear()
        for text in (*texts, texts[1], texts[0]):
            starts.states(text)
    # the first was kept, then pushed out by the last, then made once more
    assert len(passes) == KEPT_TEXTS + 1


def drawn_states(n_tokens: int) -> States:
    return [(keys, values) for keys, values in torch.randn(3, 2, 1, 2, n_tokens, 4)]


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    shared=st.integers(1, 9),
    more=st.integers(0, 90),
)
def test_joined_starts_end_at_one_column_and_come_out_as_they_went_in(
    lengths: list[int], shared: int, more: int
) -> None:
    together = Start([len(lengths), len(lengths) + 1], drawn_states(shared), shared)
    alone = [Start([row], drawn_states(n + 1), n) for row, n in enumerate(lengths) if n]
    n_rows = len(lengths) + 2
    cache = joined([*alone, together], n_rows, more)
    width = max(*lengths, shared)
    assert cache.get_seq_length() == width
    for index in range(3):
        cache.update(*torch.ones(2, n_rows, 2, more, 4), index)
    assert cache.get_seq_length() == width + more
    for start in [*alone, together]:
        for row in start.rows:
            columns = (slice(width - start.n_tokens, width), slice(width, width + more))
            for got, given_ in zip(copied_row(cache, row, columns), start.states, strict=True):
                for mine, theirs in zip(got, given_, strict=True):
                    n_tokens = start.n_tokens
                    assert torch.equal(mine[:, :, :n_tokens], theirs[:, :, :n_tokens])
                    assert bool((mine[:, :, n_tokens:] == 1).all())
    for layer in layers_of(cache):
        for row, n_tokens in enumerate(lengths):
            assert not layer.keys[row, :, : width - n_tokens].any()


def test_without_a_start_a_cache_is_empty() -> None:
    assert joined([], 3, 5).get_seq_length() == 0


def test_a_token_takes_what_its_states_do() -> None:
    cache = joined([Start([0, 1], drawn_states(7), 7)], 2, 0)
    [one] = {sum(keys.nbytes + values.nbytes for keys, values in drawn_states(1))}
    assert bytes_of_token(cache) == one
