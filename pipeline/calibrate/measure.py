"""Runs one setting and reads its figures from its run folder.

Everything that the sweep decides by is read back from the files, rung by rung, so that a sweep that
was interrupted decides the same when it is resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.calibrate.grid import Point
from pipeline.calibrate.rungs import Rung, part_rows
from pipeline.compare.answers import ANSWER, agreement
from pipeline.compare.quality import PASSED, Values, read_quality
from pipeline.config.job import JobConfig
from pipeline.generate.models import Models
from pipeline.plan.run_json import load
from pipeline.report.scores import read_scores
from pipeline.run import run
from pipeline.run_folder.files import open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.score import score_run
from pipeline.stats.meter import ratio
from pipeline.stats.paired import Paired, paired
from pipeline.stats.starts import identity
from pipeline.stats.totals import Totals, add_up, read_work

JOBS = partial(next, count(1))
"""The numbers of the jobs of this process (see pipeline/workers/session.py)."""
COUNTS = ["num_generated_tokens", "num_iterations", "num_query_tokens"]


@dataclass(slots=True, kw_only=True)
class Measured:
    """What is known of a setting after a rung."""

    point: Point
    rung: Rung
    num_rows: int
    """Output rows of the rung."""
    num_failed: int
    values: Values
    """row_id -> quality: the score, or how far the answer agrees with the reference's."""
    work: Totals
    """What the rung added."""
    tokens_per_forward: float
    query_tokens_per_token: float
    engine_s: float
    """Seconds in the engine, over all rungs so far."""
    smoothed_per_s: float = 0.0
    """Tokens per second in the engine as all settings tell it (speeds.py); 0 without a token."""
    devices: list[str] = field(default_factory=list)
    same: float | None = None
    """Without a scorer: the share of answers with the reference's tokens."""

    @property
    def tokens_per_s(self) -> float:
        """Of one worker's engine, as measured over what the rung added. 0 without a token."""
        return self.work.tokens_per_engine_s or 0.0

    @property
    def quality(self) -> float:
        return sum(self.values.values()) / len(self.values) if self.values else 0.0

    def against(self, reference: "Measured") -> Paired:
        """Its quality as a difference to the reference's, on the prompts that both have."""
        ids = [row_id for row_id in self.values if row_id in reference.values]
        return paired([reference.values[i] for i in ids], [self.values[i] for i in ids])


@dataclass(slots=True)
class Measurer:
    """Runs settings one after another, with one model."""

    config: JobConfig
    """The job: of its points, all but cache and decoding."""
    output: str
    num_rows: int
    """Input rows of a whole run."""
    models: Models = field(default_factory=Models)

    def config_of(self, point: Point, rung: Rung) -> JobConfig:
        data = replace(self.config.data, limit=self.num_rows, part_rows=part_rows(self.num_rows))
        return replace(
            self.config,
            name=point.name,
            output=f"{self.output.rstrip('/')}/{point.name}",
            data=data,
            cache=point.cache,
            decoding=point.decoding,
            share=rung.share,
        )

    def folder_of(self, point: Point) -> RunFolder:
        return RunFolder(f"{self.output.rstrip('/')}/{point.name}")

    def make(self, point: Point, rung: Rung) -> None:
        """Make the rung's rows that are not there yet."""
        run(self.config_of(point, rung), JOBS(), models=self.models, is_told=False)

    def measure(self, point: Point, rung: Rung, reference: Point) -> Measured:
        """Run what the rung adds, score it, and read the figures. Of a task without a scorer the
        reference must have been measured on this rung before."""
        self.make(point, rung)
        folder = self.folder_of(point)
        rows = rows_of(folder, rung, [*ANSWER, *COUNTS])
        sums = {name: pc.sum(rows[name]).as_py() or 0 for name in COUNTS}
        own, whole = work_of(folder, rung)
        found = Measured(
            point=point,
            rung=rung,
            num_rows=rows.num_rows,
            num_failed=rows.num_rows - rows["error"].null_count,
            values={},
            work=own,
            tokens_per_forward=ratio(sums["num_generated_tokens"], sums["num_iterations"]) or 0.0,
            query_tokens_per_token=ratio(sums["num_query_tokens"], sums["num_generated_tokens"])
            or 0.0,
            engine_s=whole.engine_s,
            devices=whole.devices,
        )
        if self.config.task is None:
            self._agree(found, rows, reference)
        else:
            found.values = scores_of(folder, set(rows["row_id"].to_pylist()))
        return found

    def _agree(self, found: Measured, rows: pa.Table, reference: Point) -> None:
        """The quality without a scorer: 1 less the edit distance to the reference's answer."""
        its = rows_of(self.folder_of(reference), found.rung, ANSWER)
        both = agreement(its, rows, set(rows["row_id"].to_pylist()))
        assert both is not None, "the reference is measured first, on the same rows"
        found.same = both.num_same / both.num
        found.values = {row_id: 1.0 - distance for row_id, distance in both.distances.items()}


def rows_of(folder: RunFolder, rung: Rung, names: Sequence[str]) -> pa.Table:
    """These columns of the rung's rows."""
    parts = [part.index for part in load(folder).parts if rung.has(part.index)]
    files = (folder.data_file(part) for part in parts)
    return pa.concat_tables([open_parquet(file).read(columns=list(names)) for file in files])


def work_of(folder: RunFolder, rung: Rung) -> tuple[Totals, Totals]:
    """The work that the rung added (all, if it added none), and all work."""
    work = read_work(folder, folder.parts_done())
    share = work["share"]
    is_its = pc.is_null(share) if rung.share is None else pc.equal(share, rung.share)
    own, whole = add_up(work.filter(pc.fill_null(is_its, False))), add_up(work)
    return (own if own.num_generated_tokens else whole), whole


def scores_of(folder: RunFolder, ids: set[str]) -> Values:
    """The scores of these prompts; scores the run unless all its rows are scored already."""
    scores = read_scores(folder)
    if scores is None or scores.identity != identity(folder):
        score_run(folder.path, is_partial=True)
        scores = read_scores(folder)
    values = read_quality(folder, scores)[PASSED]
    return {row_id: value for row_id, value in values.items() if row_id in ids}
