"""docs/config.md: its reference is that of the dataclasses, its YAML file and its sweep run."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config.fields import all_fields, slurm_fields
from pipeline.config.job import as_dict
from pipeline.launch import launch
from pipeline.launch.sweep import FIGURES
from pipeline.run import run
from tests.docs.write_config import FILE, page
from tests.launched import composed, jobs_of

PAGE = FILE.read_text()


def own_file() -> str:
    (text,) = re.findall(r"`mine.yaml`, in any folder:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def test_the_reference_is_that_of_the_dataclasses() -> None:
    assert page() == PAGE, "run python -m tests.docs.write_config"


def test_every_field_of_a_job_is_in_the_reference_with_its_meaning() -> None:
    listed = set(re.findall(r"^\| `([\w.]+)`", PAGE, re.MULTILINE))
    assert listed == (set(all_fields()) - {"name"}) | set(slurm_fields())
    flat = set()
    for section, value in as_dict(composed("conf=demo")).items():
        for name, inner in value.items() if isinstance(value, dict) else ():
            deeper = [f"{name}.{last}" for last in inner] if isinstance(inner, dict) else [name]
            flat |= {f"{section}.{its}" for its in deeper if its != "name"}
    assert flat <= listed
    meant = [name for name, field in all_fields().items() if field.meaning]
    assert {"data.path", "engine.soft.top_k", "cache.behind", "output"} <= set(meant)


@pytest.mark.parametrize("folder", ["", "conf"])
def test_the_file_of_ones_own_gives_the_job_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    head = "# @package _global_\n" if folder else ""
    (tmp_path / folder / "mine.yaml").write_text(head + own_file())
    config = composed("--config-dir=.", "conf=mine", "data.limit=5")
    written = yaml.safe_load(own_file())
    assert (config.name, config.output) == ("mine", "runs/mine")
    assert config.model.path == "GSAI-ML/LLaDA-8B-Instruct"
    assert config.engine.max_sequences == 64
    assert (config.data.path, config.data.where) == tuple(written["data"].values())
    assert config.prompt.column == written["prompt"]["column"]
    assert (config.generation.max_new_tokens, config.data.limit) == (512, 5)


def test_the_sweep_runs_in_folders_of_their_own_and_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"^python -m pipeline.run (-m .*)$", PAGE, re.MULTILINE)
    monkeypatch.setattr("sys.argv", ["pipeline.run", *line.split()])
    launch(run)
    said = capfd.readouterr().out.splitlines()
    names = ["threshold", "factor"]
    assert {file.name for file in Path("runs/demo").iterdir()} == {f"decoding={n}" for n in names}
    assert re.split("  +", said[-3]) == ["decoding", *FIGURES]
    for name, row in zip(names, said[-2:], strict=True):
        assert row.split()[:3] == [name, "8", "0"]
        assert row.split()[-1] == f"runs/demo/decoding={name}"
    numbers = [number for _, number in jobs_of(*line.split())]
    assert numbers == [0, 1]
