"""Generate all prompts of a job: `torchrun --nproc-per-node=8 -m pipeline.run conf=humaneval`.

    rank 0       make the plan, lock the run folder, write run.json, set broken files aside, find
                 what is left to do
    every rank   wait for the plan, load the model, then claim and generate parts until none is left
    rank 0       write the summary, the dataset card and the report; with `share`, only say how much
                 of the run is done

Without torchrun the job runs as one worker. `--help` lists what can be chosen. If a job was
interrupted, the same command resumes it.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial

from engine.errors import UserError
from engine.legal import block_length_of
from engine.model.load import (
    check_weights,
    fetch_all_but_weights,
    fetch_checkpoint,
    read_config,
    warn_of_long_canvases,
)
from engine.parallel import TensorParallel
from pipeline.autoregressive import checkpoint as autoregressive
from pipeline.config.job import JobConfig
from pipeline.failures import exit_with_message
from pipeline.generate.dry_run import report
from pipeline.generate.models import Models
from pipeline.generate.worker import limit_to_share, make_driver, make_prompter
from pipeline.launch import launch, say_and_exit
from pipeline.plan.broken_files import set_aside_broken
from pipeline.plan.build import make_plan, pin
from pipeline.plan.claims import FINISHED, Claims
from pipeline.plan.fingerprint import check_same
from pipeline.plan.heartbeat import sending_heartbeats, wait_for_counts, wait_for_parts
from pipeline.plan.retry import Remaining, find_remaining
from pipeline.plan.run_json import Plan, existing_plan
from pipeline.report.finish import check_failures, finish
from pipeline.report.said import said_at_end
from pipeline.run_folder.at_work import write_launch
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import check_is_unlocked, locked
from pipeline.run_folder.share import Share
from pipeline.run_folder.strangers import check_is_free
from pipeline.slurm.this_start import as_submitted
from pipeline.stats import starts
from pipeline.stats.clock import CLOCK
from pipeline.stats.progress import ProgressLine, show_progress
from pipeline.workers.command import this_launch
from pipeline.workers.groups import check_world, describe_workers, joined_group
from pipeline.workers.logs import log_to
from pipeline.workers.ranks import Worker, device_of, this_worker
from pipeline.workers.session import STOPPED, Session, Store, connect, launchers_store
from pipeline.workers.shutdown import Shutdown

PLAN, LEFT = "plan", "left to do"
COUNTED = "counted"
"""Counter of the ranks that have published all their counts and written their timeline, which the
summary reads."""


def run(
    config: JobConfig,
    job: int,
    start_s: float = 0.0,
    *,
    models: Models | None = None,
    is_told: bool = True,
) -> None:
    """Run one job, from its config to its summary, as one of its ranks.

    `job` is its number in a sweep, `start_s` the seconds that this process has run before. `models`
    holds the model from one job to the next. Of a job that is not told, only progress and what
    stops it are printed.
    """
    worker, share = this_worker(), Share.of(config.share)
    folder = RunFolder(config.output, share)
    session = Session(connect_or_exit(worker), job, worker, start_s)
    shutdown = Shutdown(config.shutdown_grace_s, speaks=worker.is_first)
    with exit_with_message(session, folder), shutdown.handling_signals(), ExitStack() as held:
        if config.dry_run:
            dry_run(config, worker, folder)
            return
        if worker.is_first:
            check_world(worker, config.engine.tensor_parallel)
            whole = begin(config, folder, worker, held)
            left = find_remaining(whole.of_share(share), folder, config.retry_failed)
            left = record_start(config, left, folder, worker)
            session.set(LEFT, left.to_json())
            session.set(PLAN, whole.to_json())
        whole, left = Plan.from_json(session.wait(PLAN)), Remaining.from_json(session.wait(LEFT))
        plan = whole.of_share(share)
        log_to(folder, worker.rank)
        with joined_group(config.engine, worker, session) as parallel:
            # All ranks of a group use their first rank's value: after a restart, the others may
            # have read an older one.
            left = replace(left, num_outcomes=parallel.first(left.num_outcomes))
            if left.num_outcomes:
                line = start_line(config, plan, left, folder, session, is_told)
                plan = generate_rows(
                    config, plan, left, folder, session, parallel, shutdown, line, models
                )
            if worker.is_first:
                end(config, plan if share is None else whole, folder, session, is_told)
        session.leave()


def end(config: JobConfig, whole: Plan, folder: RunFolder, session: Session, is_told: bool) -> None:
    """Finish the run, unless this launch does a share of it, and say what was done."""
    summary = None if folder.share else finish(config, whole, folder)
    session.set(FINISHED, "")
    if is_told:
        print(said_at_end(config, whole, folder, session.worker, summary), flush=True)
    if summary is not None:
        check_failures(config, summary)


def generate_rows(
    config: JobConfig,
    plan: Plan,
    left: Remaining,
    folder: RunFolder,
    session: Session,
    parallel: TensorParallel,
    shutdown: Shutdown,
    line: ProgressLine,
    models: Models | None,
) -> Plan:
    """Generate what is left to do, as one of the ranks. Returns the plan with its final parts:
    data.part_minutes may have joined some."""
    with sending_heartbeats(session):
        driver = make_driver(config, plan, left, folder, session, parallel, shutdown, models)
    claims = Claims(
        session,
        plan,
        folder,
        parallel,
        retry_failed=config.retry_failed,
        part_minutes=config.data.part_minutes,
    )

    def all_parts_done(final: Plan) -> bool:
        return wait_for_parts(final, folder, session, left.retried)

    with show_progress(line, session, config.progress_every_s):
        for parts in claims.rounds(all_parts_done):
            with sending_heartbeats(session), shutdown.grace_period(parallel.size == 1):
                driver.run(parts)
                if parts.is_last:
                    session.add(f"{COUNTED}/{parts.turn}", 1)
        if session.worker.is_first:  # the summary needs the counts of all ranks
            wait_for_counts(session, f"{COUNTED}/{claims.turn}", session.worker.world)
    return claims.plan


def connect_or_exit(worker: Worker) -> Store:
    """The store of this launch. Exits if there is none, or if a worker has said in it that the job
    cannot go on: torchrun has then started the workers again for nothing."""
    if (launchers := launchers_store(worker)) and (why := launchers.get(STOPPED)):
        say_and_exit(why, worker.rank, is_faulty=False)
    try:
        return connect(worker)
    except UserError as error:
        say_and_exit(str(error), worker.rank)
    except ConnectionError as error:
        say_and_exit(str(error), worker.rank, to_launcher=False, is_faulty=False)


def dry_run(config: JobConfig, worker: Worker, folder: RunFolder) -> None:
    """Print what the job would do. Settings, model, input, GPUs or run folder that would stop the
    job are refused here too; nothing is written to find that out."""
    device_of(worker)
    if worker.is_first:
        check_world(worker, config.engine.tensor_parallel)
        check_is_free(folder)
        folder.check_permissions()
        check_is_unlocked(folder)
        plan, num_done = make_plan_of(config, folder, worker), None
        if before := existing_plan(folder):
            check_same(before.fingerprint, plan.fingerprint, folder)
            num_done = len(folder.parts_done())
        prompter = make_prompter(config, fetch_checkpoint(config.model.path, config.model.revision))
        num_workers = worker.world // config.engine.tensor_parallel
        print(report(config, plan, prompter, num_workers, num_done, folder.share), flush=True)


def make_plan_of(
    config: JobConfig, folder: RunFolder, worker: Worker, with_weights: bool = True
) -> Plan:
    """Check the model and the input, and cut the input into parts. Rank 0 does this before it
    writes anything, so that a faulty job leaves nothing behind. A machine that only submits the
    job need not fetch the weights.

    Raises:
        UserError: the config, checkpoint, input or run folder does not allow the job.
    """
    fetch = fetch_checkpoint if with_weights else fetch_all_but_weights
    checkpoint = fetch(config.model.path, config.model.revision)
    prompter = make_prompter(config, checkpoint)
    if not config.is_autoregressive:
        warn_of_long_canvases(read_config(checkpoint), config.model.max_positions)
    if with_weights and not config.stand_in:
        check = autoregressive.check_weights if config.is_autoregressive else check_weights
        check(checkpoint)
    num_launches = 1 if folder.share is None else folder.share.num
    num_workers = worker.world // config.engine.tensor_parallel * num_launches
    plan = make_plan(config, checkpoint, existing_plan(folder), num_workers)
    prompter.check_columns(plan.prompt_columns, plan.read_schema)
    return plan


def begin(config: JobConfig, folder: RunFolder, worker: Worker, held: ExitStack) -> Plan:
    """Make the plan, and begin or resume the run: lock its folder until `held` is closed, pin the
    plan, and set broken files aside.

    A folder with a lock is locked before planning, which may take minutes, so that a second launch
    is refused before. Any other is made and locked only after it: a faulty job writes nothing.

    Raises:
        UserError: the job is at fault, or the run folder cannot be used or holds another run.
    """
    check_is_free(folder)
    has_lock, has_plan = exists(folder.lock_file), exists(folder.plan_file)
    if has_lock:
        folder.make()
        held.enter_context(locked(folder))
    plan = make_plan_of(config, folder, worker)
    if not has_lock:
        folder.make()
        held.enter_context(locked(folder))
    if not pin(plan, folder, is_first=not has_plan):
        plan = make_plan_of(config, folder, worker)
        pin(plan, folder)
    write_launch(folder, as_submitted(this_launch(worker, folder), folder))
    set_aside_broken(plan, folder)
    return plan


def record_start(
    config: JobConfig, left: Remaining, folder: RunFolder, worker: Worker
) -> Remaining:
    """Record this start and write config.yaml, if there is something to do; returns `left` with
    the start's number."""
    if not left.num_outcomes:
        return left
    block_length = None
    if not config.is_autoregressive:
        checkpoint = fetch_checkpoint(config.model.path, config.model.revision)
        model = read_config(checkpoint, config.model.max_positions)
        block_length = block_length_of(model, config.engine)
    number = starts.record(config, folder, left.num_outcomes, worker, block_length)
    return replace(left, start=number)


