"""What a calibration says: the chosen setting with its command, tables, a page with the frontier,
and calibration.json with all figures."""

import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.calibrate.frontier_chart import charts
from pipeline.calibrate.grid import told_fields
from pipeline.calibrate.halving import frontier
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.sweep import Outcome, Sweep
from pipeline.compare.page import rendered, write_texts
from pipeline.compare.tables import Table, as_markdown, as_text, interval_cell, with_se
from pipeline.launch.to_calibrate import composed_again
from pipeline.run_folder.files import Place
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import duration, number
from pipeline.stats.paired import Paired

FILE = "calibration"
BUSY = 1.5
"""Processes per core, from which others share the cores: the engine and scoring take at most all
of them."""


def said(sweep: Sweep, outcome: Outcome) -> list[str]:
    """What is printed at the end."""
    return ["", *as_text(tables(sweep, outcome)[:1]), *summary(sweep, outcome), ""]


def summary(sweep: Sweep, outcome: Outcome) -> list[str]:
    """The choice, its figures and uncertainty, and its command."""
    lines = []
    chosen, reference = outcome.chosen, outcome.reference
    if chosen is None:
        lines.append(
            f"No setting is faster than one token per iteration and within {sweep.within:g} of its "
            f"{quality_name(sweep)}, {reference.quality:.4f}. Allow more with --within, or try "
            "more rows with --rows."
        )
    else:
        found = chosen.against(reference)
        lines += [
            f"The fastest setting within {sweep.within:g}: {chosen.point.short}",
            f"  {number(chosen.tokens_per_s)} tokens/s, {ratio_of(chosen, reference)} times one "
            f"token per iteration; {chosen.tokens_per_forward:.2f} tokens per forward, "
            f"{chosen.query_tokens_per_token:.2f} query tokens per token",
            f"  {quality_name(sweep)} {chosen.quality:.4f}, "
            f"{with_se(found.difference, found.se, '+.4f')} to one token per iteration on "
            f"{found.num:,} prompts; 95 % interval {interval_cell(found)}",
            *(f"  {line}" for line in doubts(found, sweep.within)),
            f"  {command(sweep, chosen)}",
        ]
    return lines + [f"note: {note}" for note in notes(sweep, outcome)]


def doubts(found: Paired, within: float) -> list[str]:
    """What is said if the loss may be more than was asked for."""
    low, high = found.interval
    if low >= -within:
        return []
    told = f"Its loss may be up to {-low:.4f}"
    reach = (high - low) / 2
    if within > 0:
        needed = math.ceil(found.num * (reach / within) ** 2)
        told += f"; about {needed:,} prompts would tell to within {within:g} (--rows)"
    return [f"{told}."]


def command(sweep: Sweep, chosen: Measured) -> str:
    """The command line of the job with the chosen setting, composed once more to check that it
    gives this setting."""
    arguments, point = [*sweep.asked.arguments, *chosen.point.overrides], chosen.point
    output = sweep.measurer.folder_of(point).path
    composed = composed_again(arguments, str(output))
    arguments += told_fields(point, composed)
    composed = composed_again(arguments, str(output))
    assert (composed.cache, composed.decoding) == (point.cache, point.decoding), arguments
    if sweep.asked.config.name is None:
        arguments.append("output=FOLDER")
    return shlex.join(["python", "-m", "pipeline.run", *arguments])


def quality_name(sweep: Sweep) -> str:
    return "passed" if sweep.asked.config.task else "agreement"


def ratio_of(one: Measured, reference: Measured) -> str:
    return number(one.tokens_per_s / reference.tokens_per_s) if reference.tokens_per_s else "many"


def notes(sweep: Sweep, outcome: Outcome) -> list[str]:
    """What is to be known of the figures."""
    config, every = sweep.asked.config, outcome.everything
    made = sum(one.num_rows for one in every)
    full = len(every) * outcome.reference.num_rows
    spent = sum(one.engine_s for one in every)
    told = [
        f"{made:,} rows were made, of {full:,} that all {len(every)} settings on all "
        f"{outcome.reference.num_rows:,} rows are; {duration(outcome.seconds)} in this start, "
        f"{duration(spent)} in the engine in all",
        f"tokens/s are those of one worker's engine with up to {config.engine.max_sequences} "
        "sequences (engine.max_sequences)",
    ]
    if outcome.reference.quality == 0:
        told.append(
            "one token per iteration passes nothing, so quality tells no settings apart: look at "
            "the answers (python -m pipeline.report), and at prompts and lengths"
        )
    if outcome.busiest > BUSY:
        told.append(
            f"the machine had {outcome.busiest:.1f} processes per core to run at times, so speeds "
            "may be off; repeat it where nothing else runs"
        )
    devices = sorted({device for one in every for device in one.devices})
    if len(devices) > 1:
        told.append(f"the speeds were measured on different devices: {', '.join(devices)}")
    if config.stand_in:
        told.append("stand_in=true: no model ran, so these are no figures of a model")
    if config.task is None:
        told.append(
            "without a task, quality is the agreement with one token per iteration: 1 less the "
            "edit distance between the answers' tokens, as a share of the longer one"
        )
        if config.generation.temperature > 0:
            told.append(
                "generation.temperature is above 0, so settings draw other tokens and answers "
                "differ by chance: agreement tells little; give a task, or temperature=0"
            )
    if failed := sum(one.num_failed for one in every):
        told.append(f"{failed:,} of the rows failed; they count as wrong")
    return told


