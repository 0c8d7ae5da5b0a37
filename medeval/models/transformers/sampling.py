"""Samples the tokens of a batch's rows, and ends each row.

Every row has its own sampling settings and its own seeded generator, so that neither the other
rows nor its position in the batch change its reply.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal

import torch

# A lower temperature means greedy, as in vLLM.
GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """How one row is sampled and ended; `top_k` 0 and `top_p` 1 keep all tokens."""

    seed: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    presence_penalty: float
    max_tokens: int
    stop: tuple[str, ...]

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def penalised(self) -> bool:
        """Whether earlier tokens are made less likely."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0


class RowSampler:
    """Turns the logits of a batch into scores whose maximum is each row's next token.

    A sampled row gets Gumbel noise from its own generator, so that the maximum is a draw from its
    distribution (Maddison et al., arXiv 1411.0030). `generate` calls it once per step; replies
    begin at the column `width`.
    """

    def __init__(
        self,
        rows: Sequence[RowSettings],
        prompts: Sequence[Sequence[int]],
        width: int,
        device: torch.device,
    ) -> None:
        self._rows = rows
        self._prompts = [torch.tensor(ids, device=device) for ids in prompts]
        self._width = width
        self._noise = [
            None if row.greedy else torch.Generator(device).manual_seed(row.seed % 2**63)
            for row in rows
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape (rows, vocabulary) in float32."""
        for index, (row, generator) in enumerate(zip(self._rows, self._noise, strict=True)):
            if row.penalised:
                written = input_ids[index, self._width :]
                scores[index] = _penalise(scores[index], row, self._prompts[index], written)
            if generator is not None:
                scores[index] = _perturb(scores[index], row, generator)
        return scores


def _penalise(
    scores: torch.Tensor, row: RowSettings, prompt: torch.Tensor, written: torch.Tensor
) -> torch.Tensor:
    """Penalise repetition in prompt and reply, and presence in the reply, as vLLM does."""
    seen = _distinct(torch.cat((prompt, written)))
    values = scores[seen]
    factor = row.repetition_penalty
    scores = scores.index_copy(0, seen, torch.where(values > 0, values / factor, values * factor))
    own = _distinct(written)
    return scores.index_copy(0, own, scores[own] - row.presence_penalty)


def _distinct(ids: torch.Tensor) -> torch.Tensor:
    distinct: torch.Tensor = torch.unique(ids)
    return distinct


def _perturb(scores: torch.Tensor, row: RowSettings, generator: torch.Generator) -> torch.Tensor:
    scores = scores / row.temperature
    if 0 < row.top_k < scores.numel():
        scores = scores.masked_fill(scores < scores.topk(row.top_k).values[-1], -torch.inf)
    if row.top_p < 1.0:
        scores = _keep_top_p(scores, row.top_p)
    waits = torch.empty_like(scores).exponential_(generator=generator)
    return scores - waits.log()


def _keep_top_p(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens that together have a probability of `top_p` or more."""
    ordered, order = scores.sort(descending=True)
    shares = ordered.softmax(0)
    dropped = order[shares.cumsum(0) - shares >= top_p]
    return scores.index_fill(0, dropped, -torch.inf)


@dataclass(frozen=True, slots=True)
class RowEnd:
    """The end of a row: its number of tokens, an end token included, and the reason."""

    n_tokens: int
    reason: Literal["end", "stop", "length"]


class RowEnds:
    """Ends each row at an end token, a stop string or its own limit; called once per step.

    `decode` turns ids into text; ids in `special` have no text. Setting `halt` ends every row at
    the next step.
    """

    def __init__(
        self,
        rows: Sequence[RowSettings],
        *,
        end_ids: frozenset[int],
        special: frozenset[int],
        decode: Callable[[Sequence[int]], str],
        halt: Event,
    ) -> None:
        self._rows = rows
        self._end_ids = end_ids
        self._special = special
        self._decode = decode
        self._halt = halt
        self._tails: list[list[int]] = [[] for _ in rows]
        self._windows = [_window(row.stop) for row in rows]
        self._n_tokens = 0
        self.ends: list[RowEnd | None] = [None for _ in rows]

    def __call__(self, input_ids: torch.Tensor, scores: object) -> torch.Tensor:
        """Which rows are done, of shape (rows,)."""
        self._n_tokens += 1
        for index, token in enumerate(input_ids[:, -1].tolist()):
            if self.ends[index] is None:
                self.ends[index] = self._end(index, token)
        halted = self._halt.is_set()
        done = [halted or end is not None for end in self.ends]
        return torch.tensor(done, device=input_ids.device)

    def _end(self, index: int, token: int) -> RowEnd | None:
        if token in self._end_ids:
            return RowEnd(self._n_tokens, "end")
        if self._stops(index, token):
            return RowEnd(self._n_tokens, "stop")
        if self._n_tokens >= self._rows[index].max_tokens:
            return RowEnd(self._n_tokens, "length")
        return None

    def _stops(self, index: int, token: int) -> bool:
        stop, tail = self._rows[index].stop, self._tails[index]
        if not stop or token in self._special:
            return False
        tail.append(token)
        del tail[: -self._windows[index]]
        text = self._decode(tail)
        return any(string in text for string in stop)


def _window(stop: Sequence[str]) -> int:
    """A number of last tokens sure to contain a stop string, as each has a byte of it or more."""
    return max((len(string.encode()) for string in stop), default=0) + 8
