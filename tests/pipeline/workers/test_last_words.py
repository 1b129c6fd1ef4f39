"""What a worker says when it stops, and where."""

import json
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pipeline.workers.last_words import bug_report, say_stopped


def under_torchrun(file: Path, count: int = 0, most: int = 0) -> dict[str, str]:
    return {
        "TORCHELASTIC_ERROR_FILE": str(file),
        "TORCHELASTIC_RESTART_COUNT": str(count),
        "TORCHELASTIC_MAX_RESTARTS": str(most),
    }


def test_torchrun_reads_the_message_and_prints_it_last(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "error.json"
    say_stopped("data.path=x: no such file\nlook again", env=under_torchrun(file))
    assert capfd.readouterr() == ("", "")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(file))
    printed = str(ChildFailedError("pipeline.run", {0: failure}))
    assert "traceback : pipeline.run stopped: data.path=x: no such file\n  look again\n" in printed
    assert printed.count("data.path=x") == 1


@pytest.mark.parametrize(
    ("count", "is_final", "said"), [(0, False, 1), (1, False, 0), (0, True, 0)]
)
def test_what_a_restart_may_cure_is_said_on_stderr_as_long_as_there_is_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], count: int, is_final: bool, said: int
) -> None:
    env = under_torchrun(tmp_path / "error.json", count, most=1)
    say_stopped("the disk is full", is_final=is_final, env=env)
    assert capfd.readouterr().err.count("starts again, after this: the disk is full") == said
    assert (
        "the disk is full"
        in json.loads((tmp_path / "error.json").read_text())["message"]["message"]
    )


def test_without_a_torchrun_that_lives_the_message_goes_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    say_stopped("no torchrun", env={})
    say_stopped("its folder is gone", env=under_torchrun(tmp_path / "gone" / "error.json"))
    say_stopped("it is gone", to_launcher=False, env=under_torchrun(tmp_path / "error.json"))
    assert capfd.readouterr().err.splitlines() == [
        f"pipeline.run stopped: {why}"
        for why in ("no torchrun", "its folder is gone", "it is gone")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_bug_report_is_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    said = bug_report(KeyError("a\nb hunter2hunter2"))
    assert "\n" not in said
    assert "hunter2" not in said
    file = Path(said.split("with the traceback in ")[1])
    assert "hunter2" not in file.read_text()
    file.unlink()
    assert bug_report(KeyError("a"), "logs/rank-0.log").endswith("traceback in logs/rank-0.log")
