"""The GPU benchmark's whole path, on a CPU and with tiny models; its arithmetic on real shapes."""

import gc
import io
import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.cache.block_causal import BlockCausalCache
from engine.cache.dual import DualCache
from engine.model.config import ModelConfig
from engine.model.families import llada2
from jobs.bench.gpu import order, steps, worker
from jobs.bench.gpu.checks import kernel_checks, without_kernels
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.floors import Forward, Rates, floor_ms, touched_at_random, touched_by_more
from jobs.bench.gpu.measure import Case, measure, measure_prefill, prepared, requests
from jobs.bench.gpu.models import TITLES, BenchModel, bench_model, random_model
from jobs.bench.gpu.processes import Task, alone, side_by_side
from jobs.bench.gpu.profile import Activity, busy_us, by_time, count_touched, profile_block
from jobs.bench.gpu.record import Event, Record
from jobs.bench.gpu.report import markdown
from jobs.bench.gpu.steps import (
    Sizes,
    check_engine,
    check_float32,
    every_case,
    measure_model,
    rates_of,
    warm_model,
)
from tests.tiny import tiny_config, tiny_llada2_raw_config

CPU = torch.device("cpu")
SIZES = Sizes(
    cases=every_case((1, 3), (2, 4, 8)),
    num_check_rows=3,
    matrix_rows=(1,),
    copied_bytes=2**20,
    matrix_size=64,
)


def tiny(name: str, **changes: Any) -> BenchModel:
    """A bench model of a few thousand weights; `llada2_mini` is block-causal and has experts."""
    causal = name == "llada2_mini"
    config: ModelConfig = (
        llada2.read_config(tiny_llada2_raw_config(block_length=16)) if causal else tiny_config()
    )
    model = BenchModel(
        name=name,
        title=TITLES[name],
        config=config,
        cache_name="block_causal" if causal else "dual",
        cache=BlockCausalCache() if causal else DualCache(),
        block_length=16,
        dtype=torch.float32,
        context=128,
    )
    return replace(model, **changes)


def record(folder: Path | None = None, models: list[BenchModel] | None = None) -> Record:
    about = {
        "date": "2026-11-27",
        "card": "2 CPU cores",
        "quick": False,
        "seconds": 60.0,
        "versions": {"torch": torch.__version__},
        "git_revision": None,
    }
    return Record(about=about, models=models or [], render=markdown, folder=folder)


def here(
    models: list[BenchModel], sizes: Sizes, folder: Path, seconds: float = 600
) -> tuple[Record, Path]:
    """The steps of the benchmark in this process, in their order."""
    its, deadline = record(folder, models), Deadline.in_seconds(seconds)
    for model in models:
        for check in (check_engine, check_float32):
            its.take(steps.tried("checks", partial(check, model, sizes, CPU)))
    its.take(rates_of(CPU, sizes))
    for i, model in enumerate(models):
        its.take(measure_model(model, sizes, CPU, deadline.share(len(models) - i)))
    return its, folder


def soon(seconds: float = 600) -> Deadline:
    return Deadline.in_seconds(seconds)


def a_measurement(**changes: Any) -> dict[str, Any]:
    """What a case of LLaDA-MoE gives."""
    its = {"num_sequences": 32, "num_iterations": 15, "num_query_tokens": 2048, "context": 1024}
    one = {
        "model": "llada_moe",
        "title": "LLaDA-MoE",
        "batch": 32,
        "committed": 4,
        "variant": "engine",
        "tokens_per_s": 5000.0,
        "padding": 0.01,
        "block": {"ms": 16.0, **its},
        "refresh": {"ms": 44.0, **its, "num_query_tokens": 9216, "num_sequences": 9},
    }
    return one | changes


# floors: published in the kernel study for these shapes, at 2.44 and 2.86 TB/s and 743 TFLOP/s
STUDY = [
    ("llada_moe", 1, 64, (5.86, 5.00)),
    ("llada_moe", 32, 64, (11.73, 10.48)),
    ("llada2_mini", 1, 163, (8.54, 7.29)),
    ("llada2_mini", 32, 256, (15.55, 13.52)),
    ("llada2_mini", 32, 199, (12.73, 11.11)),
    ("llada_8b", 1, 0, (6.37, 5.44)),
    ("llada_8b", 32, 0, (27.93, 26.86)),
]


