"""The harness's own command and tasks with `--model dllm`, on local data and two workers: its score
is ours, row by row, where the rule is the same.

The demo model solves functions in HumanEval's schema, so the harness's `humaneval` runs on them.
Its metric code_eval comes from the hub; here a module of the same interface stands in its place,
which runs the same program (prompt, completion, test) in our sandbox.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

lm_eval = pytest.importorskip(
    "lm_eval", reason="needs the extra lm-eval, which `make test` installs"
)

from engine.model.defaults import PACKAGES  # noqa: E402
from pipeline.tasks import gsm8k  # noqa: E402
from pipeline.tasks.humaneval import TASK  # noqa: E402
from pipeline.tasks.sandbox import Limits, run_program  # noqa: E402
from tests.end_to_end.launcher import finished  # noqa: E402

DEMO = PACKAGES / "jobs" / "demo"
TASKS = Path(lm_eval.__file__).parent / "tasks"
NUM_ROWS = 12
CODE_EVAL = """
import datasets
import evaluate
from pipeline.tasks.sandbox import Limits, run_program

class CodeEval(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        features = {"predictions": datasets.Sequence(texts), "references": texts}
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features(features)
        )

    def _compute(self, predictions, references, k):
        assert k == [1]
        passed = [
            run_program(f"{code}\\n{test}", Limits()).passed
            for codes, test in zip(predictions, references)
            for code in codes
        ]
        return {"pass@1": sum(passed) / len(passed)}, {}
"""
GSM8K = [
    ("Tom has 3 apples and buys 4. How many has he?", "3 + 4 = <<3+4=7>>7\n#### 7"),
    ("A book costs $5. How much are 6?", "5 * 6 = <<5*6=30>>30\n#### 30"),
    ("Ann had 9 pens and lost 2. How many are left?", "9 - 2 = <<9-2=7>>7\n#### 7"),
]

ANSWERS = (
    *("{answer}", "#### {number}", "#### {number}.", "####{number}", "#### ${number}.00", ""),
    *("So it is {number}.", "{number} apples, not 12", "12, then {number}", "#### 1{number}"),
    *("#### -{number}", "#### 1,2\n#### {number}", "The answer is \\boxed{{{number}}}", "#### ,"),
    *("no number", "... {number}...", "#### {number}\nQuestion: 5", "$,", "-{number}", "{number}%"),
)


def write_tasks(folder: Path) -> None:
    rows = pq.read_table(DEMO / "task" / "prompts.parquet").slice(0, NUM_ROWS)
    pq.write_table(rows, folder / "functions.parquet")
    lines = [json.dumps({"question": q, "answer": a}) for q, a in GSM8K]
    (folder / "gsm8k.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "code_eval").mkdir()
    (folder / "code_eval" / "code_eval.py").write_text(CODE_EVAL)
    gsm8k, functions = str(folder / "gsm8k.jsonl"), str(folder / "functions.parquet")
    choice = (
        "{{ [canonical_solution, canonical_solution.replace('return', 'import'), "
        "canonical_solution.replace('=', ':')] }}"
    )
    tasks: list[dict[str, Any]] = [
        {
            "include": str(TASKS / "gsm8k" / "gsm8k.yaml"),
            "task": "gsm8k_here",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"train": gsm8k, "test": gsm8k}},
            "num_fewshot": 1,
        },
        {
            "include": str(TASKS / "humaneval" / "humaneval.yaml"),
            "task": "humaneval_here",
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {"test": functions}},
        },
        {
            "task": "choice_here",
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {"test": functions}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "target_delimiter": "",
            "doc_to_choice": choice,
            "doc_to_target": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
    ]
    (folder / "tasks").mkdir()
    for task in tasks:
        (folder / "tasks" / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))


def samples_of(folder: Path, task: str) -> list[dict[str, Any]]:
    (file,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["doc_id"])


def test_the_harness_and_our_scorer_agree_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    said = finished(
        [
            *("--model", "dllm", "--model_args"),
            f"path={DEMO / 'model'},decoding=threshold,decoding.threshold=0.9,num_samples=8,"
            "check_greedy=false",
            *("--tasks", "gsm8k_here,humaneval_here,choice_here", "--include_path", "tasks"),
            *("--apply_chat_template", "--gen_kwargs", "max_gen_toks=128"),
            *("--output_path", "out", "--log_samples", "--confirm_run_unsafe_code"),
            *("--batch_size", "auto"),
        ],
        tmp_path,
        module="jobs.lm_eval",
        num_workers=2,
    )
    assert "lower bounds" in said
    rows = samples_of(tmp_path, "humaneval_here")
    assert [row["doc_id"] for row in rows] == list(range(NUM_ROWS)), "both ranks' rows, once each"
    passed = [ours(row["doc"], row["resps"][0][0]) for row in rows]
    assert [row["pass@1"] for row in rows] == passed
    assert sum(passed) >= 0.8 * NUM_ROWS
    choices = samples_of(tmp_path, "choice_here")
    assert sum(row["acc"] for row in choices) >= 0.8 * NUM_ROWS
    answers = samples_of(tmp_path, "gsm8k_here")
    assert len(answers) == len(GSM8K) * 2, "two filters"
    assert all("Question:" not in row["resps"][0][0] for row in answers)
    for row in answers:
        text, reference = row["resps"][0][0], row["doc"]["answer"]
        rule = {"strict-match": gsm8k.strict, "flexible-extract": gsm8k.flexible}[row["filter"]]
        assert row["exact_match"] == gsm8k.is_same(rule(text), reference)


def test_gsm8k_is_scored_alike_whatever_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness's filters and metric against ours, on right, wrong and odd answers."""
    from lm_eval.api.instance import Instance
    from lm_eval.tasks import TaskManager

    write_tasks(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    task = manager.load(["gsm8k_here"])["tasks"]["gsm8k_here"]
    for doc in task.test_docs():
        number = doc["answer"].split("#### ")[1]
        for text in ANSWERS:
            said = text.format(number=number, answer=doc["answer"])
            instance = Instance("generate_until", doc, ("", {}), 0, resps=[said])
            task._instances = [instance]
            task.apply_filters()
            for name, rule in (
                ("strict-match", gsm8k.strict),
                ("flexible-extract", gsm8k.flexible),
            ):
                its = task.process_results(doc, [instance.filtered_resps[name]])["exact_match"]
                assert its == gsm8k.is_same(rule(said), doc["answer"]), (name, said)


def ours(row: dict[str, Any], text: str) -> bool:
    return run_program(TASK.program(row, text), Limits()).passed
