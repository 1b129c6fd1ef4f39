"""The sweep, in order: reference and settings on the first rung, those that go on on the next, what
is left on all rows, the fastest first, and the choice among these."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UserError
from engine.model.load import fetch_checkpoint, read_config
from pipeline.calibrate.grid import Point, expected_cost, points_of, reference_of
from pipeline.calibrate.halving import (
    KEPT,
    PER_FORWARD,
    PER_SECOND,
    SPEEDS,
    Dropped,
    by_promise,
    choose,
    fastest_first,
    select,
)
from pipeline.calibrate.measure import Measured, Measurer
from pipeline.calibrate.rungs import Rung, rungs_of
from pipeline.calibrate.speeds import Speeds
from pipeline.config.job import JobConfig, as_dict
from pipeline.launch.to_calibrate import Calibrated
from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.starts import flat
from pipeline.workers.ranks import this_worker

FREE = (
    *("name", "output", "max_failed_fraction", "progress_every_s", "retry_failed"),
    *("shutdown_grace_s", "share", "dry_run", "data.path", "model.path"),
)
"""Settings in which two starts of a sweep may differ. (Files count by their contents, in each
run.)"""
SWEPT = ("decoding.", "cache.")

Tell = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a sweep has found."""

    reference: Measured
    """On all rows."""
    last: list[Measured]
    """Settings on all rows."""
    dropped: list[Dropped]
    """The others, each on its last rung."""
    fastest: Measured | None
    """Of the settings within the loss, in tokens per second here; None: none is faster than the
    reference and within the loss."""
    most_per_forward: Measured | None
    """The same in tokens per forward."""
    swing: float | None
    """Of the time of a setting on a rung, as a share of it."""
    rungs: list[Rung]
    seconds: float
    """Of this start."""
    busiest: float
    """The highest load of the machine in this start, over its cores."""

    @property
    def everything(self) -> list[Measured]:
        return [self.reference, *self.last, *(its.measured for its in self.dropped)]