@pytest.mark.parametrize(("name", "batch", "touched", "expected"), STUDY)
def test_floors_are_those_of_the_kernel_study(
    name: str, batch: int, touched: int, expected: tuple[float, float]
) -> None:
    model = bench_model(name)
    num_query_tokens = batch * model.block_length
    forward = Forward(
        num_query_tokens=num_query_tokens,
        num_sequences=batch,
        context=1024,
        num_asked=num_query_tokens,
        num_touched=touched,
    )
    floors = [floor_ms(model.config, forward, rate, 743e12) for rate in (2.44e12, 2.86e12)]
    assert floors == pytest.approx(expected, rel=0.01)


def test_touched_experts() -> None:
    mini = bench_model("llada2_mini").config.experts
    assert mini is not None
    assert touched_at_random(mini, 1) == pytest.approx(8)
    assert touched_at_random(mini, 32) == pytest.approx(163, abs=1)
    assert touched_by_more(mini, 128, 2) == 192
    assert touched_by_more(mini, 88, 1) == pytest.approx(88)


def test_the_five_models_have_their_published_shapes_and_defaults() -> None:
    models = {name: bench_model(name) for name in TITLES}
    shapes = {
        name: (model.block_length, model.cache_name, model.num_prompt_tokens, model.canvas_len)
        for name, model in models.items()
    }
    assert shapes == {
        "llada_moe": (64, "dual", 512, 1024),
        "llada2_mini": (32, "block_causal", 992, 1120),
        "llada_8b": (32, "dual", 512, 1024),
        "sdar_8b": (32, "block_causal", 992, 1120),
        "dream": (32, "dual", 512, 1024),
    }
    for model in models.values():
        for case in steps.FULL.cases:
            assert model.block_length % case.committed == 0


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
    assert figures["tokens_per_s"] == pytest.approx(1e3 * batch * 16 / sum(ms), rel=0.2)
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


def test_busy_time_is_a_union() -> None:
    its = [Activity("a", 0, 10), Activity("b", 5, 12), Activity("c", 20, 30), Activity("a", 21, 22)]
    assert busy_us(its) == 22
    found = by_time(its, num_iterations=2)
    assert found["busy_ms"] == pytest.approx(0.011)
    assert found["launches"] == 2
    names = [kernel["name"] for kernel in found["kernels"]]
    assert sorted(names[:2]) == ["a", "c"] or names == ["a", "c", "b"]
    assert {kernel["name"]: kernel["launches"] for kernel in found["kernels"]}["a"] == 1


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


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The first table of each section, as a dict of its head's cells for each row."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in text.split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        lines = [line[2:-2].split(" | ") for line in rest.splitlines() if line[:1] == "|"]
        if lines:
            end = next((i for i, line in enumerate(lines[2:], 2) if "---" in line[0]), len(lines))
            found[title] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:end]]
    return found


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


def test_a_check_that_does_not_hold_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    its = record()
    assert its.exit_code == 0
    its.checks.append({"check": "a", "found": "1 of 3 rows differ", "holds": False})
    assert its.exit_code == 1
    assert tables(markdown(its))["Checks"][0]["holds"] == "**no**"


