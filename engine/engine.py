"""The engine: token ids in, token ids out. It knows no text, Parquet or Hydra.

Its four components are chosen independently of each other: the model, the iteration manager
(configured by EngineConfig), the decoding strategy and the cache policy.
"""

import logging
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from engine.admissible import Admissible
from engine.batch import pack
from engine.cache.base import CachePolicy, SpanKind
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.current_device import current
from engine.decide import Decider
from engine.decoding.base import DecodingStrategy
from engine.decoding.suppress import held_back
from engine.device_batch import BatchSender
from engine.forward import Forwards
from engine.iterations import IterationManager
from engine.kernel_choice import kernels_for
from engine.legal import (
    assert_shared,
    block_length_of,
    check_components,
    check_model,
    opening_of,
)
from engine.memory import GroupOutOfMemory, is_out_of_memory, num_pages
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer
from engine.plans import Plan
from engine.request import Request, Result
from engine.rules import SequenceRules
from engine.runner import ModelRunner
from engine.sampling import as_authors
from engine.sequences import whole_blocks
from engine.stats import EngineStats
from engine.stops import TextOf

__all__ = ["DiffusionEngine", "EngineConfig"]

log = logging.getLogger("engine")

_KIND_NAMES = [kind.name.lower() for kind in SpanKind]


