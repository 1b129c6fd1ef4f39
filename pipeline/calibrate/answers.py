"""What a calibration answers: the fastest setting here, and the one with the most tokens per
forward, each with its figures, uncertainty and command; and what is to be known of them."""

import math
import shlex
from dataclasses import dataclass

from pipeline.calibrate.grid import told_fields
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.sweep import Outcome, Sweep
from pipeline.compare.tables import interval_cell, with_se
from pipeline.launch.to_calibrate import composed_again
from pipeline.stats.formatting import duration, number
from pipeline.stats.paired import Paired

BUSY = 1.5
"""Processes per core, from which others share the cores: the engine and scoring take at most all
of them."""
INHERITED = "what another device or batch size inherits"


@dataclass(frozen=True, slots=True)
class Answer:
    head: str
    about: list[str]
    """Its figures and their uncertainty."""
    command: str | None
    """None: no setting is within the loss."""


def answers(sweep: Sweep, outcome: Outcome) -> list[Answer]:
    """The fastest, and the one with the most tokens per forward if it is another one."""
    fastest, most, reference = outcome.fastest, outcome.most_per_forward, outcome.reference
    found = []
    if fastest is not None:
        also = f", also by tokens per forward ({INHERITED})" if most is fastest else ""
        head = f"The fastest setting within {sweep.within:g}{also}: {fastest.point.short}"
        found.append(answer(sweep, outcome, fastest, head))
    else:
        head = (
            f"No setting is faster than one token per iteration and within {sweep.within:g} of its "
            f"{quality_name(sweep)}, {reference.quality:.4f}. Allow more with --within, or try "
            "more rows with --rows."
        )
        found.append(Answer(head, [], None))
    if most is not None and most is not fastest:
        head = (
            f"The most tokens per forward within {sweep.within:g} ({INHERITED}): {most.point.short}"
        )
        found.append(answer(sweep, outcome, most, head))
    return found


def answer(sweep: Sweep, outcome: Outcome, chosen: Measured, head: str) -> Answer:
    reference = outcome.reference
    found = chosen.against(reference)
    swing = "" if outcome.swing is None else f" ± {outcome.swing:.0%}"
    about = [
        f"{number(chosen.smoothed_per_s)}{swing} tokens/s, {ratio_of(chosen, reference)} times "
        f"one token per iteration; {chosen.tokens_per_forward:.2f} tokens per forward, "
        f"{chosen.query_tokens_per_token:.2f} query tokens per token",
        f"{quality_name(sweep)} {chosen.quality:.4f}, "
        f"{with_se(found.difference, found.se, '+.4f')} to one token per iteration on "
        f"{found.num:,} prompts; 95 % interval {interval_cell(found)}",
        *doubts(found, sweep.within),
    ]
    return Answer(head, about, command(sweep, chosen))


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
    its = reference.smoothed_per_s
    return number(one.smoothed_per_s / its) if its else "many"


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
        "sequences (engine.max_sequences); measured over the rows of a setting's last rung, and "
        "smoothed over all settings, which decides",
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
