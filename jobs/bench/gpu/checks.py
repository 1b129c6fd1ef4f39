"""Checks that come before any figure: the kernels compute what plain torch does, graphs change
nothing, and a row has the same bits alone and in every batch.

They run the real engine on the real widths in few layers.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from engine.decoding.fixed import Fixed
from engine.engine import DiffusionEngine
from engine.kernels.supported import ModelShape, unsupported
from engine.llm_arguments import engine_config
from engine.model.transformer import Transformer
from engine.request import Request, Result
from jobs.bench.gpu.measure import requests
from jobs.bench.gpu.models import BenchModel, random_model

NUM_LAYERS = 2
LITTLE_MEMORY = {"iteration_tokens": 4096, "logits_bytes": 2**28}
"""Several processes check on one card at the same time."""
BATCHES = (1, 2, 8)
"""Sequences at once that are compared with all rows at once."""
MOST_DIFFERENT = 1
"""Rows that may differ between two ways to compute in float32: two words can be that near."""


class Found(NamedTuple):
    check: str
    found: str
    holds: bool

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def kernel_checks(
    model: BenchModel, device: torch.device, rows: tuple[int, ...]
) -> Iterator[Found]:
    """The kernels against their references; to be called where they can run."""
    from jobs.bench.gpu.kernel_checks import KernelChecks  # imports triton

    for compared in KernelChecks(model.config, device, model.dtype, rows).run():
        yield Found(
            f"{model.title}: kernel: {compared.operation}",
            f"error {compared.error:.1e}, at most {compared.limit:.1e}",
            compared.error <= compared.limit,
        )


def without_kernels(model: BenchModel, device: torch.device) -> str | None:
    """Why the model does not run on the kernels here; None if it does."""
    config, experts = model.config, model.config.experts
    groups = (
        {}
        if experts is None
        else {
            "num_experts": experts.num_experts,
            "num_groups": experts.num_groups,
            "num_chosen_groups": experts.num_chosen_groups,
        }
    )
    shape = ModelShape(
        hidden_size=config.hidden_size,
        head_dim=config.head_dim,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        **groups,
    )
    return unsupported(shape, model.dtype, device)


def engine_checks(model: BenchModel, device: torch.device, num_rows: int) -> Iterator[Found]:
    """The same rows without graphs, in other batches and in another order."""
    few = model.with_layers(NUM_LAYERS)
    transformer = random_model(few, device)
    rows, is_cuda = Rows(few, transformer, num_rows), device.type == "cuda"
    whole = rows.run(num_rows)
    eager = rows.run(num_rows, graphs=False)
    yield _same(f"{model.title}: without graphs", whole, eager, is_cuda)
    for batch in BATCHES:
        if batch < num_rows:
            yield _same(f"{model.title}: {batch} at once", whole, rows.run(batch), is_cuda)
    turned = rows.run(num_rows, reverse=True)
    yield _same(f"{model.title}: in another order", whole, turned, is_cuda)


def float32_checks(model: BenchModel, device: torch.device, num_rows: int) -> Iterator[Found]:
    """The tokens of plain torch, in float32: in bfloat16 near-ties hide everything else."""
    wide = replace(model.with_layers(NUM_LAYERS), dtype=torch.float32)
    rows = Rows(wide, random_model(wide, device), num_rows)
    own, plain = rows.run(num_rows), rows.run(num_rows, kernels="torch", graphs=False)
    num_different = sum(a.token_ids != b.token_ids for a, b in zip(own, plain, strict=True))
    yield Found(
        f"{model.title}: tokens of plain torch, in float32",
        f"{num_different} of {num_rows} rows differ",
        num_different <= (MOST_DIFFERENT if device.type == "cuda" else 0),
    )


class Rows:
    """The same rows, run through an engine of other settings each time."""

    def __init__(self, model: BenchModel, transformer: Transformer, num_rows: int) -> None:
        self._model, self._transformer = model, transformer
        self._requests = list(_ragged(model, num_rows))

    def run(self, batch: int, reverse: bool = False, **settings: Any) -> list[Result]:
        """The results in the order of the rows.

        Raises:
            RuntimeError: a row failed.
        """
        model, device = self._model, self._transformer.embed.weight.device
        base = {"stop_at_eos": False, "max_sequences": batch, "block_length": model.block_length}
        num_pages = batch * -(-(model.canvas_len + model.block_length) // 16)
        own = LITTLE_MEMORY | settings | {"cache_tokens": num_pages * 16, "page_size": 16}
        engine = DiffusionEngine(
            self._transformer,
            config=engine_config(device, base, None, own),
            decoding=Fixed(iterations_per_block=4),
            cache=model.cache,
        )
        ordered = self._requests[::-1] if reverse else self._requests
        results = list(engine.results(ordered))
        for result in results:
            if result.error is not None:
                raise RuntimeError(f"row {result.request_id} failed: {result.error}")
        return sorted(results, key=lambda result: int(str(result.request_id)))


def _ragged(model: BenchModel, num_rows: int) -> Iterator[Request]:
    """Prompts of different lengths, two blocks and a bit of new tokens; every other row sampled."""
    num_new_tokens = model.block_length + model.block_length // 2
    for i, request in enumerate(requests(model, num_rows, num_new_tokens)):
        num_prompt_tokens = max(1, model.num_prompt_tokens - 7 * i % model.num_prompt_tokens)
        yield replace(
            request, prompt_ids=request.prompt_ids[:num_prompt_tokens], temperature=i % 2 * 0.7
        )


def _same(check: str, whole: list[Result], other: list[Result], has_bits: bool) -> Found:
    """Token ids are compared and, if `has_bits`, the bits of the confidences: on a CPU, linears may
    round in another way for another number of rows."""
    pairs = list(zip(whole, other, strict=True))
    num_tokens = sum(a.token_ids != b.token_ids for a, b in pairs)
    num_bits = sum(a.mean_confidence != b.mean_confidence for a, b in pairs)
    return Found(
        f"{check}, the same {'bits' if has_bits else 'tokens'}",
        f"{num_tokens} of {len(pairs)} rows differ in tokens, {num_bits} in confidence",
        num_tokens == 0 and (num_bits == 0 or not has_bits),
    )