class DiffusionEngine:
    """Generates for many sequences at once with one model, on its device and in its dtype.

    Batching is per iteration: sequences join and leave the batch between any two forwards.

    Raises:
        UserError: the components do not go together (engine/legal.py), the model cannot run on the
            kernels that engine.kernels names, or there is no memory for even one page.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        config: EngineConfig,
        decoding: DecodingStrategy,
        cache: CachePolicy,
        text_of: TextOf | None = None,
    ) -> None:
        """`text_of`: from token ids to the text that is shown for them; requests with stop strings
        need it (engine/stops.py). All ranks of a group must be given the same."""
        check_components(decoding, cache)
        check_model(model.config, config, cache)
        assert_shared(model.parallel, config)
        self.rules = _rules_of(model.config, config, decoding)
        self.config = config
        self.model_config = model.config
        kernels = kernels_for(model, config)
        self.num_pages = num_pages(config, model)
        num_slots = self.num_pages * config.page_size
        block_length = self.rules.block_length
        held = held_back(decoding, model.config)
        self.runner = ModelRunner(model, kernels, self.num_pages, config.page_size, held)
        self.canvases = Canvases(num_slots, model.config.mask_token_id, self.runner.device)
        opening = self.rules.opening
        decider = Decider(
            config, block_length, opening, decoding, self.runner, self.canvases, num_slots
        )
        sender = BatchSender(
            self.runner.device,
            scratch_slot=num_slots,
            block_length=block_length,
            longest_context=min(
                whole_blocks(model.config.max_positions, model.config.block_length), num_slots
            ),
            top_p_first=model.config.rules.filters_top_p_first,
        )
        self.iterations = IterationManager(
            config,
            num_pages=self.num_pages,
            rules=self.rules,
            policy=cache,
            canvases=self.canvases,
            text_of=text_of,
        )
        self._admissible = Admissible(
            model.config,
            config,
            canvas_len=self.rules.canvas_len,
            num_pages=self.num_pages,
            knows_text=text_of is not None,
        )
        self.stats = EngineStats()
        self.forwards = Forwards(config, self.runner, self.canvases, decider, sender, self.stats)
        self._refused: list[Result] = []
        self._inference, self._on_device = torch.inference_mode(), current(self.runner.device)

    @property
    def num_unfinished(self) -> int:
        return len(self.iterations.waiting) + len(self.iterations.live) + len(self._refused)

    @property
    def has_room(self) -> bool:
        """Whether one more request could be admitted before the next forward, if it gets pages."""
        return self.num_unfinished < self.config.max_sequences

    @property
    def page_bytes(self) -> int:
        """Bytes that K and V of one page take on this rank, over all layers."""
        return self.runner.kv.page_bytes

    def add(self, request: Request) -> None:
        """Queue a request. If it can never run, the next run_iteration returns it as an error."""
        refusal = self._admissible.refusal(request)
        if refusal is None:
            self.iterations.waiting.append(as_authors(request, self.model_config.rules))
            return
        self._refused.append(Result.failed(request, refusal))

    def run_iteration(self) -> list[Result]:
        """Run one forward over live sequences and write its commits. Returns the results of the
        sequences that finished in it, and of refused requests."""
        with self._inference, self._on_device:
            return self._run_iteration()

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Yield results in the order in which they finish. Requests are drawn from the iterable
        only while there is room."""
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

    def abort(self) -> None:
        """Drop all unfinished requests and free their pages."""
        self.iterations.abort()
        self._refused.clear()

    def _run_iteration(self) -> list[Result]:
        start = time.perf_counter()
        refused, self._refused = self._refused, []
        plan = self.iterations.schedule()
        if plan is None:
            return refused
        committed = self._committed(plan)
        if committed is None:
            finished = self._give_way(plan)
        else:
            self._count_plan(plan)
            finished = self.iterations.advance(plan, committed)
            self._count_finished(finished)
        end = time.perf_counter()
        self.stats.iteration_s += end - start
        if self.stats.first_iteration_at is None:
            self.stats.first_iteration_at = end
        self.stats.forward_s += self.runner.forward_s()
        return refused + finished

    def _committed(self, plan: Plan) -> np.ndarray | None:
        """The commits of the plan's forward, or None if it ran out of memory.

        Raises:
            GroupOutOfMemory: the forward ran out of memory in a tensor-parallel group.
        """
        try:
            return self.forwards.run(pack(plan, self.model_config, self.config.soft.softens_canvas))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ranks = self.runner.model.parallel.size
            if ranks > 1:
                raise GroupOutOfMemory(
                    f"no memory for a forward of {plan.num_query_tokens} query tokens; the model "
                    f"is divided among {ranks} ranks, and one rank cannot retry alone: lower "
                    "engine.iteration_tokens, engine.logits_bytes or engine.cache_tokens (if it "
                    "is null, engine.memory_fraction)"
                ) from error
            return None

    def _give_way(self, plan: Plan) -> list[Result]:
        """Plan smaller forwards after one that ran out of memory. Returns an error for a sequence
        that does not fit even alone.

        This runs outside the `except` block: the exception would keep the failed forward's tensors
        alive.
        """
        if len(plan) == 1 and self.forwards.graphs is not None:
            self.forwards.graphs.drop("no memory for a forward of one row")
        if self.runner.device.type == "cuda":
            torch.cuda.empty_cache()
        self.stats.num_failed_forwards += 1
        hopeless = self.iterations.give_way(plan)
        num_tokens = plan.num_query_tokens
        self.stats.num_failed_query_tokens += num_tokens
        log.warning(
            "no memory for a forward of %d query tokens; continuing with at most %d per forward",
            num_tokens,
            self.iterations.token_budget,
        )
        if hopeless is None:
            return []
        reason = (
            f"no memory for a forward of {num_tokens} query tokens of this row alone: lower "
            "engine.cache_tokens (or engine.memory_fraction), engine.logits_bytes or max_new_tokens"
        )
        return [Result.failed(hopeless, reason)]

    def _count_plan(self, plan: Plan) -> None:
        stats = self.stats
        for kind, count, length in plan.by_kind():
            name = _KIND_NAMES[kind]
            stats.num_forwards[name] = stats.num_forwards.get(name, 0) + count
            stats.num_query_tokens[name] = stats.num_query_tokens.get(name, 0) + length
        stats.num_iterations += 1
        stats.peak_sequences = max(stats.peak_sequences, len(plan))
        stats.peak_pages = max(stats.peak_pages, self.iterations.pages.num_granted)

    def _count_finished(self, finished: list[Result]) -> None:
        stats = self.stats
        for result in finished:
            stats.num_prompt_tokens += result.num_prompt_tokens
            stats.num_generated_tokens += result.num_generated_tokens


def _rules_of(
    model: ModelConfig, config: EngineConfig, decoding: DecodingStrategy
) -> SequenceRules:
    return SequenceRules(
        block_length=block_length_of(model, config),
        attn_block_length=model.block_length,
        is_shifted=model.is_shifted,
        opening=opening_of(model, config, decoding),
        stop_at_eos=config.stop_at_eos,
        eos_token_ids=model.eos_token_ids,
        decoding=decoding,
    )
