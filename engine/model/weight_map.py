"""Maps a checkpoint's tensors to the parameters of engine/model/transformer.py: which tensor fills
which rows of which parameter, and which part of it a rank of a tensor-parallel group holds.

Families differ only in how they name their tensors.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.model.config import ModelConfig
from engine.parallel import TensorParallel

Split = Literal["rows", "columns", "q_rows", "kv_rows", "q_columns"]
"""How a tensor is split over the ranks: by single rows or columns, or by those of whole heads."""


class Piece(NamedTuple):
    """A run of rows of one checkpoint tensor, which becomes a run of rows of one parameter.

    A parameter [experts, rows, columns] that stacks experts is filled as if it were flattened to
    two dimensions: all rows of the first expert, then all of the second, and so on.
    """

    name: str
    shape: tuple[int, ...]
    """Shape of these rows before they are split over the ranks."""
    split: Split | None = None
    """None: every rank holds all of it."""
    first: int = 0
    """Index of the first row in the tensor."""
    expert: int | None = None
    """Index of the expert that the rows belong to; None: no expert's."""

    def share(self, config: ModelConfig, parallel: TensorParallel) -> tuple[slice, ...] | None:
        """The slices that cut this rank's share out of the tensor; None if it has no share."""
        rows = range(self.shape[0])
        others = [slice(0, size) for size in self.shape[1:]]
        if self.expert is not None and parallel.split_experts:
            if self.expert not in parallel.share(num_experts_of(config)):
                return None
        elif self.split in ("columns", "q_columns"):
            others[0] = _split_run(range(self.shape[1]), self.split, config, parallel)
        elif self.split is not None:
            run = _split_run(rows, self.split, config, parallel)
            rows = range(run.start, run.stop)
        return (slice(self.first + rows.start, self.first + rows.stop), *others)


WeightMap = dict[str, tuple[Piece, ...]]
"""Parameter name -> the pieces that are stacked to fill it, in the order of its rows."""


def _split_run(whole: range, split: Split, config: ModelConfig, parallel: TensorParallel) -> slice:
    """This rank's run of `whole`, the rows or columns of a tensor."""
    if split in ("rows", "columns"):
        share, unit = parallel.share(len(whole)), 1
    elif split == "kv_rows":
        share, unit = parallel.kv_heads(config.num_kv_heads), config.head_dim
    else:
        share, unit = parallel.share(config.num_heads), config.head_dim
    return slice(share.start * unit, share.stop * unit)


def num_experts_of(config: ModelConfig) -> int:
    return 0 if config.experts is None else config.experts.num_experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names that a family gives its tensors, without `.weight`. Names of a layer's tensors are
    relative to `layer` and the layer's number; names of an MLP's tensors are relative to the MLP
    (`mlp`, `experts` or `shared`). The defaults are Qwen's."""

    embed: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers"
    attn_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """Three names, or one if the checkpoint packs query, key and value in one tensor."""
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
    """The full name within the layer: no `.weight` is added."""
    experts: str = "mlp.experts"
    shared: str = "mlp.shared_experts."


def weight_map(config: ModelConfig, names: Names) -> WeightMap:
    """The pieces of every parameter of the transformer that `config` describes."""
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


def head_copy(config: ModelConfig, names: Names) -> dict[str, str]:
    """Tensor -> parameter that it must equal: a checkpoint with a tied head may hold it as well."""
    return {f"{names.head}.weight": "embed.weight"} if config.tied_head else {}


def tensor_shapes(pieces: WeightMap) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, for every tensor of a checkpoint with these pieces."""
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
    assert experts is not None, "called only for layers with experts"
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
