"""HumanEval's prompts."""

from pipeline.tasks.formats.base import Format, Row

COLUMNS = (("prompt",),)


def instruct(row: Row) -> str:
    return (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{row['prompt']}\n```\n"
    )


def instruct_opening(row: Row) -> str:
    return f"Here is the completed function:\n```python\n{row['prompt']}\n"


def opencompass(row: Row) -> str:
    return f"Complete the following python code:\n{row['prompt']}"


def completion(row: Row) -> str:
    return str(row["prompt"])


FORMATS = {
    # lm-evaluation-harness, humaneval_instruct.
    "humaneval_instruct": Format(columns=COLUMNS, text=instruct, opening=instruct_opening),
    # OpenCompass, humaneval_gen_8e312c: LLaDA's.
    "humaneval_opencompass": Format(columns=COLUMNS, text=opencompass),
    # lm-evaluation-harness, humaneval, for base models.
    "humaneval_completion": Format(
        columns=COLUMNS, text=completion, stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    ),
}
