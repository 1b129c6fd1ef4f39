"""python -m pipeline.calibrate, on a model of random weights and on a demo model."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from engine.model.load import load_model
from pipeline.calibrate import measure
from pipeline.calibrate.__main__ import main
from pipeline.calibrate.rungs import Rung
from pipeline.compare.runs import read_runs
from pipeline.compare.tables import compare
from pipeline.plan.run_json import load
from pipeline.report.__main__ import main as report
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.totals import Totals
from pipeline.status.__main__ import main as status
from tests.checkpoints import output_rows, prompts, write_parquet
from tests.launched import composed
from tests.pipeline.stats.timelines import Page
from tests.qwen2 import write_qwen2

REFERENCE = "cache=none,decoding=fixed"
LOAD = "pipeline.generate.models.load_model"


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that do not depend on what else the machine does: those of the counts."""
    real = measure.work_of

    def work_of(folder: RunFolder, rung: Rung) -> tuple[Totals, Totals]:
        own, whole = real(folder, rung)
        forwards, tokens = own.num_forwards.values(), own.num_query_tokens.values()
        return replace(own, engine_s=1e-3 * sum(forwards) + 1e-5 * sum(tokens)), whole

    monkeypatch.setattr(measure, "work_of", work_of)


@pytest.fixture
def arguments(steady: None, checkpoint: Path, tmp_path: Path) -> list[str]:
    """A sweep of 6 settings on 32 rows, of a job without a task."""
    data = write_parquet(tmp_path / "in.parquet", prompts(40))
    return [
        *(f"model.path={checkpoint}", f"data.path={data}", f"output={tmp_path / 'cal'}"),
        *("generation.max_new_tokens=12", "engine.block_length=4", "prompt.chat=false"),
        *("decoding=threshold", "--caches", "dual,none", "--rows", "32", "--within", "0.3"),
    ]


def figures(folder: Path) -> dict[str, dict[str, float]]:
    """Name of a setting -> what is found out by its rows alone."""
    found = json.loads((folder / "calibration.json").read_text())
    names = ("num_rows", "tokens_per_forward", "quality", "difference", "same_answers")
    return {its["name"]: {name: its[name] for name in names} for its in found["points"]}


@pytest.fixture
def loads() -> Iterator[mock.Mock]:
    with mock.patch(LOAD, side_effect=load_model) as patched:
        yield patched


def test_one_load_and_ordinary_runs(
    arguments: list[str], tmp_path: Path, loads: mock.Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)
    out = capsys.readouterr().out
    assert loads.call_count == 1, "the weights are read once"
    folder = tmp_path / "cal"
    found = json.loads((folder / "calibration.json").read_text())
    runs = sorted(its for its in folder.iterdir() if its.is_dir())
    assert {its.name for its in runs} == {point["name"] for point in found["points"]}
    assert len(runs) == 7, "six settings and the reference"
    reference = folder / REFERENCE
    assert len(output_rows(reference)) == 32
    # Of the settings that were dropped, only the parts of their rungs are there.
    assert {len(output_rows(run)) for run in runs} == {8, 32}
    for run in runs[:3]:
        report([str(run)])
        with (
            mock.patch("sys.argv", ["pipeline.status", str(run)]),
            pytest.raises(SystemExit, match=r"^[01]$"),
        ):
            status()
        assert f" of {len(load(RunFolder(run)).parts)} done" in capsys.readouterr().out
    made = compare(read_runs([str(reference), str(runs[0])]))
    assert any("decoding.name" in row for table in made.tables for row in table.rows)
    assert not any("other settings in its starts" in note for note in made.notes), "only shares"
    page = Page((folder / "calibration.html").read_text())
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "without a task, quality is the agreement" in page.text
    assert "pipeline.run" in (folder / "calibration.md").read_text()
    check_choices(found, out, tmp_path)


def check_choices(found: dict[str, Any], out: str, folder: Path) -> None:
    """Each printed command composes to the chosen setting, which is the best within the loss."""
    points = {its["name"]: its for its in found["points"]}
    whole = [its for its in points.values() if its["num_rows"] == 32]
    good = [its for its in whole if its["difference"] >= -0.3 and its["name"] != found["reference"]]
    for answer, speed in (
        ("fastest", "smoothed_tokens_per_s"),
        ("most_per_forward", "tokens_per_forward"),
    ):
        chosen, command = points[found[answer]["name"]], found[answer]["command"]
        assert chosen[speed] == max(its[speed] for its in good)
        assert f"  {command}\n" in out
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pipeline.run"]
        config = composed(*(its.replace("FOLDER", str(folder / "x")) for its in words[3:]))
        assert chosen["decoding"]["threshold"] == config.decoding.threshold  # type: ignore[attr-defined]
        assert f"cache={chosen['cache']}" in words


def test_agreement_by_hand(arguments: list[str], tmp_path: Path) -> None:
    main(arguments)
    folder = tmp_path / "cal"
    for name, found in figures(folder).items():
        if found["num_rows"] < 32:
            continue
        mine = {row["row_id"]: row["token_ids"] for row in output_rows(folder / name)}
        rows = output_rows(folder / REFERENCE)
        same = sum(mine[row["row_id"]] == row["token_ids"] for row in rows)
        assert found["same_answers"] == same / 32
        assert (found["quality"] == 1) == (same == 32)


