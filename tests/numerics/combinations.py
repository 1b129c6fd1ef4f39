"""Builds combinations of model, cache policy and decoding strategy, and lists the legal ones."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine
from engine.legal import check_components, check_model
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer
from engine.request import Request, Result
from engine.soft import SoftIteration
from tests.numerics.reference_loop import Outcome, decode

ATTENTIONS = ("bidirectional", "block-causal")

Settings = dict[str, Any]


class Combination(NamedTuple):
    """Cache policy and decoding strategy as in a config, {"name": ..., field: value}, and the
    settings of soft iteration (None: off)."""

    cache: Settings
    decoding: Settings
    soft: Settings | None = None
    opening: str | None = None

    def __str__(self) -> str:
        parts = [_shown(self.cache), _shown(self.decoding)]
        parts += ["soft"] * (self.soft is not None) + [self.opening] * (self.opening is not None)
        return "-".join(parts)

    def engine(self, model: Transformer, **settings: Any) -> DiffusionEngine:
        soft = SoftIteration() if self.soft is None else SoftIteration(enabled=True, **self.soft)
        return DiffusionEngine(
            model,
            config=EngineConfig(**settings, soft=soft, opening=self.opening),
            decoding=DECODERS[self.decoding["name"]](**_fields(self.decoding)),
            cache=CACHE_POLICIES[self.cache["name"]](**_fields(self.cache)),
        )

    def run(
        self, model: Transformer, requests: list[Request], **settings: Any
    ) -> dict[Any, Result]:
        engine = self.engine(model, **settings)
        results = {result.request_id: result for result in engine.results(requests)}
        engine.iterations.pages.check_integrity()
        assert engine.iterations.pages.num_granted == 0, "pages were not freed"
        return results

    def reference(self, model: Transformer, request: Request, block_length: int) -> Outcome:
        return decode(
            model,
            request,
            cache=self.cache,
            decoding=self.decoding,
            block_length=block_length,
            soft=self.soft,
            opening=self.opening,
        )


def refusal(model: ModelConfig, cache: str, decoding: str) -> str | None:
    """Why these do not go together, or None if they do."""
    policy, strategy = CACHE_POLICIES[cache](), DECODERS[decoding]()
    try:
        check_components(strategy, policy)
        check_model(model, EngineConfig(), policy)
    except ValueError as error:
        return str(error)
    return None


def legal(model: ModelConfig, soft: Settings) -> Iterator[Combination]:
    """Every legal pair of cache policy and decoding strategy with default settings, each without
    and with soft iteration."""
    for cache in CACHE_POLICIES:
        for decoding in DECODERS:
            if refusal(model, cache, decoding) is None:
                for soft_or_none in (None, soft):
                    yield Combination({"name": cache}, {"name": decoding}, soft_or_none)


def listing(models: dict[str, ModelConfig]) -> str:
    """The text of docs/combinations.md."""
    lines = [
        "# What goes together",
        "",
        "`yes` marks a combination for which the batched engine generates the same token ids as",
        "the plain unbatched loops in `tests/numerics` (in float32): greedy and sampled, with and",
        "without soft iteration, for any batch and any number of pages. A number refers to the",
        "reason, listed below the tables, why the combination is refused when the config is read.",
        "",
        "This page is written by `python -m tests.numerics.write_combinations`; a test checks that",
        "it is up to date.",
        "",
    ]
    reasons: list[str] = []
    for attention, model in models.items():
        lines += [f"## {attention} models", "", f"| decoding | {' | '.join(CACHE_POLICIES)} |"]
        lines.append("|---" * (len(CACHE_POLICIES) + 1) + "|")
        for decoding in DECODERS:
            cells = []
            for cache in CACHE_POLICIES:
                reason = refusal(model, cache, decoding)
                if reason is not None and reason not in reasons:
                    reasons.append(reason)
                cells.append("yes" if reason is None else f"({reasons.index(reason) + 1})")
            lines.append(f"| `{decoding}` | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"{i}. {reason}" for i, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n"


def _fields(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if key != "name"}


def _shown(settings: Settings) -> str:
    fields = [f"{key}={value}" for key, value in _fields(settings).items()]
    return "/".join([settings["name"], *fields])
