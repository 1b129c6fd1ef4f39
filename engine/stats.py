"""The engine's counters: totals since the engine was created. Take differences for rates."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """Totals over all sequences."""

    num_iterations: int = 0
    """Forwards, each over a whole batch."""
    num_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards counted once per sequence in them, by kind of span: `refresh`, `block`, `commit`,
    `edit`; with engine=transformers `prefill` and `decode`."""
    num_query_tokens: dict[str, int] = field(default_factory=dict)
    """Query tokens by kind of span."""
    num_padding_tokens: int = 0
    """Query tokens of no sequence, which only fill a forward up to the shape of a graph; no other
    count includes them."""
    num_prompt_tokens: int = 0
    """Prompt tokens of finished sequences."""
    num_generated_tokens: int = 0
    """Tokens before EOS of finished sequences."""
    num_failed_forwards: int = 0
    """Forwards that ran out of memory. Their sequences were run again, in smaller batches."""
    num_failed_query_tokens: int = 0
    """Query tokens of the failed forwards; no other count includes them."""
    peak_sequences: int = 0
    """Most sequences in one forward."""
    peak_pages: int = 0
    """Most pages granted at once."""
    iteration_s: float = 0.0
    """Wall seconds inside run_iteration."""
    forward_s: float = 0.0
    """Seconds of `iteration_s` spent in the model: its forward and its head. Where an iteration is
    a graph, all of its work on the device."""
    first_iteration_at: float | None = None
    """time.perf_counter() at the end of the first iteration. The time before counts as warm-up."""