def test_a_deadline_ends_the_run_in_good_order(tmp_path: Path) -> None:
    its, _ = here([tiny("llada_8b"), tiny("llada2_mini")], SIZES, tmp_path, seconds=0)
    assert its.measurements == []
    assert [one["what"] for one in its.left_out] == ["LLaDA-8B", "LLaDA2.0-mini"]
    assert its.exit_code == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_targets_are_judged_and_the_largest_gap_is_named() -> None:
    one = a_measurement(profile={"busy_ms": 15.0, "kernels": [], "launches": 9, "other_ms": 0.0})
    plain = a_measurement(variant="plain", tokens_per_s=2500.0, experts_touched=64.0)
    bits = a_measurement(variant="any bits", block={**one["block"], "ms": 15.9})
    fast = a_measurement(batch=1, block={**one["block"], "ms": 6.0, "num_sequences": 1})
    its = record()
    its.about["card"] = "NVIDIA H100 80GB HBM3"
    its.models = [bench_model("llada_moe")]
    its.measurements = [one, plain, bits, fast]
    its.rates = Rates(copy_bytes_per_s=2.44e12, read_bytes_per_s=2.86e12, flop_per_s=743e12)
    its.save()
    verdicts = {(t["target"], t["limit"]): t["met"] for t in its.targets}
    assert verdicts["block iteration, LLaDA-MoE B=1", 6.2] is True
    assert verdicts["block iteration, LLaDA-MoE B=1", 4.0] is False
    assert verdicts["LLaDA-MoE B=32 over plain torch", 2.8] is False
    assert verdicts["card idle in a block iteration, B=32, worst", 0.03] is False
    assert verdicts["cost of batch invariance, worst", 0.03] is True
    assert verdicts["block iteration, LLaDA-8B B=32", 34.0] is None
    assert one["block"]["idle_ms"] == pytest.approx(1.0)
    head_ms = 1e3 * 2 * 2048 * 157184 * 2048 / 743e12
    assert one["block"]["floor_ms"]["copy"] == pytest.approx(11.73 - head_ms / 2, abs=0.02)
    text = markdown(its)
    assert "Missed the furthest: card idle in a block iteration, B=32, worst" in text
    assert "Furthest from its floor: LLaDA-MoE B=32" in text
    rows = {(row["target"], row["limit"]): row for row in tables(text)["Targets"]}
    assert rows["block iteration, LLaDA-MoE B=1", "at most 4 ms"]["met"].startswith("**no**, but")


