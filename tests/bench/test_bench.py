"""The benchmarks compare like with like: the baseline must give the same tokens as the engine."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engine
from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import EngineConfig
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import FinishReason, Request, Result
from jobs.bench import __main__ as command
from jobs.bench import load
from jobs.bench.engine import Bench, Entry, check_same, measure
from jobs.bench.frontier import mark_frontier, points
from jobs.bench.lockstep import LOCKSTEP_CACHES
from jobs.bench.synthetic import RAW_CONFIGS, pieces_of, write_checkpoint, wrong_parameters
from jobs.bench.table import markdown
from jobs.bench.workload import Run, Workload, load_workload, others_share
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 16
MODELS = {"bidirectional": tiny_model(), "block-causal": tiny_llada2_model(block_length=BLOCK)}
DEMO = Path(engine.__file__).parent.parent / "jobs" / "demo"


class Tiny(Workload):
    """A workload of token ids, without text."""

    def config(self, max_sequences: int, **settings: Any) -> EngineConfig:
        return super().config(max_sequences, block_length=BLOCK, **settings)


def workload(model: Transformer, requests: list[Request]) -> Workload:
    return Tiny(model=model, prompter=None, table=[], requests=requests, device="cpu")


@pytest.mark.parametrize(
    ("attention", "cache"),
    [
        *(("bidirectional", name) for name in LOCKSTEP_CACHES if name != "block_causal"),
        ("block-causal", "none"),
        ("block-causal", "block_causal"),
    ],
)
def test_lock_step_gives_the_same_tokens_and_computes_more(attention: str, cache: str) -> None:
    load = workload(MODELS[attention], mixed_requests(24))
    bench = Bench(load, CACHE_POLICIES[cache]())
    lockstep, own = load.run(bench.lockstep(8)), load.run(bench.engine(8))
    assert tokens(lockstep) == tokens(own)
    assert own.percent_for_no_sequence == 0
    assert sum(lockstep.num_query_tokens.values()) > 1.2 * sum(own.num_query_tokens.values())


def test_llada_s_loop_commits_one_token_per_iteration_to_the_end() -> None:
    load = workload(MODELS["bidirectional"], mixed_requests(4))
    run = load.run(Bench(load, CACHE_POLICIES["dual"]()).llada())
    assert [result.num_iterations for result in run.results] == [
        request.max_new_tokens for request in load.requests
    ]
    assert run.num_iterations == sum(request.max_new_tokens for request in load.requests)


def test_query_tokens_of_a_failed_forward_count_for_no_sequence() -> None:
    load = workload(MODELS["bidirectional"], mixed_requests(4))
    done = load.run(Bench(load, CACHE_POLICIES["dual"]()).engine(8))
    run = Run(
        results=done.results,
        wall_s=1.0,
        cpu_s=1.0,
        num_iterations=1,
        num_forwards={},
        num_query_tokens=done.num_query_tokens,
        num_failed_query_tokens=100,
        share_outside_forward=0.0,
    )
    wasted = 100 / (sum(done.num_query_tokens.values()) + 100)
    assert run.percent_for_no_sequence == pytest.approx(100 * wasted)


def test_a_point_is_on_the_frontier_unless_another_beats_it() -> None:
    measured = [
        {"pass_at_1": p, "tokens_per_s": s}
        for p, s in [(0.9, 10.0), (0.9, 10.0), (0.9, 9.0), (0.8, 20.0), (0.8, 10.0), (0.95, 1.0)]
    ]
    mark_frontier(measured)
    assert [one["is_on_frontier"] for one in measured] == [True, True, False, True, False, True]


def test_the_table_has_a_row_per_decoding_and_a_column_per_cache() -> None:
    figures = {"tokens_per_forward": 3.0, "query_tokens_per_token": 9.5, "is_on_frontier": False}
    one = {"cache": "none", "decoding": "fixed()", "pass_at_1": 0.5, "tokens_per_s": 1234.0}
    other = {**one, "cache": "dual", "decoding": "threshold()", "pass_at_1": 0.75}
    lines = markdown([one | figures, other | figures | {"is_on_frontier": True}]).splitlines()
    assert lines[2] == "| decoding | `none` | `dual` |"
    assert lines[4] == "| `fixed()` | 0.500, 3.0, 1,234, 9.5 | - |"
    assert lines[5] == "| `threshold()` | - | **0.750, 3.0, 1,234, 9.5** |"


@pytest.mark.parametrize(("attention", "num_caches"), [("bidirectional", 6), ("block-causal", 2)])
def test_the_frontier_has_at_least_two_settings_per_combination(
    attention: str, num_caches: int
) -> None:
    load = workload(MODELS[attention], mixed_requests(1))
    every = list(points(load, list(CACHE_POLICIES), list(DECODERS)))
    names = [(point.cache, point.decoding) for point in every if not point.soft]
    assert len({cache for cache, _ in names}) == num_caches
    for pair in set(names):
        assert 2 <= names.count(pair) <= 3


def test_engine_and_frontier_end_with_their_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = ["--rows", "6", "--max-new-tokens", "48"]
    monkeypatch.setattr(
        *(sys, "argv"),
        ["bench", "engine", *few, *("--rounds", "2", "--llada-rows", "1", "--trial-rows", "4")],
    )
    command.main()
    said = capsys.readouterr().out
    report = json.loads(said.splitlines()[-1])
    assert report["num_rows_different_from_lockstep"] == 0
    assert (report["num_prompts"], report["num_prompts_llada"]) == (6, 1)
    assert report["tried"]["num_prompts"] == 4
    assert_best_against_best(report, said)
    picture = tmp_path / "frontier.png"
    some = ["--caches", "dual", "--decoders", "threshold", "--plot", str(picture)]
    reports = []
    for processes in ("1", "2"):
        argv = ["bench", "frontier", *few, *some, "--processes", processes]
        monkeypatch.setattr(sys, "argv", argv)
        command.main()
        reports.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    one_by_one, side_by_side = (
        [(one["cache"], one["decoding"], one["pass_at_1"]) for one in report["points"]]
        for report in reports
    )
    assert len(one_by_one) == 4
    assert side_by_side == one_by_one
    assert any(one["is_on_frontier"] for one in reports[0]["points"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def assert_best_against_best(report: dict[str, Any], said: str) -> None:
    """Each rival has the batch that was fastest when tried; both ratios are printed."""
    for rival, speeds in report["tried"]["tokens_per_s"].items():
        assert [int(batch) for batch in speeds] == [1, 2, 4, 8, 16, 32]
        assert speeds[str(report["best_batch"][rival])] == max(speeds.values())
        assert f"{rival}, {report['best_batch'][rival]} at once" in report["figures"]
        assert f"{rival}, 32 at once" in report["figures"]
    for name in ("best", "equal"):
        ratios = report["engine_over_lockstep_by_round"][name]
        assert len(ratios) == 2
        assert min(ratios) <= report["engine_over_lockstep"][name] <= max(ratios)
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name}:")]
        assert f"{report['engine_over_lockstep'][name]:.2f} x" in line
    assert 0 <= report["others_share_of_cores"] <= 1


def test_tokens_that_differ_between_batches_are_an_error_where_rounding_is_exact() -> None:
    load = workload(MODELS["bidirectional"], mixed_requests(4))
    bench = Bench(load, CACHE_POLICIES["dual"]())
    alone, together = Entry("engine", 1), Entry("lockstep", 4)
    runs = measure(bench, [alone, together, alone], rounds=2)
    assert {entry: len(done) for entry, done in runs.items()} == {alone: 2, together: 2}
    assert check_same(runs, is_exact=True) == 0
    runs[together][1].results[2].token_ids[0] += 1
    assert check_same(runs, is_exact=False) == 1
    with pytest.raises(RuntimeError, match="different tokens in 1 rows"):
        check_same(runs, is_exact=True)


def test_batches_are_tried_on_prompts_from_everywhere() -> None:
    """A prefix may be easier than the rest, and lock-step's best batch depends on that."""
    load = workload(MODELS["bidirectional"], mixed_requests(10))
    assert [request.request_id for request in load.spread(4)] == [0, 2, 5, 7]
    assert load.spread(10) == load.spread(99) == load.requests


