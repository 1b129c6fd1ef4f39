"""The engine's settings, except those of the decoding strategy and the cache policy.

Strategies (engine/decoding/) and policies (engine/cache/) are dataclasses of their own settings.
"""

from dataclasses import dataclass, fields

from engine.errors import UserError
from engine.model.authors import OPENINGS
from engine.soft import SoftIteration

BLOCK_LENGTH = 32
"""The default for models whose config has no block length."""
KERNELS = ("auto", "triton", "torch")
BACKENDS = ("diffusion", "transformers")
OF_TRANSFORMERS = (
    *("backend", "stop_at_eos", "max_sequences", "iteration_tokens", "cache_tokens"),
    *("memory_fraction", "page_size", "graphs"),
)
"""The fields of EngineConfig that mean something with backend=transformers."""
BYTES_PER_LOGIT = {False: 24, True: 44}
"""Peak memory per logit in plain torch, in bytes, without (False) and with (True) sampling noise,
which is hashed and drawn in 64 bits. Enough for the strategies that were measured to take the most:
entropy_bound takes 21 and credit with noise 41; threshold takes 13 and 37."""
NO_SOFT_ITERATION = SoftIteration()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How canvases are divided into blocks, how many sequences are live at once, and how much
    memory they may take.

    Raises:
        UserError: a field out of range.
    """

    backend: str = "diffusion"
    """`diffusion`: this project's engine. `transformers` (chosen with engine=transformers): the
    continuous batching of the transformers library, for an autoregressive checkpoint that a
    diffusion model is compared with (docs/rival.md)."""
    block_length: int | None = None
    """Positions denoised together; the last block of a generation region may be shorter. null: the
    length that a block-causal model was trained with, and 32 for any other model. A block-causal
    model also takes a divisor of its length: its blocks are then denoised in sub-blocks, as
    Fast_dLLM_v2 does (8 of 32)."""
    opening: str | None = None
    """What commits in the forward that opens a block. `free`: what the strategy chooses. `alone`:
    the block's first position and nothing else, as in Fast_dLLM_v2 and in Fast-dLLM's Dream; a
    block-causal model opens its attention blocks so, no sub-blocks, and no block that begins with
    the prompt's tail. `first`: what the strategy chooses, and the first position of an attention
    block. Block-causal models take `first` and `alone` only if their logits are shifted, since then
    an attention block's first logits are final. null: as the strategy says (`dream`: free), else
    as the model's authors do. With decoding.suppress_eos, `logits` gives an opening another word;
    what only waits for others commits there."""
    stop_at_eos: bool = True
    """End a sequence once an EOS is committed and nothing before it is masked."""
    max_sequences: int = 32
    """At most this many sequences are live at once. A higher number packs more sequences into each
    forward, and needs more memory."""
    iteration_tokens: int = 8192
    """At most this many query tokens in one forward; a longer span gets a forward to itself.
    Sequences that do not fit sit out the iteration and come first in the next one. This spreads
    refreshes over iterations, so that they do not stall the other sequences."""
    cache_tokens: int | None = 16384
    """Canvas positions that the KV cache can hold, for all live sequences together; null: as many
    as memory_fraction has room for, up to max_sequences canvases of the model's context. A row with
    guidance takes two canvases."""
    memory_fraction: float = 0.8
    """Share of the memory left free by the weights that the KV cache may take. Only used if
    cache_tokens is null."""
    page_size: int = 16
    """Canvas positions per page; a canvas is granted whole pages."""
    logits_bytes: int = 2**30
    """Limit on the memory taken by a forward's logits and by what is computed from them. To stay
    within it, the head and the decoding strategy process the requested positions in pieces."""
    tensor_parallel: int = 1
    """Ranks that hold one model together, each a share of it; the job's ranks are divided into
    groups of this size. Use more than 1 if the model does not fit on one GPU."""
    expert_parallel: bool = False
    """true: each rank of a group holds some of the experts whole; false: each rank holds a slice
    of every expert."""
    kernels: str = "auto"
    """`triton`: the fused kernels of engine/kernels; `torch`: plain torch; `auto`: the fused
    ones on a GPU, for a model that they serve, else plain torch."""
    batch_invariant: bool = True
    """true: a row's tokens and confidences are the same bits in any batch, in bfloat16 on a GPU
    too. false: kernels whose bits depend on the batch may be taken where they are faster."""
    graphs: bool = True
    """Whether small forwards on a GPU are captured as CUDA graphs and replayed. Only the fused
    kernels can be captured, only where one rank holds the whole model, and only forwards that
    compute no logits with guidance. No token changes."""
    soft: SoftIteration = NO_SOFT_ITERATION

    def __post_init__(self) -> None:
        at_least_1 = (
            *("block_length", "max_sequences", "iteration_tokens", "cache_tokens"),
            *("page_size", "logits_bytes", "tensor_parallel"),
        )
        for name in at_least_1:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"engine.{name}={getattr(self, name)}: give at least 1")
        if self.cache_tokens is not None and self.cache_tokens < self.page_size:
            raise UserError(
                f"engine.cache_tokens={self.cache_tokens} is less than one page "
                f"(engine.page_size={self.page_size}): raise it to at least the longest canvas"
            )
        self._check_backend()
        if not 0 < self.memory_fraction < 1:
            raise UserError(
                f"engine.memory_fraction={self.memory_fraction}: give a share between 0 and 1"
            )
        if self.opening is not None and self.opening not in OPENINGS:
            raise UserError(
                f"engine.opening={self.opening!r}: give one of {', '.join(OPENINGS)}, or null for "
                "the rule of the model's authors"
            )
        if self.kernels not in KERNELS:
            raise UserError(f"engine.kernels={self.kernels!r}: give one of {', '.join(KERNELS)}")
        if self.expert_parallel and self.tensor_parallel == 1:
            raise UserError(
                "engine.expert_parallel=true with engine.tensor_parallel=1: a single rank holds "
                "all experts; set engine.tensor_parallel to the number of ranks to divide the "
                "experts among, or engine.expert_parallel=false"
            )

    def _check_backend(self) -> None:
        if self.backend not in BACKENDS:
            raise UserError(f"engine.backend={self.backend!r}: give one of {', '.join(BACKENDS)}")
        if self.backend == "diffusion":
            return
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in OF_TRANSFORMERS and value != field.default:
                raise UserError(
                    f"engine.{field.name}={value} with engine=transformers: does not apply to an "
                    "autoregressive model, which one worker holds whole; leave it out"
                )

    def positions_of_a_piece(self, num_words: int, bytes_per_logit: int) -> int:
        """How many requested positions, with `num_words` logits each, logits_bytes has room for;
        at least 1."""
        return max(1, self.logits_bytes // (num_words * bytes_per_logit))

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)
