"""Generates with an autoregressive model: the interface of DiffusionEngine over the continuous
batching of transformers, which runs in a thread of its own.

    request --> manager's queue --> batches, in the manager's thread --> its results --> result

Attention, cache and batching are transformers' own. On a GPU with flash attention installed it
takes that, with CUDA graphs, as its defaults say.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from engine.config import EngineConfig
from engine.errors import UserError
from engine.request import FinishReason, Request, Result
from engine.stats import EngineStats
from engine.stops import Cut, StopSearch, TextOf
from pipeline.autoregressive.checkpoint import Checkpoint
from pipeline.autoregressive.sampling import processors, settings_of

log = logging.getLogger("pipeline")

WAIT_S = 1.0
"""How long one look for a result waits before it looks whether the manager still runs."""
NO_EOS = -1


class TransformersEngine:
    """Implements pipeline.generate.driver.Engine, and has the attributes that the meter reads.

    Raises:
        UserError: there is no memory for the cache, or on a CPU none was given.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        about: Checkpoint,
        *,
        config: EngineConfig,
        text_of: TextOf,
        may_sample: bool,
    ) -> None:
        """`may_sample`: whether any row may have a temperature above 0. Without, no time is spent
        on what only sampling needs."""
        if config.cache_tokens is None and model.device.type == "cpu":
            raise UserError(
                "engine.cache_tokens=null with engine=transformers on a CPU: give a number, the "
                "positions that all live rows together may take (16384)"
            )
        self.stats = EngineStats()
        self._model: Any = model  # its methods for batching are untyped
        self._about = about
        self._config = config
        self._text_of = text_of
        self._may_sample = may_sample
        eos = about.eos_token_ids if config.stop_at_eos else ()
        self._eos = list(eos) or [NO_EOS]
        self._manager = self._new_manager()
        self._manager.warmup()  # allocates the cache; on a GPU, captures graphs
        made = self._manager.continuous_batching_config
        self.num_positions = made.num_blocks * config.page_size
        """Positions that the cache has room for."""
        text = model.config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        slot = 2 * text.num_hidden_layers * text.num_key_value_heads * head
        self.page_bytes = slot * config.page_size * model.dtype.itemsize

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Yield results in the order in which they finish. Requests are drawn from the iterable
        only while there is room.

        Raises:
            RuntimeError: transformers' manager has failed.
        """
        manager, source = self._manager, iter(requests)
        live: dict[str, _Live] = {}
        exhausted, number, is_whole = False, 0, False
        batches_before = self.stats.num_iterations
        attention = manager.continuous_batching_config.auto_switch_to_flash
        manager.switch_to_cb_friendly_attn(self._model, attention)  # stopping switches back
        manager.start()
        try:
            while live or not exhausted:
                while not exhausted and len(live) < self._most_live:
                    if (request := next(source, None)) is None:
                        exhausted = True
                    elif refusal := self._refusal(request):
                        yield Result.failed(request, refusal)
                    else:
                        live[str(number)] = self._add(str(number), request)
                        number += 1
                if not live:
                    continue
                for name, output in self._outputs():
                    if name in live and (result := self._result(live[name], output)) is not None:
                        if not output.is_finished():
                            manager.cancel_request(name)
                        del live[name]
                        self.stats.num_iterations = batches_before + manager.current_batch
                        yield result
            is_whole = True
        finally:
            manager.stop(block=True, keep_for_next_session=True, hard_stop=not is_whole)
            while not manager.output_router.output_queue.empty():  # of requests that were dropped
                manager.output_router.output_queue.get_nowait()
            self.stats.num_iterations = batches_before + manager.current_batch

    @property
    def _most_live(self) -> int:
        """Rows in the manager: as many as run at once, and a few that wait, so that it never runs
        short while a result is written."""
        return self._config.max_sequences + max(1, self._config.max_sequences // 4)

    def _new_manager(self) -> Any:
        config = self._config
        pages = None if config.cache_tokens is None else config.cache_tokens // config.page_size
        manager: Any = self._model.init_continuous_batching(
            generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                do_sample=False, eos_token_id=self._eos
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=config.page_size,
                num_blocks=pages,
                max_batch_tokens=config.iteration_tokens,
                max_requests_per_batch=config.max_sequences,
                max_memory_percent=config.memory_fraction,
                use_cuda_graph=None if config.graphs else False,
                disable_nccl_graph_mixing=False,  # no exchange between ranks is captured
            ),
        )
        if self._may_sample:
            manager.logit_processor = processors(self._about.vocab_size)
        return manager

    def _add(self, name: str, request: Request) -> "_Live":
        """Hand the request to the manager."""
        self._manager.add_request(
            request.prompt_ids,
            request_id=name,
            max_new_tokens=request.max_new_tokens,
            eos_token_id=self._eos,
            streaming=bool(request.stop),
            **(settings_of(request) if self._may_sample else {}),
        )
        return _Live(request, self._text_of)

    def _outputs(self) -> Iterator[tuple[str, Any]]:
        """What the manager has next, and all else that is there.

        Raises:
            RuntimeError: it has failed.
        """
        manager, began = self._manager, time.perf_counter()
        output = manager.get_result(timeout=WAIT_S)
        self.stats.iteration_s += time.perf_counter() - began
        while output is not None:
            if output.error is not None:
                raise RuntimeError(f"engine=transformers: {output.error}")
            if self.stats.first_iteration_at is None:
                self.stats.first_iteration_at = time.perf_counter()
            yield output.request_id, output
            if manager.output_router.output_queue.empty():
                return
            output = manager.get_result(timeout=0)
        if not manager.is_running():
            fatal = manager.background_thread_status.fatal_error
            raise RuntimeError(f"engine=transformers: its thread has ended ({fatal!r})") from fatal

    def _result(self, live: "_Live", output: Any) -> Result | None:
        """The row's result; None while it goes on."""
        request, tokens = live.request, list(output.generated_tokens)
        num_forwards = len(tokens)
        is_eos = bool(tokens) and tokens[-1] in self._eos
        if is_eos:
            tokens.pop()
        cut = live.cut(tokens, output.is_finished())
        if cut is None and not output.is_finished():
            return None
        reason = FinishReason.EOS if is_eos else FinishReason.LENGTH
        if cut is not None:
            tokens, reason = tokens[: cut.num_tokens], FinishReason.STOP
        num_query_tokens = len(request.prompt_ids) + num_forwards - 1
        self._count(len(request.prompt_ids), num_forwards, len(tokens))
        return Result(
            request_id=request.request_id,
            finish_reason=reason,
            token_ids=tokens,
            text_length=None if cut is None else cut.text_length,
            num_prompt_tokens=len(request.prompt_ids),
            num_iterations=num_forwards,
            num_query_tokens=num_query_tokens,
            seed=request.seed,
        )

    def _count(self, num_prompt_tokens: int, num_forwards: int, num_tokens: int) -> None:
        """Every forward gives a token: the first reads the prompt, each other the token before.
        Where transformers reads a long prompt in several forwards, or a shared prefix in none, the
        prompt counts as one forward with all of its tokens."""
        stats = self.stats
        for kind, forwards, tokens in (
            ("prefill", 1, num_prompt_tokens),
            ("decode", num_forwards - 1, num_forwards - 1),
        ):
            stats.num_forwards[kind] = stats.num_forwards.get(kind, 0) + forwards
            stats.num_query_tokens[kind] = stats.num_query_tokens.get(kind, 0) + tokens
        stats.num_prompt_tokens += num_prompt_tokens
        stats.num_generated_tokens += num_tokens

    def _refusal(self, request: Request) -> str | None:
        """Why the request can never run; None if it can."""
        num_prompt = len(request.prompt_ids)
        if num_prompt == 0:
            return "prompt_ids is empty: give at least one token"
        if request.max_new_tokens < 1:
            return f"max_new_tokens={request.max_new_tokens}: give at least 1"
        lengths = f"{num_prompt} prompt tokens and max_new_tokens={request.max_new_tokens}"
        length = num_prompt + request.max_new_tokens
        if length > self._about.max_positions:
            return (
                f"{lengths} exceed the model's context of {self._about.max_positions}: shorten the "
                "prompt or lower max_new_tokens"
            )
        if length > self.num_positions:
            return (
                f"{lengths} exceed the {self.num_positions} positions of the cache: raise "
                "engine.cache_tokens (if it is null, engine.memory_fraction)"
            )
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self._about.vocab_size:
            return f"prompt_ids hold an id outside the vocabulary of {self._about.vocab_size}"
        if request.guidance > 0:
            return f"guidance={request.guidance} with engine=transformers: has none; leave it out"
        if request.temperature > 0 and not self._may_sample:
            return f"temperature={request.temperature}: this engine was made for greedy rows"
        return request.fault()


class _Live:
    """A request that the manager has."""

    def __init__(self, request: Request, text_of: TextOf) -> None:
        self.request = request
        self._search = StopSearch(request.stop, text_of) if request.stop else None

    def cut(self, tokens: list[int], is_last: bool) -> Cut | None:
        """Where a stop string cuts the tokens; None: none does, or not yet."""
        if self._search is None:
            return None
        return self._search.at_end(tokens) if is_last else self._search.read(tokens)
