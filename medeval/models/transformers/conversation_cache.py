"""What the turns of conversations computed, kept for their next ones and bounded in bytes.

A conversation carries its own in its `TokenHistory`, and once it ends they are gone with it: here
they are only counted, and dropped where they take too much. Whoever finds his dropped computes
them again.
"""

import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch

from medeval.models.base import TokenHistory
from medeval.models.hardware import free_memory
from medeval.models.transformers.kv_cache import States

# Of the memory that is free once the weights are loaded; batches need the rest of a GPU's, and on
# a CPU images and other processes do.
GPU_SHARE = 0.25
CPU_SHARE = 0.125


@dataclass(slots=True, weakref_slot=True, eq=False)
class KeptStates:
    """Keys and values of a conversation's first `n_tokens` tokens, `n_images` images among them.

    No layers and 0 tokens and images once they were dropped.
    """

    keeper: "ConversationStates" = field(repr=False)
    layers: States = field(repr=False)
    n_tokens: int
    n_images: int

    @property
    def n_bytes(self) -> int:
        """The memory they take."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def drop(self) -> None:
        """Free the memory, also where a batch that began with it holds the list still."""
        self.n_tokens, self.n_images = 0, 0
        self.layers.clear()


class ConversationStates:
    """The states that conversations carry, at most `max_bytes` of them: the oldest go first.

    Only `found` may be called while another thread keeps or drops.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # by age; a conversation that ended leaves a dead reference
        self._kept: list[weakref.ref[KeptStates]] = []

    @property
    def n_bytes(self) -> int:
        """The memory that all of them take."""
        return sum(kept.n_bytes for kept in self._alive())

    def found(self, history: TokenHistory | None) -> KeptStates | None:
        """What a history carries, if it was kept here."""
        kept = None if history is None else history.states
        return kept if isinstance(kept, KeptStates) and kept.keeper is self else None

    def keep(
        self, copied: Callable[[], States], *, n_bytes: int, n_tokens: int, n_images: int
    ) -> KeptStates | None:
        """The states that `copied` makes, once there is room for them; None where there is none."""
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
        """Drop all but some; returns whether that freed any memory."""
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
    """A share of the memory that is free on a device."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(CPU_SHARE * free_memory())
