"""A checkpoint whose head is tied may hold the head as well, as iLLaDA's do, if it is the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.model import weights
from engine.model.load import check_weights, load_model
from engine.model.plan.footprint import PlannedRank
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, write_tiny_checkpoint

HEAD = "lm_head.weight"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    """All tensors, each in a file of its own; the head's comes first, so it is read before the
    embedding."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
    for i, name in enumerate(sorted(tensors)):
        save_file({name: tensors[name]}, folder / f"model-{i:05}.safetensors")


@pytest.fixture
def illada(tmp_path: Path) -> dict[str, Tensor]:
    write_weights(tmp_path, "illada", **small_vocabulary("illada", MASK, EOS))
    return tensors_of(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_may_be_there_and_need_not(
    illada: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    assert torch.equal(illada[HEAD], illada["model.embed_tokens.weight"])
    model = load_model(tmp_path, dtype)
    assert torch.equal(model.head_weight, illada[HEAD].to(dtype))
    rewrite(tmp_path, illada)
    assert torch.equal(load_model(tmp_path, dtype).head_weight, model.head_weight)
    rewrite(tmp_path, {name: x for name, x in illada.items() if name != HEAD})
    check_weights(tmp_path)
    assert torch.equal(load_model(tmp_path, dtype).head_weight, model.head_weight)


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_another_head_is_refused_on_every_rank(
    illada: dict[str, Tensor], tmp_path: Path, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last row differs, in the last of several windows."""
    monkeypatch.setattr(weights, "WINDOW_BYTES", 10 * illada[HEAD][0].nbytes)
    parallel = {} if rank is None else {"parallel": PlannedRank(rank, 2)}
    load_model(tmp_path, **parallel)
    other = illada[HEAD].clone()
    other[-1, -1] += 1
    rewrite(tmp_path, illada | {HEAD: other})
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from the embedding.*delete the"):
        load_model(tmp_path, **parallel)


def test_a_head_of_another_shape_is_refused_before_loading(
    illada: dict[str, Tensor], tmp_path: Path
) -> None:
    rewrite(tmp_path, illada | {HEAD: illada[HEAD][:-1].clone()})
    with pytest.raises(ValueError, match=r"misshapen lm_head\.weight \[96, 48\], not \[97, 48\]"):
        check_weights(tmp_path)


def test_lladas_tied_head_may_be_there_too(tmp_path: Path) -> None:
    written = write_tiny_checkpoint(tmp_path, weight_tying=True)
    tensors = tensors_of(tmp_path)
    name = "model.transformer.ff_out.weight"
    assert name not in tensors
    rewrite(tmp_path, tensors | {name: written.embed.weight.detach().clone()})
    assert torch.equal(load_model(tmp_path).embed.weight, written.embed.weight)
    rewrite(tmp_path, tensors | {name: written.embed.weight.detach() + 1})
    with pytest.raises(ValueError, match=r"ff_out\.weight differs .* LLaDA's weight_tying=false"):
        load_model(tmp_path)
