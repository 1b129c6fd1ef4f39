"""Answers to one prompt: right ones in the forms that models give them, and wrong ones."""

import textwrap

HEAD = "import math\nfrom typing import List\n\n\ndef half(x):\n    return x / 2\n\n\n"
SIGNATURE = (
    "def total(xs: List[int]) -> int:\n"
    '    """Sum of a list.\n\n    >>> total([1, 2])\n    3\n    """\n'
)
PROMPT = HEAD + SIGNATURE
BODY = (
    "    result = 0\n"
    "    for x in xs:\n"
    "        # the sum of halves, doubled\n"
    "        result += half(x)\n\n"
    "    return math.floor(2 * result)\n"
)
TEST = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
ROW = {"prompt": PROMPT, "entry_point": "total", "test": TEST}
FUNCTION = PROMPT + BODY
SHORT = "def total(xs):\n    return sum(xs)\n"
WRONG = "def total(xs):\n    return max(xs)\n"
TICKS = "`" * 3


def fence(code: str, language: str = "python", mark: str = TICKS) -> str:
    return f"{mark}{language}\n{code}{mark}\n"


def indent(text: str, by: str) -> str:
    return textwrap.indent(text, by)


FENCES = {
    "in a fence": fence(FUNCTION),
    "in prose and a fence": f"Here's the function:\n\n{fence(FUNCTION)}\nIt isn't hard.\n",
    "no language": fence(FUNCTION, ""),
    "py": fence(FUNCTION, "py"),
    "Python3": fence(FUNCTION, "Python3"),
    "attributes": fence(FUNCTION, "python {.line-numbers}"),
    "title": fence(FUNCTION, 'python title="total.py"'),
    "another language's name": fence(FUNCTION, "text"),
    "tildes": fence(FUNCTION, mark="~~~"),
    "five backticks": fence(FUNCTION, mark="`" * 5),
    "a fence in a fence": fence(f"The code:\n{fence(FUNCTION)}", "markdown", "`" * 4),
    "opened in mid-line": f"It's this: {TICKS}python\n{FUNCTION}{TICKS}\n",
    "closed in mid-line": f"{TICKS}python\n{FUNCTION.rstrip()}{TICKS} isn't it?",
    "code in the opener's line": f"{TICKS}python {SHORT}{TICKS}",
    "code behind the opener": f"{TICKS}{SHORT}{TICKS}",
    "never closed": f"So:\n{TICKS}python\n{FUNCTION}",
    "never opened": f"{FUNCTION}{TICKS}\n\nIt isn't hard.",
    "in a list": f"1. It isn't hard:\n\n{indent(fence(FUNCTION), '   ')}\n2. Done.\n",
    "in a list's first line": "- " + indent(fence(FUNCTION), "  ").lstrip(),
    "in a quote": "It's:\n\n" + indent(fence(FUNCTION), "> "),
    "in a quote in a quote": "".join(f"> > {line}\n" for line in fence(FUNCTION).split("\n")),
    "doctest": fence(">>> def total(xs):\n...     return sum(xs)\n...\n>>> total([1, 2])\n3\n"),
    "usage first": f"Use it:\n{fence('print(total([1, 2]))')}\nIt:\n{fence(FUNCTION)}",
    "shell first": fence("pip install numpy\n", "bash") + fence(FUNCTION, ""),
    "wrong first": f"{fence(WRONG)}\nThat fails for an empty list. Corrected:\n{fence(SHORT)}",
    "wrong first, with output": f"{fence(WRONG + 'print(total([1]))')}\nBetter:\n{fence(SHORT)}",
    "small and wrong last": f"{fence(FUNCTION)}\nNot like this:\n{fence(WRONG)}",
    "prompt first": f"We're given:\n{fence(PROMPT)}\nand so:\n{fence(SHORT)}",
    "stub first": f"{fence(PROMPT + '    pass')}\nNow:\n{fence(SHORT)}",
    "unimplemented last": f"{fence(SHORT)}\n{fence(PROMPT + '    raise NotImplementedError()')}",
    "usage last": fence(SHORT) + fence("from solution import total\ntotal = total([1])\n"),
    "import apart": fence("from functools import reduce\n")
    + fence("def total(xs):\n    return reduce(lambda a, b: a + b, xs, 0)\n"),
    "helpers apart": fence("def plus(a, b):\n    return add(a, b)\n")
    + fence("def total(xs):\n    s = 0\n    for x in xs:\n        s = plus(s, x)\n    return s\n")
    + fence("from operator import add\n"),
    "helper apart, future annotations": fence("def plus(a: No, b):\n    return a + b\n")
    + fence(
        "from __future__ import annotations\n\n\ndef total(xs):\n    s = 0\n"
        "    for x in xs:\n        s = plus(s, x)\n    return s\n"
    ),
    "a fence in a docstring": fence(
        f'def total(xs):\n    """Sum.\n\n{TICKS}\ntotal([1])\n{TICKS}\n    """\n'
        "    return sum(xs)\n"
    ),
    "a fence in a string": fence(f"MARK = '{TICKS}'\n{SHORT}"),
    "many times": f"{fence(SHORT)}\nOr:\n" * 200,
    "quotes in the prose": f"It's \"\"\" simple, isn't it:\n{fence(FUNCTION)}\n'''",
}
THINKING = {
    "a longer draft": f"<think>\nIt's:\n{fence(WRONG * 2)}</think>\n{fence(SHORT)}",
    "the draft is a body": f"<think>\n    return max(xs)\n</think>\n{SHORT}",
    "its mark in code": f"{SHORT.rstrip()} if '</think>' else 0\n",
    "a draft left open": f"<think>\n{TICKS}python\n{WRONG}</think>\n{fence(SHORT)}",
    "no opening mark, then a body": f"It's max(xs)?\n{fence(WRONG)}</think>\n\n{BODY}",
    "nothing behind it": f"<think>\n{fence(SHORT)}</think>\n",
    "never closed": f"<think>\n{fence(SHORT)}So that's",
}
BARE = {
    "bare": FUNCTION,
    "without the head": SIGNATURE + BODY,
    "in prose": f"Sure, here's the function:\n\n{FUNCTION}\nIt isn't hard, is it?\n",
    "a space in front": " " + SHORT,
    "indented as a Markdown block": f"It's this:\n\n{indent(FUNCTION, '    ')}\nIsn't it.\n",
    "all indented": indent(FUNCTION, "    "),
    "one line": "def total(xs): return sum(xs)",
    "tests cut off": f"{FUNCTION}\nassert total([1, 2",
    "a string cut off": f"{FUNCTION}\nprint('and",
    "a docstring cut off": f'{FUNCTION}\n\ndef other():\n    """Some',
    "a quote left open in the prose": f"It's '''so:\n\n{FUNCTION}",
}
BEHIND = {
    "a guard that reads input": "if __name__ == '__main__':\n    print(total([int(input())]))\n",
    "a guard that exits": 'import sys\nif "__main__" == __name__:\n    sys.exit(0)\n',
    "unittest": "import unittest\n\n\nclass T(unittest.TestCase):\n    def test(self):\n"
    "        self.assertEqual(total([1]), 2)\n\n\nunittest.main()\n",
    "an assert": "assert total([1, 2]) == 4, 'of its own'\n",
    "prints": "print(total('nothing'))\nprint(total([1, 2]), input())\n",
    "input": "numbers = [int(x) for x in input().split()]\nprint(total(numbers))\n",
    "a use in a variable": "result = total('nothing')\n",
    "a use in its own variable": "total = total([1, 2, 3])\n",
    "a loop of uses": "for case in [[1], None]:\n    print(total(case))\n",
    "an endless loop": "while True:\n    print(total([1]))\n",
    "exit": "exit()\n",
    "semicolons": "import sys; print(total([])); sys.exit(0)\n",
    "several": "def main():\n    print(total([1]))\n\n\nmain()\nexit(1)\n",
    "an await": "import asyncio\nawait asyncio.sleep(1)\n",
    "a bare return": "return total([1, 2])\n",
}
NEEDED = {
    "a variable": "START = 0\n\n\ndef total(xs):\n    return sum(xs, START)\n",
    "a variable that is set in steps": "TABLE = {}\nTABLE['a'] = 1\nfor i in range(3):\n"
    "    TABLE.setdefault(i, i)\nORDER = []\nORDER.append(1)\n\n\n"
    "def total(xs):\n    return sum(TABLE[1] * ORDER[0] * x for x in xs)\n",
    "a guarded import": "try:\n    from no_such import fsum\nexcept ImportError:\n"
    "    from math import fsum\n\n\ndef total(xs):\n    return fsum(xs)\n",
    "a registry": "ALL = {}\n\n\ndef entry(f):\n    ALL[f.__name__] = f\n    return f\n\n\n"
    "@entry\ndef adds(xs):\n    return sum(xs)\n\n\ndef total(xs):\n    return ALL['adds'](xs)\n",
    "a decorator": "import functools\n\n\n@functools.lru_cache(maxsize=None)\ndef add(a, b):\n"
    "    return a + b\n\n\n@(lambda f: f)\ndef total(xs):\n"
    "    return functools.reduce(add, xs, 0)\n",
    "a nested function": "def total(xs):\n    def total(i):\n"
    "        return 0 if i == len(xs) else xs[i] + total(i + 1)\n    return total(0)\n",
    "a later definition": WRONG + "\n\n" + SHORT,
    "a definition by cases": "import sys\nif sys.version_info > (3,):\n    def total(xs):\n"
    "        return sum(xs)\nelse:\n    def total(xs):\n        return None\n",
    "a helper named as the test's": "def check(x):\n    return x\n\n\n"
    "def total(xs):\n    return sum(check(x) for x in xs)\n",
    "deep recursion": "import sys\nsys.setrecursionlimit(5000)\n\n\ndef total(xs, depth=3000):\n"
    "    return total(xs, depth - 1) if depth else sum(xs)\n",
    "future annotations": "from __future__ import annotations\n\n\n"
    "def total(xs: NoSuchName) -> NoSuchName:\n    return sum(xs)\n",
    "future annotations, late": "import math; from __future__ import (annotations,\n  division)\n"
    "def total(xs: NoSuchName) -> NoSuchName:\n    return sum(xs)\n",
    "future annotations and a helper named as the test's": "from __future__ import annotations\n"
    "def check(x: No):\n    return x\n\n\ndef total(xs):\n    return sum(map(check, xs))\n",
    "a dataclass": "from dataclasses import dataclass\n\n\n@dataclass\nclass Sum:\n    x: int = 0\n"
    "\n\ndef total(xs):\n    return sum((Sum(x).x for x in xs), Sum().x)\n",
    "a lambda": "total = lambda xs: sum(xs)\n",
    "an annotated lambda": "from typing import Callable\ntotal: Callable = lambda xs: sum(xs)\n",
    "a partial": "from functools import partial\n\n\ndef add(start, xs):\n"
    "    return sum(xs, start)\n\n\ntotal = partial(add, 0)\n",
    "a wrapped definition": SHORT + "\n\ntotal = (lambda f: lambda xs: f(xs))(total)\n",
    "a class": "class total(int):\n    def __new__(cls, xs):\n"
    "        return super().__new__(cls, sum(xs))\n",
    "a method": "class Solution:\n    def total(self, xs):\n        return sum(xs)\n\n\n"
    "total = Solution().total\nprint(total(None))\n",
    "non-ASCII": "def total(xs):\n    über_alles = sum(xs); '日本'; return über_alles\n",
    "non-ASCII in a line with another": "x = '日本'; total = lambda xs: sum(xs); print(x)\n",
    "escapes": "import re\n\n\ndef total(xs):\n    re.findall('\\d', '')\n    return sum(xs)\n",
}
ODD = {
    "CRLF": fence(FUNCTION).replace("\n", "\r\n"),
    "CRLF, bare": FUNCTION.replace("\n", "\r\n"),
    "CRLF, body": BODY.replace("\n", "\r\n"),
    "CR": fence(FUNCTION).replace("\n", "\r"),
    "byte order mark": "\ufeff" + FUNCTION,
    "byte order mark in a fence": fence("\ufeff" + FUNCTION),
    "zero-width space": fence(FUNCTION.replace("def total", "\u200bdef\u200b total")),
    "no-break spaces": fence(FUNCTION.replace("    ", "\u00a0" * 4)),
    "zero-width in a string": fence(
        "def total(xs):\n    assert len('\U0001f469\u200d\U0001f680\u200b') == 4\n"
        "    return sum(xs)\n"
    ),
    "null bytes": fence(FUNCTION.replace("def", "d\0ef") + "\0") + "\0",
    "half a surrogate": f"\ud800 It's:\n{fence(FUNCTION)}\ud83d",
    "tabs": fence(FUNCTION.replace("    ", "\t")),
    "tabs, body": BODY.replace("    ", "\t"),
    "form feed": fence(FUNCTION.replace("\n\n\n", "\n\f\n")),
    "line separator": f"Here\u2028it is\x85:\n{fence(FUNCTION)}",
}
BODIES = {
    "a body": BODY,
    "in a fence": fence(BODY),
    "in prose and a fence": f"The body is:\n{fence(BODY)}\nDone.",
    "without indent": textwrap.dedent(BODY),
    "without indent in a fence": fence(textwrap.dedent(BODY)),
    "without indent in its first line": BODY.lstrip(),
    "with one space": indent(textwrap.dedent(BODY), " "),
    "with eight spaces": indent(textwrap.dedent(BODY), " " * 8),
    "one statement": "return sum(xs)",
    "its name as a variable": "    total = 0\n    for x in xs:\n        total += x\n"
    "    return total\n",
    "its name as a variable, no indent": "total = 0\nfor x in xs:\n    total += x\nreturn total\n",
    "its name as a called variable, no indent": "total = sum(xs)\nreturn total\n",
    "an inner function of its name": "    def total(xs):\n        return sum(xs)\n"
    "    return total(xs)\n",
    "a wrong inner function of its name, and more": "    def total(xs):\n        return max(xs)\n"
    "    return sum(xs)\n\nprint(total([1",
    "nested, no indent": "if xs:\n    return sum(xs)\nreturn 0",
    "nested, first line without indent": "if xs:\n        return sum(xs)\n    return 0",
    "a comment at the margin": "    s = 0\n# the sum\n    s = sum(xs)\n    return s\n",
    "a string and brackets at the margin": "    s = '''\nabc\n'''\n    s = sum([\n*xs\n])\n"
    "    return s\n",
    "a line that goes on": "    s = \\\nsum(xs)\n    return s\n",
    "a doc string of its own": '    """Sum\n\nof a list."""\n    return sum(xs)\n',
    "a generator": "    class S(int):\n        pass\n    return S(sum(xs))\n",
    "closed": f"{BODY}{TICKS}\nIt isn't hard.\n",
    "closed in mid-line": f"{BODY.rstrip()}{TICKS}",
}
GOES_ON = {
    "another function, cut off": '\n\ndef other(y):\n    """Something el',
    "the function again, wrong": f"\n\n{WRONG}",
    "a class": "\n\nclass A:\n    def",
    "a call, cut off": "\nprint(total([1, 2",
    "prose": "\nThis function adds the numbers, doesn't it?\n",
    "a wrong test of its own": "\n# Test\nassert total([1, 2]) == 4\n",
    "an exit": "\nif True:\n    exit()\n",
    "a fence with the function, wrong": f"\nOr:\n{fence(WRONG)}",
    "a decorator": "\n@staticmethod\n",
    "a comment": "\n#",
}
RIGHT = {
    "fences": FENCES,
    "thinking": THINKING,
    "bare": BARE,
    "behind": {name: fence(f"{FUNCTION}\n\n{more}") for name, more in BEHIND.items()},
    "behind, bare": {name: f"{FUNCTION}\n\n{more}" for name, more in BEHIND.items()},
    "needed": {name: fence(code) for name, code in NEEDED.items()},
    "needed, in prose": {name: f"It's:\n\n{code}\nIsn't it.\n" for name, code in NEEDED.items()},
    "odd": ODD,
    "bodies": BODIES,
    "goes on": {name: BODY + more for name, more in GOES_ON.items()},
    "goes on, no indent": {
        name: textwrap.dedent(BODY) + more
        for name, more in GOES_ON.items()
        if "def total" not in more or TICKS in more
    },
}
BROKEN = {
    "nothing": "",
    "prose": "I cannot do that.",
    "a word": "Sorry",
    "the prompt": fence(PROMPT),
    "a stub": fence(PROMPT + "    pass"),
    "another name": fence("def totals(xs):\n    return sum(xs)\n"),
    "wrong": fence(WRONG),
    "wrong and larger": f"{fence(WRONG + '    # why' + chr(10) + '    return sum(xs)')}",
    "wrong body": "    return max(xs)\n",
    "wrong last of a piece": fence(SHORT + "\n\n" + WRONG),
    "broken": fence(PROMPT + "    return sum(xs\n"),
    "a missing helper": fence("def total(xs):\n    return plus(*xs)\n"),
    "exits early": fence(f"{PROMPT}    import os\n    os._exit(0)\n"),
    "raises SystemExit": fence(f"{PROMPT}    raise SystemExit(0)\n"),
    "only a call": fence("print(3)"),
    "a number": fence("total = 3\n"),
    "async": fence("async def total(xs):\n    return sum(xs)\n"),
    "an import of it": fence("from solution import total\n"),
}
