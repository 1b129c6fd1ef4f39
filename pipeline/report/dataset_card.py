"""The dataset card, README.md of the run folder: it describes the run to people and to the Hub."""

from typing import Any

import yaml

from pipeline.config.job import JobConfig, as_dict
from pipeline.plan.run_json import Plan
from pipeline.run_folder.output_rows import NOTHING_KEPT, OWN_COLUMNS
from pipeline.stats.formatting import figures, one_line

MEANINGS = {
    "row_id": "the input's `data.id_column`; without one, its file and row number",
    "sample_index": "0, 1, ...: which sample of the input row",
    "prompt_text": "the prompt as the model got it; null if the row failed",
    "messages_with_answer": "the prompt's messages, the answer as the last; null if the row failed",
    "text": "the generated text; null if the row failed",
    "token_ids": "the generated token ids, without EOS",
    "finish_reason": "`eos`, `length` or `error`",
    "error": "why the row failed; null if it did not",
    "num_prompt_tokens": "tokens in the prompt",
    "num_generated_tokens": "generated tokens before EOS",
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


def dataset_card(config: JobConfig, plan: Plan, summary: dict[str, Any]) -> str:
    """The text of the card: YAML for the Hub, then Markdown."""
    revision = f" at revision `{plan.model_revision}`" if plan.model_revision else ""
    settings = as_dict(config)
    samples = f" for {plan.num_rows} prompts" if plan.num_outcomes != plan.num_rows else ""
    names = ", ".join(plan.overrides)
    overrides = f"; the input's columns may override per row: {names}" if names else ""
    return f"""---
{yaml.safe_dump(_front(plan), sort_keys=False, allow_unicode=True)}---

# Generations of `{plan.model_path}`

{plan.num_outcomes} generations{samples} by the diffusion language model
`{plan.model_path}`{revision}.

| | |
|---|---|
| input | {", ".join(f"`{file.name}` ({file.num_rows} rows)" for file in plan.files[:20])} |
| prompt | {_settings(settings["prompt"])} |
| generation | {_settings(settings["generation"])}, run seed {config.seed}{overrides} |
| decoding | {_settings(settings["decoding"])} |
| cache | {_settings(settings["cache"])} |
| engine | {_settings(settings["engine"])}, {config.model.dtype} |

## Outcome

{_outcome(summary)}

## Columns

| column | type | |
|---|---|---|
{_columns(plan)}
"""


def _front(plan: Plan) -> dict[str, Any]:
    """The YAML header, which the Hub and the library `datasets` read."""
    sizes = (size for size, limit in SIZES if plan.num_outcomes < limit)
    files = [{"split": "train", "path": "data/*.parquet"}]
    return {
        "pretty_name": f"Generations of {plan.model_path}",
        "task_categories": ["text-generation"],
        "size_categories": [next(sizes, "n>1T")],
        "tags": ["synthetic", "diffusion-language-model"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


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


def _settings(section: dict[str, Any]) -> str:
    shown = (f"{name} `{value!r}`" for name, value in section.items() if value is not None)
    return ", ".join(shown).replace("|", "\\|").replace("\n", " ")
