"""What a calibration says: the chosen settings with their commands, tables, a page with the
frontier, and calibration.json with all figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.calibrate.answers import answers, command, notes, quality_name
from pipeline.calibrate.frontier_chart import charts
from pipeline.calibrate.halving import PER_SECOND, frontier
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.sweep import Outcome, Sweep
from pipeline.compare.page import rendered, write_texts
from pipeline.compare.tables import Table, as_markdown, as_text, interval_cell, with_se
from pipeline.run_folder.files import Place
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import number

FILE = "calibration"


def said(sweep: Sweep, outcome: Outcome) -> list[str]:
    """What is printed at the end."""
    lines = ["", *as_text(tables(sweep, outcome)[:1])]
    for its in answers(sweep, outcome):
        lines.append(its.head)
        lines += [f"  {line}" for line in (*its.about, its.command) if line]
    return [*lines, *(f"note: {note}" for note in notes(sweep, outcome)), ""]


HEADS = ("tokens/s", "smoothed", "tokens per forward", "query tokens per token")


def tables(sweep: Sweep, outcome: Outcome) -> list[Table]:
    """Settings on all rows, the fastest first; and the dropped ones."""
    quality, reference = quality_name(sweep), outcome.reference
    heads = ["", *HEADS, quality, "to reference", "95 % interval"]
    if sweep.asked.config.task is None:
        heads.append("same answers")
    best = {id(one) for one in frontier([reference, *outcome.last], PER_SECOND)}
    rows = []
    for one in sorted([reference, *outcome.last], key=lambda one: -one.smoothed_per_s):
        mark = mark_of(one, outcome)
        on_it = " *" if id(one) in best else ""
        rows.append([f"{one.point.short}{on_it}{mark}", *cells(one, reference)])
    made = [Table("Settings on all rows (* frontier)", heads, rows)]
    dropped = sorted(outcome.dropped, key=lambda its: -its.measured.smoothed_per_s)
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


def mark_of(one: Measured, outcome: Outcome) -> str:
    marks = {
        "fastest": one is outcome.fastest,
        "most per forward": one is outcome.most_per_forward,
        "reference": one is outcome.reference,
    }
    told = ", ".join(mark for mark, is_it in marks.items() if is_it)
    return f" ({told})" if told else ""


def speed_cells(one: Measured) -> list[str]:
    return [
        number(one.tokens_per_s),
        number(one.smoothed_per_s),
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
    found = answers(sweep, outcome)
    is_one = len(found) == 1
    commands = [(its.head, its.command) for its in found if its.command]
    return rendered(
        title=f"Calibration of {sweep.asked.config.name or sweep.output}",
        about=[
            f"model {sweep.asked.config.model.path}",
            *(line for its in found for line in (its.head, *its.about)),
        ],
        command="\n".join(text if is_one else f"# {head}\n{text}" for head, text in commands),
        notes=notes(sweep, outcome),
        charts=charts(outcome, quality_name(sweep), sweep.within),
        charts_note="Faint: dropped, after fewer rows. Bars: one standard error of the difference "
        "to one token per iteration. Dashed: what the allowed loss leaves. The line joins the best "
        "of those on all rows.",
        tables=tables(sweep, outcome),
    )


def markdown(sweep: Sweep, outcome: Outcome) -> str:
    lines = [f"# Calibration of {sweep.asked.config.name or sweep.output}", ""]
    for its in answers(sweep, outcome):
        lines += [its.head, "", *(f"- {line}" for line in its.about), ""]
        lines += [f"```bash\n{its.command}\n```", ""] if its.command else []
    lines += [*(f"- note: {note}" for note in notes(sweep, outcome)), ""]
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
                "smoothed_tokens_per_s": one.smoothed_per_s,
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
        "fastest": chosen(sweep, outcome.fastest),
        "most_per_forward": chosen(sweep, outcome.most_per_forward),
        "swing": outcome.swing,
        "seconds": outcome.seconds,
        "points": points,
    }


def chosen(sweep: Sweep, one: Measured | None) -> dict[str, str] | None:
    return None if one is None else {"name": one.point.name, "command": command(sweep, one)}


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