def start_line(
    config: JobConfig,
    plan: Plan,
    left: Remaining,
    folder: RunFolder,
    session: Session,
    is_told: bool = True,
) -> ProgressLine:
    """Print what is to be done (rank 0), and make the progress line.

    Rows done in earlier starts count as done, but do not enter the rates.
    """
    num_done = plan.num_outcomes - left.num_outcomes
    if left.last_at is not None:
        CLOCK.not_before(datetime.fromisoformat(left.last_at), session.age_s)
    name, share = config.name or folder.path.name, folder.share
    part_of = "" if share is None else f" of share {share}"
    workers = describe_workers(session.worker, config.engine.tensor_parallel)
    if session.worker.is_first and is_told:
        columns = (f"{setting} by {column!r}" for setting, column in plan.overrides.items())
        own = f"; columns override settings: {', '.join(columns)}" if plan.overrides else ""
        print(
            f"{name}: {plan.num_outcomes} rows in {len(plan.parts)} parts{part_of}"
            f"{plan.size_note}{plan.parts_note}, "
            f"{num_done} rows done before{own}; workers: {workers}; output: {folder.path}\n"
            f"{name}: loading {plan.model_path}",
            file=sys.stderr,
            flush=True,
        )
    num_workers = session.worker.world // config.engine.tensor_parallel
    room = limit_to_share(config.engine, left.num_outcomes, num_workers).max_sequences
    return ProgressLine(
        name, plan.num_outcomes, num_done, left.num_failed, room, part_of.removeprefix(" of ")
    )


if __name__ == "__main__":
    launch(partial(run, models=Models()))
