"""Each benchmark's scorer: right answers score 1, empty and broken ones 0, on rows as published."""

import base64
import zlib
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from pipeline.tasks import TASKS
from pipeline.tasks.figures import metric_figures, tables
from pipeline.tasks.sandbox import Limits
from pipeline.tasks.trials import run_all
from tests.pipeline.tasks.published_rows import GSM8K, IFEVAL, PUBLISHED, judged_rows

LIMITS = Limits(timeout_s=60.0, cpu_s=60)
NAMES = [name for name in PUBLISHED if name != "ifeval"]


@pytest.fixture
def ifeval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What IFEval's checkers need: their modules, and nltk's data, here without any abbreviation
    and the like, so that every full stop ends a sentence."""
    if missing := [name for name in TASKS["ifeval"].modules if find_spec(name) is None]:
        pytest.skip(f"the extra ifeval is not installed: {', '.join(missing)}")
    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (folder / name).write_text("")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))


def scored(name: str, texts: list[list[str]]) -> list[dict[str, Any]]:
    """Each answer of each row of PUBLISHED[name]."""
    rows = [row for row, its in zip(PUBLISHED[name].rows, texts, strict=True) for _ in its]
    task = TASKS[name.partition(",")[0]]
    return run_all(judged_rows(rows, list(chain(*texts))), task, LIMITS, 2)[0]


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_score_1(name: str) -> None:
    scores = scored(name, PUBLISHED[name].right)
    assert [score["reason"] for score in scores] == ["passed"] * len(scores)


@pytest.mark.parametrize("name", NAMES)
def test_empty_and_broken_answers_score_0(name: str) -> None:
    scores = scored(name, PUBLISHED[name].wrong)
    assert not any(score["passed"] for score in scores)
    assert all(score["reason"].startswith("failed: ") for score in scores)


def test_gsm8k_reports_three_rules() -> None:
    """As lm-evaluation-harness's task has the first two. Only what stands behind #### is a strict
    match; the last number is the flexible one; math-verify also reads what is in LaTeX."""
    texts = ["#### 1018\nAnd 2 more.", "1018", "\\boxed{1018} in 3 steps", "#### 1,018.", "none"]
    rows = judged_rows(GSM8K.rows * len(texts), texts)
    scores, _ = run_all(rows, TASKS["gsm8k"], LIMITS, 1)
    found = [
        tuple(bool(score[name]) for name in ("strict_match", "flexible_extract", "math_verify"))
        for score in scores
    ]
    assert found == [
        (True, False, False),
        (False, True, True),
        (False, False, True),
        (True, True, True),
        (False, False, False),
    ]
    figures = metric_figures(TASKS["gsm8k"].metrics, scores)
    assert figures["strict_match"].value == pytest.approx(2 / 5)
    assert figures["math_verify"].value == pytest.approx(3 / 5)


def test_ifeval_right_and_wrong(ifeval: None) -> None:
    right, wrong = scored("ifeval", IFEVAL.right), scored("ifeval", IFEVAL.wrong)
    assert all(score["passed"] for score in right), right
    assert not any(score["passed"] for score in wrong), wrong
    assert wrong[-1]["reason"] == "failed: RecursionError", "JSON nested too deeply"


def test_ifeval_has_the_four_accuracies(ifeval: None) -> None:
    """By hand. The first text fails an instruction of two, but not without its first line; the
    second has no text at all."""
    texts = ["Sure, here it is:\n*what* has keys", ""]
    scores, _ = run_all(judged_rows(IFEVAL.rows, texts), TASKS["ifeval"], LIMITS, 1)
    figures = metric_figures(TASKS["ifeval"].metrics, scores)
    assert {name: figure.value for name, figure in figures.items()} == {
        "prompt_level_strict_acc": 0.0,
        "inst_level_strict_acc": 1 / 4,
        "prompt_level_loose_acc": 1 / 2,
        "inst_level_loose_acc": 2 / 4,
    }
    kinds = tables(scores)["kind of instruction, strict"]
    assert {kind: (its.value, its.num) for kind, its in kinds.items()} == {
        "detectable_format": (0.5, 2),
        "length_constraints": (0.0, 1),
        "punctuation": (0.0, 1),
    }


def test_livecodebench_counts_by_difficulty_and_platform() -> None:
    texts = [PUBLISHED["livecodebench"].right[0][0], ""]
    rows = judged_rows(PUBLISHED["livecodebench"].rows, texts)
    found = tables(run_all(rows, TASKS["livecodebench"], LIMITS, 2)[0])
    assert {
        table: {category: its.value for category, its in rows.items()}
        for table, rows in found.items()
    } == {
        "difficulty": {"easy": 1.0, "hard": 0.0},
        "platform": {"atcoder": 1.0, "leetcode": 0.0},
    }


def test_a_row_without_generation_has_its_weight(ifeval: None) -> None:
    row = {**judged_rows(IFEVAL.rows[:1], ["x"])[0], "text": None, "error": "prompt: empty"}
    (score,), _ = run_all([row], TASKS["ifeval"], LIMITS, 1)
    assert (score["passed"], score["reason"]) == (False, "no generation: prompt: empty")
    assert (score["num_instructions"], score["inst_level_loose_acc"]) == (2, 0)


def test_tests_that_would_run_code_stop_the_scoring_and_name_the_row() -> None:
    evil = base64.b64encode(zlib.compress(b"cos\nsystem\n(S'exit'\ntR.")).decode()
    rows = judged_rows(PUBLISHED["livecodebench"].rows, ["", ""])
    rows[1]["private_test_cases"] = evil
    with pytest.raises(UserError, match="row 1: private_test_cases: a pickle that holds more than"):
        run_all(rows, TASKS["livecodebench"], LIMITS, 1)
