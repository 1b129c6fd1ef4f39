"""Chooses three output rows that show what a run gave: an early one, one from the middle and, if
rows failed, a failed one; otherwise a late one. The choice depends on the rows alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.run_folder.files import Place, open_parquet
from pipeline.run_folder.output_rows import OWN_COLUMNS

WANTED = ("row_id", "sample_index", "text", "finish_reason", "error", "num_generated_tokens")
BATCH_ROWS = 64
"""Rows that are read at a time until one fits."""
PROMPT_CHARACTERS = 800
"""Of a prompt, its last characters are shown: a question stands at the end."""
ANSWER_CHARACTERS = 1200
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One output row, its texts bounded in length."""

    kind: str
    """Which of the rows it is: an early one, ..."""
    row_id: str
    sample_index: int
    prompt: str | None
    """The end of what the prompt is made of; None if data/ does not hold it."""
    answer: str | None
    """None if the row failed."""
    finish_reason: str
    error: str | None
    num_generated_tokens: int


def examples(
    files: Sequence[Place], failed: Place | None, prompt_columns: Sequence[str]
) -> list[Example]:
    """The examples from the output files, which are in the order of the parts; `failed` is the
    first of them with a failed row."""
    if not files:
        return []
    middle = files[len(files) // 2], 0.0 if len(files) > 1 else 0.5
    chosen = [("an early row", _find(files[0], 0.0, _is_good, prompt_columns))]
    chosen.append(("a row from the middle", _find(*middle, _is_good, prompt_columns)))
    if failed is None:
        chosen.append(("a late row", _find(files[-1], 1.0, _is_good, prompt_columns)))
    else:
        chosen.append(("the first failed row", _find(failed, 0.0, _is_bad, prompt_columns)))
    shown: dict[tuple[str, int], Example] = {}
    for kind, row in chosen:
        if row is not None:
            key = row["row_id"], row["sample_index"]
            shown.setdefault(key, _example(kind, row, prompt_columns))
    return list(shown.values())


def _is_good(row: Row) -> bool:
    return row["error"] is None


def _is_bad(row: Row) -> bool:
    return row["error"] is not None


def _find(
    file: Place, place: float, fits: Callable[[Row], bool], prompt_columns: Sequence[str]
) -> Row | None:
    """The first row that fits, from `place` (0: the file's first row, 1: its last) to the end;
    None if there is none."""
    opened = open_parquet(file)
    columns = [*WANTED, *(name for name in prompt_columns if name not in OWN_COLUMNS)]
    there = opened.schema_arrow.names
    first, at = round(place * (opened.metadata.num_rows - 1)), 0
    wanted = [name for name in columns if name in there]
    for batch in opened.iter_batches(BATCH_ROWS, columns=wanted):
        if at + batch.num_rows > first:
            rows: list[Row] = batch.slice(max(0, first - at)).to_pylist()
            if found := next(filter(fits, rows), None):
                return found
        at += batch.num_rows
    return None


def _example(kind: str, row: Row, prompt_columns: Sequence[str]) -> Example:
    parts = [(name, row[name]) for name in prompt_columns if name in row]
    texts = [
        _text(value) if len(parts) == 1 else f"{name}: {_text(value)}" for name, value in parts
    ]
    prompt = "\n".join(texts) if parts else None
    answer, error = row["text"], row["error"]
    return Example(
        kind=kind,
        row_id=row["row_id"],
        sample_index=row["sample_index"],
        prompt=prompt and _cut(prompt, PROMPT_CHARACTERS, from_end=True),
        answer=answer if answer is None else _cut(answer, ANSWER_CHARACTERS),
        finish_reason=row["finish_reason"],
        error=error and _cut(error, ANSWER_CHARACTERS),
        num_generated_tokens=row["num_generated_tokens"],
    )


def _text(value: Any) -> str:
    """A prompt column's value as text; of a list of turns, each turn with its role."""
    if value is None:
        return "null"
    if not isinstance(value, list):
        return str(value)
    turns = (turn if isinstance(turn, dict) else {"content": turn} for turn in value)
    return "\n".join(f"{turn.get('role', '')}: {turn.get('content')}" for turn in turns)


def _cut(text: str, length: int, from_end: bool = False) -> str:
    if len(text) <= length:
        return text
    return f"... {text[-length:]}" if from_end else f"{text[:length]} ..."
