"""What graphs pad: the sizes, the contents of a padded batch, and how much it is over a run."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.batch import HostBatch, pack
from engine.batch_buffer import ALIGNMENT, BatchShape
from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding.threshold import Threshold
from engine.device_batch import Batch, BatchSender
from engine.engine import DiffusionEngine
from engine.graphs import MOST_QUERY_TOKENS, Graphs, padded_query_tokens, padded_shape
from engine.request import Request
from tests.engine.tape import run_again
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

SCRATCH = 999


class Tiles(NamedTuple):
    """Attention's tiles, as the kernels lay them out on the host."""

    tile: str
    run_A: np.ndarray
    first_A: np.ndarray


def batch_of(num_requests: int, temperature: float = 0.0) -> HostBatch:
    """A first forward of mixed requests."""
    engine = DiffusionEngine(
        tiny_llada2_model(block_length=12),
        config=EngineConfig(block_length=12),
        decoding=Threshold(),
        cache=CACHE_POLICIES["block_causal"](),
    )
    for request in mixed_requests(num_requests, temperature=temperature):
        engine.add(request)
    return pack(engine.iterations.schedule(), engine.model_config)


def tiles_of(host: HostBatch) -> list[Tiles]:
    """One tile for each run, and one list without a tile."""
    runs = np.arange(host.first_slot_R.size, dtype=np.int32)
    none = np.empty(0, dtype=np.int32)
    return [Tiles("paged", runs, host.query_starts[:-1]), Tiles("long", none, none)]


def sender() -> BatchSender:
    return BatchSender(
        torch.device("cpu"), scratch_slot=SCRATCH, block_length=12, longest_context=252
    )


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    fields = {
        **{name: getattr(batch, name) for name in Batch._fields},
        **{name: getattr(batch.asked, name) for name in batch.asked._fields},
        **{name: getattr(batch.layout, name) for name in batch.layout.__slots__},
        **{f"run_A{i}": tiles.run_A for i, tiles in enumerate(batch.tiles)},
        **{f"first_A{i}": tiles.first_A for i, tiles in enumerate(batch.tiles)},
    }
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def test_a_sent_batch_holds_the_plan_at_aligned_addresses() -> None:
    host = batch_of(5, temperature=0.3)
    batch = sender().send(host, tiles_of(host))
    tensors = tensors_of(batch)
    for name in ("positions_Q", "slots_M", "sequence_M", "seed_B", "query_starts", "first_slot_R"):
        assert np.array_equal(tensors[name].numpy(), getattr(host, name)), name
    assert torch.equal(batch.asked.temperature_B, torch.full((5,), 0.3))
    assert batch.asked.any_sampled
    assert [tiles.tile for tiles in batch.tiles] == ["paged", "long"]
    assert np.array_equal(batch.tiles[0].first_A.numpy(), host.query_starts[:-1])
    assert batch.num_rows is None
    own = [t for name, t in tensors.items() if name not in ("token_M", "is_masked_M")]
    assert all(t.data_ptr() % ALIGNMENT == 0 for t in own)


def test_a_fixed_batch_holds_one_plan_after_the_other_and_padding_behind_it() -> None:
    large, small, to = batch_of(7), batch_of(3), sender()
    shape = padded_shape(large, tiles_of(large))
    fixed = to.fixed(shape)
    assert (fixed.batch.slots_Q == SCRATCH).all()
    assert (fixed.batch.asked.sequence_M == 0).all()
    for host in (large, small):
        to.fill(fixed, host, tiles_of(host))
        batch, tensors = fixed.batch, tensors_of(fixed.batch)
        Q, M, B, R = BatchShape.of(host, ())[:4]
        assert shape.num_query_tokens >= Q
        for name, size, padding in [
            ("positions_Q", Q, 0),
            ("slots_Q", Q, SCRATCH),
            ("index_M", M, 0),
            ("logit_index_M", M, 0),
            ("slots_M", M, SCRATCH),
            ("sequence_M", M, B),
            ("num_iterations_in_block_B", B, 0),
            ("temperature_B", B, 0),
            ("query_starts", R + 1, Q),
            ("first_slot_R", R, SCRATCH),
        ]:
            tensor = tensors[name]
            assert np.array_equal(tensor[:size].numpy(), getattr(host, name)), name
            assert (tensor[size:] == padding).all(), name
        assert batch.num_rows is not None
        assert batch.num_rows.tolist() == [Q]
        assert batch.tiles[0].run_A[R:].eq(-1).all()
        assert batch.layout.host_runs is None
        assert batch.layout.longest_context == 252


def test_sizes_grow_in_steps_of_an_eighth_at_most() -> None:
    sizes = [padded_query_tokens(number) for number in range(1, MOST_QUERY_TOKENS + 1)]
    assert sizes == sorted(sizes)
    for number, size in enumerate(sizes, 1):
        assert number <= size < number + max(8, number / (8 if number <= 1024 else 16))
    assert padded_query_tokens(128) == 128
    assert padded_query_tokens(129) == 144
    assert padded_query_tokens(513) == 576
    assert padded_query_tokens(1025) == 1088
    assert len(set(sizes)) == 72


@pytest.mark.parametrize("num_requests", [1, 2, 3, 4, 8])
def test_padding_positions_have_a_sequence_of_their_own(num_requests: int) -> None:
    host = batch_of(num_requests)
    shape = padded_shape(host, tiles_of(host))
    assert shape.num_sequences > host.seed_B.size
    assert host.index_M.size <= shape.num_asked <= shape.num_query_tokens


def commit_some(batch: Batch) -> Tensor:
    """A device part without a model: commits the first requested position of each sequence, and
    half of the others."""
    asked = batch.asked
    is_first_M = asked.sequence_M.diff(prepend=asked.sequence_M.new_full((1,), -1)) != 0
    commits_M = is_first_M | (asked.position_M * 2654435761 % 97 < 48)
    token_M = torch.ones_like(asked.sequence_M).where(commits_M, -1).int()
    return torch.stack((token_M, torch.zeros_like(token_M)))


def share_of_padding(model: Any, cache: str, num_sequences: int) -> float:
    """Padding over the query tokens of a run: prompts of about 512 tokens, up to 128 new ones."""
    engine = DiffusionEngine(
        model,
        config=EngineConfig(cache_tokens=None, max_sequences=num_sequences, memory_fraction=0.01),
        decoding=Threshold(),
        cache=CACHE_POLICIES[cache](),
    )
    engine.forwards.device_part = commit_some  # type: ignore[method-assign]
    engine.forwards.graphs = Graphs(commit_some, engine.forwards.sender, run_again)
    requests = [
        Request(request_id=i, prompt_ids=[1] * (505 + i), max_new_tokens=128 - i % 9)
        for i in range(max(4, num_sequences + num_sequences // 2))
    ]
    assert all(result.error is None for result in engine.results(requests))
    stats = engine.stats
    return stats.num_padding_tokens / sum(stats.num_query_tokens.values())


MODELS = {
    "bidirectional": tiny_model(n_layers=1, max_sequence_length=1024),
    "block-causal": tiny_llada2_model(block_length=32, max_position_embeddings=1024),
}


@pytest.mark.parametrize("num_sequences", [1, 8, 32])
@pytest.mark.parametrize(
    ("attention", "cache"),
    [
        *(("bidirectional", name) for name in CACHE_POLICIES if name != "block_causal"),
        ("block-causal", "block_causal"),
    ],
)
def test_padding_is_at_most_a_twentieth_of_a_run(
    attention: str, cache: str, num_sequences: int
) -> None:
    assert share_of_padding(MODELS[attention], cache, num_sequences) <= 0.05
