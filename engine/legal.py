"""Which components go together? Asked when a job's config is read, and again by the engine."""

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.config import BLOCK_LENGTH, EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.model.config import ModelConfig
from engine.parallel import TensorParallel


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
        ValueError: the policy is wrong for the model's attention, the block length is not its own,
            or it cannot be shared out among so many ranks.
    """
    check_shares(model, config)
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


def check_shares(model: ModelConfig, config: EngineConfig) -> None:
    """Other numbers need not divide: widths, words and experts are shared out unevenly.

    Raises:
        ValueError: the ranks of a group would not all have whole heads, and equally many, or an
            expert each.
    """
    size, kv_heads = config.tensor_parallel, model.num_kv_heads
    if model.num_heads % size:
        raise ValueError(
            f"engine.tensor_parallel={size}: does not divide the model's num_heads="
            f"{model.num_heads}; set it to a number that does"
        )
    if kv_heads % size and size % kv_heads:
        raise ValueError(
            f"engine.tensor_parallel={size}: is no divisor and no multiple of the model's "
            f"num_kv_heads={kv_heads}; set it to one of these"
        )
    if not config.expert_parallel:
        return
    if model.experts is None:
        raise ValueError(
            f"engine.expert_parallel=true: this model ({model.family}) has no experts; set "
            "engine.expert_parallel=false"
        )
    if model.experts.num_experts < size:
        raise ValueError(
            f"engine.expert_parallel=true with engine.tensor_parallel={size}: the model has "
            f"num_experts={model.experts.num_experts}, and each rank needs one; set "
            "engine.expert_parallel=false, or engine.tensor_parallel to so many at most"
        )


def assert_shared(parallel: TensorParallel, config: EngineConfig) -> None:
    """Who makes an engine takes the model's shares from the engine's config."""
    shares = (parallel.size, parallel.split_experts)
    assert shares == (config.tensor_parallel, config.expert_parallel), (
        f"the model is shared out as {shares}, and not as the config says"
    )


def block_length_of(model: ModelConfig, config: EngineConfig) -> int:
    return config.block_length or model.block_length or BLOCK_LENGTH


def name_of(component: DecodingStrategy | CachePolicy) -> str:
    """As a config chooses it."""
    names: dict[type, str] = {cls: f"cache={name}" for name, cls in CACHE_POLICIES.items()}
    names |= {cls: f"decoding={name}" for name, cls in DECODERS.items()}
    return names.get(type(component), type(component).__name__)
