"""The engine: token ids in, token ids out. It knows no text, Parquet or Hydra.

Its four components are chosen apart: the model, the iteration manager (EngineConfig), the decoding
strategy and the cache policy.
"""

import math
import time
from collections.abc import Iterable, Iterator

import torch

from engine.batch import Batch, Plan, pack
from engine.cache.base import CachePolicy
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.decoding.base import Decision, DecodingStrategy, MaskedPositions
from engine.iterations import IterationManager
from engine.model.transformer import Transformer
from engine.request import FinishReason, Request, Result
from engine.runner import ModelRunner
from engine.stats import EngineStats

__all__ = ["DiffusionEngine", "EngineConfig"]


class DiffusionEngine:
    """Iteration-level batching over one model, on the model's device and in its dtype."""

    def __init__(
        self,
        model: Transformer,
        *,
        config: EngineConfig,
        decoding: DecodingStrategy,
        cache: CachePolicy,
    ) -> None:
        self.config = config
        self.model_config = model.config
        self.runner = ModelRunner(model, config.num_pages, config.page_size)
        num_slots = config.num_pages * config.page_size
        self.canvases = Canvases(num_slots, model.config.mask_token_id, self.runner.device)
        self.iterations = IterationManager(config, cache, self.canvases, model.config.eos_token_id)
        self.decoding = decoding
        self.stats = EngineStats()
        self._refused: list[Result] = []

    @property
    def num_unfinished(self) -> int:
        return len(self.iterations.waiting) + len(self.iterations.live) + len(self._refused)

    @property
    def has_room(self) -> bool:
        """Whether one more request could be admitted before the next forward, pages allowing."""
        return self.num_unfinished < self.config.max_sequences

    @property
    def page_bytes(self) -> int:
        """K and V of one page, over all layers."""
        return self.runner.kv.num_bytes // self.config.num_pages

    def add(self, request: Request) -> None:
        """Queue a request. One that can never run comes back as an error from run_iteration."""
        refusal = self._refusal(request)
        if refusal is None:
            self.iterations.waiting.append(request)
            return
        self._refused.append(
            Result(
                request_id=request.request_id,
                finish_reason=FinishReason.ERROR,
                error=refusal,
                num_prompt_tokens=len(request.prompt_ids),
                seed=request.seed,
            )
        )

    @torch.inference_mode()
    def run_iteration(self) -> list[Result]:
        """One forward over all live sequences, and the commits that follow; what finished in it."""
        start = time.perf_counter()
        refused, self._refused = self._refused, []
        plan = self.iterations.schedule()
        if not plan:
            return refused
        self._count_plan(plan)
        batch = pack(plan, self.config.page_size, self.runner.device)
        logits_MV = self.runner.forward(batch, self.canvases.tokens(batch.slots_Q))
        decision = self._decide(batch, logits_MV)
        committed = self.canvases.commit(batch.slots_M, decision).cpu().numpy()
        finished = self.iterations.advance(plan, committed)
        self._count_finished(finished, time.perf_counter() - start)
        return refused + finished

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Results in the order in which they finish; requests are drawn only while there is
        room."""
        source = iter(requests)
        exhausted = False
        while not exhausted or self.num_unfinished:
            while self.has_room and not exhausted:
                request = next(source, None)
                if request is None:
                    exhausted = True
                else:
                    self.add(request)
            yield from self.run_iteration()

    def _decide(self, batch: Batch, logits_MV: torch.Tensor) -> Decision:
        return self.decoding.decide(
            MaskedPositions(
                logits_MV=logits_MV,
                sequence_M=batch.sequence_M,
                position_M=batch.position_M,
                num_masked_at_block_start_B=batch.num_masked_at_block_start_B,
                num_iterations_in_block_B=batch.num_iterations_in_block_B,
                num_iterations_B=batch.num_iterations_B,
                seed_B=batch.seed_B,
                temperature_B=batch.temperature_B,
                any_sampled=batch.any_sampled,
            )
        )

    def _refusal(self, request: Request) -> str | None:
        """Why a request can never run, and what to do; None if it can."""
        model, num_prompt_tokens = self.model_config, len(request.prompt_ids)
        canvas_len = num_prompt_tokens + request.max_new_tokens
        lengths = f"{num_prompt_tokens} prompt + {request.max_new_tokens} new tokens"
        if not request.prompt_ids or request.max_new_tokens < 1:
            return f"{lengths}: both must be at least 1"
        if canvas_len > model.max_positions:
            return (
                f"{lengths} exceed the model's context of {model.max_positions}: "
                "shorten the prompt or lower max_new_tokens"
            )
        if self.config.pages_for(canvas_len) > self.config.num_pages:
            return (
                f"{lengths} exceed engine.cache_tokens={self.config.cache_tokens}: raise it to "
                f"{self.config.pages_for(canvas_len) * self.config.page_size} at least"
            )
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < model.vocab_size:
            return f"prompt_ids hold an id outside the model's vocabulary of {model.vocab_size}"
        if model.mask_token_id in request.prompt_ids:
            return f"prompt_ids hold the mask token {model.mask_token_id}: encode it as text"
        if not 0 <= request.temperature < math.inf:
            return f"temperature={request.temperature}: give 0 (greedy) or a positive number"
        if not -(2**63) <= request.seed < 2**63:
            return f"seed={request.seed}: give an integer of 64 bits"
        return None

    def _count_plan(self, plan: Plan) -> None:
        stats = self.stats
        for _, span in plan:
            kind, length = span.kind.value, span.end - span.start
            stats.num_forwards[kind] = stats.num_forwards.get(kind, 0) + 1
            stats.num_query_tokens[kind] = stats.num_query_tokens.get(kind, 0) + length
        stats.num_iterations += 1
        stats.peak_sequences = max(stats.peak_sequences, len(plan))
        stats.peak_pages = max(stats.peak_pages, self.iterations.pages.num_granted)

    def _count_finished(self, finished: list[Result], iteration_s: float) -> None:
        stats = self.stats
        for result in finished:
            stats.num_prompt_tokens += result.num_prompt_tokens
            stats.num_generated_tokens += result.num_generated_tokens
        stats.iteration_s += iteration_s
        stats.forward_s += self.runner.forward_s()
