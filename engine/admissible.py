"""Which requests can ever run, and why the others cannot."""

from collections.abc import Callable

from engine.config import EngineConfig
from engine.guidance import num_canvases
from engine.memory import most_pages
from engine.model.config import ModelConfig
from engine.request import Request


class Admissible:
    """Looks at requests before they are queued."""

    def __init__(
        self,
        model: ModelConfig,
        config: EngineConfig,
        *,
        canvas_len: Callable[[Request], int],
        num_pages: int,
        knows_text: bool,
    ) -> None:
        """`canvas_len`: canvas positions of a request. `knows_text`: whether stop strings can be
        looked for."""
        self._model = model
        self._config = config
        self._canvas_len = canvas_len
        self._num_pages = num_pages
        self._knows_text = knows_text

    def refusal(self, request: Request) -> str | None:
        """Why a request can never run and what to do about it, or None if it can run."""
        model, num_prompt_tokens = self._model, len(request.prompt_ids)
        canvas_len = self._canvas_len(request)
        lengths = f"{num_prompt_tokens} prompt + {request.max_new_tokens} new tokens"
        if not request.prompt_ids or request.max_new_tokens < 1:
            return f"{lengths}: both must be at least 1"
        if num_prompt_tokens + request.max_new_tokens > model.max_positions:
            return (
                f"{lengths} exceed the model's context of {model.max_positions}: "
                "shorten the prompt or lower max_new_tokens"
            )
        num_pages = self._config.pages_for(canvas_len) * num_canvases(request)
        if num_pages > self._num_pages:
            if num_canvases(request) == 2:
                lengths += f" with guidance={request.guidance}, which takes two canvases,"
            return f"{lengths} exceed {self._too_few_pages(num_pages)}"
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < model.vocab_size:
            return f"prompt_ids hold an id outside the model's vocabulary of {model.vocab_size}"
        if model.mask_token_id in request.prompt_ids:
            return f"prompt_ids hold the mask token {model.mask_token_id}: encode it as text"
        if request.stop and not self._knows_text:
            return f"stop={list(request.stop)}: the engine was given no text_of; leave it out"
        if request.guidance > 0 and self._config.soft.softens_canvas:
            return (
                f"guidance={request.guidance} with engine.soft.scope=canvas: not defined for two "
                "canvases; set engine.soft.scope=block, or guidance to 0"
            )
        return request.fault()

    def _too_few_pages(self, num_pages: int) -> str:
        """The setting that a request for so many pages exceeds, and the remedy."""
        available = self._num_pages * self._config.page_size
        needed = num_pages * self._config.page_size
        if self._config.cache_tokens is not None:
            return f"engine.cache_tokens={available}: raise it to at least {needed}"
        if self._num_pages == most_pages(self._config, self._model):
            return (
                f"the {available} canvas positions that engine.cache_tokens=null gives to "
                f"engine.max_sequences={self._config.max_sequences}: give engine.cache_tokens at "
                f"least {needed}"
            )
        return (
            f"the {available} canvas positions that fit into engine.memory_fraction="
            f"{self._config.memory_fraction} of the free memory ({needed} are needed): raise it, "
            "shorten the prompt or lower max_new_tokens"
        )
