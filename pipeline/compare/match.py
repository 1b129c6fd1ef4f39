"""Which prompts of two runs are the same?

A prompt is known by its row_id. Of two runs over the same input files, an id is the same prompt. If
the files differ (a copy in another format, or other data with the same ids), the columns of the
prompt decide, if both runs carry them: only rows in which they are equal are compared.
"""

from dataclasses import dataclass, field
from typing import Any

from pipeline.compare.runs import INPUTS, Run

OF_PROMPTS = ("prompt.", "chat template file")
"""Names in a plan's fingerprint."""


@dataclass(slots=True)
class Match:
    """The prompts that two runs have in common."""

    ids: list[str] = field(default_factory=list)
    """Their row_ids, in the order of the first run."""
    notes: list[str] = field(default_factory=list)
    """What keeps others from being compared, and what is to be known of these."""


def match(first: Run, second: Run) -> Match:
    mine, its = (
        dict.fromkeys(run.columns(["row_id"])["row_id"].to_pylist()) for run in (first, second)
    )
    found = Match([row_id for row_id in mine if row_id in its])
    pair = f"{second.mark} and {first.mark}"
    if not found.ids:
        found.notes.append(
            f"{pair} have no row_id in common{_why(first, second)}: nothing is paired"
        )
        return found
    if (only := (len(mine) - len(found.ids), len(its) - len(found.ids))) != (0, 0):
        found.notes.append(
            f"{pair} are not over the same rows: {len(found.ids):,} prompts are in both, "
            f"{only[0]:,} only in {first.mark}, {only[1]:,} only in {second.mark}; only those in "
            "both are paired"
        )
    if not _same_inputs(first, second):
        _only_equal(found, first, second, pair)
    if found.ids and (names := _other_prompts(first, second)):
        found.notes.append(
            f"{pair} make their prompts differently ({', '.join(names)}): the same rows, but not "
            "the same prompts"
        )
    return found


def _other_prompts(first: Run, second: Run) -> list[str]:
    """What the plans fix of prompts and in what they differ."""
    plans = [run.found.plan for run in (first, second)]
    mine, its = (None if plan is None else plan.fingerprint for plan in plans)
    if mine is None or its is None:
        return []
    names = (name for name in {**mine, **its} if name.startswith(OF_PROMPTS))
    return [name for name in names if mine.get(name) != its.get(name)]


def _same_inputs(first: Run, second: Run) -> bool:
    inputs = first.fixed(INPUTS)
    return inputs is not None and inputs == second.fixed(INPUTS)


def _why(first: Run, second: Run) -> str:
    if not _same_inputs(first, second):
        return ", and their input files differ"
    ids = [run.fixed("data.id_column") for run in (first, second)]
    if ids[0] != ids[1]:
        return f": data.id_column is {ids[0]} and {ids[1]}"
    return ""


def _only_equal(found: Match, first: Run, second: Run, pair: str) -> None:
    """Keep the ids whose prompts are made of equal cells."""
    names = _prompt_columns(first)
    if names is None or names != _prompt_columns(second):
        found.notes.append(
            f"{pair} are of other input files, and data/ does not hold the columns of the prompts "
            "(data.carry), so that equal ids may be other prompts: nothing is paired"
        )
        found.ids.clear()
        return
    cells = [_cells(run, names) for run in (first, second)]
    equal = [row_id for row_id in found.ids if cells[0][row_id] == cells[1][row_id]]
    note = f"{pair} are of other input files: {len(equal):,} of {len(found.ids):,} rows with the "
    found.notes.append(f"{note}same id have equal prompts ({', '.join(names)}) and are paired")
    found.ids[:] = equal


def _prompt_columns(run: Run) -> list[str] | None:
    """The columns that prompts are made of, if the output carries them under their own names."""
    plan = run.found.plan
    if plan is None:
        return None
    are_there = all(its in plan.carried and its not in plan.renamed for its in plan.prompt_columns)
    return plan.prompt_columns if are_there else None


def _cells(run: Run, names: list[str]) -> dict[str, list[Any]]:
    table = run.columns(["row_id", *names])
    columns = [table[name].to_pylist() for name in names]
    rows = zip(table["row_id"].to_pylist(), *columns, strict=True)
    return {row_id: list(cells) for row_id, *cells in rows}
