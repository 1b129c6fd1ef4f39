"""How likely is an answer? A lower bound of its log-likelihood, by Monte Carlo.

A masked diffusion model gives no probability of a whole answer y of l tokens, only that of its
masked tokens given the others. From these follows (LLaDA, arXiv 2502.09992, equation 14)

    log p(y | prompt) >= E_k E_S [ l / k * sum over i in S of log p(y_i | prompt, y without S) ]

with k uniform over 1 .. l and S a uniform set of k positions, which are masked. The prompt is never
masked. This is estimated from `num_samples` draws: `strata` of them at a time have numbers of masks
that are spread evenly over 1 .. l, from one random k on (LLaDA's get_log_likelihood). An answer of
one token needs one draw, and its value is the log-likelihood itself.

In a block-causal model, block b of the answer is generated when all blocks before it are final, so
log p(y | prompt) is the sum over blocks of log p(y_b | prompt, y_1 .. y_b-1), and each term is
bounded so (BD3-LM, arXiv 2503.09573): the blocks before are as they are, those behind not there.

Shape letters: N canvases of a forward; M masked positions of all of them; R runs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.config import BYTES_PER_LOGIT
from engine.current_device import current
from engine.decoding.logits import Logits
from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.guidance import guided
from engine.model.config import ModelConfig
from engine.request import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the bound is estimated.

    Raises:
        UserError: a field out of range.
    """

    num_samples: int = 128
    """Draws for each answer, or in a block-causal model for each block of one."""
    strata: int = 16
    """So many draws have evenly spread numbers of masks."""
    guidance: float = 0.0
    """Weight of classifier-free guidance, as Request.guidance: twice the query tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_samples", "strata"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: give at least 1")
        if not 0 <= self.guidance < float("inf"):
            raise UserError(f"guidance={self.guidance}: give 0 (none) or a positive number")


class Pair(NamedTuple):
    """An answer to be scored."""

    prompt_ids: list[int]
    answer_ids: list[int]


class Bound(NamedTuple):
    value: float
    """Estimate of a lower bound of log p(answer | prompt), in nats; of log p itself where every
    block has one token."""
    error: float
    """Standard error of the estimate, as if all draws were independent; 0 where it is exact."""


class View(NamedTuple):
    """A canvas with some tokens of the answer masked."""

    pair: int
    piece: int
    token_ids: np.ndarray
    """int64, without masks."""
    num_prompt: int
    """The first tokens, which guidance masks."""
    masked: np.ndarray
    """int64, ascending: the positions that are masked."""
    weight: float
    """l / k."""


class LikelihoodBound:
    """Estimates bounds with the model of an engine, in its pages, while it has no request. A value
    depends on the pair and `sampling` alone, but for rounding, as a confidence does."""

    def __init__(self, engine: DiffusionEngine, sampling: Sampling) -> None:
        self._engine = engine
        self._sampling = sampling
        self._model = engine.model_config

    def bounds(self, pairs: Sequence[Pair]) -> Iterator[Bound]:
        """The bound of each pair, in their order.

        Raises:
            UserError: a pair has an empty answer, does not fit into the model's context or into
                the cache, or begins with its answer in a model that predicts from the token before.
        """
        assert not self._engine.num_unfinished, "the pages belong to the engine's requests"
        for index, pair in enumerate(pairs):
            self._check(index, pair)
        losses: dict[int, dict[int, list[float]]] = {}
        done = 0
        views = (view for index, pair in enumerate(pairs) for view in self._views(index, pair))
        for batch in self._batches(views):
            for view, loss in zip(batch, self._losses(batch), strict=True):
                losses.setdefault(view.pair, {}).setdefault(view.piece, []).append(loss)
            while done < batch[-1].pair:
                yield _bound(losses.pop(done))
                done += 1
        if pairs:
            yield _bound(losses.pop(done))

    def _check(self, index: int, pair: Pair) -> None:
        length, model = len(pair.prompt_ids) + len(pair.answer_ids), self._model
        num_prompt, num_answer = len(pair.prompt_ids), len(pair.answer_ids)
        named = f"pair {index}: {num_prompt} prompt and {num_answer} answer tokens"
        if not pair.answer_ids:
            raise UserError(f"{named}: give an answer of at least one token")
        if length > model.max_positions:
            raise UserError(f"{named} exceed the model's context of {model.max_positions}")
        if self._num_slots(length) > self._engine.num_pages * self._engine.config.page_size:
            raise UserError(f"{named} exceed engine.cache_tokens; raise it")
        if not pair.prompt_ids and model.is_shifted:
            raise UserError(
                f"{named}: this model ({model.family}) predicts a token from the one before; give "
                "the prompt at least one"
            )
        ids = (*pair.prompt_ids, *pair.answer_ids)
        if not 0 <= min(ids) <= max(ids) < model.vocab_size:
            raise UserError(f"{named}: hold an id outside the vocabulary of {model.vocab_size}")

    def _num_slots(self, length: int) -> int:
        config = self._engine.config
        return config.pages_for(length) * config.page_size

    def _views(self, index: int, pair: Pair) -> Iterator[View]:
        """The draws of a pair."""
        whole = np.array([*pair.prompt_ids, *pair.answer_ids], dtype=np.int64)
        num_prompt = len(pair.prompt_ids)
        seed = derive_seed(self._sampling.seed, "likelihood", *whole.tolist(), num_prompt)
        draw = np.random.Generator(np.random.Philox(seed))
        for piece, (start, end) in enumerate(self._pieces(num_prompt, whole.size)):
            for masked in draws_of(end - start, self._sampling, draw):
                weight = (end - start) / masked.size
                yield View(index, piece, whole[:end], num_prompt, start + masked, weight)

    def _pieces(self, num_prompt: int, length: int) -> Iterator[tuple[int, int]]:
        """The positions whose tokens are bounded together: all of the answer; in a block-causal
        model, those of one block."""
        block_length = self._model.block_length or length
        start = num_prompt
        while start < length:
            end = min(length, (start // block_length + 1) * block_length)
            yield start, end
            start = end

    def _batches(self, views: Iterable[View]) -> Iterator[list[View]]:
        """As many canvases as one forward and the pages have room for; at least one."""
        config = self._engine.config
        most_slots = self._engine.num_pages * config.page_size
        batch: list[View] = []
        num_tokens = num_slots = 0
        for view in views:
            length, slots = view.token_ids.size, self._num_slots(view.token_ids.size)
            too_long = num_tokens + length > config.iteration_tokens
            if batch and (too_long or num_slots + slots > most_slots):
                yield batch
                batch, num_tokens, num_slots = [], 0, 0
            batch.append(view)
            num_tokens, num_slots = num_tokens + length, num_slots + slots
        if batch:
            yield batch

    @torch.inference_mode()
    def _losses(self, batch: list[View]) -> list[float]:
        """Of each view, its weighted sum of -log p."""
        runner = self._engine.runner
        with current(runner.device):
            hidden_MD, twin_MD = self._forward(batch, False), None
            if self._sampling.guidance:
                twin_MD = self._forward(batch, True)
            targets = np.concatenate([view.token_ids[view.masked] for view in batch])
            target_M = torch.from_numpy(targets).to(runner.device)
            nll_M = self._nll(hidden_MD, twin_MD, target_M).cpu().numpy()
        ends = np.cumsum([view.masked.size for view in batch])
        sums = np.add.reduceat(nll_M, np.concatenate(([0], ends[:-1])))
        return [float(view.weight * each) for view, each in zip(batch, sums, strict=True)]

    def _forward(self, batch: list[View], without_prompt: bool) -> Tensor:
        """Hidden states from which the logits of the masked positions follow, [M, D]."""
        engine, mask = self._engine, self._model.mask_token_id
        host = packed(batch, engine.config.pages_for, engine.config.page_size, self._model)
        token_ids = []
        for view in batch:
            masked = view.token_ids.copy()
            masked[view.masked] = mask
            if without_prompt:
                masked[: view.num_prompt] = mask
            token_ids.append(masked)
        token_ids_Q = torch.from_numpy(np.concatenate(token_ids)).to(engine.runner.device)
        sent = engine.forwards.sender.send(host, engine.runner.tiles(host))
        return engine.runner.forward(sent, token_ids_Q.to(torch.int64))

    def _nll(self, hidden_MD: Tensor, twin_MD: Tensor | None, target_M: Tensor) -> Tensor:
        """-log p of the targets, float64 [M], over all words: the mask token too, as LLaDA's."""
        runner, config = self._engine.runner, self._engine.config
        parallel, num_words = runner.model.parallel, self._model.vocab_size
        step = config.positions_of_a_piece(
            parallel.longest_share(num_words), 2 * BYTES_PER_LOGIT[False]
        )
        pieces = []
        for first in range(0, target_M.shape[0], step):
            here = slice(first, first + step)
            local_MU = runner.kernels.logits(hidden_MD[here])
            if twin_MD is not None:
                twin_MU = runner.kernels.logits(twin_MD[here])
                weight_M = torch.full_like(twin_MU[:, 0], self._sampling.guidance + 1).float()
                local_MU = guided(local_MU, twin_MU, weight_M)
            logits = Logits(local_MU, num_words, parallel, runner.kernels.reduction)
            best = logits.best(None)
            sum_M = torch.logaddexp(best.logit_M.double(), best.others_M.double())
            pieces.append(sum_M - logits.at(target_M[here, None])[:, 0].double())
        return torch.cat(pieces)


