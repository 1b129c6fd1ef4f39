"""Which components go together? Asked when a job's config is read, and again by the engine."""

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.config import BLOCK_LENGTH, EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.model.config import ModelConfig


def check_components(decoding: DecodingStrategy, cache: CachePolicy) -> None:
    """
    Raises:
        ValueError: this strategy and this policy do not go together.
    """
    if decoding.edits and not cache.serves_edits:
        raise ValueError(
            f"{name_of(decoding)} with {name_of(cache)}: the strategy may still change committed "
            "tokens of the active block, the policy computes them no more; take another cache"
        )


def check_model(model: ModelConfig, config: EngineConfig, cache: CachePolicy) -> None:
    """
    Raises:
        ValueError: the policy is wrong for the model's attention, or the block length is not its
            own.
    """
    if model.block_length is None:
        if not cache.serves_bidirectional:
            raise ValueError(
                f"{name_of(cache)} with a bidirectional model ({model.family}): its finished "
                "blocks see what comes later, so no K and V are final; take cache=dual or another"
            )
        return
    if not cache.serves_block_causal:
        raise ValueError(
            f"{name_of(cache)} with a block-causal model ({model.family}): there is nothing to "
            "approximate, since K and V of finished blocks are final; take cache=block_causal, "
            "which is exact and cheaper"
        )
    if config.block_length is not None and model.block_length % config.block_length:
        raise ValueError(
            f"engine.block_length={config.block_length}: this model ({model.family}) is "
            f"block-causal with blocks of {model.block_length}; set engine.block_length=null, or "
            "to a divisor, for sub-blocks"
        )


def block_length_of(model: ModelConfig, config: EngineConfig) -> int:
    return config.block_length or model.block_length or BLOCK_LENGTH


def name_of(component: DecodingStrategy | CachePolicy) -> str:
    """As a config chooses it."""
    names: dict[type, str] = {cls: f"cache={name}" for name, cls in CACHE_POLICIES.items()}
    names |= {cls: f"decoding={name}" for name, cls in DECODERS.items()}
    return names.get(type(component), type(component).__name__)
