"""The check for linears whose bits depend on the number of rows, with linears that are known to."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.kernels import linear as own
from engine.model import triton_operations
from engine.model.same_bits import ALWAYS, rows_for_own_kernel
from engine.model.triton_operations import Product, laid_out
from tests.tiny import tiny_llada2_model

WEIGHT = torch.randn(24, 32, generator=torch.Generator().manual_seed(1))


def by_row(x: Tensor) -> Tensor:
    """Every row alone, so that nothing else can change its bits."""
    return torch.cat([row[None] @ WEIGHT.T for row in x])


def split_up_to(rows: int) -> Callable[[Tensor], Tensor]:
    """Adds in two halves where there are few rows, as split-k algorithms do."""

    def product(x: Tensor) -> Tensor:
        if x.shape[0] > rows:
            return by_row(x)
        return by_row(F.pad(x[:, :16], (0, 16))) + by_row(F.pad(x[:, 16:], (16, 0)))

    return product


def last_rows_differ(x: Tensor) -> Tensor:
    """Bits depend on the place in the batch."""
    y = by_row(x)
    y[-1] = torch.nextafter(y[-1], torch.tensor(9.0))
    return y


def off(x: Tensor) -> Tensor:
    """Other bits than `by_row`, but always the same ones."""
    return by_row(x) * 1.5


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (by_row, 0),
        (split_up_to(1), 2),
        (split_up_to(16), 17),
        (split_up_to(255), 256),
        (split_up_to(299), 300),
        (split_up_to(300), 0),
        (last_rows_differ, ALWAYS),
        (lambda x: by_row(x) if x.shape[0] in (8, 300) else off(x), 300),
        (lambda x: off(x) if x.shape[0] in (8, 300) else by_row(x), ALWAYS),
    ],
)
def test_the_own_kernel_computes_up_to_where_bits_are_its_own(
    product: Callable[[Tensor], Tensor], expected: int
) -> None:
    assert rows_for_own_kernel(product, by_row, 32, 300, WEIGHT) == expected
    narrow = rows_for_own_kernel(
        lambda x: product(x).bfloat16(), lambda x: by_row(x).bfloat16(), 32, 300, WEIGHT
    )
    assert narrow <= expected


def test_bits_of_its_own_kind_that_never_change_stay_with_cublas() -> None:
    assert rows_for_own_kernel(off, by_row, 32, 300, WEIGHT) == 0


def test_rows_beyond_the_limit_are_not_tried() -> None:
    sizes = []

    def product(x: Tensor) -> Tensor:
        sizes.append(x.shape[0])
        return by_row(x)

    assert rows_for_own_kernel(product, by_row, 32, 100, WEIGHT) == 0
    assert max(sizes) == 100
    assert {1, 2, 7, 16, 33, 64} <= set(sizes)


def test_memory_limits_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(
        triton_operations, "rows_for_own_kernel", lambda *args: tried.append(args[3])
    )
    product = Product(
        name="", compute=by_row, own=by_row, num_outputs=24, num_inputs=32, like=WEIGHT, layers=[]
    )
    for check_bytes in (0, (9 * 24 + 12 * 32) * 50, 2**40):
        product.own_below(check_bytes)
    assert tried == [2, 50, 16384]


def test_only_shapes_that_change_bits_are_computed_by_the_own_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llada2_model()
    seen: list[Product] = []

    def down_or_router(product: Product) -> int:
        seen.append(product)
        if product.is_router:
            return ALWAYS
        return 4 if product.layers[:1] == [model.layers[0].mlp.down] else 0

    operations = laid_out(model, down_or_router)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not model.head]
    assert sorted(map(id, (layer for product in seen for layer in product.layers))) == sorted(
        map(id, linears)
    )
    assert [product.name for product in seen if product.is_head] == ["head 97x48"]
    assert operations.own_linears == {model.layers[0].mlp.down: 4}
    assert not operations.own_head
    assert all(weights.router.own_below == ALWAYS for weights in operations.moes.values())
    calls = []
    monkeypatch.setattr(
        triton_operations, "linear", lambda x, *rest: calls.append(1) or own.linear(x, *rest)
    )
    for layer, rows in ((model.layers[0].mlp.down, (3, 4)), (model.layers[0].mlp.gate_up, (3,))):
        for count in rows:
            x = torch.randn(count, layer.in_features)
            torch.testing.assert_close(operations.linear(x, layer), layer(x), rtol=1e-5, atol=1e-5)
    assert len(calls) == 1


@pytest.mark.gpu
def test_a_model_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second engine takes over what was found, and another model is checked anew."""
    checked: list[str] = []

    def own_below(product: Product, check_bytes: int) -> int:
        checked.append(product.name)
        return ALWAYS if product.is_head else 0

    monkeypatch.setattr(Product, "own_below", own_below)
    model = tiny_llada2_model().cuda()
    first, second = (triton_operations.laid_out_with_same_bits(model, 2**20) for _ in range(2))
    assert len(checked) == len(set(checked)) > 1
    assert first.own_head
    assert second.own_head
    assert not second.own_linears
    triton_operations.laid_out_with_same_bits(tiny_llada2_model().cuda(), 2**20)
    assert len(checked) == 2 * len(set(checked))
