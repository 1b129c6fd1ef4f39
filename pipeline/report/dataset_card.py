"""The dataset card, README.md of the run folder: it describes the run to people and to the Hub."""

from typing import Any

import yaml

from pipeline.plan.run_json import Plan
from pipeline.report.found import Found
from pipeline.report.settings import settings_table, start_settings
from pipeline.run_folder.output_rows import NOTHING_KEPT, OWN_COLUMNS
from pipeline.stats.formatting import STAND_IN, figures, one_line

MEANINGS = {
    "row_id": "the input's `data.id_column`; without one, its file and row number",
    "sample_index": "0, 1, ...: which sample of the input row",
    "prompt_text": "the prompt as the model got it; null if the row failed",
    "messages_with_answer": "the prompt's messages, the answer as the last; null if the row failed",
    "text": "the generated text; null if the row failed",
    "token_ids": "the generated token ids, without EOS",
    "finish_reason": "`eos`, `length`, `stop` or `error`",
    "error": "why the row failed; null if it did not",
    "num_prompt_tokens": "tokens in the prompt",
    "num_generated_tokens": "generated tokens before EOS or a stop string",
    "num_iterations": "forward passes that the row's sequence took part in",
    "num_refreshes": "those of them that recomputed the whole canvas (prompt and generation)",
    "num_query_tokens": "positions fed through the model for this row",
    "mean_confidence": "mean probability of the tokens when they were committed",
    "seed": "the seed of this row and sample",
}
"""Column of the output -> what it holds."""

SIZES = [
    ("n<1K", 1_000),
    ("1K<n<10K", 10_000),
    ("10K<n<100K", 100_000),
    ("100K<n<1M", 1_000_000),
    ("1M<n<10M", 10_000_000),
    ("10M<n<100M", 100_000_000),
    ("100M<n<1B", 1_000_000_000),
    ("1B<n<10B", 10_000_000_000),
    ("10B<n<100B", 100_000_000_000),
    ("100B<n<1T", 1_000_000_000_000),
]
"""The Hub's size categories, each with the number of rows that it stays below."""


def dataset_card(found: Found, summary: dict[str, Any]) -> str:
    """The text of the card: YAML for the Hub, then Markdown."""
    plan = found.plan
    assert plan is not None, "only a complete run has a card"
    revision = f" at revision `{plan.model_revision}`" if plan.model_revision else ""
    samples = f" for {plan.num_rows} prompts" if plan.num_outcomes != plan.num_rows else ""
    model = f"`{plan.model_path}`{revision}"
    title = f"Generations of `{plan.model_path}`"
    kind = f"{found.kind_of_model} language model"
    made = f"{plan.num_outcomes} generations{samples} by the {kind}\n{model}."
    if found.is_stand_in:
        title = f"Not generations: a stand-in's output for `{plan.model_path}`"
        made = f"{plan.num_outcomes} rows{samples}. **{STAND_IN}** Tokenizer: {model}."
    files = ", ".join(f"`{file.name}` ({file.num_rows} rows)" for file in plan.files[:20])
    settings = "\n".join(
        f"| {group} | {_cell(', '.join(f'{name} `{value}`'.strip() for name, value in values))} |"
        for group, values in settings_table(found)
    )
    return f"""---
{yaml.safe_dump(_front(found, plan), sort_keys=False, allow_unicode=True)}---

# {title}

{made}

| | |
|---|---|
| input | {files} |
{settings}
{_starts(found)}
## Outcome

{_outcome(summary)}

## Columns

| column | type | |
|---|---|---|
{_columns(plan)}
"""


def _front(found: Found, plan: Plan) -> dict[str, Any]:
    """The YAML header, which the Hub and the library `datasets` read.

    `datasets` names its cache of a local folder after the folder's name and a hash of `configs`,
    not of the files. The description has the rows' identity, so that the rows of another run, or
    those from before a retry, are not taken from the cache.
    """
    sizes = (size for size, limit in SIZES if plan.num_outcomes < limit)
    default = {
        "config_name": "default",
        "description": f"Rows of run {found.identity}",
        "data_files": [{"split": "train", "path": "data/*.parquet"}],
    }
    tags = ["synthetic", f"{found.kind_of_model}-language-model"]
    name = f"Generations of {plan.model_path}"
    if found.is_stand_in:
        tags, name = ["stand-in", "no-model"], f"Stand-in output, no model ran ({plan.model_path})"
    return {
        "pretty_name": name,
        "task_categories": ["text-generation"],
        "size_categories": [next(sizes, "n>1T")],
        "tags": tags,
        "configs": [default],
    }


def _starts(found: Found) -> str:
    """The starts that did the rows, if there are several and their settings differ."""
    settings = start_settings(found.starts)
    if not any(settings):
        return ""
    lines = [
        f"| {start.name} | {start.started_at or 'not recorded'} "
        f"| {found.num_rows_of.get(start.number, 0)} | {_cell(of_start)} |"
        for start, of_start in zip(found.starts, settings, strict=True)
    ]
    head = "## Starts\n\nThe rows were made in several starts, with other settings.\n\n"
    return f"\n{head}| start | began | rows | settings |\n|---|---|---|---|\n{_lines(lines)}"


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _outcome(summary: dict[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in figures(summary)]
    lines.append(f"- devices: {', '.join(summary['devices'])}")
    reasons = summary["finish_reasons"].items()
    lines.append(f"- finish reasons: {', '.join(f'{name} {count}' for name, count in reasons)}")
    lines += [
        f"- error, {count} times: {_verbatim(error)}" for error, count in summary["errors"].items()
    ]
    return "\n".join(lines)


def _verbatim(text: str) -> str:
    """A text that comes from a row, as code, so that Markdown does not interpret it."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def _columns(plan: Plan) -> str:
    lines = []
    for field in plan.output_schema:
        is_own = field.name in OWN_COLUMNS or field.name in (plan.kept_schema or NOTHING_KEPT).names
        meaning = MEANINGS[field.name] if is_own else "carried from the input"
        lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
