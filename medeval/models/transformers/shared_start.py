"""The tokens that all rows of a batch begin with, computed once.

Rows of one arm begin with the same text, up to the first image: the system prompt and the tools'
schemas, which are most of a prompt where images are small. Such a batch is laid out as start,
padding, rest, and `generate` goes on from the start's keys and values, repeated for each row.
Without it, a reply of `medeval demo` takes twice the time.
"""

import copy
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

from medeval.errors import MedevalError
from medeval.models.transformers.loading import LoadedModel
from medeval.models.transformers.processor import ChatProcessor, Prompt

# A shorter start is cheaper to compute in each row.
LEAST_TOKENS = 32
# A known start that is so many tokens shorter than it could be is as good as a new one.
NEAR_TOKENS = 64
# Enough for two arms of a few protocols.
KEPT_STARTS = 8
# How far logits may be from those of rows computed whole, as a share of the largest.
TOLERANCE = 1e-3

# How models fail that cannot go on from keys and values of their start.
MODEL_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, MedevalError)


class SharedStarts:
    """Starts of batches on one model, of which the last `KEPT_STARTS` are kept.

    Only a model in float32 has them, and only where two rows get the same logits with a shared
    start as without, which is tried once: some attend to later tokens, or in windows.
    """

    def __init__(self, loaded: LoadedModel, processor: ChatProcessor) -> None:
        self._loaded = loaded
        self._processor = processor
        self._known: dict[tuple[int, ...], DynamicCache] = {}
        self._is_exact = loaded.dtype == torch.float32 and self._gives_the_same_logits()

    def applied(self, prompts: Sequence[Prompt], inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The inputs of `generate` for a batch of prompts, from their shared start if possible."""
        start = self._start([prompt.ids for prompt in prompts]) if self._is_exact else ()
        return self._begun(prompts, inputs, start) if start else inputs

    def _start(self, rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The ids that all rows begin with, up to an image; empty where sharing gains nothing."""
        if len(rows) < 2:
            return ()
        columns = zip(*(row[:-1] for row in rows), strict=False)
        common = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, columns)]
        places = self._processor.template.placeholder_ids
        # the token before an image opens it
        end = next((at - 1 for at, one in enumerate(common) if one in places), len(common))
        if end < LEAST_TOKENS:
            return ()
        for known in self._known:
            if end - NEAR_TOKENS < len(known) <= end and tuple(common[: len(known)]) == known:
                return known
        return tuple(common[:end])

    def _begun(
        self, prompts: Sequence[Prompt], inputs: dict[str, torch.Tensor], start: tuple[int, ...]
    ) -> dict[str, Any]:
        n_rows, width = inputs["input_ids"].shape
        n_start = len(start)
        order = torch.tensor(
            [
                [*range(gap, gap + n_start), *range(gap), *range(gap + n_start, width)]
                for gap in (width - len(prompt.ids) for prompt in prompts)
            ],
            device=self._loaded.device,
        )
        laid_out: dict[str, Any] = {
            name: value.gather(1, order) if value.shape == (n_rows, width) else value
            for name, value in inputs.items()
        }
        cache = copy.deepcopy(self._states(start))
        cache.batch_repeat_interleave(n_rows)
        return laid_out | {"past_key_values": cache}

    def _states(self, start: tuple[int, ...]) -> DynamicCache:
        model = self._loaded.model
        cache = self._known.pop(start, None)
        if cache is None:
            cache = DynamicCache(config=model.config.get_text_config())
            ids = torch.tensor([start], device=self._loaded.device)
            mask = torch.ones_like(ids)
            model(input_ids=ids, attention_mask=mask, past_key_values=cache, logits_to_keep=1)
        self._known[start] = cache
        if len(self._known) > KEPT_STARTS:
            del self._known[next(iter(self._known))]
        # what models with rotary positions of images remember of the batch before
        for module in model.modules():
            if getattr(module, "rope_deltas", None) is not None:
                module.rope_deltas = None
        return cache

    @torch.inference_mode()
    def _gives_the_same_logits(self) -> bool:
        try:
            prompts = self._processor.probes(LEAST_TOKENS)
            whole = self._loaded.inputs(self._processor.batch(prompts))
            start = self._start([prompt.ids for prompt in prompts])
            if not start:
                return False
            expected = self._first_scores(whole)
            seen = self._first_scores(self._begun(prompts, whole, start))
        except MODEL_ERRORS:
            return False
        return bool((seen - expected).abs().max() <= TOLERANCE * expected.abs().max())

    def _first_scores(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The scores of each row's first token, of shape (rows, vocabulary)."""
        output = self._loaded.model.generate(
            **inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True
        )
        scores: torch.Tensor = output.logits[0]
        return scores
