"""MBPP's prompts. The task's text is in the column `text`, of the sanitized rows in `prompt`."""

from pipeline.tasks.formats.base import Format, Row, examples

COLUMNS = (("text", "prompt"), ("test_list",))
EXPERT = "You are an expert Python programmer, and here is your task:"


def task_of(row: Row) -> str:
    return str(row["text"] if "text" in row else row["prompt"])


def instruct(row: Row) -> str:
    tests = "\n".join(row["test_list"])
    return (
        f"{EXPERT} {task_of(row)} Your code should pass these tests:\n\n{tests}\n\n"
        "Please enclose your code within delimiters as follows:\n"
        "```python\n# YOUR CODE HERE\n```\n\n"
    )


def plain(row: Row) -> str:
    tests = "\n".join(row["test_list"][:3])
    return f"{EXPERT} {task_of(row)} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def three_shot(row: Row) -> str:
    shots = [f"{plain(one)}{one['code']}\n[DONE]" for one in examples("mbpp_three")]
    return "\n\n".join([*shots, plain(row)])


def opencompass(row: Row) -> str:
    tests = "\n".join(row["test_list"])
    return f"{EXPERT} {task_of(row)} Your code should pass these tests:\n\n {tests}  \n"


FORMATS = {
    # dInfer, mbpp_sanitized_llada_moe and mbpp_sanitized_llada1.5.
    "mbpp_instruct": Format(columns=COLUMNS, text=instruct),
    # lm-evaluation-harness, mbpp, for base models.
    "mbpp_3shot": Format(columns=COLUMNS, text=three_shot, stop=("[DONE]",)),
    # OpenCompass, mbpp_gen_830460: LLaDA's.
    "mbpp_opencompass": Format(
        columns=COLUMNS, text=opencompass, turns=lambda: examples("mbpp_turns"), stop=("[DONE]",)
    ),
}
