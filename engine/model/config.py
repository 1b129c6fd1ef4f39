"""What a transformer is, in numbers: what every family translates its `config.json` into."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """A mixture of experts in place of the MLP: how many, and how a token chooses.

    Raises:
        ValueError: a field out of range, or two fields that contradict each other.
    """

    num_experts: int
    num_chosen: int
    """Experts that each token passes through."""
    expert_size: int
    score: Literal["sigmoid", "softmax"]
    """What a router makes of its logits, float32, over all experts."""
    has_bias: bool = False
    """A term for each expert that weighs in the choice alone."""
    is_normalised: bool = True
    """The chosen experts' weights are divided by their sum."""
    routed_scale: float = 1.0
    """Multiplies the chosen experts' weights at last."""
    num_groups: int = 1
    """Groups of neighbouring experts; a token chooses among those of its `num_chosen_groups`."""
    num_chosen_groups: int = 1
    shared_size: int = 0
    """Width of the expert that every token passes through besides; 0: there is none."""
    num_dense_layers: int = 0
    """First layers that have one MLP of `mlp_size` and no experts."""

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_chosen", "expert_size", "num_groups", "num_chosen_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name}={getattr(self, name)}: give a number of at least 1")
        for name in ("shared_size", "num_dense_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"model {name}={getattr(self, name)}: give 0 or more")
        if self.num_experts % self.num_groups or self.num_experts < 2 * self.num_groups:
            raise ValueError(
                f"model num_experts={self.num_experts} in num_groups={self.num_groups}: every "
                "group must hold equally many, and two at least, since its score is their sum"
            )
        if self.num_chosen_groups > self.num_groups:
            raise ValueError(
                f"model num_chosen_groups={self.num_chosen_groups} is more than "
                f"num_groups={self.num_groups}: choose among those that there are"
            )
        open_experts = self.num_experts // self.num_groups * self.num_chosen_groups
        if self.num_chosen > open_experts:
            raise ValueError(
                f"model num_chosen={self.num_chosen}: the chosen groups hold only {open_experts} "
                "experts; choose fewer experts or more groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One transformer, and the token ids with a meaning of their own.

    Raises:
        ValueError: a field out of range, or two fields that contradict each other.
    """

    family: str
    vocab_size: int
    """Rows of the embedding and of the head, at least as many as the tokenizer has ids."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int
    rope_theta: float
    norm_eps: float
    max_positions: int
    """The longest canvas (prompt and generation region together) that the model was trained for."""
    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    """Each of them ends a generation; the first is the checkpoint's own `eos_token_id`."""
    tied_head: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    """RMS norm of every query and key head, before the rotary positions."""
    rotary_dim: int | None = None
    """How much of a head, from its start, the rotary positions turn; None: all of it."""
    block_length: int | None = None
    """Positions of a block under block-causal attention: a position sees its own block and all
    before it; None: every position sees the whole canvas."""
    is_shifted: bool = False
    """The logits at a position are those of the next one, as in the autoregressive model that this
    one was trained from."""
    experts: ExpertsConfig | None = None
    """None: every layer has one MLP."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "mlp_size", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name}={getattr(self, name)}: give a number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model num_heads={self.num_heads} is no multiple of "
                f"num_kv_heads={self.num_kv_heads}: each must serve equally many query heads"
            )
        self._check_rotary()
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(
                f"model block_length={self.block_length}: give at least 1, or leave it out where "
                "every position sees the whole canvas"
            )
        self._check_token_ids()

    def _check_rotary(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"model head_dim={self.head_dim}: rotary positions need an even size")
        if self.rotary_dim is None:
            return
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= self.head_dim:
            raise ValueError(
                f"model rotary_dim={self.rotary_dim}: give an even number of at least 2 and at "
                f"most head_dim={self.head_dim}"
            )

    def _check_token_ids(self) -> None:
        if not self.eos_token_ids:
            raise ValueError("model eos_token_ids is empty: no generation could end")
        for name, ids in (
            ("mask_token_id", (self.mask_token_id,)),
            ("eos_token_id", self.eos_token_ids),
        ):
            for token_id in ids:
                if not 0 <= token_id < self.vocab_size:
                    raise ValueError(
                        f"model {name}={token_id} is no row of the vocabulary of "
                        f"{self.vocab_size}: config.json contradicts itself, or leaves the id out "
                        "and is of another model than it says"
                    )
        if self.mask_token_id in self.eos_token_ids:
            raise ValueError(
                f"model mask_token_id and eos_token_id are both {self.mask_token_id}: "
                "a finished position could not be told from an open one"
            )