def test_the_share_of_other_processes_does_not_count_this_one() -> None:
    with others_share() as others:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    assert 0 <= others.share <= 1
    with others_share() as others:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        own = os.times()
        while os.times().elapsed < own.elapsed + 1.0:
            time.sleep(0.05)
        busy.kill()
        # Its seconds count as another's until this process has waited for it.
    busy.wait()
    assert others.share > 0.5 / (os.cpu_count() or 1)


def test_load_ends_with_its_report_and_deletes_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = ["--gigabytes", "0.001", "--families", "llada2_moe", "--dtypes", "float32"]
    argv = ["bench", "load", *small, "--rounds", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    command.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    whole, half = report["cases"]
    assert (whole["num_ranks"], half["num_ranks"]) == (1, 2)
    assert whole["model_bytes"] == 2 * whole["share_bytes"] > 2 * 10**6
    assert half["model_bytes"] < 0.6 * whole["model_bytes"]
    assert all(case["peak_bytes"] <= case["bound_bytes"] for case in report["cases"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", RAW_CONFIGS)
def test_a_synthetic_checkpoint_has_the_requested_size_and_is_read_back(
    tmp_path: Path, family: str
) -> None:
    write_checkpoint(tmp_path, family, 3_000_000, file_bytes=1_000_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) >= 3
    assert 3_000_000 <= sum(file.stat().st_size for file in files) < 6_000_000
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    raw = json.loads((tmp_path / "config.json").read_text())
    model = load_model(tmp_path)
    assert wrong_parameters(model, pieces_of(raw)) == []
    model.layers[1].attn.out.weight.data[3, 5] += 1
    assert wrong_parameters(model, pieces_of(raw)) == ["layers.1.attn.out.weight"]


def test_a_disk_without_room_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    with pytest.raises(
        ValueError, match=r"0\.0 GB free, the checkpoint takes .* fewer --gigabytes"
    ):
        load.run(gigabytes=0.01, families=["llada"], dtypes=[], rounds=1, folder=tmp_path)


def test_answers_are_judged_by_their_tests() -> None:
    load = load_workload(
        model=DEMO / "model",
        prompts=DEMO / "task" / "prompts.parquet",
        rows=2,
        max_new_tokens=128,
        dtype="float32",
        device="cpu",
    )
    right = load.prompter.tokenizer(load.table[0]["canonical_solution"])["input_ids"]
    results = [
        Result(
            request_id=i,
            finish_reason=FinishReason.EOS,
            token_ids=right,
            num_prompt_tokens=1,
            seed=0,
        )
        for i in range(2)
    ]
    assert load.pass_at_1(results) == 0.5


def tokens(run: Run) -> list[list[int]]:
    return [result.token_ids for result in run.results]