def draws_of(length: int, sampling: Sampling, draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Sets of the positions 0 .. length - 1 to mask, int64, ascending: `strata` at a time, whose
    sizes are spread evenly over 1 .. length from a random one on."""
    left = 1 if length == 1 else sampling.num_samples
    while left:
        count = min(sampling.strata, left)
        first = int(draw.integers(length))
        # Every size is as likely as any other. LLaDA's code rounds the sum with `first`, and halves
        # to even, which prefers some sizes of short answers.
        steps = np.round(np.arange(count) * (length / count)).astype(np.int64)
        for size in (first + steps) % length + 1:
            yield np.sort(draw.permutation(length)[:size])
        left -= count


def packed(
    batch: Sequence[View], pages_for: Callable[[int], int], page_size: int, model: ModelConfig
) -> HostBatch:
    """The batch of whole canvases, each in pages of its own, with their masked positions asked."""
    lens = np.array([view.token_ids.size for view in batch])
    starts = np.concatenate(([0], np.cumsum(lens)))
    slots = np.array([pages_for(int(length)) * page_size for length in lens])
    first_slots = np.concatenate(([0], np.cumsum(slots)[:-1]))
    positions_Q = np.concatenate([np.arange(length) for length in lens])
    position_M = np.concatenate([view.masked for view in batch])
    sequence_M = np.repeat(np.arange(len(batch)), [view.masked.size for view in batch])
    index_M = position_M + starts[sequence_M]
    # Runs end with their canvas or, in a block-causal model, with their block, and see all before.
    block_length = model.block_length or int(lens.max())
    ends = [
        np.minimum(np.arange(block_length, length + block_length, block_length), length)
        for length in lens
    ]
    sequence_R = np.repeat(np.arange(len(batch)), [its.size for its in ends])
    context_lens_R = np.concatenate(ends)
    nothing_B = np.zeros(len(batch), dtype=np.int64)
    return HostBatch(
        positions_Q=positions_Q,
        slots_Q=positions_Q + np.repeat(first_slots, lens),
        index_M=index_M,
        logit_index_M=index_M - 1 if model.is_shifted else index_M,
        slots_M=position_M + first_slots[sequence_M],
        position_M=position_M,
        offset_M=np.zeros_like(position_M),
        sequence_M=sequence_M,
        num_masked_at_block_start_B=nothing_B,
        num_iterations_in_block_B=nothing_B,
        num_iterations_B=nothing_B,
        seed_B=nothing_B,
        temperature_B=nothing_B.astype(np.float64),
        filters=None,
        query_starts=np.concatenate(([0], context_lens_R + starts[sequence_R])),
        first_slot_R=first_slots[sequence_R],
        context_lens_R=context_lens_R,
    )


def _bound(pieces: dict[int, list[float]]) -> Bound:
    value, variance = 0.0, 0.0
    for losses in pieces.values():
        value -= float(np.mean(losses))
        if len(losses) > 1:
            variance += float(np.var(losses, ddof=1)) / len(losses)
    return Bound(value, variance**0.5)
