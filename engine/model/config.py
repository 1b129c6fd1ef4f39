"""The architecture of a transformer, as dataclasses that a family fills from `config.json`."""

from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import UserError
from engine.model.authors import AuthorsRules

LLADAS_RULES = AuthorsRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """The mixture of experts that replaces the MLP: its sizes, and how a token chooses experts.

    Raises:
        UserError: a field out of range, or two fields that contradict each other.
    """

    num_experts: int
    num_chosen: int
    """Number of experts that each token is routed to."""
    expert_size: int
    score: Literal["sigmoid", "softmax"]
    """The function that turns the router's logits into scores: in float32, over all experts."""
    has_bias: bool = False
    """Whether the router adds a bias to each expert's score. The bias affects which experts are
    chosen, not the weights of their outputs."""
    is_normalised: bool = True
    """Whether the weights of the chosen experts are divided by their sum."""
    routed_scale: float = 1.0
    """Factor on the weights of the chosen experts, after normalisation."""
    num_groups: int = 1
    """The experts are divided into this many groups of consecutive experts. A token first chooses
    `num_chosen_groups` groups, then its experts within those."""
    num_chosen_groups: int = 1
    shared_size: int = 0
    """Width of the shared expert, which processes every token in addition; 0: no shared expert."""
    num_dense_layers: int = 0
    """The number of first layers with one MLP of width `mlp_size` instead of experts."""

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_chosen", "expert_size", "num_groups", "num_chosen_groups"):
            if getattr(self, name) < 1:
                raise UserError(f"model {name}={getattr(self, name)}: give a number of at least 1")
        for name in ("shared_size", "num_dense_layers"):
            if getattr(self, name) < 0:
                raise UserError(f"model {name}={getattr(self, name)}: give 0 or more")
        if self.num_experts % self.num_groups or self.num_experts < 2 * self.num_groups:
            raise UserError(
                f"model num_experts={self.num_experts} in num_groups={self.num_groups}: every "
                "group must hold the same number of experts, and at least two, since a group's "
                "score is the sum of its two best"
            )
        if self.num_chosen_groups > self.num_groups:
            raise UserError(
                f"model num_chosen_groups={self.num_chosen_groups} is more than "
                f"num_groups={self.num_groups}: choose at most that many"
            )
        open_experts = self.num_experts // self.num_groups * self.num_chosen_groups
        if self.num_chosen > open_experts:
            raise UserError(
                f"model num_chosen={self.num_chosen}: the chosen groups hold only {open_experts} "
                "experts; choose fewer experts or more groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The architecture of one transformer, and its special token ids.

    Raises:
        UserError: a field out of range, or two fields that contradict each other.
    """

    family: str
    vocab_size: int
    """Rows of the embedding and of the head; at least the number of ids in the tokenizer."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int
    rope_theta: float
    norm_eps: float
    max_positions: int
    """The longest canvas (prompt and generation region together) that the model was trained for, or
    that the user allows (`with_positions`)."""
    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    """Each of these ids ends a generation; the first is the checkpoint's `eos_token_id`."""
    tied_head: bool = False
    stated_positions: int | None = None
    """The longest canvas that config.json states, where the authors say that the model was trained
    for fewer positions. None: max_positions."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """Whether every query and key head gets an RMS norm, before the rotary embedding."""
    rotary_dim: int | None = None
    """Leading dimensions of each head that the rotary embedding rotates; None: all of them."""
    block_length: int | None = None
    """Block length of block-causal attention, in which a position attends to its own block and all
    blocks before it. None: bidirectional, every position attends to the whole canvas."""
    is_shifted: bool = False
    """Whether the logits at a position predict the token of the next position, as in the
    autoregressive model that this one was trained from."""
    experts: ExpertsConfig | None = None
    """None: every layer has one MLP and no experts."""
    rules: AuthorsRules = LLADAS_RULES
    """What generation does where the user's settings say nothing."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "mlp_size", "max_positions"):
            if getattr(self, name) < 1:
                raise UserError(f"model {name}={getattr(self, name)}: give a number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"model num_heads={self.num_heads} is not a multiple of num_kv_heads="
                f"{self.num_kv_heads}: each K/V head must serve the same number of query heads"
            )
        self._check_rotary()
        if self.block_length is not None and self.block_length < 1:
            raise UserError(
                f"model block_length={self.block_length}: give at least 1, or leave it out for "
                "bidirectional attention"
            )
        self._check_token_ids()

    def with_positions(self, max_positions: int | None) -> "ModelConfig":
        """The model with another longest canvas (model.max_positions); the same for None.

        Raises:
            UserError: fewer than one, or more than config.json states.
        """
        if max_positions is None:
            return self
        most = self.stated_positions or self.max_positions
        if not 1 <= max_positions <= most:
            raise UserError(
                f"model.max_positions={max_positions}: give 1 to {most}, the most that the "
                f"checkpoint's config.json states, or null for the {self.max_positions} that the "
                "model was trained for"
            )
        return replace(self, max_positions=max_positions, stated_positions=most)

    def _check_rotary(self) -> None:
        if self.head_dim % 2:
            raise UserError(f"model head_dim={self.head_dim}: rotary positions need an even size")
        if self.rotary_dim is None:
            return
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= self.head_dim:
            raise UserError(
                f"model rotary_dim={self.rotary_dim}: give an even number of at least 2 and at "
                f"most head_dim={self.head_dim}"
            )

    def _check_token_ids(self) -> None:
        if not self.eos_token_ids:
            raise UserError("model eos_token_ids is empty: no generation could end; give an id")
        for name, ids in (
            ("mask_token_id", (self.mask_token_id,)),
            ("eos_token_id", self.eos_token_ids),
        ):
            for token_id in ids:
                if not 0 <= token_id < self.vocab_size:
                    raise UserError(
                        f"model {name}={token_id} is outside the vocabulary of "
                        f"{self.vocab_size} ids: config.json contradicts itself, or it leaves this "
                        "id out and names the wrong model_type"
                    )
        if self.mask_token_id in self.eos_token_ids:
            raise UserError(
                f"model mask_token_id and eos_token_id are both {self.mask_token_id}: "
                "a committed EOS could not be told from a masked position"
            )
