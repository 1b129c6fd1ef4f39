"""In place of the engine: every row gets the first tokens of its own prompt back, at once.

`stand_in=true` runs a whole job so, input, prompts, workers and output, and reads no weights: to
try new data or a new disk, and to know what the job itself can do (rows per second).
"""

from collections.abc import Iterable, Iterator

from engine.request import FinishReason, Request, Result
from engine.stats import EngineStats


class StandIn:
    """A pipeline.generate.driver.Engine."""

    page_bytes = 0

    def __init__(self) -> None:
        self.stats = EngineStats()

    def results(self, requests: Iterable[Request]) -> Iterator[Result]:
        for request in requests:
            token_ids = request.prompt_ids[: request.max_new_tokens]
            self.stats.num_iterations += 1
            self.stats.num_generated_tokens += len(token_ids)
            self.stats.num_prompt_tokens += len(request.prompt_ids)
            yield Result(
                request_id=request.request_id,
                finish_reason=FinishReason.LENGTH,
                token_ids=token_ids,
                num_prompt_tokens=len(request.prompt_ids),
                seed=request.seed,
            )
