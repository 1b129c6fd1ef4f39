"""The engine on a GPU generates the same tokens as the plain loops on the CPU, in float32."""

import pytest
import torch

from tests.numerics.combinations import Combination
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

pytestmark = pytest.mark.gpu

COMBINATIONS = [
    ("bidirectional", Combination({"name": "dual"}, {"name": "threshold"})),
    ("bidirectional", Combination({"name": "commit"}, {"name": "credit"})),
    ("bidirectional", Combination({"name": "dkv"}, {"name": "klass"})),
    ("block-causal", Combination({"name": "block_causal"}, {"name": "edit"})),
]


@pytest.mark.parametrize(("attention", "combination"), COMBINATIONS, ids=str)
def test_tokens_equal_those_of_the_cpu(attention: str, combination: Combination) -> None:
    make = tiny_model if attention == "bidirectional" else tiny_llada2_model
    length = make().config.block_length or 16
    requests = mixed_requests(24, temperature=0.7)
    results = combination.run(make().cuda(), requests, block_length=length)
    model = make()
    for request in requests:
        expected = combination.reference(model, request, length)
        assert results[request.request_id].token_ids == expected.token_ids


def test_pages_follow_from_the_gpus_free_memory() -> None:
    combination = Combination({"name": "dual"}, {"name": "threshold"})
    engine = combination.engine(tiny_model().cuda(), cache_tokens=None, memory_fraction=0.1)
    assert 0 < engine.num_pages * engine.page_bytes < 0.11 * torch.cuda.mem_get_info()[1]


def test_bfloat16_runs() -> None:
    combination = Combination({"name": "dual"}, {"name": "threshold"})
    model = tiny_model().to("cuda", torch.bfloat16)
    results = combination.run(model, mixed_requests(12), block_length=16)
    assert all(result.error is None for result in results.values())
