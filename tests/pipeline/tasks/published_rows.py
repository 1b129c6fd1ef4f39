"""Rows of the benchmarks as they are published (columns, types and encodings), with answers that
are right and answers that are not."""

import base64
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.tasks.base import Row


@dataclass(frozen=True)
class Published:
    rows: list[dict[str, Any]]
    right: list[list[str]]
    """Answers of each row."""
    wrong: list[list[str]]


def judged_rows(rows: list[Row], texts: list[str]) -> list[dict[str, Any]]:
    """The rows of a run, each with its text."""
    return [
        {**row, "row_id": str(i), "sample_index": 0, "error": None, "text": text}
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]


# --- HumanEval ---

HUMANEVAL = Published(
    rows=[
        {
            "task_id": "HumanEval/0",
            "prompt": 'def double(x: int) -> int:\n    """ Twice x.\n    >>> double(2)\n    4\n'
            '    """\n',
            "canonical_solution": "    return 2 * x\n",
            "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
            "entry_point": "double",
        }
    ],
    right=[["    return 2 * x\n", "```python\ndef double(x):\n    return x + x\n```"]],
    wrong=[["", "    return x\n", "I do not know."]],
)

# --- MBPP ---

MBPP = Published(
    rows=[
        {
            "task_id": 11,
            "text": "Write a python function to remove first and last occurrence of a given "
            "character from the string.",
            "code": "def remove_Occ(s,ch): \r\n    return s",
            "test_list": [
                'assert remove_Occ("hello","l") == "heo"',
                'assert remove_Occ("abcda","a") == "bcd"',
                'assert remove_Occ("PHP","P") == "H"',
            ],
            "test_setup_code": "",
            "challenge_test_list": ['assert remove_Occ("hellolloll","l") == "helollol"'],
        },
        {
            "task_id": 601,
            "text": "Write a function to find the longest chain which can be formed.",
            "code": "",
            "test_list": [
                "assert max_chain_length([Pair(5, 24), Pair(15, 25)], 2) == 1",
                "assert max_chain_length([Pair(5, 10), Pair(15, 25)], 2) == 2",
                "assert max_chain_length([], 0) == root",
            ],
            "test_setup_code": "root = 0",
            "challenge_test_list": [],
        },
    ],
    right=[
        [
            "def remove_Occ(s, ch):\n    i, j = s.find(ch), s.rfind(ch)\n"
            "    return s[:i] + s[i + 1 : j] + s[j + 1 :]\n",
            "Here is the function:\n```python\ndef remove_Occ(s, ch):\n    i = s.find(ch)\n"
            "    s = s[:i] + s[i + 1:]\n    i = s.rfind(ch)\n    return s[:i] + s[i + 1:]\n\n"
            "print(remove_Occ('hello', 'l'))\n```\nIt works.",
            "[BEGIN]\n 'def remove_Occ(s,ch):\r\n    i, j = s.find(ch), s.rfind(ch)\r\n"
            "    return s[:i] + s[i + 1 : j] + s[j + 1 :]' \n[DONE] \n\n ",
        ],
        [
            "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n\n"
            "def max_chain_length(pairs, n):\n    last, count = -1, 0\n"
            "    for pair in sorted(pairs, key=lambda p: p.b):\n        if pair.a > last:\n"
            "            last, count = pair.b, count + 1\n    return count\n[DONE]\nmore",
        ],
    ],
    wrong=[["", "def remove_Occ(s, ch):\n    return s\n", "def remove(s, ch):\n  return s"], [""]],
)
MBPP_SANITIZED = Published(
    rows=[
        {
            "source_file": "Benchmark Questions Verification V2.ipynb",
            "task_id": 82,
            "prompt": "Write a function to find the volume of a sphere.",
            "code": "import math\ndef volume_sphere(r):\n  return (4/3)*math.pi*r*r*r",
            "test_imports": ["import math"],
            "test_list": [
                "assert math.isclose(volume_sphere(10), 4188.790204786391, rel_tol=0.001)",
                "assert math.isclose(volume_sphere(25), 65449.84694978735, rel_tol=0.001)",
                "assert math.isclose(volume_sphere(20), 33510.32163829113, rel_tol=0.001)",
            ],
        }
    ],
    right=[["```\ndef volume_sphere(r):\n    return 4 / 3 * 3.14159265 * r ** 3\n```"]],
    wrong=[["", "def volume_sphere(r):\n    return r"]],
)

# --- GSM8K ---

GSM8K = Published(
    rows=[
        {
            "question": "Janet sells 9 eggs for $2 each and has $1,000. How much has she then?",
            "answer": "She makes 9 * 2 = $<<9*2=18>>18.\nShe has 1018.\n#### 1,018",
        }
    ],
    right=[
        ["#### 1018", "She makes 9 * 2 = 18.\nThe answer is $1,018.", "so \\boxed{1018}", "1018"]
    ],
    wrong=[["", "#### 18", "I do not know.", "1018 dollars, or 1019", "\\boxed{" * 500]],
)

# --- CRUXEval-O ---

