"""The report of `dry_run=true`: the plan, and its first rows as the model would get them.

Nothing is written.
"""

from statistics import median
from typing import cast

from engine.request import Request, Result
from pipeline.config.job import JobConfig
from pipeline.generate.prefetch import Preparer
from pipeline.plan.run_json import Plan
from pipeline.prompt.prompter import Prompter
from pipeline.run_folder.share import Share

MIN_ROWS = 256
"""Parts are tried until they have at least this many output rows together, or none is left."""
SHOWN_CHARACTERS = 2000
"""The prompt that is shown is cut after this many characters."""
SHOWN_ERRORS = 5
"""The report names at most this many failed rows and their errors."""


def report(
    config: JobConfig,
    plan: Plan,
    prompter: Prompter,
    num_workers: int,
    num_done: int | None = None,
    share: Share | None = None,
) -> str:
    """The text of the report. `num_workers` counts a tensor-parallel group as one; `num_done` are
    the parts that earlier starts of this run have done, None for a new run; `share` is what this
    launch would do.

    Raises:
        InputError: the input cannot be read.
    """
    planned = plan.of_share(share)
    for_each = _for_each(plan, num_workers) if share is None else ""
    requests, failed, num_parts = _first_rows(config, planned, prompter)
    num_tried = len(requests) + len(failed)
    lines = [
        f"{config.name or config.output}: a dry run, nothing is written",
        f"  input            {len(plan.files)} files, {plan.num_rows:,} rows taken",
        f"  output           {plan.num_outcomes:,} rows in {len(plan.parts):,} parts"
        f"{plan.size_note}{plan.parts_note}{for_each}; {config.output}",
        f"  run folder       {_progress(num_done, len(plan.parts))}",
        *_of_share(planned, share, num_workers),
        f"  carried          {_carried(plan)}",
        f"  prompt from      {', '.join(plan.prompt_columns)}",
    ]
    if config.prompt.chat:
        lines.append(f"  chat template    {prompter.chat.template.source}")
    if plan.overrides:
        own = (f"{setting} from column {column!r}" for setting, column in plan.overrides.items())
        lines.append(f"  row settings     {', '.join(own)}")
    lines.append(
        f"  tried            {num_tried:,} output rows of the first {num_parts} parts"
        f"{f' of share {share}' if share else ''}, "
        f"{len(failed)} of them failed"
    )
    lines.extend(_lengths(requests, prompter.max_positions) if requests else [])
    lines.extend(f"    {_place(result)}: {result.error}" for result in failed[:SHOWN_ERRORS])
    if requests:
        first = min(requests, key=_key)
        text = prompter.tokenizer.decode(first.prompt_ids, skip_special_tokens=False)
        rest = "..." if len(text) > SHOWN_CHARACTERS else ""
        lines.append(f"--- the prompt of {_place(first)}, as the model sees it ---")
        lines.append(f"{text[:SHOWN_CHARACTERS]}{rest}\n---")
    return "\n".join(lines)


def _for_each(plan: Plan, num_workers: int) -> str:
    return f", {len(plan.parts) / num_workers:,.1f} for each of {num_workers} workers"


def _of_share(own: Plan, share: Share | None, num_workers: int) -> list[str]:
    """The line about the parts that this launch would do, if not all."""
    if share is None:
        return []
    return [
        f"  share {share}".ljust(19) + f"{own.num_outcomes:,} rows in {len(own.parts):,} parts"
        f"{_for_each(own, num_workers)}"
    ]


def _progress(num_done: int | None, num_parts: int) -> str:
    if num_done is None:
        return "new"
    return f"holds this run, with {num_done:,} of {num_parts:,} parts done; the job would resume it"


def _first_rows(
    config: JobConfig, plan: Plan, prompter: Prompter
) -> tuple[list[Request], list[Result], int]:
    """Requests and error results of the first parts, and the number of these parts."""
    preparer = Preparer(config, plan, prompter)
    requests: list[Request] = []
    failed: list[Result] = []
    num_parts = 0
    for part in plan.parts:
        prepared = preparer.prepare(part)
        requests += prepared.requests
        failed += prepared.failed
        num_parts += 1
        if len(requests) + len(failed) >= MIN_ROWS:
            break
    return requests, failed, num_parts


def _carried(plan: Plan) -> str:
    names = [
        f"{name} as {plan.renamed[name]}" if name in plan.renamed else name for name in plan.carried
    ]
    return ", ".join(names) or "no column"


def _lengths(requests: list[Request], max_positions: int) -> list[str]:
    prompts = [len(request.prompt_ids) for request in requests]
    canvases = [len(request.prompt_ids) + request.max_new_tokens for request in requests]
    return [
        f"  {name:<17}{min(lengths):,} to {max(lengths):,} tokens, "
        f"median {median(lengths):,.0f}{note}"
        for name, lengths, note in (
            ("prompts", prompts, ""),
            ("canvases", canvases, f" (the model's context is {max_positions:,})"),
        )
    ]


def _key(of: Request | Result) -> tuple[int, int]:
    """(part, place of the output row in it)."""
    return cast(tuple[int, int], of.request_id)


def _place(of: Request | Result) -> str:
    part, place = _key(of)
    return f"output row {place} of part {part}"
