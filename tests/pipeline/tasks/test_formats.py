"""The prompts of benchmarks: their exact texts, lm-evaluation-harness's own where it is installed,
and how they become prompts of a job."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.prompt import PromptConfig
from pipeline.prompt.columns import prompt_columns
from pipeline.prompt.kept import MESSAGES, PROMPT_TEXT, PromptKeeper, kept_schema
from pipeline.prompt.prompter import Prompter
from pipeline.tasks.formats import FORMATS
from pipeline.tasks.formats.base import examples
from tests.launched import composed
from tests.pipeline.tasks.published_rows import (
    CRUXEVAL_O,
    GSM8K,
    HUMANEVAL,
    LIVECODEBENCH,
    MBPP,
    MBPP_SANITIZED,
)

DEMO = composed("conf=demo").model.path


def text(name: str, row: Any) -> str:
    return FORMATS[name].text(row)


def test_humaneval() -> None:
    row = HUMANEVAL.rows[0]
    assert text("humaneval_completion", row) == row["prompt"]
    assert text("humaneval_opencompass", row).startswith(
        "Complete the following python code:\ndef "
    )
    assert text("humaneval_instruct", row) == (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{row['prompt']}\n```\n"
    )
    opening = FORMATS["humaneval_instruct"].opening
    assert opening is not None
    assert opening(row) == f"Here is the completed function:\n```python\n{row['prompt']}\n"


def test_mbpp_takes_the_task_from_either_column() -> None:
    for row, task in ((MBPP.rows[0], "text"), (MBPP_SANITIZED.rows[0], "prompt")):
        tests = "\n".join(row["test_list"])
        assert text("mbpp_instruct", row) == (
            f"You are an expert Python programmer, and here is your task: {row[task]} Your code "
            f"should pass these tests:\n\n{tests}\n\nPlease enclose your code within delimiters as "
            "follows:\n```python\n# YOUR CODE HERE\n```\n\n"
        )
        config = PromptConfig(format="mbpp_instruct")
        assert prompt_columns(list(row), config).prompts == [task, "test_list"]


def test_livecodebench_asks_for_a_script_or_shows_the_starter_code() -> None:
    script, function = (text("livecodebench", row) for row in LIVECODEBENCH.rows)
    assert "### Format: Read the inputs from stdin solve" in script
    assert "```python\n# YOUR CODE HERE\n```" in script
    assert "### Format: You will use the following starter code" in function
    assert f"```python\n{LIVECODEBENCH.rows[1]['starter_code']}\n```\n\n### Answer: " in function


def test_cruxeval_o_is_the_authors_text_with_its_opening() -> None:
    row = CRUXEVAL_O.rows[1]
    direct = text("cruxeval_o_direct", row)
    assert direct.count("[PYTHON]") == 3
    assert direct.endswith(f"[PYTHON]\n{row['code']}\nassert f('x') == ??\n[/PYTHON]\n")
    assert 'assert f("x9j") == "x9ja"\n[/ANSWER]\n\n[PYTHON]\n' in direct
    assert text("cruxeval_o_cot", row).count("[THOUGHT]") == 1


def test_the_examples_are_whole() -> None:
    assert [len(examples(name)) for name in ("gsm8k_four", "gsm8k_eight", "mbpp_three")] == [
        4,
        8,
        3,
    ]
    assert [its["role"] for its in examples("mbpp_turns")] == ["user", "assistant"] * 3
    for name in ("gsm8k_dinfer", "gsm8k_dinfer_llada_1_5"):
        assert text(name, GSM8K.rows[0]).count("Question: ") == 5
    turns = FORMATS["gsm8k_opencompass"].turns
    assert turns is not None
    assert len(turns()) == 8
    assert turns()[0]["content"].endswith("\nLet's think step by step\nAnswer:")


HARNESS = {
    "gsm8k_cot_8shot": ("gsm8k/gsm8k-cot.yaml", GSM8K, 8, {}),
    "gsm8k_cot": ("gsm8k/gsm8k-cot.yaml", GSM8K, 0, {}),
    "mbpp_3shot": (
        "mbpp/mbpp.yaml",
        MBPP,
        3,
        {
            "metric_list": [{"metric": "exact_match"}],
            "fewshot_config": {
                "sampler": "first_n",
                "samples": [{**its, "is_fewshot": True} for its in examples("mbpp_three")],
            },
        },
    ),
}


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="the extra ifeval is not installed")
@pytest.mark.parametrize("name", HARNESS)
def test_the_texts_are_the_harness_s_own(tmp_path: Path, name: str) -> None:
    from lm_eval import tasks
    from lm_eval.api.task import ConfigurableTask

    file, published, num_shots, changes = HARNESS[name]
    data = tmp_path / "rows.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in published.rows))
    yaml.SafeLoader.add_constructor("!function", lambda loader, node: node.value)
    config = yaml.safe_load((Path(tasks.__file__).parent / file).read_text()) | changes
    config |= {"dataset_path": "json", "dataset_name": None}
    config["dataset_kwargs"] = {"data_files": {name: str(data) for name in ("train", "test")}}
    task = ConfigurableTask(config=config)
    for doc, row in zip(task.test_docs(), published.rows, strict=True):
        assert task.fewshot_context(doc, num_fewshot=num_shots) == text(name, row)
    assert list(FORMATS[name].stop) == config["generation_kwargs"]["until"]


# --- in a job ---


def prompter(**settings: Any) -> Prompter:
    return Prompter(Path(DEMO), PromptConfig(**settings), 1 << 20)


def test_an_opening_stands_behind_the_chat_template_and_before_the_answer() -> None:
    its = prompter(format="humaneval_instruct")
    prompt = its.prompt(HUMANEVAL.rows[0])
    plain = its.chat.conversation(
        "prompt", [{"role": "user", "content": prompt.messages[0]["content"]}]
    )
    assert prompt.text == plain.text + prompt.opening
    assert its.tokenizer.decode(prompt.ids).endswith(prompt.opening)


def test_raw_prompts_are_the_text_and_the_opening() -> None:
    prompt = prompter(format="cruxeval_o_direct", chat=False).prompt(CRUXEVAL_O.rows[0])
    assert prompt.text.endswith("[/PYTHON]\n[ANSWER]\n")


def test_turns_go_through_the_chat_template() -> None:
    prompt = prompter(format="gsm8k_opencompass", system="Be short.").prompt(GSM8K.rows[0])
    assert [turn["role"] for turn in prompt.messages] == [*(["user", "assistant"] * 4), "user"]
    assert prompt.text.index("Be short.") < prompt.text.index("Angelo") < prompt.text.index("Janet")


def test_a_row_without_a_column_s_value_is_that_row_s_error() -> None:
    row = {**MBPP.rows[0], "test_list": None}
    with pytest.raises(Exception, match="test_list: null; give the row a prompt"):
        prompter(format="mbpp_instruct").prompt(row)


def test_kept_messages_hold_the_whole_answer() -> None:
    import pyarrow as pa

    config = PromptConfig(format="humaneval_instruct", keep=True)
    row = HUMANEVAL.rows[0]
    schema = kept_schema(
        pa.schema([(name, pa.string()) for name in row]), prompt_columns(list(row), config), config
    )
    prompt = prompter(format="humaneval_instruct").prompt(row)
    kept = PromptKeeper(schema, None).columns([prompt, None], ["    return 2 * x", None])
    assert kept[PROMPT_TEXT] == [prompt.text, None]
    assert kept[MESSAGES][0][-1]["content"] == f"{prompt.opening}    return 2 * x"
    assert kept[MESSAGES][0][0]["content"] == text("humaneval_instruct", row)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"format": "nonsense"}, "prompt.format='nonsense': give one of humaneval_instruct"),
        ({"format": "gsm8k_cot", "template": "{question}"}, "each writes the whole prompt"),
        ({"format": "gsm8k_opencompass", "chat": False}, "its examples are turns"),
    ],
)
def test_formats_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PromptConfig(**settings)


def test_data_of_another_benchmark_is_refused() -> None:
    with pytest.raises(
        ValueError, match="reads the columns question, and question not in the data"
    ):
        prompt_columns(list(HUMANEVAL.rows[0]), PromptConfig(format="gsm8k_cot"))


def test_a_format_s_stops_hold_unless_others_are_given() -> None:
    assert composed("conf=gsm8k").generation.stop == ["Question:", "</s>", "<|im_end|>"]
    assert composed("conf=gsm8k", "generation.stop=[END]").generation.stop == ["END"]
    assert composed("conf=gsm8k", "generation.stop=[]").generation.stop == []
    assert composed("conf=humaneval").generation.stop is None
