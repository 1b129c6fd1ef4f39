"""GSM8K: is the number that the text ends in the row's?

Three rules, all reported. `strict_match` and `flexible_extract` are those of
lm-evaluation-harness's task gsm8k; `math_verify` is Hugging Face's, which reads LaTeX and
expressions. A row passes by `flexible_extract`, which asks for no form of the answer.
"""

import re
from functools import cache
from typing import Any

from pipeline.tasks.base import Metric, Row, Task, Verdict

STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = [re.compile(its) for its in (r",", r"\$", r"(?s).*#### ", r"\.$")]
"""What is removed from both sides, in this order, before they are compared."""
NOTHING = "[invalid]"


def strict(text: str) -> str:
    """The first number behind `#### `."""
    found = STRICT.search(text)
    return found[1].strip() if found else NOTHING


def flexible(text: str) -> str:
    """The last number."""
    found = [match[0] for match in FLEXIBLE.finditer(text)]
    return found[-1].strip() if found else NOTHING


def is_same(answer: str, reference: str) -> bool:
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    for ignored in IGNORED:
        text = ignored.sub("", text)
    return text.lower()


def is_verified(text: str, reference: str) -> bool:
    """Whether math-verify finds the reference's number in the text."""
    parse, verify = _math_verify()
    return bool(verify(parse(_plain(reference)), parse(text)))


@cache
def _math_verify() -> tuple[Any, Any]:
    from math_verify import parse, verify

    return parse, verify


def verdict(row: Row, text: str) -> Verdict:
    reference = row["answer"]
    values = {
        "strict_match": is_same(strict(text), reference),
        "flexible_extract": is_same(flexible(text), reference),
        "math_verify": is_verified(text, reference),
    }
    passed = values["flexible_extract"]
    has_number = FLEXIBLE.search(text) is not None
    why = "another number" if has_number else "no number"
    return Verdict(passed, "passed" if passed else f"failed: {why}", values)


TASK = Task(
    columns=("answer",),
    verdict=verdict,
    metrics=(Metric("strict_match"), Metric("flexible_extract"), Metric("math_verify")),
    modules=("math_verify",),
    extra="math",
)
