"""What a transformer is, in numbers: what every family translates its `config.json` into."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One bidirectional transformer, and the token ids with a meaning of their own.

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
    eos_token_id: int
    tied_head: bool = False

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
        if self.head_dim % 2:
            raise ValueError(f"model head_dim={self.head_dim}: rotary positions need an even size")
        for name in ("mask_token_id", "eos_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(
                    f"model {name}={getattr(self, name)} is no row of the vocabulary of "
                    f"{self.vocab_size}: config.json and the tokenizer disagree"
                )
        if self.mask_token_id == self.eos_token_id:
            raise ValueError(
                f"model mask_token_id and eos_token_id are both {self.mask_token_id}: "
                "a finished position could not be told from an open one"
            )
