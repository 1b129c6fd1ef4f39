"""A folder in which other files stand is refused; one that a dead start left behind is used."""

from pathlib import Path

import pytest

from engine.errors import UserError
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.run_folder.strangers import check_is_free
from tests.checkpoints import job, output_rows, prompts, write_parquet


def with_files(folder: Path, *names: str) -> RunFolder:
    for name in names:
        file = folder / name
        if name.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("mine")
    return RunFolder(folder)


STRANGE = {
    "a README": (["README.md"], "README.md"),
    "a config": (["config.yaml", "src/main.py"], "config.yaml, src/"),
    "a folder": (["thesis/"], "thesis/"),
    "data of something else": (["data/train.parquet"], "data/train.parquet"),
    "parts without a plan": (["data/part-00000.parquet", "run.lock"], "data/part-00000.parquet"),
    "stats of something else": (["stats/weights.csv", "logs/a.log"], "stats/weights.csv"),
    "someone's tmp": (["tmp/draft.txt"], "tmp/draft.txt"),
    "runs": (["a/run.json", "b/run.json"], "a/, b/"),
    "partitions of something else": (["year=2024/a.parquet"], "year=2024/"),
    "many": ([f"{i}.txt" for i in range(9)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ..., but no run"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_folder_with_other_files_is_refused(tmp_path: Path, case: str) -> None:
    names, said = STRANGE[case]
    folder = with_files(tmp_path / "mine", *names)
    with pytest.raises(UserError) as error:
        check_is_free(folder)
    assert str(error.value).startswith(f"output={folder.path}: is in use for something else: it ")
    assert f"it holds {said}" in str(error.value)
    assert f"for example output={folder.path}/run" in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["data/", "stats/", "timeline/", "logs/rank-0.log", "tmp/trial.node-7-123", "run.lock"],
        ["tmp/data-part-00003.parquet.node7-99", "launch.json"],
        ["logs/slurm-1234.out"],
        [".gitignore", ".nfs0001", "lost+found/"],
        ["run.json", "README.md", "anything.txt"],
    ],
)
def test_an_empty_folder_and_what_a_dead_start_leaves_are_used(
    tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    check_is_free(with_files(tmp_path / "mine", *names))


def test_a_run_may_stand_beside_the_runs_of_its_sweep(tmp_path: Path) -> None:
    names = ("decoding=threshold/run.json", "seed=1,generation.temperature=0.5/run.json")
    check_is_free(with_files(tmp_path / "run", *names))


def test_what_a_start_really_leaves_is_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    check_is_free(folder)
    folder.make()
    with locked(folder):
        check_is_free(folder)
    check_is_free(folder)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match=r"output=.*run: is a file; name a folder"):
        check_is_free(RunFolder(tmp_path / "run"))


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_job_leaves_the_strangers_as_they_were(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], dry_run: bool
) -> None:
    folder = with_files(tmp_path / "mine", "README.md", "config.yaml").path
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    config = job(checkpoint, data, str(folder), stand_in=True, dry_run=dry_run)
    with pytest.raises(SystemExit) as stop:
        run(config, 0)
    assert stop.value.code == 1
    assert "it holds README.md, config.yaml, but no run.json" in capfd.readouterr().err
    assert sorted(its.name for its in Path(folder).iterdir()) == ["README.md", "config.yaml"]
    assert {its.read_text() for its in Path(folder).iterdir()} == {"mine"}


def test_a_job_resumes_in_its_own_folder(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    config = job(checkpoint, data, tmp_path / "run", stand_in=True)
    run(config, 0)
    run(config, 0)
    assert len(output_rows(tmp_path / "run")) == 4