def test_an_interrupted_sweep_goes_on(
    arguments: list[str], tmp_path: Path, loads: mock.Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [its.replace("/cal", "/whole") for its in arguments]
    main(whole)
    real, calls = measure.run, []

    def interrupted(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*args, **kwargs)  # type: ignore[arg-type]

    with mock.patch.object(measure, "run", interrupted), pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 130
    main(arguments)
    assert figures(tmp_path / "whole") == figures(tmp_path / "cal")
    # A third time there is nothing left to do, and all is decided as before.
    loads.reset_mock()
    before = json.loads((tmp_path / "cal" / "calibration.json").read_text())
    main(arguments)
    after = json.loads((tmp_path / "cal" / "calibration.json").read_text())
    del before["seconds"], after["seconds"]
    assert before == after
    assert not loads.called


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["generation.max_new_tokens=8"], "generation.max_new_tokens: 12 there, 8 now"),
        (["engine.max_sequences=4"], "engine.max_sequences: 32 there, 4 now"),
        (["--rows", "16"], "rows: 32 there, 16 now"),
    ],
)
def test_another_job_in_the_same_folder(
    more: list[str],
    why: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        mock.patch.object(measure, "run", side_effect=KeyboardInterrupt),
        pytest.raises(SystemExit),
    ):
        main(arguments)
    key = more[0].partition("=")[0]
    others = [its for its in arguments if not its.startswith(f"{key}=")]
    with pytest.raises(SystemExit) as stop:
        main([*others, *more])
    assert stop.value.code == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--rows", "0"], "--rows 0: give at least 1"),
        (["--within", "1.5"], "--within 1.5: give 0 up to 1"),
        (["--within", "nan"], "--within nan"),
        (["--row", "5"], "no such flag"),
        (["share=0/2"], "share=0/2: pipeline.calibrate sets it itself"),
        (["data.part_rows=5"], "data.part_rows=5: pipeline.calibrate sets it itself"),
        (["engine.tensor_parallel=2"], "engine.tensor_parallel=2"),
    ],
)
def test_what_is_refused(
    more: list[str], why: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *more])
    assert stop.value.code == 1
    assert why in capsys.readouterr().err


def test_several_workers_are_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "2 workers: pipeline.calibrate runs as one" in capsys.readouterr().err


def test_a_dry_run_and_help_write_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*arguments, "dry_run=true"])
    out = capsys.readouterr().out
    assert "none, fixed" in out
    assert "dual, threshold (threshold 0.97)" in out
    main([*arguments, "--cfg", "job"])
    assert "max_new_tokens: 12" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "--within" in capsys.readouterr().out
    assert not (tmp_path / "cal").exists()


def test_a_model_that_passes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["conf=demo", f"model.path={checkpoint}", f"output={tmp_path / 'cal'}", "--rows", "8"]
    main([*job, "generation.max_new_tokens=4", "decoding.threshold=0.9", "cache=dual"])
    assert "one token per iteration passes nothing" in capsys.readouterr().out


def test_a_stand_in_has_no_speeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ["conf=demo", "model=demo", f"output={tmp_path / 'cal'}", "stand_in=true"]
    main([*job, "--rows", "16", "--decoders", "threshold", "--caches", "dual"])
    out = capsys.readouterr().out
    assert "No setting is faster than one token per iteration" in out
    assert "stand_in=true: no model ran" in out
    assert (tmp_path / "cal" / "calibration.html").exists()


def test_the_demo_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a scorer: a block-causal demo model, whose reference is exact and fast."""
    output = tmp_path / "cal"
    job = ["conf=demo", "model=demo_block", f"output={output}", "threads=1"]
    main([*job, "--rows", "16", "--decoders", "threshold,factor", "--caches", "block_causal"])
    found = json.loads((output / "calibration.json").read_text())
    assert found["quality"] == "passed"
    points = {its["name"]: its for its in found["points"]}
    chosen = points[found["fastest"]["name"]]
    assert chosen["difference"] >= -0.01
    assert chosen["tokens_per_forward"] > 10 * points[found["reference"]]["tokens_per_forward"]
    assert (output / chosen["name"] / "scores.parquet").exists()
    assert "python -m pipeline.run conf=demo model=demo_block" in found["fastest"]["command"]
    assert "threads=1" in found["fastest"]["command"]
    out = capsys.readouterr().out
    assert "The fastest setting within 0.01" in out
    assert "95 % interval" in out


def test_an_autoregressive_checkpoint_has_nothing_to_calibrate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rival = write_qwen2(tmp_path / "qwen2")
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    with pytest.raises(SystemExit):
        main([
            *("engine=transformers", f"model.path={rival}", f"data.path={data}"),
            f"output={tmp_path / 'cal'}",
        ])  # fmt: skip
    assert "no decoding strategy or cache policy to calibrate" in capsys.readouterr().err
