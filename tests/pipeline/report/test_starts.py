"""What is written says what was done, per start; and the card's identity changes with the rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.report.__main__ import write
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.stats import starts
from pipeline.stats.starts import differing, read_starts, record
from pipeline.workers.ranks import Worker
from tests.checkpoints import job, prompts, write_parquet

Start = Callable[..., RunFolder]
DESCRIBED = ("README.md", "config.yaml", "report.html", "summary.json")


@pytest.fixture
def start(checkpoint: Path, tmp_path: Path) -> Start:
    """Starts a job of 10 rows in 3 parts, in this process and with a stand-in for the model; the
    first row is bad."""
    rows = prompts(10)
    rows[0]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)

    def start(folder: str = "run", **changes: Any) -> RunFolder:
        output = tmp_path / folder
        run(job(checkpoint, data, output, **{"stand_in": True, **changes}), 0)
        return RunFolder(output)

    return start


def texts(folder: RunFolder) -> dict[str, str]:
    return {name: (folder.path / name).read_text() for name in DESCRIBED}


def front(folder: RunFolder) -> dict[str, Any]:
    header: dict[str, Any] = yaml.safe_load(folder.card_file.read_text().split("---\n")[1])
    return header


def configs(folder: RunFolder) -> str:
    """What `datasets` hashes for the name of its cache."""
    return json.dumps(front(folder)["configs"])


def test_the_cards_configs_change_with_the_run_the_finish_and_a_retry(start: Start) -> None:
    """Folders of one name, whose rows differ in their seed, their length, or not at all; then a
    part done again, and failed rows run again."""
    made = [configs(start(f"{i}/run", seed=i)) for i in range(2)]
    made.append(configs(start("2/run", generation__max_new_tokens=3)))
    made.append(configs(start("3/run")))
    folder = start()
    made.append(configs(folder))
    folder.data_file(1).unlink()
    start()
    made.append(configs(folder))
    start(retry_failed=True)
    made.append(configs(folder))
    assert len(set(made)) == 7, made
    for text in made:
        (config,) = json.loads(text)
        assert config["data_files"] == [{"split": "train", "path": "data/*.parquet"}]


def test_a_stand_ins_output_is_no_data_set_of_the_model(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = start()
    card, header = folder.card_file.read_text(), front(folder)
    assert "\n# Not generations: a stand-in's output" in card
    assert "by the diffusion language model" not in card
    assert header["pretty_name"].startswith("Stand-in output, no model ran")
    assert header["tags"] == ["stand-in", "no-model"]
    assert json.loads(folder.summary_file.read_text())["stand_in"] is True
    report = folder.report_file.read_text()
    assert "<title>Stand-in: test</title>" in report
    assert "A stand-in&#39;s output." in report or "A stand-in's output." in report
    assert "No model ran (stand_in=true)" in capsys.readouterr().out


def test_a_model_is_no_stand_in(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    folder = start(stand_in=False)
    assert "by the diffusion language model" in folder.card_file.read_text()
    assert front(folder)["tags"] == ["synthetic", "diffusion-language-model"]
    assert json.loads(folder.summary_file.read_text())["stand_in"] is False
    assert "tand-in" not in folder.report_file.read_text()
    assert "tand-in" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"engine__max_sequences": 2, "engine__page_size": 8},
        {"threads": 1, "name": "other", "progress_every_s": 1.0},
        {"max_failed_fraction": 0.9},
    ],
)
def test_a_start_that_finds_nothing_to_do_changes_nothing(
    start: Start, changes: dict[str, Any]
) -> None:
    folder = start()
    before = texts(folder)
    start(**changes)
    assert texts(folder) == before
    assert [made.number for made in read_starts(folder)] == [1]


def test_what_is_missing_is_written_as_it_was(start: Start) -> None:
    folder = start()
    before = texts(folder)
    for name in DESCRIBED:
        (folder.path / name).unlink()
    start(engine__max_sequences=2)
    assert texts(folder) == before, "of the settings that did the rows"


def test_starts_with_other_settings_are_told_apart(start: Start) -> None:
    folder = start()
    folder.data_file(2).unlink()
    start(engine__max_sequences=2)
    config = yaml.safe_load(folder.config_file.read_text())
    assert config["engine"]["max_sequences"] == 2, "the last start that did rows"
    card, report = folder.card_file.read_text(), folder.report_file.read_text()
    first, second = read_starts(folder)
    assert (first.num_left, second.num_left, second.num_workers) == (10, 2, 1)
    assert f"| 1 | {first.started_at} | 10 | engine.max_sequences=6 |" in card
    assert f"| 2 | {second.started_at} | 2 | engine.max_sequences=2 |" in card
    assert "max_sequences `6 in start 1, 2 in start 2`" in card
    assert "6 in start 1, 2 in start 2" in report
    assert "<h2>Starts</h2>" in report
    settings = [made["settings"] for made in json.loads(folder.summary_file.read_text())["starts"]]
    assert settings == ["engine.max_sequences=6", "engine.max_sequences=2"]


def test_a_start_that_was_killed_before_its_first_row_made_none(
    checkpoint: Path, tmp_path: Path, start: Start
) -> None:
    """Failed rows were to run again; then the run is finished by a start that finds nothing."""
    folder = start()
    killed = job(checkpoint, tmp_path / "in.parquet", folder.path, engine__max_sequences=1)
    record(killed, folder, 1, Worker(), 4)
    assert yaml.safe_load(folder.config_file.read_text())["engine"]["max_sequences"] == 1
    before = configs(folder)
    start(engine__max_sequences=3)
    assert yaml.safe_load(folder.config_file.read_text())["engine"]["max_sequences"] == 6
    assert "Starts" not in folder.card_file.read_text()
    assert configs(folder) != before, "it may have replaced a part"


def as_before_starts(folder: RunFolder) -> None:
    """Make the run look as earlier versions left it: no record of starts, no column for them."""
    for file in (*folder.stats.iterdir(), *folder.timeline.iterdir()):
        folder.write_table(file, pq.read_table(file).drop_columns(["start"]))
    for file in folder.starts.iterdir():
        file.unlink()
    folder.starts.rmdir()
    summary = json.loads(folder.summary_file.read_text())
    del summary["identity"], summary["starts"], summary["stand_in"]
    folder.summary_file.write_text(json.dumps(summary))


def test_a_run_of_an_earlier_version_is_left_alone_and_goes_on(start: Start) -> None:
    folder = start()
    as_before_starts(folder)
    before = texts(folder)
    start(engine__max_sequences=2)
    assert texts(folder) == before, "nothing was done"
    start(engine__max_sequences=2, retry_failed=True)
    assert [made.number for made in read_starts(folder)] == [0, 1]
    card = folder.card_file.read_text()
    assert "| before | not recorded | 10 | engine.max_sequences=6, retry_failed=false |" in card
    assert "| 1 | engine.max_sequences=2, retry_failed=true |" in card
    assert "max_sequences `6 before, 2 in start 1`" in card
    assert pq.read_table(folder.stats_file(0), partitioning=None)["start"].to_pylist() == [None, 1]


def test_the_report_of_an_earlier_versions_run(start: Start) -> None:
    folder = start()
    as_before_starts(folder)
    folder.report_file.unlink()
    written, found = write(str(folder.path))
    assert found.missing == []
    assert "max_sequences" in Path(written).read_text()


def test_a_field_that_an_earlier_version_lacked_is_no_difference() -> None:
    """It had no such feature: null beside the default of today would tell of a change."""
    before = starts.Start(number=0, settings={"prompt": {"chat": True}, "seed": 1})
    now = starts.Start(number=1, settings={"prompt": {"chat": True, "keep": False}, "seed": 2})
    assert differing([before, now]) == {"seed": [1, 2]}
    assert differing([]) == {}
