"""The targets, and whether this run meets them. docs/performance.md says where they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Measurement = dict[str, Any]
Found = tuple[float, str] | None
"""A value and what it is about; None if it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    name: str
    limit: float
    unit: str
    is_least: bool
    """Whether the value must be at least the limit; otherwise at most."""
    cards: tuple[str, ...]
    """The target is for a card with one of these words in its name; empty: for any."""
    find: Callable[[list[Measurement]], Found]

    def judged(self, measurements: list[Measurement], card: str) -> dict[str, Any]:
        """The target as part of the report. `gap`: how far the value is on the wrong side of the
        limit, as a share of it; below 0 where it is met."""
        found = self.find(measurements)
        judged: dict[str, Any] = {
            "target": self.name,
            "limit": self.limit,
            "unit": self.unit,
            "is_least": self.is_least,
            "cards": list(self.cards),
            "is_for_this_card": not self.cards or any(word in card for word in self.cards),
            "measured": None,
            "met": None,
        }
        if found is None:
            return judged
        value, about = found
        gap = (self.limit - value if self.is_least else value - self.limit) / self.limit
        return judged | {"measured": value, "about": about, "gap": gap, "met": gap <= 0}


def judged(measurements: list[Measurement], card: str) -> list[dict[str, Any]]:
    return [target.judged(measurements, card) for target in TARGETS]


def case(
    measurements: list[Measurement], model: str, batch: int, variant: str = "engine"
) -> Measurement | None:
    """The model's case with 4 tokens per forward, which every target is about."""
    for one in measurements:
        key = (one["model"], one["batch"], one["committed"], one["variant"])
        if key == (model, batch, 4, variant):
            return one
    return None


def _title(one: Measurement) -> str:
    return f"{one['title']} B={one['batch']}"


def _block_ms(model: str, batch: int) -> Callable[[list[Measurement]], Found]:
    def find(measurements: list[Measurement]) -> Found:
        one = case(measurements, model, batch)
        return (one["block"]["ms"], _title(one)) if one and one.get("block") else None

    return find


def _most_tokens_per_s(model: str) -> Callable[[list[Measurement]], Found]:
    def find(measurements: list[Measurement]) -> Found:
        speeds = [
            (one["tokens_per_s"], _title(one))
            for one in measurements
            if (one["model"], one["committed"], one["variant"]) == (model, 4, "engine")
            and one["tokens_per_s"]
        ]
        return max(speeds, default=None)

    return find


def _over_plain(model: str, batch: int) -> Callable[[list[Measurement]], Found]:
    def find(measurements: list[Measurement]) -> Found:
        both = [case(measurements, model, batch, variant) for variant in ("engine", "plain")]
        own, plain = (one and one["tokens_per_s"] for one in both)
        return (own / plain, f"{own:,.0f} against {plain:,.0f} tokens/s") if own and plain else None

    return find


def _most_idle(batch: int) -> Callable[[list[Measurement]], Found]:
    def find(measurements: list[Measurement]) -> Found:
        shares = [
            (one["block"]["idle_share"], _title(one))
            for one in measurements
            if (one["batch"], one["variant"]) == (batch, "engine")
            and "idle_share" in (one.get("block") or {})
        ]
        return max(shares, default=None)

    return find


def _most_padding(measurements: list[Measurement]) -> Found:
    shares = [
        (one["padding"], _title(one))
        for one in measurements
        if one["variant"] == "engine" and one.get("padding") is not None
    ]
    return max(shares, default=None)


def cost_of_same_bits(measurements: list[Measurement]) -> list[tuple[float, Measurement]]:
    """What batch invariance adds to a block iteration, as a share of the one without it, for every
    case that was measured both ways; with the case."""
    costs = []
    for one in measurements:
        if one["variant"] == "engine" and one["committed"] == 4:
            other = case(measurements, one["model"], one["batch"], "any bits")
            if one.get("block") and other and other.get("block"):
                costs.append((one["block"]["ms"] / other["block"]["ms"] - 1, one))
    return costs


def _most_for_same_bits(measurements: list[Measurement]) -> Found:
    costs = [(cost, _title(one)) for cost, one in cost_of_same_bits(measurements)]
    return max(costs, default=None)


def _at_most(
    name: str, limit: float, unit: str, find: Callable[[list[Measurement]], Found], *cards: str
) -> Target:
    return Target(name=name, limit=limit, unit=unit, is_least=False, cards=cards, find=find)


def _at_least(
    name: str, limit: float, unit: str, find: Callable[[list[Measurement]], Found], *cards: str
) -> Target:
    return Target(name=name, limit=limit, unit=unit, is_least=True, cards=cards, find=find)


_BLOCK = "block iteration, {}"
_H = ("H100", "H200")
TARGETS = [
    _at_most(_BLOCK.format("LLaDA-MoE B=1"), 6.2, "ms", _block_ms("llada_moe", 1), *_H),
    _at_most(_BLOCK.format("LLaDA2.0-mini B=32"), 17.5, "ms", _block_ms("llada2_mini", 32), *_H),
    _at_most(_BLOCK.format("LLaDA-8B B=32"), 34.0, "ms", _block_ms("llada_8b", 32), *_H),
    _at_most(_BLOCK.format("LLaDA-MoE B=1"), 4.0, "ms", _block_ms("llada_moe", 1), "H200"),
    _at_least("LLaDA-MoE, best batch", 5300, "tokens/s", _most_tokens_per_s("llada_moe"), "H200"),
    _at_least(
        "LLaDA2.0-mini, best batch", 20000, "tokens/s", _most_tokens_per_s("llada2_mini"), "H200"
    ),
    _at_least("LLaDA-MoE B=32 over plain torch", 2.8, "x", _over_plain("llada_moe", 32), *_H),
    _at_least("LLaDA2.0-mini B=32 over plain torch", 3.7, "x", _over_plain("llada2_mini", 32), *_H),
    _at_most("card idle in a block iteration, B=32, worst", 0.03, "share", _most_idle(32)),
    _at_most("card idle in a block iteration, B=256, worst", 0.05, "share", _most_idle(256)),
    _at_most("cost of batch invariance, worst", 0.03, "share", _most_for_same_bits),
    _at_most("padding of query tokens, worst", 0.05, "share", _most_padding),
]
"""All at 4 tokens per forward."""
