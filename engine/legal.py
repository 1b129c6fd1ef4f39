"""Checks which components go together: when a job's config is read, and again in the engine."""

from typing import cast

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.config import BLOCK_LENGTH, EngineConfig
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.decoding.suppress import check_form
from engine.errors import UserError
from engine.model.authors import OPENINGS, Opening
from engine.model.config import ModelConfig
from engine.parallel import TensorParallel


def check_components(decoding: DecodingStrategy, cache: CachePolicy) -> None:
    """Check that a decoding strategy and a cache policy can be combined.

    Raises:
        UserError: they cannot: the strategy edits tokens that the policy no longer recomputes. Or
            decoding.suppress_eos has no such form.
    """
    check_form(decoding)
    if decoding.edits and not cache.serves_edits:
        raise UserError(
            f"{name_of(decoding)} with {name_of(cache)}: the strategy may still change committed "
            "tokens of the active block, but the policy no longer recomputes them; take another "
            "cache"
        )


def check_model(model: ModelConfig, config: EngineConfig, cache: CachePolicy) -> None:
    """Check that a model can run with an engine config and a cache policy.

    Raises:
        UserError: the policy or the scope of soft iteration does not support the model's attention,
            the model's blocks do not divide into blocks of engine.block_length, or the model cannot
            be divided among engine.tensor_parallel ranks.
    """
    check_shares(model, config)
    if model.block_length is None:
        if not cache.serves_bidirectional:
            raise UserError(
                f"{name_of(cache)} with a bidirectional model ({model.family}): its finished "
                "blocks attend to later ones, so their K and V are never final; take another "
                "cache, such as cache=dual"
            )
        return
    if not cache.serves_block_causal:
        raise UserError(
            f"{name_of(cache)} with a block-causal model ({model.family}): there is nothing to "
            "approximate, since K and V of finished blocks are final; take cache=block_causal, "
            "which is exact and cheaper"
        )
    if config.soft.softens_canvas:
        raise UserError(
            f"engine.soft.scope=canvas with a block-causal model ({model.family}): no forward "
            "computes its whole canvas; take engine.soft.scope=block"
        )
    if config.block_length is not None and model.block_length % config.block_length:
        raise UserError(
            f"engine.block_length={config.block_length}: this model ({model.family}) is "
            f"block-causal with blocks of {model.block_length}; set engine.block_length=null, or "
            f"to a divisor of {model.block_length} to denoise in sub-blocks"
        )


def check_shares(model: ModelConfig, config: EngineConfig) -> None:
    """Check that the model's heads and experts can be divided among the ranks of a group.

    Nothing else is checked: MLP widths, vocabulary words and experts may be divided unevenly.

    Raises:
        UserError: some rank would not get the same number of whole heads as the others, or, with
            expert parallelism, would get no expert.
    """
    size, kv_heads = config.tensor_parallel, model.num_kv_heads
    if model.num_heads % size:
        raise UserError(
            f"engine.tensor_parallel={size}: does not divide the model's num_heads="
            f"{model.num_heads}; set it to a number that does"
        )
    if kv_heads % size and size % kv_heads:
        raise UserError(
            f"engine.tensor_parallel={size}: is neither a divisor nor a multiple of the model's "
            f"num_kv_heads={kv_heads}; set it to one"
        )
    if not config.expert_parallel:
        return
    if model.experts is None:
        raise UserError(
            f"engine.expert_parallel=true: this model ({model.family}) has no experts; set "
            "engine.expert_parallel=false"
        )
    if model.experts.num_experts < size:
        raise UserError(
            f"engine.expert_parallel=true with engine.tensor_parallel={size}: the model has "
            f"num_experts={model.experts.num_experts}, and each rank needs one; set "
            "engine.expert_parallel=false, or engine.tensor_parallel to at most "
            f"{model.experts.num_experts}"
        )


def assert_shared(parallel: TensorParallel, config: EngineConfig) -> None:
    """Assert that the model was loaded with the tensor parallelism that the config says."""
    loaded = (parallel.size, parallel.split_experts)
    assert loaded == (config.tensor_parallel, config.expert_parallel), (
        f"the model is divided with (tensor_parallel, expert_parallel)={loaded}, not as the config "
        "says"
    )


def block_length_of(model: ModelConfig, config: EngineConfig) -> int:
    """How many positions are denoised together: the config's value, or the model's, or the
    default; in a bidirectional model never more than its longest canvas, because arrays and state
    have room for whole blocks."""
    if model.block_length is not None:
        return config.block_length or model.block_length
    return min(config.block_length or BLOCK_LENGTH, model.max_positions)


def opening_of(model: ModelConfig, config: EngineConfig, decoding: DecodingStrategy) -> Opening:
    """What commits in the forward that opens a block: as the config says, or else the strategy, or
    else the model's authors (EngineConfig.opening).

    Raises:
        UserError: engine.opening says what the model or the strategy cannot do.
    """
    if config.opening is None:
        return decoding.opening or model.rules.opening
    opening = cast(Opening, config.opening)
    served: tuple[Opening, ...] = ("free", "alone")
    if model.block_length is not None:
        served = OPENINGS if model.is_shifted else ("free",)
    if opening not in served:
        raise UserError(
            f"engine.opening={opening} with this model ({model.family}): it needs logits that come "
            "from a finished block, as block-causal models with shifted logits have them; "
            f"take {' or '.join(f'engine.opening={name}' for name in served)}"
        )
    if opening != "free" and decoding.may_commit_nothing:
        raise UserError(
            f"engine.opening={opening} with {name_of(decoding)}: the strategy's schedule counts "
            "all masks of a block and may commit none of them in a forward; take "
            "engine.opening=free, or another decoding"
        )
    return opening


def name_of(component: DecodingStrategy | CachePolicy) -> str:
    """How a config selects the component, such as `cache=dual`; else the name of its class."""
    names: dict[type, str] = {cls: f"cache={name}" for name, cls in CACHE_POLICIES.items()}
    names |= {cls: f"decoding={name}" for name, cls in DECODERS.items()}
    return names.get(type(component), type(component).__name__)
