"""Generates the demo task: the prompt is a signature and a docstring, the answer is the body.

A task is a chain of one to eight operations (jobs/demo/task/operations.py), all of different kinds.
The docstring has one sentence per operation, which also names the operation's result: a, b, c and
so on.

The ordered tuple of the operations' kinds is the task's combination. One combination in eight is
held out from training, chosen by a hash of the combination alone, so a held-out combination cannot
enter training with other constants or names. The rule holds for chains of one operation as well:
some kinds never occur alone in training, but every kind occurs in longer chains.

`python -m jobs.demo.task.generator` writes prompts.parquet and heldout.parquet, with the same text
every time.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.task.operations import (
    BY_KIND,
    OPERATIONS,
    PARAMETERS,
    SLOTS,
    TYPES,
    VARIABLES,
    WORDS,
)

FOLDER = Path(__file__).parent
NUM_TASKS = 512
COLUMNS = ("task_id", "prompt", "entry_point", "test", "canonical_solution")
SEEDS = {"prompts.parquet": 1, "heldout.parquet": 2}
NAMES = ("solve", "compute", "convert", "process", "derive", "handle", "answer", "run")
LENGTH_WEIGHTS = {False: (3, 4, 5, 5, 4, 3, 2, 1), True: (3, 4, 5, 5, 5, 5, 4, 3)}
"""Held out or not -> relative frequencies of chains of one to eight operations. Held-out tasks
favour long chains more, because often no test is found for these and they are dropped."""
MAX_BODY_PIECES = 124
"""Longest body; with its end-of-text token it fits the 128 tokens of the generation region."""
MAX_ASSERTS = 12
"""Most assertions in one test."""
PIECES = re.compile(r"[^\sA-Za-z0-9_]*\n+ *|[0-9]{1,2}| ?[A-Za-z_]+ ?| ?[^\sA-Za-z0-9_]+ ?|\s+")
"""How the tokenizer splits text before merging. In these tasks every piece is one token."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a task, with its constants."""

    kind: str
    slots: dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """A function to write: its signature, and the chain of operations that its body performs."""

    entry_point: str
    takes: str
    parameter: str
    steps: tuple[Step, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(step.kind for step in self.steps)

    @property
    def prompt(self) -> str:
        gives = TYPES[BY_KIND[self.kinds[-1]].gives]
        sentences = (BY_KIND[step.kind].sentence.format(**step.slots) for step in self.steps)
        named = [f"{name} = {said}" for name, said in zip(VARIABLES, sentences, strict=False)]
        head = f"def {self.entry_point}({self.parameter}: {TYPES[self.takes]}) -> {gives}:"
        return f"{head}\n    " + "\n    ".join(['"""', *named, '"""\n'])

    @property
    def body(self) -> str:
        lines, before = [], self.parameter
        for step, variable in zip(self.steps, VARIABLES, strict=False):
            code = BY_KIND[step.kind].code.format(v=before, w=variable, **step.slots)
            lines += code.split("\n")
            before = variable
        return "".join(f"    {line}\n" for line in [*lines, f"return {before}"])


def is_held_out(kinds: tuple[str, ...]) -> bool:
    """Whether this combination of operations is held out from training."""
    return hashlib.sha256(" ".join(kinds).encode()).digest()[0] % 8 == 0


def num_pieces(text: str) -> int:
    return len(PIECES.findall(text))


def _draw_task(rng: Random, weights_by_length: tuple[int, ...], literal_weight: float) -> Task:
    takes = value = rng.choice(list(TYPES))
    length = rng.choices(range(1, len(weights_by_length) + 1), weights_by_length)[0]
    steps: list[Step] = []
    while len(steps) < length:
        used = {step.kind for step in steps}
        open_ = [o for o in OPERATIONS if o.takes == value and o.kind not in used]
        weights = [literal_weight if o.copies_literal else 1.0 for o in open_]
        operation = rng.choices(open_, weights)[0]
        names = re.findall(r"{(\w+)}", operation.sentence)
        steps.append(Step(operation.kind, {name: SLOTS[name](rng) for name in names}))
        value = operation.gives
    return Task(rng.choice(NAMES), takes, rng.choice(PARAMETERS[takes]), tuple(steps))


def draw_tasks(
    rng: Random, held_out: bool, literal_weight: float = 1.5, longest: int = 8
) -> Iterator[Task]:
    """Draw tasks without end: only held-out combinations, or only training ones.

    Tasks have at most `longest` operations. `literal_weight` is how much more often an operation is
    drawn if it copies a literal of several entries.
    """
    weights = LENGTH_WEIGHTS[held_out][:longest]
    while True:
        task = _draw_task(rng, weights, literal_weight)
        if is_held_out(task.kinds) == held_out and num_pieces(task.body) <= MAX_BODY_PIECES:
            yield task


def compiled(task: Task) -> Callable[[object], object]:
    """The task's correct function."""
    names: dict[str, Callable[[object], object]] = {}
    exec(task.prompt + task.body, names)
    return names[task.entry_point]


def _mutants(task: Task) -> Iterator[Task]:
    """Wrong variants of the task, with one constant changed or one operation left out."""
    for i, step in enumerate(task.steps):
        operation = BY_KIND[step.kind]
        if operation.takes == operation.gives and len(task.steps) > 1:
            yield _with_steps(task, (*task.steps[:i], *task.steps[i + 1 :]))
        for name, text in step.slots.items():
            for constant in re.finditer(r"\d+|[a-z]+", text):
                old = constant.group()
                new = str(int(old) + 1) if old.isdigit() else ("elm" if old != "elm" else "oak")
                changed = text[: constant.start()] + new + text[constant.end() :]
                other = Step(step.kind, {**step.slots, name: changed})
                yield _with_steps(task, (*task.steps[:i], other, *task.steps[i + 1 :]))


def _with_steps(task: Task, steps: tuple[Step, ...]) -> Task:
    return Task(task.entry_point, task.takes, task.parameter, steps)


def _inputs(task: Task, rng: Random) -> list[object]:
    """Arguments of the right type, many of them built from the task's own constants."""
    own = " ".join(text for step in task.steps for text in step.slots.values())
    numbers = [int(number) for number in re.findall(r"\d+", own)] or [7]
    words = re.findall(r"[a-z]+", own) or ["sun"]
    if task.takes == "int":
        near = [n + d for n in numbers for d in (-1, 0, 1)]
        return [*near, *rng.sample(range(-30, 200), 60)]
    if task.takes == "list":
        near = [n + d for n in numbers for d in (-1, 0, 1)]
        pool = [*near, *range(-9, 70)] + near * 2
        return [[], *([rng.choice(pool) for _ in range(rng.randint(1, 9))] for _ in range(70))]
    pool_of_words = [*WORDS, "Old", "a", "bread"] + words * 20
    return [" ".join(rng.choices(pool_of_words, k=rng.randint(1, 7))) for _ in range(70)]


def _outcome(function: Callable[[object], object], argument: object) -> object:
    """The function's result, or the type of its error: some mutants fail on some arguments."""
    copied = list(argument) if isinstance(argument, list) else argument
    try:
        return function(copied)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        return type(error)


def make_test(task: Task, rng: Random) -> str | None:
    """The source of a test that the task passes and every mutant fails. None if no drawn input
    tells some mutant from the task, or if that takes more than MAX_ASSERTS inputs."""
    function = compiled(task)
    inputs = list({repr(argument): argument for argument in _inputs(task, rng)}.values())
    right = [_outcome(function, argument) for argument in inputs]
    chosen = [0, 1, 2, 3]
    for mutant in _mutants(task):
        other = compiled(mutant)
        order = (*chosen, *range(len(inputs)))
        telling = next((i for i in order if _outcome(other, inputs[i]) != right[i]), None)
        if telling is None:
            return None
        if telling not in chosen:
            chosen.append(telling)
    if len(chosen) > MAX_ASSERTS:
        return None
    asserts = (f"    assert candidate({inputs[i]!r}) == {right[i]!r}\n" for i in chosen)
    return "def check(candidate):\n" + "".join(asserts)


def held_out_rows(seed: int, count: int, prefix: str) -> list[dict[str, str]]:
    """The first `count` held-out tasks that are drawn with this seed and have a test.

    Different seeds (modulo 4) share no prompt: a prompt's hash decides which seed it belongs to.
    """
    rng = Random(seed)
    rows: dict[str, dict[str, str]] = {}
    for task in draw_tasks(rng, held_out=True):
        prompt = task.prompt
        owner = hashlib.sha256(prompt.encode()).digest()[1] % 4
        if owner != seed % 4 or prompt in rows:
            continue
        test = make_test(task, Random(prompt))
        if test is not None:
            rows[prompt] = {
                "task_id": f"{prefix}/{len(rows)}",
                "prompt": prompt,
                "entry_point": task.entry_point,
                "test": test,
                "canonical_solution": task.body,
            }
        if len(rows) == count:
            return list(rows.values())
    raise AssertionError("draw_tasks never ends")


def write_file(name: str, folder: Path) -> None:
    schema = pa.schema([(column, pa.string()) for column in COLUMNS])
    rows = held_out_rows(SEEDS[name], NUM_TASKS, name.removesuffix(".parquet"))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / name)


def main() -> None:
    for name in SEEDS:
        write_file(name, FOLDER)


if __name__ == "__main__":
    main()
