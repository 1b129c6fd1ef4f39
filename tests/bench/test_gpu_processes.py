"""The processes of the GPU benchmark: side by side, alone, broken, out of time."""

import gc
import io
import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.bench.gpu import order, steps, worker
from jobs.bench.gpu.processes import Task, alone, side_by_side
from jobs.bench.gpu.record import Event
from tests.bench.tiny_bench import CPU, SIZES, record, soon, tiny


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
