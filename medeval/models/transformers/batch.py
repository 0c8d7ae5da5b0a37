"""A batch as a model's input: the cached tokens of each row, the new ones, and their positions.

The cached tokens of all rows end at one column, the new tokens at the last one; the attention mask
hides the padding before each. So rows of different turns can be in one batch.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers.cache_utils import Cache

from medeval.models.processor import ChatProcessor, Prompt
from medeval.models.transformers.conversation_cache import ConversationStates, KeptStates
from medeval.models.transformers.kv_cache import (
    SharedStarts,
    Start,
    bytes_of_token,
    copied_row,
    joined,
    shared_start,
)


class BatchInputs:
    """Prompts, with the states that each starts from: its conversation's own, or a shared start's.

    `width` is the column at which the replies begin.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        kept: Sequence[KeptStates | None],
        starts: SharedStarts,
        processor: ChatProcessor,
    ) -> None:
        self._prompts = prompts
        self._processor = processor
        self._starts = [
            Start([row], states.layers, min(states.n_tokens, len(prompt.ids) - 1))
            for row, (prompt, states) in enumerate(zip(prompts, kept, strict=True))
            if states is not None and states.n_tokens
        ]
        self._n_images = [0 if states is None else states.n_images for states in kept]
        self._add_shared(starts)
        self._known = [0 for _ in prompts]
        for start in self._starts:
            for row in start.rows:
                self._known[row] = start.n_tokens
        self._first = max(self._known)
        news = [len(one.ids) - known for one, known in zip(prompts, self._known, strict=True)]
        self._begins = [self._first + max(news) - new for new in news]
        self.width = self._first + max(news)

    def _add_shared(self, starts: SharedStarts) -> None:
        begun = {row for start in self._starts for row in start.rows}
        fresh = [row for row in range(len(self._prompts)) if row not in begun]
        prompts = [self._prompts[row].ids for row in fresh]
        shared = shared_start(prompts, self._processor.placeholder_ids)
        if shared:
            self._starts.append(Start(fresh, starts.states(shared), len(shared)))

    def cache(self) -> Cache:
        """The cached states of all rows, with room for the new tokens."""
        return joined(self._starts, len(self._prompts), self.width - self._first)

    def tensors(self, model: Any) -> dict[str, torch.Tensor]:
        """The inputs of `generate`: ids, mask, positions, and the images that are new, in order."""
        shape = (len(self._prompts), self.width)
        ids = torch.full(shape, self._processor.pad_id)
        mask = torch.zeros_like(ids)
        places = ids.new_zeros((4, *shape))
        for row, prompt in enumerate(self._prompts):
            known, begin = self._known[row], self._begins[row]
            ids[row, begin:] = torch.tensor(prompt.ids[known:])
            mask[row, self._first - known : self._first] = mask[row, begin:] = 1
            places[:, row, begin:] = self._places(model, prompt)[:, known:]
        made = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        images = [
            image
            for prompt, n_known in zip(self._prompts, self._n_images, strict=True)
            for image in prompt.images[n_known:]
        ]
        if images:
            made["pixel_values"] = torch.cat([image.patches for image in images])
            made["image_grid_thw"] = torch.tensor([image.grid for image in images])
        return {name: tensor.to(model.device) for name, tensor in made.items()}

    def _places(self, model: Any, prompt: Prompt) -> torch.Tensor:
        """Each token's position in the text, and in time, height and width: (4, tokens).

        A token's positions depend on all images before it, so the whole prompt is needed.
        """
        ids = torch.tensor([prompt.ids])
        grids = torch.tensor([image.grid for image in prompt.images]) if prompt.images else None
        places, _ = model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self._processor.image_id).int(),
            image_grid_thw=grids,
            attention_mask=torch.ones_like(ids),
        )
        return torch.cat([torch.arange(ids.shape[1])[None], places[:, 0]])

    def keep(
        self, conversations: ConversationStates, cache: Cache, row: int, said: Sequence[int]
    ) -> KeptStates | None:
        """Keep a row's states, its reply `said` included, for its conversation's next turn.

        An image placeholder that the model wrote is removed from the conversation, so the states
        after it are not kept. The last token written may have no states yet.
        """
        prompt = self._prompts[row]
        plain = list(takewhile(lambda one: one not in self._processor.placeholder_ids, said))
        n_said = min(len(plain), cache.get_seq_length() - self.width)
        known, begin = self._known[row], self._begins[row]
        columns = (slice(self._first - known, self._first), slice(begin, self.width + n_said))
        n_tokens = len(prompt.ids) + n_said
        return conversations.keep(
            lambda: copied_row(cache, row, columns),
            n_bytes=n_tokens * bytes_of_token(cache),
            n_tokens=n_tokens,
            n_images=len(prompt.images),
        )