CRUXEVAL_O = Published(
    rows=[
        {
            "code": "def f(a, b, c):\n    result = {}\n    for d in a, b, c:\n"
            "        result.update(dict.fromkeys(d))\n    return result",
            "input": "(1, ), (1, ), (1, 2)",
            "output": "{1: None, 2: None}",
            "id": "sample_1",
        },
        {
            "code": "def f(s):\n    return s + 'a'",
            "input": "'x'",
            "output": "'xa'",
            "id": "sample_2",
        },
    ],
    right=[
        [
            "assert f((1, ), (1, ), (1, 2)) == {1: None, 2: None}\n[/ANSWER]",
            "[ANSWER]\nassert f((1, ), (1, ), (1, 2)) == {2: None, 1: None}\n[/ANSWER]\nmore",
            "[THOUGHT]f(0) == 1[/THOUGHT]\n[ANSWER]assert f(1) == dict.fromkeys([1, 2])[/ANSWER]",
            "The output is:\n```python\nassert f((1, ), (1, ), (1, 2)) == {1: None, 2: None}\n```",
        ],
        ["'xa'", 'assert f("x") == "xa" # done', "assert 'xa' == f('x')", "== 'xa'\n\nprose"],
    ],
    wrong=[
        [
            "",
            "assert f((1, ), (1, ), (1, 2)) == {1: None}",
            "[ANSWER]assert f(1) == f((1, ), (1, ), (1, 2))[/ANSWER]",
            "It is a dictionary.",
        ],
        [
            "",
            "xa",
            "assert f('x') == type('E', (str,), {'__eq__': lambda *_: True})()",
            "assert f('x') == (__import__('os')._exit(0))",
        ],
    ],
)

# --- IFEval ---

IFEVAL = Published(
    rows=[
        {
            "key": 1000,
            "prompt": "Write a riddle in lowercase. Do not use any commas and highlight at least 1 "
            "section with markdown.",
            "instruction_id_list": [
                "punctuation:no_comma",
                "detectable_format:number_highlighted_sections",
            ],
            "kwargs": [{}, {"num_highlights": 1}],
        },
        {
            "key": 1001,
            "prompt": "Answer with JSON of at most 3 sentences.",
            "instruction_id_list": [
                "detectable_format:json_format",
                "length_constraints:number_sentences",
            ],
            "kwargs": [{}, {"num_sentences": 3, "relation": "less than"}],
        },
    ],
    right=[["*what* has keys but no locks"], ['{"answer": "A piano."}', "```json\n[1]\n```"]],
    wrong=[["", "what, has keys"], ["", "[" * 20000]],
)

# --- LiveCodeBench ---


def packed(tests: list[Mapping[str, str]]) -> str:
    """Private tests, as published."""
    raw = pickle.dumps(json.dumps(tests))
    return base64.b64encode(zlib.compress(raw)).decode()


def stdin_test(given: str, expected: str) -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": "stdin"}


def call_test(given: str, expected: str) -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": "functional"}


LIVECODEBENCH = Published(
    rows=[
        {
            "question_title": "A. Sum",
            "question_content": "Read two integers and print their sum and their ratio.",
            "platform": "atcoder",
            "question_id": "abc387_a",
            "contest_id": "abc387",
            "contest_date": "2025-01-04T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps([stdin_test("1 2\n", "3\n0.5\n")]),
            "private_test_cases": packed(
                [stdin_test("10 4", "14 \n2.50"), stdin_test("0 1", "1\n0")]
            ),
            "metadata": "{}",
        },
        {
            "question_title": "Pairs",
            "question_content": "Return all pairs.",
            "platform": "leetcode",
            "question_id": "3750",
            "contest_id": "weekly-contest-436",
            "contest_date": "2025-02-08T00:00:00",
            "starter_code": "class Solution:\n    def pairs(self, nums: List[int], k: int) -> "
            "List[List[int]]:\n        ",
            "difficulty": "hard",
            "public_test_cases": json.dumps([call_test("[1, 2]\n1", "[[1, 2]]")]),
            "private_test_cases": packed([call_test("[]\n0", "[]")]),
            "metadata": '{"func_name": "pairs"}',
        },
    ],
    right=[
        [
            "```python\na, b = map(int, input().split())\nprint(a + b)\nprint(a / b)\n```",
            "First an idea:\n```python\nprint(1)\n```\nThe program:\n```python\nimport sys\n\n"
            "def main():\n    a, b = map(int, sys.stdin.read().split())\n"
            "    print(a + b, a / b, sep='\\n')\n    sys.exit(0)\n\nif __name__ == '__main__':\n"
            "    main()\n```\nDone.",
            "import os\na, b = map(int, sys.stdin.buffer.readline().split())\n"
            "os.write(1, f'{a + b}\\n{a / b}\\n'.encode())\nos._exit(0)",
        ],
        [
            "```python\nclass Solution:\n    def pairs(self, nums: List[int], k: int):\n"
            "        return list(map(list, combinations(nums, 2)))\n```",
            "class Solution:\n    def pairs(self, nums, k):\n"
            "        return tuple([a, b] for i, a in enumerate(nums) for b in nums[i + 1:])",
        ],
    ],
    wrong=[
        [
            "",
            "```python\nprint(3)\nprint(0.5)\n```",
            "```python\na, b = map(int, input().split())\nprint(a + b, a / b)\n```",
            "print(open('/dev/stdin').read()); raise ValueError",
        ],
        [
            "",
            "class Solution:\n    def pairs(self, nums, k):\n        return [[1, 2]]",
            "import os\nclass Solution:\n    def pairs(self, nums, k):\n        os._exit(0)",
            "def pairs(nums, k): return 1",
        ],
    ],
)

PUBLISHED = {
    "humaneval": HUMANEVAL,
    "mbpp": MBPP,
    "mbpp, sanitized": MBPP_SANITIZED,
    "gsm8k": GSM8K,
    "cruxeval_o": CRUXEVAL_O,
    "ifeval": IFEVAL,
    "livecodebench": LIVECODEBENCH,
}
"""Task, and which of its data -> rows."""
