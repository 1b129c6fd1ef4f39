"""Many generations are run some at a time; an interrupt starts no more of them."""

from typing import Any

import pytest

from pipeline import score
from pipeline.tasks import TASKS, trials
from pipeline.tasks.judges import Judge
from pipeline.tasks.judging import Judged
from pipeline.tasks.sandbox import Limits


def test_an_interrupt_starts_no_more_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Any] = []

    class Watched(Judge):
        def judge(self, row: Any) -> Judged:
            judged.append(row)
            return super().judge(row)

    def interrupt(num_done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "Judge", Watched)
    row: dict[str, Any] = {"row_id": "a", "sample_index": 0, "text": "    return x", "error": None}
    row |= {"prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f):\n    pass\n"}
    with pytest.raises(KeyboardInterrupt):
        trials.run_all([row] * 100, TASKS["functions"], Limits(), 1, interrupt)
    assert len(judged) < 10


def test_the_command_says_that_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "score_run", interrupted)
    with pytest.raises(SystemExit) as stop:
        score.main(["a"])
    assert stop.value.code == 130
    assert "interrupted (Ctrl-C); no scores are written" in capsys.readouterr().err