HEADS = ("tokens/s", "tokens per forward", "query tokens per token")


def tables(sweep: Sweep, outcome: Outcome) -> list[Table]:
    """Settings on all rows, the fastest first; and the dropped ones."""
    quality, reference = quality_name(sweep), outcome.reference
    heads = ["", *HEADS, quality, "to reference", "95 % interval"]
    if sweep.asked.config.task is None:
        heads.append("same answers")
    best = {id(one) for one in frontier([reference, *outcome.last])}
    rows = []
    for one in sorted([reference, *outcome.last], key=lambda one: -one.tokens_per_s):
        mark = " (chosen)" if one is outcome.chosen else " (reference)" * (one is reference)
        on_it = " *" if id(one) in best else ""
        rows.append([f"{one.point.short}{on_it}{mark}", *cells(one, reference)])
    made = [Table("Settings on all rows (* frontier)", heads, rows)]
    dropped = sorted(outcome.dropped, key=lambda its: -its.measured.tokens_per_s)
    if dropped:
        heads = ["", "rows", *HEADS, quality, "why it was dropped"]
        rows = [
            [
                its.measured.point.short,
                f"{its.measured.num_rows:,}",
                *speed_cells(its.measured),
                f"{its.measured.quality:.4f}",
                its.why,
            ]
            for its in dropped
        ]
        made.append(Table("Settings that were dropped", heads, rows))
    return made


def speed_cells(one: Measured) -> list[str]:
    return [
        number(one.tokens_per_s),
        f"{one.tokens_per_forward:.2f}",
        f"{one.query_tokens_per_token:.2f}",
    ]


def cells(one: Measured, reference: Measured) -> list[str]:
    made = [*speed_cells(one), f"{one.quality:.4f}"]
    found = one.against(reference)
    is_it = one is reference
    made += (
        ["", ""] if is_it else [with_se(found.difference, found.se, "+.4f"), interval_cell(found)]
    )
    return made if one.same is None else [*made, f"{one.same:.1%}"]


def page(sweep: Sweep, outcome: Outcome) -> str:
    head, *rest = summary(sweep, outcome)
    told = [line for line in rest if not line.startswith("note: ")]
    return rendered(
        title=f"Calibration of {sweep.asked.config.name or sweep.output}",
        about=[f"model {sweep.asked.config.model.path}", head, *told[:-1]],
        command=told[-1].strip() if told else "",
        notes=notes(sweep, outcome),
        charts=charts(outcome, quality_name(sweep), sweep.within),
        charts_note="Faint: dropped, after fewer rows. Bars: one standard error of the difference "
        "to one token per iteration. Dashed: what the allowed loss leaves. The line joins the best "
        "of those on all rows.",
        tables=tables(sweep, outcome),
    )


def markdown(sweep: Sweep, outcome: Outcome) -> str:
    lines = [f"# Calibration of {sweep.asked.config.name or sweep.output}", ""]
    for line in summary(sweep, outcome):
        is_command = line.strip().startswith("python -m")
        lines += [f"```bash\n{line.strip()}\n```" if is_command else line.strip(), ""]
    return "\n".join([*lines, *as_markdown(tables(sweep, outcome))]).rstrip() + "\n"


def figures(sweep: Sweep, outcome: Outcome) -> dict[str, Any]:
    """calibration.json: the job, and every setting's figures."""
    points = []
    for one in outcome.everything:
        found = one.against(outcome.reference)
        points.append(
            {
                "name": one.point.name,
                "cache": one.point.cache_name,
                "decoding": {"name": one.point.decoding_name, **asdict(one.point.decoding)},
                "num_rows": one.num_rows,
                "tokens_per_s": one.tokens_per_s,
                "tokens_per_forward": one.tokens_per_forward,
                "query_tokens_per_token": one.query_tokens_per_token,
                "engine_s": one.engine_s,
                "quality": one.quality,
                "same_answers": one.same,
                "difference": found.difference,
                "difference_se": found.se,
                "interval": found.interval,
                "num_prompts": found.num,
            }
        )
    return {
        "job": sweep.job(),
        "within": sweep.within,
        "quality": quality_name(sweep),
        "reference": outcome.reference.point.name,
        "chosen": outcome.chosen and outcome.chosen.point.name,
        "command": outcome.chosen and command(sweep, outcome.chosen),
        "seconds": outcome.seconds,
        "points": points,
    }


def write(sweep: Sweep, outcome: Outcome) -> list[Place]:
    """Write calibration.md, .html and .json to the sweep's folder; returns where."""
    texts = {
        "md": markdown(sweep, outcome),
        "html": page(sweep, outcome),
        "json": json.dumps(figures(sweep, outcome), indent=1) + "\n",
    }
    return write_texts(RunFolder(sweep.output).path / FILE, texts)


def write_job(sweep: Sweep) -> None:
    """Write calibration.json with the job alone, before anything is run."""
    folder = RunFolder(sweep.output).path
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    write_texts(folder / FILE, {"json": json.dumps({"job": sweep.job()}, indent=1) + "\n"})
