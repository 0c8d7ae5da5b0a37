"""Keys and values of conversations, kept for their next turns and bounded in bytes.

A conversation owns its states through its `TokenHistory`, and they are freed when it ends. Here
they are counted, and dropped where they take too much memory; a conversation whose states were
dropped computes them again.
"""

import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch

from medeval.models.base import TokenHistory
from medeval.models.hardware import free_memory
from medeval.models.transformers.kv_cache import States

# Shares of the memory that is free after the weights are loaded. Batches need the rest of a GPU's;
# on a CPU, images and other processes do.
GPU_SHARE = 0.25
CPU_SHARE = 0.125


@dataclass(slots=True, weakref_slot=True, eq=False)
class KeptStates:
    """Keys and values of a conversation's first `n_tokens` tokens, `n_images` images among them.

    After `drop` it has no layers, 0 tokens and 0 images.
    """

    keeper: "ConversationStates" = field(repr=False)
    layers: States = field(repr=False)
    n_tokens: int
    n_images: int

    @property
    def n_bytes(self) -> int:
        """The size of the states in bytes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def drop(self) -> None:
        """Free the memory, even while a batch that started from it still refers to `layers`."""
        self.n_tokens, self.n_images = 0, 0
        self.layers.clear()


class ConversationStates:
    """The states of all conversations, at most `max_bytes` bytes; the oldest are dropped first.

    While another thread calls `keep` or `drop`, only `found` may be called.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # by age; a conversation that ended leaves a dead reference
        self._kept: list[weakref.ref[KeptStates]] = []

    @property
    def n_bytes(self) -> int:
        """The size of all states in bytes."""
        return sum(kept.n_bytes for kept in self._alive())

    def found(self, history: TokenHistory | None) -> KeptStates | None:
        """The states in a history, if they were kept by this object."""
        kept = None if history is None else history.states
        return kept if isinstance(kept, KeptStates) and kept.keeper is self else None

    def keep(
        self, copied: Callable[[], States], *, n_bytes: int, n_tokens: int, n_images: int
    ) -> KeptStates | None:
        """Keep the states that `copied` makes; None where they do not fit."""
        if n_bytes > self._max_bytes:
            return None
        self._make_room(n_bytes)
        try:
            layers = copied()
        except torch.OutOfMemoryError:
            self.drop()
            return None
        kept = KeptStates(self, layers, n_tokens, n_images)
        self._kept.append(weakref.ref(kept))
        return kept

    def drop(self, but: Collection[KeptStates] = ()) -> bool:
        """Drop all states except `but`; return whether there were any to drop."""
        others = [kept for kept in self._alive() if kept not in but]
        for kept in others:
            kept.drop()
        return bool(others)

    def _make_room(self, n_bytes: int) -> None:
        alive = self._alive()
        self._kept = [weakref.ref(kept) for kept in alive]
        taken = n_bytes + sum(kept.n_bytes for kept in alive)
        for kept in alive:
            if taken <= self._max_bytes:
                return
            taken -= kept.n_bytes
            kept.drop()

    def _alive(self) -> list[KeptStates]:
        found = [reference() for reference in self._kept]
        return [kept for kept in found if kept is not None and kept.n_tokens]


def default_max_bytes(device: torch.device) -> int:
    """The default bound in bytes: a share of the free memory of a device."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(CPU_SHARE * free_memory())
