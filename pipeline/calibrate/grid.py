"""Which settings are tried: every legal cache policy with every strategy, each strategy at a few
settings of the field that trades quality for speed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.errors import UserError
from engine.legal import check_components, check_model, opening_of
from engine.model.config import ModelConfig
from pipeline.config.job import JobConfig
from pipeline.launch.to_calibrate import REFERENCE, Calibrated

Settings = dict[str, Any]

DECODER_SETTINGS: dict[str, list[Settings]] = {
    "fixed": [{}, {"iterations_per_block": 8}],
    "threshold": [{"threshold": 0.8}, {"threshold": 0.9}, {"threshold": 0.97}],
    "factor": [{"factor": 0.5}, {"factor": 1.0}, {"factor": 2.0}],
    "hierarchical": [{}, {"threshold": 0.95, "low_threshold": 0.7}],
    "credit": [{}, {"threshold": 0.97}],
    "entropy_bound": [{"bound": 0.1}, {"bound": 0.35}],
    "klass": [{}, {"threshold": 0.6, "num_stable": 1}],
    "edit": [{}, {"threshold": 0.9, "edit_threshold": 0.9}],
    "dream": [{}, {"iterations_per_block": 8}],
}
"""Strategy -> the fields that each of its points sets; the others stay as composed."""
FOR_SOME_MODELS = ("edit", "dream")
"""Strategies that belong to models which were trained for them. They are tried if they are the
job's own, or named."""
EXACT_BLOCK_CAUSAL = "block_causal"
CHEAPEST = ("block_causal", "commit", "dkv", "dual", "vicinity", "prefix", "none")
"""Cache policies by what a forward costs, the cheapest first; others come after these."""
SLOWEST = ("fixed", "dream")
"""Strategies that commit a fixed number of tokens come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination to try."""

    cache_name: str
    decoding_name: str
    cache: CachePolicy
    decoding: DecodingStrategy
    set_fields: tuple[tuple[str, Any], ...] = ()
    """Of the strategy, those that tell the points of the grid apart."""

    @property
    def name(self) -> str:
        """The name of its run folder."""
        fields = [f"{name}={value}" for name, value in self.set_fields]
        return ",".join([f"cache={self.cache_name}", f"decoding={self.decoding_name}", *fields])

    @property
    def short(self) -> str:
        """For tables: dual, threshold 0.9."""
        values = ", ".join(f"{name} {value}" for name, value in self.set_fields)
        return f"{self.cache_name}, {self.decoding_name}{f' ({values})' if values else ''}"

    @property
    def overrides(self) -> list[str]:
        """What chooses it on a command line."""
        fields = (f"decoding.{name}={value}" for name, value in self.set_fields)
        return [f"cache={self.cache_name}", f"decoding={self.decoding_name}", *fields]


def reference_of(asked: Calibrated, model: ModelConfig) -> Point:
    """One token per iteration without an approximation: no cache, or in a block-causal model the
    one that is exact."""
    name = "none" if model.block_length is None else EXACT_BLOCK_CAUSAL
    cache = asked.caches[name] if name in asked.caches else CACHE_POLICIES[name]()
    return Point(cache_name=name, decoding_name=REFERENCE, cache=cache, decoding=asked.reference)


def points_of(asked: Calibrated, model: ModelConfig, named: bool = False) -> list[Point]:
    """The points of the sweep that this model can run, without the reference. `named`: the
    strategies were named by the user.

    Raises:
        UserError: none is left.
    """
    reference = reference_of(asked, model)
    own = type(asked.config.decoding)
    decoders = {
        name: decoding
        for name, decoding in asked.decoders.items()
        if named or name not in FOR_SOME_MODELS or DECODERS[name] is own
    }
    points = [
        point
        for cache_name, cache in asked.caches.items()
        for name, decoding in decoders.items()
        for point in _of_strategy(asked, cache_name, cache, name, decoding)
        if is_legal(point, asked.config, model)
    ]
    points = [point for point in dict.fromkeys(points) if not _is_same(point, reference)]
    if not points:
        raise UserError(
            f"cache={','.join(asked.caches)} with decoding={','.join(decoders)}: no combination "
            f"that this model ({model.family}) can run is left to try; name others "
            "(docs/combinations.md)"
        )
    return points


def _is_same(point: Point, other: Point) -> bool:
    return (point.cache, point.decoding) == (other.cache, other.decoding)


def _of_strategy(
    asked: Calibrated, cache_name: str, cache: CachePolicy, name: str, decoding: DecodingStrategy
) -> Iterator[Point]:
    """Its settings; a field that was typed keeps its value, and does not tell points apart."""
    for settings in DECODER_SETTINGS.get(name, [{}]):
        left = {
            field: value
            for field, value in settings.items()
            if f"decoding.{field}" not in asked.typed
        }
        yield Point(
            cache_name=cache_name,
            decoding_name=name,
            cache=cache,
            decoding=replace(decoding, **left),
            set_fields=tuple(left.items()),
        )


def is_legal(point: Point, config: JobConfig, model: ModelConfig) -> bool:
    try:
        check_components(point.decoding, point.cache)
        check_model(model, config.engine, point.cache)
        opening_of(model, config.engine, point.decoding)
    except UserError:
        return False
    return True


def expected_cost(point: Point) -> tuple[bool, int]:
    known = CHEAPEST.index(point.cache_name) if point.cache_name in CHEAPEST else len(CHEAPEST)
    return point.decoding_name in SLOWEST, known


def told_fields(point: Point, composed: JobConfig) -> list[str]:
    """What a command line must set beside `point.overrides`, so that the job composed with these
    runs with the point's settings."""
    found = []
    wanted: Any
    for group, wanted in (("decoding", point.decoding), ("cache", point.cache)):
        there = asdict(getattr(composed, group))
        for name, value in asdict(wanted).items():
            if there.get(name) != value:
                found.append(f"{group}.{name}={'null' if value is None else value}")
    return found
