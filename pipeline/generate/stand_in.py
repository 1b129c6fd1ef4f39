"""Replaces the engine in a job without a model: returns the first tokens of each prompt at once.

With `stand_in=true` the whole job runs (input, prompts, workers, output) without reading any
weights: to try new data or a new disk, or to measure how many rows per second the pipeline itself
can handle.
"""

from collections.abc import Iterable, Iterator

from engine.request import FinishReason, Request, Result
from engine.stats import EngineStats
from engine.stops import StopSearch, TextOf


class StandIn:
    """Implements pipeline.generate.driver.Engine, and has the attributes that the meter reads."""

    page_bytes = 0

    def __init__(self, text_of: TextOf) -> None:
        self.stats = EngineStats()
        self._text_of = text_of

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        for request in requests:
            token_ids = request.prompt_ids[: request.max_new_tokens]
            cut = None
            if request.stop:
                cut = StopSearch(request.stop, self._text_of).at_end(token_ids)
            if cut is not None:
                token_ids = token_ids[: cut.num_tokens]
            self.stats.num_iterations += 1
            self.stats.num_generated_tokens += len(token_ids)
            self.stats.num_prompt_tokens += len(request.prompt_ids)
            yield Result(
                request_id=request.request_id,
                finish_reason=FinishReason.LENGTH if cut is None else FinishReason.STOP,
                token_ids=token_ids,
                text_length=None if cut is None else cut.text_length,
                num_prompt_tokens=len(request.prompt_ids),
                seed=request.seed,
            )
