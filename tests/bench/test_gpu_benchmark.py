"""The GPU benchmark's whole path, on a CPU and with tiny models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.bench.gpu import steps
from jobs.bench.gpu.checks import kernel_checks, without_kernels
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.measure import Case, measure, measure_prefill, prepared, requests
from jobs.bench.gpu.models import MEASURED_BLOCKS, random_model
from jobs.bench.gpu.profile import count_touched, profile_block
from jobs.bench.gpu.record import Record
from jobs.bench.gpu.report import markdown
from jobs.bench.gpu.steps import context_of_warm_up, every_case, warm_model
from tests.bench.tiny_bench import CPU, SIZES, here, soon, tables, tiny


def test_random_models_are_always_the_same_and_differ_from_layer_to_layer() -> None:
    model = tiny("llada2_mini")
    first, second = random_model(model, CPU), random_model(model, CPU)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    layers = first.layers
    assert not torch.equal(layers[0].attn.out.weight, layers[1].attn.out.weight)
    assert all(weight.isfinite().all() for weight in first.parameters())


def test_requests_hold_every_id_but_the_masks() -> None:
    model = tiny("llada_8b", context=4096)
    ids = {id for request in requests(model, 4) for id in request.prompt_ids}
    assert ids == set(range(model.config.vocab_size)) - {model.config.mask_token_id}


@pytest.mark.parametrize("name", ["llada_8b", "llada2_mini"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_case_measures_one_cycle_of_each_sequence(name: str, batch: int) -> None:
    model = tiny(name)
    bench = prepared(random_model(model, CPU), model, Case(batch=batch))
    figures = measure(bench, soon())
    block, first = figures["block"], figures["commit" if name == "llada2_mini" else "refresh"]
    assert (block["num_sequences"], block["num_iterations"]) == (batch, 3)
    assert block["num_query_tokens"] == batch * 16
    assert (first["num_sequences"], first["num_iterations"]) == (batch, 1)
    assert first["num_query_tokens"] == batch * (2 * 16 if name == "llada2_mini" else 128)
    assert figures["num_mixed"] == figures["num_failed_forwards"] == 0
    assert block["context"] == (128 + 2 * 16 if name == "llada2_mini" else 128)
    ms = [iteration.ms for iteration in bench.iterations[-4:]]
    # The time between iterations counts too, which is long where other processes take the core.
    fastest = 1e3 * batch * 16 / sum(ms)
    assert fastest / 10 < figures["tokens_per_s"] < 1.01 * fastest
    assert bench.iterate().kind == "block"
    prefill = measure_prefill(bench, soon())
    assert prefill is not None
    assert (prefill["num_sequences"], prefill["num_query_tokens"]) == (batch, batch * 128)


def test_the_engine_has_committed_as_many_tokens_as_are_counted() -> None:
    model = tiny("llada_8b")
    bench = prepared(random_model(model, CPU), model, Case(batch=2, committed=8))
    while bench.num_tokens < 2 * model.num_new_tokens - 16:
        bench.iterate()
    results = bench.engine.run_iteration()
    assert [result.num_generated_tokens for result in results] == [model.num_new_tokens] * 2


def test_experts_are_counted_on_the_plain_engine() -> None:
    model = tiny("llada2_mini")
    bench = prepared(random_model(model, CPU), model, Case(batch=1, variant="plain"))
    measure(bench, soon())
    touched = count_touched(bench)
    experts = model.config.experts
    assert experts is not None
    assert touched is not None
    assert experts.num_chosen <= touched <= experts.num_experts


def test_a_case_is_cut_off_by_its_deadline() -> None:
    model = tiny("llada_8b")
    bench = prepared(random_model(model, CPU), model, Case(batch=1))
    figures = measure(bench, soon(-1))
    assert figures["tokens_per_s"] is None
    assert bench.iterations == []


def test_a_profile_without_a_card_says_so() -> None:
    model = tiny("llada_8b")
    bench = prepared(random_model(model, CPU), model, Case(batch=1))
    assert profile_block(bench) == {"skipped": "needs a card"}
    assert bench.iterations == []


def test_the_warm_up_runs_few_layers_of_every_batch() -> None:
    assert list(warm_model(tiny("llada2_mini"), [1, 2], CPU)) == []


def test_the_warm_up_of_many_sequences_has_a_shorter_context() -> None:
    """The forwards are as long as with the whole one: full."""
    model = tiny("llada_8b", context=1024)
    assert [context_of_warm_up(model, batch) for batch in (1, 8, 32)] == [1024, 1024, 512]
    model = replace(model, block_length=64, context=600)
    assert context_of_warm_up(model, 256) == 2 * 64 * MEASURED_BLOCKS
    assert context_of_warm_up(replace(model, context=500), 256) == 500


def test_every_kernel_is_compared_with_its_reference() -> None:
    """In Triton's interpreter, at tiny widths."""
    model = tiny("llada2_mini")
    assert without_kernels(model, CPU) is None
    found = list(kernel_checks(model, CPU, rows=(1, 5)))
    assert [one.check for one in found if not one.holds] == []
    words = " ".join(one.check for one in found)
    for operation in (
        "norm, 5 rows",
        "rotary",
        "by context",
        "by programs",
        "head",
        "SwiGLU",
        "qkv",
    ):
        assert operation in words
    assert "experts, 5 rows" in words


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.bench.gpu import kernel_checks as module

    right = module.add_norm
    monkeypatch.setattr(module, "add_norm", lambda *its: tuple(1.001 * x for x in right(*its)))
    first = next(kernel_checks(tiny("llada_8b"), CPU, rows=(1,)))
    assert (first.check, first.holds) == ("LLaDA-8B: kernel: norm, 1 rows", False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """The whole benchmark on two tiny models."""
    folder = tmp_path_factory.mktemp("report")
    return here([tiny("llada_8b"), tiny("llada2_mini")], SIZES, folder)


def test_the_whole_path_ends_with_its_report(whole: tuple[Record, Path]) -> None:
    its, folder = whole
    assert its.failures == []
    assert its.left_out == []
    assert its.exit_code == 0
    assert len(its.measurements) == 2 * len(SIZES.cases)
    assert len(its.checks) == 2 * 5
    assert its.rates is not None
    (file,) = folder.glob("*.json")
    report = json.loads(file.read_text())
    assert report == json.loads(json.dumps(its.as_dict()))
    for one in report["measurements"]:
        assert one["tokens_per_s"] > 0
        assert one["block"]["share_of_floor"] > 0
        assert one["block"]["floor_ms"]["copy"] > 0


def test_the_markdown_is_read_back(whole: tuple[Record, Path]) -> None:
    its, folder = whole
    (file,) = folder.glob("*.md")
    text = file.read_text()
    assert text == markdown(its)
    found = tables(text)
    rows = found["Iterations of the engine"]
    assert [(row["model"], row["B"]) for row in rows] == [
        (title, batch) for title in ("LLaDA-8B", "LLaDA2.0-mini") for batch in ("1", "3")
    ]
    first = next(one for one in its.measurements if one["variant"] == "engine")
    assert float(rows[0]["block ms"]) == pytest.approx(first["block"]["ms"], rel=0.01)
    assert rows[0]["refresh ms (query tokens)"].endswith("(128)")
    speeds = found["Generated tokens per second"]
    assert all(row[count] != "-" for row in speeds for count in ("2", "4", "8"))
    assert [row["holds"] for row in found["Checks"]] == ["yes"] * 10
    assert len(found["Targets"]) == len(its.targets)
    assert "needs a card" in text
    assert all(len(row) == 6 for row in found["Against other settings"])


def test_a_model_that_fails_leaves_the_others_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the middle of a case: what came before it stays."""
    broken, calls = tiny("llada_8b"), []

    def measured(bench: Any, deadline: Deadline) -> dict[str, Any]:
        calls.append(bench.model.name)
        if bench.model is broken and calls.count(broken.name) == 2:
            raise RuntimeError("an illegal memory access was encountered")
        return measure(bench, deadline)

    monkeypatch.setattr(steps, "measure", measured)
    few = replace(SIZES, cases=every_case((1,), (4,))[:3])
    its, _ = here([broken, tiny("llada2_mini")], few, tmp_path)
    assert [failure["what"] for failure in its.failures] == [f"LLaDA-8B, {few.cases[1].title}"]
    assert its.exit_code == 1
    assert [one["model"] for one in its.measurements] == ["llada_8b"] * 2 + ["llada2_mini"] * 3
    (file,) = tmp_path.glob("*.md")
    row = tables(file.read_text())["Failed"][0]
    assert row["error"] == "RuntimeError: an illegal memory access was encountered"


def test_a_deadline_ends_the_run_in_good_order(tmp_path: Path) -> None:
    its, _ = here([tiny("llada_8b"), tiny("llada2_mini")], SIZES, tmp_path, seconds=0)
    assert its.measurements == []
    assert [one["what"] for one in its.left_out] == ["LLaDA-8B", "LLaDA2.0-mini"]
    assert its.exit_code == 0
    assert len(list(tmp_path.iterdir())) == 2
