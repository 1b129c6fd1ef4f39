"""Which tensor of a checkpoint fills which rows of which parameter, and who has it in a group?

Of the transformer in engine/model/transformer.py; families differ in names alone.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.model.config import ModelConfig
from engine.parallel import TensorParallel

Split = Literal["rows", "columns", "q_rows", "kv_rows", "q_columns"]
"""Along what a rank's share lies: single rows or columns, or those of whole heads."""


class Piece(NamedTuple):
    """Rows of one tensor of a checkpoint.

    The rows of experts, stacked in one parameter [experts, rows, columns], are all the first
    expert's, then all the second's, and so on.
    """

    name: str
    shape: tuple[int, ...]
    """Of these rows, on all ranks together."""
    split: Split | None = None
    """None: every rank has all."""
    first: int = 0
    """Where the rows begin in the tensor."""
    expert: int | None = None

    def share(self, config: ModelConfig, parallel: TensorParallel) -> tuple[slice, ...] | None:
        """Where a rank's share of the tensor lies; None if it has none."""
        rows = range(self.shape[0])
        others = [slice(0, size) for size in self.shape[1:]]
        if self.expert is not None and parallel.split_experts:
            if self.expert not in parallel.share(experts_of(config)):
                return None
        elif self.split in ("columns", "q_columns"):
            others[0] = _run(range(self.shape[1]), self.split, config, parallel)
        elif self.split is not None:
            run = _run(rows, self.split, config, parallel)
            rows = range(run.start, run.stop)
        return (slice(self.first + rows.start, self.first + rows.stop), *others)


WeightMap = dict[str, tuple[Piece, ...]]
"""Our parameter -> the pieces that it is stacked from, first rows first."""


def _run(whole: range, split: Split, config: ModelConfig, parallel: TensorParallel) -> slice:
    if split in ("rows", "columns"):
        share, unit = parallel.share(len(whole)), 1
    elif split == "kv_rows":
        share, unit = parallel.kv_heads(config.num_kv_heads), config.head_dim
    else:
        share, unit = parallel.share(config.num_heads), config.head_dim
    return slice(share.start * unit, share.stop * unit)


def experts_of(config: ModelConfig) -> int:
    return 0 if config.experts is None else config.experts.num_experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a family calls its tensors, without `.weight`; those of a layer stand behind
    `layer`, those of an MLP behind the MLP's own name. The defaults are Qwen's."""

    embed: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers"
    attn_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """One name where the checkpoint has them packed in one tensor."""
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp."
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    router: str = "mlp.gate"
    router_bias: str = "mlp.gate.expert_bias"
    """The whole name."""
    experts: str = "mlp.experts"
    shared: str = "mlp.shared_experts."


def weight_map(config: ModelConfig, names: Names) -> WeightMap:
    """Every parameter of the transformer that `config` describes."""
    hidden, vocab = config.hidden_size, config.vocab_size
    pieces: WeightMap = {
        "embed.weight": (Piece(f"{names.embed}.weight", (vocab, hidden)),),
        "norm.weight": (Piece(f"{names.norm}.weight", (hidden,)),),
    }
    if not config.tied_head:
        pieces["head.weight"] = (Piece(f"{names.head}.weight", (vocab, hidden), "rows"),)
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}", f"{names.layer}.{i}"
        pieces |= _attention(ours, theirs, config, names)
        for norm, name in (("attn_norm", names.attn_norm), ("mlp_norm", names.mlp_norm)):
            pieces[f"{ours}.{norm}.weight"] = (Piece(f"{theirs}.{name}.weight", (hidden,)),)
        if config.experts is None or i < config.experts.num_dense_layers:
            root = f"{theirs}.{names.mlp}"
            pieces |= _mlp(f"{ours}.mlp", root, config.mlp_size, hidden, names)
        else:
            pieces |= _moe(f"{ours}.mlp", theirs, config, names)
    return pieces


def tensor_shapes(pieces: WeightMap) -> dict[str, tuple[int, ...]]:
    """Of every tensor of a checkpoint that has these pieces."""
    shapes: dict[str, tuple[int, ...]] = {}
    for piece in (piece for stacked in pieces.values() for piece in stacked):
        rows = piece.first + piece.shape[0]
        shapes[piece.name] = (max(rows, shapes.get(piece.name, (0,))[0]), *piece.shape[1:])
    return shapes


def _attention(ours: str, theirs: str, config: ModelConfig, names: Names) -> WeightMap:
    hidden, head_dim = config.hidden_size, config.head_dim
    q_rows, kv_rows = config.num_heads * head_dim, config.num_kv_heads * head_dim
    out = Piece(f"{theirs}.{names.out}.weight", (hidden, q_rows), "q_columns")
    pieces: WeightMap = {f"{ours}.attn.out.weight": (out,)}
    splits: tuple[Split, ...] = ("q_rows", "kv_rows", "kv_rows")
    is_packed = len(names.qkv) == 1
    for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
        stacked, first = [], 0
        for i, (rows, split) in enumerate(zip((q_rows, kv_rows, kv_rows), splits, strict=True)):
            name = f"{theirs}.{names.qkv[0 if is_packed else i]}.{kind}"
            shape = (rows, hidden) if kind == "weight" else (rows,)
            stacked.append(Piece(name, shape, split, first if is_packed else 0))
            first += rows
        pieces[f"{ours}.attn.qkv.{kind}"] = tuple(stacked)
    if config.qk_norm:
        for norm, name in (("q_norm", names.q_norm), ("k_norm", names.k_norm)):
            pieces[f"{ours}.attn.{norm}.weight"] = (Piece(f"{theirs}.{name}.weight", (head_dim,)),)
    return pieces


def _mlp(ours: str, root: str, size: int, hidden: int, names: Names) -> WeightMap:
    gate_up, down = _swiglu(root, size, hidden, names)
    return {f"{ours}.gate_up.weight": gate_up, f"{ours}.down.weight": (down,)}


def _moe(ours: str, theirs: str, config: ModelConfig, names: Names) -> WeightMap:
    experts, hidden = config.experts, config.hidden_size
    assert experts is not None, "only a mixture of experts comes here"
    X = experts.num_experts
    gate_ups: list[Piece] = []
    downs: list[Piece] = []
    for j in range(X):
        root = f"{theirs}.{names.experts}.{j}."
        gate_up, down = _swiglu(root, experts.expert_size, hidden, names, expert=j)
        gate_ups += gate_up
        downs.append(down)
    pieces: WeightMap = {
        f"{ours}.router.weight": (Piece(f"{theirs}.{names.router}.weight", (X, hidden)),),
        f"{ours}.experts.gate_up": tuple(gate_ups),
        f"{ours}.experts.down": tuple(downs),
    }
    if experts.has_bias:
        pieces[f"{ours}.router.bias"] = (Piece(f"{theirs}.{names.router_bias}", (X,)),)
    if experts.shared_size:
        root = f"{theirs}.{names.shared}"
        pieces |= _mlp(f"{ours}.shared", root, experts.shared_size, hidden, names)
    return pieces


def _swiglu(
    root: str, size: int, hidden: int, names: Names, expert: int | None = None
) -> tuple[tuple[Piece, Piece], Piece]:
    gate, up = (
        Piece(f"{root}{name}.weight", (size, hidden), "rows", expert=expert)
        for name in (names.gate, names.up)
    )
    down = Piece(f"{root}{names.down}.weight", (hidden, size), "columns", expert=expert)
    return (gate, up), down