def test_the_command_needs_a_card_and_imports_no_parquet() -> None:
    script = (
        "import sys; from jobs.bench.__main__ import main\n"
        "sys.argv = ['bench', 'gpu', '--quick']\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print([m for m in ('hydra', 'omegaconf', 'polars', 'pyarrow', 'transformers')"
        " if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    said, imported = done.stdout.splitlines()
    assert said.startswith("python -m jobs.bench gpu needs an NVIDIA GPU")
    assert imported == "[]"


def process(script: str) -> Task:
    return Task("a step", (sys.executable, "-c", f"import sys, json, time\n{script}"))


def test_processes_side_by_side_say_what_they_find_and_how_they_end() -> None:
    """One ends well, one breaks down in the middle, one does not end."""
    found = "print(json.dumps({'part': 'checks', 'check': 'a'}), flush=True)\n"
    well = process(found + "print('noise')\n" + found)
    broken = process(found + "sys.exit('CUDA error: an illegal memory access')")
    endless, deadline = process(found + "time.sleep(600)"), soon()
    by_part: dict[str, list[Event]] = {}
    for event in side_by_side([well, broken, endless], 2, deadline):
        by_part.setdefault(event["part"], []).append(event)
        if len(by_part.get("checks", [])) == 4 and "failures" in by_part:
            deadline.at = 0.0
    assert len(by_part["checks"]) == 4
    assert [failed["error"] for failed in by_part["failures"]] == [
        "exit code 1: CUDA error: an illegal memory access"
    ]
    assert [event["why"] for event in by_part["left_out"]] == ["stopped: no time left"]
    assert endless.has_ended


def test_a_process_that_has_no_time_to_begin_is_left_out() -> None:
    assert list(side_by_side([process("")], 2, soon(-1))) == [
        {"part": "left_out", "what": "a step", "why": "no time left"}
    ]


def test_a_process_alone_is_told_its_time_and_says_things_at_once() -> None:
    waits = process(
        "told = json.loads(sys.stdin.readline())\n"
        "print(json.dumps({'part': 'checks', **told}), flush=True)\n"
        "time.sleep(600)"
    )
    waits.start()
    deadline = soon()
    its = alone(waits, deadline, rates=True)
    first = next(its)
    assert first["rates"] is True
    assert 0 < first["until"] - time.time() <= 600
    assert not waits.has_ended
    deadline.at = 0.0
    assert [event["part"] for event in its] == ["left_out"]
    assert waits.has_ended
    killed = process("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert [event["error"] for event in alone(killed, soon())] == ["exit code -9: it said nothing"]


FAKE_WORKER = """
import json, sys
step, model, *rest = sys.argv[1:]
told = json.loads(sys.stdin.readline())
note = {"part": "notes", "what": model, "note": f"{step} of {model}", "key": [model, "%s"]}
print(json.dumps(note))
if step == "engine":
    print(json.dumps({"part": "checks", "check": model, "found": "0 differ", "holds": True}))
if step == "measure":
    if told["rates"]:
        rates = {"copy_bytes_per_s": 2e12, "read_bytes_per_s": 3e12, "flop_per_s": 7e14}
        print(json.dumps({"part": "rates", **rates}), flush=True)
    if model == "llada2_mini":
        sys.exit("CUDA error: an illegal memory access was encountered")
    one = {"model": model, "title": model, "batch": 1, "committed": 4, "variant": "engine"}
    block = {"ms": 6.0, "num_sequences": 1, "num_query_tokens": 32, "context": 1024}
    print(json.dumps({"part": "measurements", **one, "tokens_per_s": 9.0, "block": block}))
"""


def test_all_models_in_order_and_one_whose_process_breaks_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WORKER", (sys.executable, "-c", FAKE_WORKER))
    names = ["llada_moe", "llada2_mini", "dream"]
    its = order.new_record(record().about, names, tmp_path)
    order.in_order(its, names, quick=True, deadline=soon(), num_at_once=3)
    assert sorted(check["check"] for check in its.checks) == sorted(names)
    assert [one["model"] for one in its.measurements] == ["llada_moe", "dream"]
    assert its.rates is not None
    assert its.rates.flop_per_s == 7e14
    assert [failed["what"] for failed in its.failures] == ["measurements of LLaDA2.0-mini"]
    assert [note["what"] for note in its.notes].count("dream") == 1
    assert its.warm_up.startswith("checked and compiled in 12 processes, 3 at once")
    for one in its.measurements:
        assert 0 < one["block"]["share_of_floor"] < 1.5
    assert its.exit_code == 1
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["models"]["dream"]["cache"] == "dual"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["engine", "llada_8b"], {"checks"}),
        (["float32", "llada_8b", "--quick"], {"checks"}),
        (["warm", "llada_8b", "--batches", "1", "2"], set()),
        (["measure", "llada_8b", "--quick"], {"rates", "measurements"}),
    ],
)
def test_a_worker_prints_an_event_a_line(
    argv: list[str],
    parts: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(worker, "bench_model", tiny)
    monkeypatch.setattr(worker, "DEVICE", CPU)
    for name in ("QUICK", "FULL"):
        monkeypatch.setattr(steps, name, replace(SIZES, cases=SIZES.cases[:1]))
    monkeypatch.setattr(sys, "argv", ["worker", *argv])
    monkeypatch.setattr(
        sys, "stdin", io.StringIO(f'{{"until": {time.time() + 600}, "rates": true}}\n')
    )
    worker.main()
    gc.unfreeze()
    logging.getLogger("engine").handlers.clear()
    logging.getLogger("engine").setLevel(logging.NOTSET)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["part"] for event in events} == parts


def test_every_kernel_is_compared_with_its_reference() -> None:
    """In Triton's interpreter, at tiny widths."""
    model = tiny("llada2_mini")
    assert without_kernels(model, CPU) is None
    found = list(kernel_checks(model, CPU, rows=(1, 5)))
    assert [one.check for one in found if not one.holds] == []
    words = " ".join(one.check for one in found)
    for operation in ("norm, 5 rows", "rotary", "same bits", "splits", "head", "SwiGLU", "qkv"):
        assert operation in words
    assert "experts, 5 rows" in words


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.bench.gpu import kernel_checks as module

    right = module.add_norm
    monkeypatch.setattr(module, "add_norm", lambda *its: tuple(1.001 * x for x in right(*its)))
    first = next(kernel_checks(tiny("llada_8b"), CPU, rows=(1,)))
    assert (first.check, first.holds) == ("LLaDA-8B: kernel: norm, 1 rows", False)


def test_the_warm_up_runs_few_layers_of_every_batch() -> None:
    assert list(warm_model(tiny("llada2_mini"), [1, 2], CPU)) == []


def test_a_profile_without_a_card_says_so() -> None:
    model = tiny("llada_8b")
    bench = prepared(random_model(model, CPU), model, Case(batch=1))
    assert profile_block(bench) == {"skipped": "needs a card"}
    assert bench.iterations == []
