"""The demo task: a signature and a docstring in, the body of the function out.

A task is a chain of one to eight operations (jobs/demo/task/operations.py), no kind twice. The
docstring has a sentence for each, which names the value that it leaves: a, b, c and so on. The
ordered tuple of the kinds is the task's combination, and a stable hash of the combination alone
says whether it is held out: one in eight is, so that no choice of constants or names can carry a
held-out combination into training. Chains of one operation follow the same rule: some kinds are
never seen alone in training, but every kind is seen there within longer chains.

`python -m jobs.demo.task.generator` writes prompts.parquet and heldout.parquet, the same bytes of
text every time.
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
"""For one to eight operations, in training and held out: long tasks often find no test."""
MAX_BODY_PIECES = 124
"""A body, its end-of-text token included, fits the 128 tokens of a generation region."""
MAX_ASSERTS = 12
PIECES = re.compile(r"[^\sA-Za-z0-9_]*\n+ *|[0-9]{1,2}| ?[A-Za-z_]+ ?| ?[^\sA-Za-z0-9_]+ ?|\s+")
"""What the tokenizer keeps together: in these tasks, every piece is one token."""


@dataclass(frozen=True, slots=True)
class Step:
    kind: str
    slots: dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
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
    """Whether this combination of operations is kept from training."""
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
    """Endless tasks of one side, of at most `longest` operations.

    `literal_weight` favours operations that copy a whole literal.
    """
    weights = LENGTH_WEIGHTS[held_out][:longest]
    while True:
        task = _draw_task(rng, weights, literal_weight)
        if is_held_out(task.kinds) == held_out and num_pieces(task.body) <= MAX_BODY_PIECES:
            yield task


def compiled(task: Task) -> Callable[[object], object]:
    names: dict[str, Callable[[object], object]] = {}
    exec(task.prompt + task.body, names)
    return names[task.entry_point]


def _mutants(task: Task) -> Iterator[Task]:
    """The task with one constant changed or one sentence left out: what a test must refuse."""
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
    """Its result, or, for a mutant that has no meaning, the kind of its error."""
    copied = list(argument) if isinstance(argument, list) else argument
    try:
        return function(copied)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        return type(error)


def telling_test(task: Task, rng: Random) -> str | None:
    """A check that refuses every mutant; None where a few of the inputs drawn cannot do that."""
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
    """The first `count` held-out tasks of this seed that a test can tell from their mutants.

    The prompts of different seeds differ: a task belongs to the seed that its prompt's hash names.
    """
    rng = Random(seed)
    rows: dict[str, dict[str, str]] = {}
    for task in draw_tasks(rng, held_out=True):
        prompt = task.prompt
        owner = hashlib.sha256(prompt.encode()).digest()[1] % 4
        if owner != seed % 4 or prompt in rows:
            continue
        test = telling_test(task, Random(prompt))
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
