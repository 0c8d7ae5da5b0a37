"""Keys and values of a batch: a shared start is computed once, and appending rarely copies.

Rows of one arm begin with the same text, up to the first image: the system prompt and the tools'
schemas, which are most of a prompt where images are small.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED_ATTENTION = "grouped_sdpa"
# A shorter start is cheaper to compute in each row than in a forward pass of its own.
LEAST_SHARED = 32
# Enough for two arms of a few protocols; later turns use their conversation's own states.
KEPT_TEXTS = 8
ROOM_TOKENS = 64

# The keys and values of each layer, of shape (1, heads, tokens, width).
States = list[tuple[torch.Tensor, torch.Tensor]]


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, each (rows, heads, tokens, width), in buffers with spare room.

    transformers' own layer copies all keys and values for each new token.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    @classmethod
    def holding(cls, keys: torch.Tensor, values: torch.Tensor, n_tokens: int) -> "RoomyLayer":
        """A layer with these buffers, of which the first `n_tokens` tokens are filled."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer._key_buffer, layer._value_buffer = keys, values
        layer.keys, layer.values = keys[:, :, :n_tokens], values[:, :, :n_tokens]
        return layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens; returns the keys and values of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        earlier = self.get_seq_length()
        n_tokens = earlier + key_states.shape[-2]
        self._key_buffer = _with_room(self._key_buffer, key_states, earlier)
        self._value_buffer = _with_room(self._value_buffer, value_states, earlier)
        self.keys = self._key_buffer[:, :, :n_tokens]
        self.values = self._value_buffer[:, :, :n_tokens]
        return self.keys, self.values


def _with_room(buffer: torch.Tensor | None, states: torch.Tensor, earlier: int) -> torch.Tensor:
    """The buffer, or a larger copy, with `states` written after its first `earlier` tokens."""
    rows, heads, n_new, width = states.shape
    n_tokens = earlier + n_new
    if buffer is None or buffer.shape[-2] < n_tokens:
        larger = states.new_empty((rows, heads, n_tokens + ROOM_TOKENS, width))
        if buffer is not None:
            larger[:, :, :earlier] = buffer[:, :, :earlier]
        buffer = larger
    buffer[:, :, earlier:n_tokens] = states
    return buffer


class SharedStarts:
    """The states of texts that prompts begin with; the `KEPT_TEXTS` used last are kept."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: OrderedDict[tuple[int, ...], States] = OrderedDict()

    def states(self, shared: tuple[int, ...]) -> States:
        """The states of the ids `shared`, with which conversations begin."""
        if shared not in self._kept:
            cache = Cache(layer_class_to_replicate=DynamicLayer)
            ids = torch.tensor([shared], device=self._model.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            layers: list[Any] = cache.layers
            self._kept[shared] = [(layer.keys, layer.values) for layer in layers]
        self._kept.move_to_end(shared)
        while len(self._kept) > KEPT_TEXTS:
            self._kept.popitem(last=False)
        return self._kept[shared]


@dataclass(frozen=True, slots=True)
class Start:
    """The states of the first `n_tokens` tokens of some rows of a batch."""

    rows: Sequence[int]
    states: States
    n_tokens: int


def joined(starts: Sequence[Start], n_rows: int, n_more: int) -> Cache:
    """A cache of rows whose starts all end at one column, with room for `n_more` tokens.

    Columns before a start are zeros, which the attention mask hides.
    """
    width = max((start.n_tokens for start in starts), default=0)
    if width == 0:
        return Cache(layer_class_to_replicate=RoomyLayer)
    n_layers = len(starts[0].states)
    layers: list[Any] = []
    for index in range(n_layers):
        buffers = [
            _joined([(start, start.states[index][part]) for start in starts], n_rows, width, n_more)
            for part in (0, 1)
        ]
        layers.append(RoomyLayer.holding(buffers[0], buffers[1], width))
    return Cache(layers=layers)


def _joined(
    parts: Sequence[tuple[Start, torch.Tensor]], n_rows: int, width: int, n_more: int
) -> torch.Tensor:
    """The keys, or the values, of one layer."""
    _, heads, _, depth = parts[0][1].shape
    buffer = parts[0][1].new_empty((n_rows, heads, width + n_more + ROOM_TOKENS, depth))
    buffer[:, :, :width] = 0
    for start, states in parts:
        buffer[start.rows, :, width - start.n_tokens : width] = states[:, :, : start.n_tokens]
    return buffer


def bytes_of_token(cache: Cache) -> int:
    """The bytes that one token of one row takes in all layers."""
    layers: list[Any] = cache.layers
    return sum(
        states.shape[1] * states.shape[3] * states.element_size()
        for layer in layers
        for states in (layer.keys, layer.values)
    )


def copied_row(cache: Cache, row: int, columns: Sequence[slice]) -> States:
    """A copy of one row's states in some columns of a cache."""
    layers: list[Any] = cache.layers
    return [
        (_copied(layer.keys, row, columns), _copied(layer.values, row, columns)) for layer in layers
    ]


def _copied(states: torch.Tensor, row: int, columns: Sequence[slice]) -> torch.Tensor:
    return torch.cat([states[row : row + 1, :, span] for span in columns], dim=2)


def shared_start(prompts: Sequence[tuple[int, ...]], pictured: frozenset[int]) -> tuple[int, ...]:
    """The ids that all prompts begin with, up to the first one in `pictured`.

    Empty for a single prompt, and for less than `LEAST_SHARED` ids. Each prompt has at least one
    more id.
    """
    if len(prompts) < 2:
        return ()
    places = zip(*(ids[:-1] for ids in prompts), strict=False)
    alike = takewhile(lambda ids: len(set(ids)) == 1 and ids[0] not in pictured, places)
    shared = tuple(ids[0] for ids in alike)
    return shared if len(shared) >= LEAST_SHARED else ()


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention "sdpa" of transformers, without a copy of the keys and values for each head.

    Where each row has one query token, the heads of a group are passed as if they were tokens, as
    all see the same keys: (rows, heads, 1, width) becomes (rows, groups, heads per group, width).
    """
    rows, heads, n_tokens, width = query.shape
    groups = key.shape[1]
    if n_tokens != 1 or groups == heads or attention_mask is None:
        made: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return made
    mixed = functional.scaled_dot_product_attention(
        query.view(rows, groups, heads // groups, width),
        key,
        value,
        attn_mask=attention_mask,
        scale=options.get("scaling"),
    )
    return mixed.reshape(rows, 1, heads, width), None


def register_grouped_attention() -> str:
    """Register `grouped_attention` with transformers; returns its name there."""
    AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
    AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)
    return GROUPED_ATTENTION
