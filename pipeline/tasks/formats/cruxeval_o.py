"""CRUXEval-O's prompts: the authors' own (facebookresearch/cruxeval 190faf1, prompts.py), which
lm-evaluation-harness takes too."""

from pipeline.tasks.formats.base import Format, Row

COLUMNS = (("code",), ("input",))
TASK = (
    "You are given a Python function and an assertion containing an input to the function. Complete"
    " the assertion with a literal (no unsimplified expressions, no function calls) containing the"
    " output when executing the provided code on the given input, even if the function is incorrect"
    " or incomplete. Do NOT output any extra information. "
)
DIRECT = f"""{TASK}Provide the full assertion with the correct output in [ANSWER] and [/ANSWER] \
tags, following the examples.

[PYTHON]
def f(n):
    return n
assert f(17) == ??
[/PYTHON]
[ANSWER]
assert f(17) == 17
[/ANSWER]

[PYTHON]
def f(s):
    return s + "a"
assert f("x9j") == ??
[/PYTHON]
[ANSWER]
assert f("x9j") == "x9ja"
[/ANSWER]
"""
STEPS = f"""{TASK}Execute the program step by step before arriving at an answer, and provide the \
full assertion with the correct output in [ANSWER] and [/ANSWER] tags, following the examples.

[PYTHON]
def f(s):
    s = s + s
    return "b" + s + "a"
assert f("hi") == ??
[/PYTHON]
[THOUGHT]
Let's execute the code step by step:

1. The function f is defined, which takes a single argument s.
2. The function is called with the argument "hi", so within the function, s is initially "hi".
3. Inside the function, s is concatenated with itself, so s becomes "hihi".
4. The function then returns a new string that starts with "b", followed by the value of s (which \
is now "hihi"), and ends with "a".
5. The return value of the function is therefore "bhihia".
[/THOUGHT]
[ANSWER]
assert f("hi") == "bhihia"
[/ANSWER]
"""


def problem(row: Row) -> str:
    return f"[PYTHON]\n{row['code']}\nassert f({row['input']}) == ??\n[/PYTHON]\n"


def direct(row: Row) -> str:
    return f"{DIRECT}\n{problem(row)}"


def steps(row: Row) -> str:
    return f"{STEPS}\n{problem(row)}"


FORMATS = {
    "cruxeval_o_direct": Format(
        columns=COLUMNS, text=direct, opening=lambda _: "[ANSWER]\n", stop=("[/ANSWER]",)
    ),
    "cruxeval_o_cot": Format(
        columns=COLUMNS, text=steps, opening=lambda _: "[THOUGHT]\n", stop=("[/ANSWER]",)
    ),
}