@dataclass(slots=True, kw_only=True)
class Sweep:
    asked: Calibrated
    output: str
    num_rows: int
    within: float
    is_full: bool
    tell: Tell
    """Called with each line of what is done."""
    points: list[Point]
    reference: Point
    rungs: list[Rung]
    measurer: Measurer
    speeds: Speeds = field(default_factory=Speeds)
    dropped: list[Dropped] = field(default_factory=list)
    busiest: float = 0.0

    @classmethod
    def of(
        cls,
        asked: Calibrated,
        *,
        num_rows: int,
        within: float,
        is_full: bool = False,
        named: bool = False,
        tell: Tell = print,
    ) -> "Sweep":
        """`named`: the strategies were named by the user.

        Raises:
            UserError: the job cannot be calibrated.
        """
        config = asked.config
        check(config)
        checkpoint = fetch_checkpoint(config.model.path, config.model.revision)
        model = read_config(checkpoint, config.model.max_positions)
        num_rows = min(num_rows, config.data.limit or num_rows)
        return cls(
            asked=asked,
            output=config.output,
            num_rows=num_rows,
            within=within,
            is_full=is_full,
            tell=tell,
            points=sorted(points_of(asked, model, named), key=expected_cost),
            reference=reference_of(asked, model),
            rungs=rungs_of(num_rows, is_full),
            measurer=Measurer(config, config.output, num_rows),
        )

    def run(self) -> Outcome:
        """Run what is not done yet, and decide."""
        began = time.perf_counter()
        self.warm_up()
        kept: list[Measured] = []
        points: Sequence[Point] = self.points
        for rung, kept_share in zip(self.rungs[:-1], KEPT, strict=False):
            found, reference = self.try_all(points, rung)
            kept, dropped = select(found, reference, self.within, kept_share)
            self.dropped += dropped
            points = [one.point for one in kept]
            self.tell(f"{len(kept)} go on, {len(dropped)} are dropped")
        if len(self.rungs) == 1:
            last, reference = self.try_all(points, self.rungs[-1])
        else:
            last, reference = self.try_fastest(kept)
        return Outcome(
            reference=reference,
            last=last,
            dropped=self.dropped,
            fastest=choose(last, reference, self.within, PER_SECOND),
            most_per_forward=choose(last, reference, self.within, PER_FORWARD),
            swing=self.speeds.swing,
            rungs=self.rungs,
            seconds=time.perf_counter() - began,
            busiest=self.busiest,
        )

    def try_all(self, points: Sequence[Point], rung: Rung) -> tuple[list[Measured], Measured]:
        """The settings and the reference on a rung."""
        place = self.rungs.index(rung) + 1
        self.tell(
            f"rung {place} of {len(self.rungs)}: {len(points)} settings and one token per "
            f"iteration, on {rung.num_rows:,} rows each"
        )
        reference = self.try_one(self.reference, rung, None)
        found = [self.try_one(point, rung, reference) for point in points]
        self.speeds.add([reference, *found])
        return found, reference

    def try_fastest(self, kept: Sequence[Measured]) -> tuple[list[Measured], Measured]:
        """The reference on all rows, and of these settings as many as it takes to know the fastest
        within the loss, for each of the two speeds: the others are dropped. If none is, those that
        were dropped before for their speed follow, the most promising first."""
        self.tell(
            f"all {self.rungs[-1].num_rows:,} rows: the fastest first, until one is within the loss"
        )
        reference = self.try_last(self.reference, None)
        tried: dict[str, Measured] = {}
        for speed in SPEEDS:
            for one in fastest_first(kept, speed):
                if one.point.name not in tried:
                    tried[one.point.name] = self.try_last(one.point, reference)
                if choose([tried[one.point.name]], reference, self.within, speed):
                    break
        self.dropped += [
            Dropped(one, "a faster one is within the loss", loses=False)
            for one in kept
            if one.point.name not in tried
        ]
        last = list(tried.values())
        while not choose(last, reference, self.within, PER_SECOND):
            more = self.next_best(reference)
            if more is None:
                break
            last.append(self.try_last(more.point, reference))
        self.speeds.add([reference, *last])
        return last, reference

    def try_last(self, point: Point, reference: Measured | None) -> Measured:
        """A setting by itself, on all rows."""
        found = self.try_one(point, self.rungs[-1], reference)
        self.speeds.smooth(found)
        return found

    def try_one(self, point: Point, rung: Rung, reference: Measured | None) -> Measured:
        found = self.measurer.measure(point, rung, self.reference)
        self.busiest = max(self.busiest, os.getloadavg()[0] / (os.cpu_count() or 1))
        self.tell(line_of(found, reference))
        return found

    def next_best(self, reference: Measured) -> Measured | None:
        """The most promising of those that were dropped for their speed alone and are faster than
        the reference; it is no longer dropped."""
        slow = {
            its.measured.point.name: its
            for its in self.dropped
            if not its.loses and its.measured.smoothed_per_s > reference.smoothed_per_s
        }
        found = [its.measured for its in slow.values()]
        ranked = by_promise(found, reference, self.within, PER_SECOND)
        if not ranked:
            return None
        self.dropped.remove(slow[ranked[0].point.name])
        return ranked[0]

    def is_begun(self) -> bool:
        """Whether the folder holds calibration.json, which must be of this job.

        Raises:
            UserError: it holds another one, or the folder is a run's.
        """
        folder = RunFolder(self.output)
        if exists(folder.plan_file):
            raise UserError(
                f"output={self.output}: holds a run; give a folder of its own, such as "
                f"output={self.output.rstrip('/')}-calibration"
            )
        mine, file = self.job(), folder.path / "calibration.json"
        if not exists(file):
            return False
        there = json.loads(read_text(file)).get("job", {})
        if names := [name for name in {**there, **mine} if there.get(name) != mine.get(name)]:
            lines = [f"  {name}: {there.get(name)} there, {mine.get(name)} now" for name in names]
            raise UserError(
                f"output={self.output} holds a calibration of another job:\n"
                + "\n".join(lines)
                + "\nGive another output, or use the settings there to resume it."
            )
        return True

    def job(self) -> dict[str, Any]:
        """What must be the same when the sweep is resumed."""
        settings = flat(as_dict(self.asked.config)).items()
        kept = {k: v for k, v in settings if k not in FREE and not k.startswith(SWEPT)}
        return {**json.loads(json.dumps(kept)), "rows": self.num_rows}

    def warm_up(self) -> None:
        """Make a few rows and throw them away, so that the first setting does not pay for what
        happens once: threads, kernels that are compiled, memory that is asked for."""
        points = [self.reference, *self.points]
        is_done = all(self.measurer.folder_of(point).parts_done() for point in points)
        if is_done or self.asked.config.stand_in:
            return
        with tempfile.TemporaryDirectory() as folder:
            other = Measurer(self.asked.config, folder, self.num_rows, self.measurer.models)
            other.make(self.points[0], self.rungs[0])


def check(config: JobConfig) -> None:
    """
    Raises:
        UserError: the job has a setting that a calibration sets itself, or needs several workers.
    """
    own = "pipeline.calibrate sets it itself; leave it out"
    for name, value in (
        ("share", config.share),
        ("data.part_rows", config.data.part_rows),
        ("data.part_minutes", config.data.part_minutes),
    ):
        if value is not None:
            raise UserError(f"{name}={value}: {own}")
    if config.engine.tensor_parallel > 1:
        raise UserError(
            f"engine.tensor_parallel={config.engine.tensor_parallel}: pipeline.calibrate runs one "
            "process on one device; calibrate a model that fits there, and check its setting with "
            "pipeline.compare"
        )
    if (world := this_worker().world) > 1:
        raise UserError(
            f"{world} workers: pipeline.calibrate runs as one; start it without torchrun. What it "
            "finds for one worker holds for each of several"
        )


def line_of(found: Measured, reference: Measured | None) -> str:
    """What is told of a setting when it was tried."""
    compared = "" if reference is None else f"{found.against(reference).difference:+8.4f}"
    return (
        f"{found.tokens_per_s:9,.0f} tokens/s {found.tokens_per_forward:7.2f} per forward "
        f"{found.query_tokens_per_token:8.2f} query tokens each  {found.quality:.4f} {compared:8} "
        f"{found.point.short}"
    )
