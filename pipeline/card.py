"""The dataset card: what does a run folder say of itself, on the Hub or years later?"""

from typing import Any

from pipeline.config import JobConfig, as_dict
from pipeline.plan import Plan
from pipeline.write import OWN_COLUMNS

MEANINGS = {
    "row_id": "input file and row number",
    "sample_index": "0, 1, ... for each row",
    "text": "what was generated; null on an error",
    "token_ids": "its token ids, without EOS",
    "finish_reason": "`eos`, `length` or `error`",
    "error": "what was wrong with the row; null if nothing",
    "num_prompt_tokens": "",
    "num_generated_tokens": "before EOS",
    "num_iterations": "forwards that the row's sequence took part in",
    "num_refreshes": "of these, over its whole canvas",
    "num_query_tokens": "positions fed through the model",
    "mean_confidence": "mean probability of the tokens when they were committed",
    "seed": "of this row and sample",
}


def card(config: JobConfig, plan: Plan, summary: dict[str, Any]) -> str:
    revision = f" at revision `{plan.model_revision}`" if plan.model_revision else ""
    settings = as_dict(config)
    samples = f" for {plan.num_rows} prompts" if plan.num_outcomes != plan.num_rows else ""
    own = f"; the row's own where it has one: {', '.join(plan.overrides)}" if plan.overrides else ""
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
tags:
- synthetic
- diffusion-language-model
---

# Generations of `{plan.model_path}`

{plan.num_outcomes} generations{samples} by the diffusion language model
`{plan.model_path}`{revision}.

| | |
|---|---|
| input | {", ".join(f"`{file.name}` ({file.num_rows} rows)" for file in plan.files[:20])} |
| prompt | {_settings(settings["prompt"])} |
| generation | {_settings(settings["generation"])}, run seed {config.seed}{own} |
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


def figures(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The run's figures with their names, as card and terminal show them."""
    return [
        ("rows", f"{summary['num_rows_out']:,}"),
        ("failed", f"{summary['num_failed']:,}"),
        ("tokens", f"{summary['num_generated_tokens']:,}"),
        ("tokens/s", _number(summary["tokens_per_s"])),
        ("tokens/s of one worker's engine", _number(summary["tokens_per_engine_s"])),
        ("tokens per forward", _number(summary["tokens_per_forward"])),
        ("query tokens per token", _number(summary["query_tokens_per_token"])),
        ("sequences per batch", _number(summary["mean_sequences"])),
        ("wall time", f"{_number(summary['wall_s'])} s"),
    ]


def _outcome(summary: dict[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in figures(summary)]
    lines.append(f"- on {', '.join(summary['devices'])}")
    reasons = summary["finish_reasons"].items()
    lines.append(f"- finish reasons: {', '.join(f'{name} {count}' for name, count in reasons)}")
    lines += [f"- error, {count} times: {error}" for error, count in summary["errors"].items()]
    return "\n".join(lines)


def _columns(plan: Plan) -> str:
    lines = []
    for field in plan.output_schema:
        meaning = MEANINGS[field.name] if field.name in OWN_COLUMNS else "carried from the input"
        lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return "\n".join(lines)


def _settings(section: dict[str, Any]) -> str:
    shown = (f"{name} `{value!r}`" for name, value in section.items() if value is not None)
    return ", ".join(shown).replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
