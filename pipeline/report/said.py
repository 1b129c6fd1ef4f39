"""What a launch says when its work is done."""

from typing import Any

from pipeline.config.job import JobConfig
from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.this_start import this_start
from pipeline.stats.formatting import figures
from pipeline.workers.command import this_launch
from pipeline.workers.ranks import Worker


def said_at_end(
    config: JobConfig,
    whole: Plan,
    folder: RunFolder,
    worker: Worker,
    summary: dict[str, Any] | None,
) -> str:
    """`summary` is None at the end of a share."""
    if summary is None:
        return share_is_done(config, whole, folder, worker)
    return end_of_run(config, folder, summary)


def share_is_done(config: JobConfig, whole: Plan, folder: RunFolder, worker: Worker) -> str:
    """What is said when a share is done, which is not the end of the run: how many parts of it are
    done and, after the last, what writes the summary."""
    planned = {part.index for part in whole.parts}
    num_done = len(planned & folder.parts_done())
    own = f"{len(whole.of_share(folder.share).parts)} parts of share {folder.share} are done"
    line = f"{config.name or folder.path.name}: the {own}; {num_done} of {len(planned)} of the run"
    if num_done < len(planned):
        return line
    if this_start() is not None:
        return f"{line}; the job behind the array writes summary, card and report"
    command = this_launch(worker, folder).command_of_all
    return f"{line}; this writes summary, card and report: {command}"


def end_of_run(config: JobConfig, folder: RunFolder, summary: dict[str, Any]) -> str:
    """What is said when the run is finished: its figures."""
    lines = [*figures(summary), ("files", f"{folder.data}/*.parquet")]
    named = [f"  {name:<32}{value}" for name, value in lines]
    return "\n".join([f"\n{config.name or folder.path.name} is done", *named])
