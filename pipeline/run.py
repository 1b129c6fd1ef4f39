"""`torchrun --nproc-per-node=8 -m pipeline.run conf=humaneval`: prompts in, generations out.

Also without torchrun, as one worker; `--help` says what can be chosen. The same command again goes
on where the last one stopped.
"""

import logging
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any

import yaml

from engine.model.load import check_weights, fetch_checkpoint
from engine.parallel import TensorParallel
from pipeline.config.job import JobConfig, as_dict
from pipeline.failures import stop_says_why
from pipeline.generate.dry_run import report
from pipeline.generate.worker import make_driver, make_prompter, shared_out
from pipeline.launch import launch, say_and_exit
from pipeline.plan.build import make_plan, pin
from pipeline.plan.claims import FINISHED, Claims
from pipeline.plan.heartbeat import beating, wait_for_parts
from pipeline.plan.retry import Remaining, find_remaining
from pipeline.plan.run_json import Plan, planned_before
from pipeline.report.finish import check_failures, finish
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.stats.clock import CLOCK
from pipeline.stats.formatting import figures
from pipeline.stats.progress import Line, shown
from pipeline.workers.groups import check_world, joined_group, workers_said
from pipeline.workers.logs import log_to
from pipeline.workers.ranks import Worker, this_worker
from pipeline.workers.session import Session, Store, connect
from pipeline.workers.shutdown import Shutdown

log = logging.getLogger("pipeline")

PLAN, LEFT = "plan", "left to do"
COUNTED = "counted"
"""Who has passed on all counts and written its timeline; the summary reads them."""


def run(config: JobConfig, job: int, start_s: float = 0.0) -> None:
    """One job, from its config to its summary, as one of its workers; `job` counts in a sweep, and
    `start_s` is what this process took until here."""
    worker, folder = this_worker(), RunFolder(config.output)
    session = Session(connected(worker), job, worker, start_s)
    shutdown = Shutdown(config.shutdown_grace_s)
    with stop_says_why(session, folder), shutdown.heard(), ExitStack() as held:
        if config.dry_run:
            try_out(config, worker, folder)
            return
        if worker.is_first:
            check_world(worker, config.engine.tensor_parallel)
            plan = make_plan_of(config, folder, worker)
            folder.make()
            held.enter_context(locked(folder))
            plan = pin_plan(config, plan, folder)
            session.set(LEFT, find_remaining(plan, folder, config.retry_failed).to_json())
            session.set(PLAN, plan.to_json())
        plan, left = Plan.from_json(session.wait(PLAN)), Remaining.from_json(session.wait(LEFT))
        log_to(folder, worker.rank)
        with joined_group(config.engine, worker, session) as parallel:
            # Of a group all do as its first, which may know of another start than the others.
            left = replace(left, num_outcomes=parallel.first(left.num_outcomes))
            if left.num_outcomes:
                plan = do_rows(config, plan, left, folder, session, parallel, shutdown)
            if worker.is_first:
                summary = finish(config, plan, folder)
                session.set(FINISHED, "")
                print_summary(config, folder, summary)
                check_failures(config, summary)
        session.leave()


def do_rows(
    config: JobConfig,
    plan: Plan,
    left: Remaining,
    folder: RunFolder,
    session: Session,
    parallel: TensorParallel,
    shutdown: Shutdown,
) -> Plan:
    """Bring what is left to its end; the plan, its parts final."""
    line = start_line(config, plan, left, folder, session)
    with beating(session):
        driver = make_driver(config, plan, left, folder, session, parallel, shutdown)
    claims = Claims(
        session,
        plan,
        folder,
        parallel,
        retry_failed=config.retry_failed,
        part_minutes=config.data.part_minutes,
    )

    def are_there(final: Plan) -> bool:
        return wait_for_parts(final, folder, session, left.again)

    is_first = session.worker.is_first
    with shown(line, session, config.progress_every_s):
        for parts in claims.rounds(are_there):
            with beating(session), shutdown.finishing(parallel.size == 1):
                driver.run(parts)
            if parts.is_last and not is_first:
                session.add(f"{COUNTED}/{parts.turn}", 1)
        if is_first:
            session.leave_from(f"{COUNTED}/{claims.turn}", session.worker.world, is_host=True)
    return claims.plan


def connected(worker: Worker) -> Store:
    try:
        return connect(worker)
    except (ValueError, ConnectionError) as error:
        say_and_exit(str(error), worker.rank)


def try_out(config: JobConfig, worker: Worker, folder: RunFolder) -> None:
    """All that would stop the job is found here too."""
    if worker.is_first:
        check_world(worker, config.engine.tensor_parallel)
        plan = make_plan_of(config, folder, worker)
        checkpoint = fetch_checkpoint(config.model.path, config.model.revision)
        num_workers = worker.world // config.engine.tensor_parallel
        print(report(config, plan, make_prompter(config, checkpoint), num_workers), flush=True)


def make_plan_of(config: JobConfig, folder: RunFolder, worker: Worker) -> Plan:
    """Rank 0 looks at model and input; what is wrong with a job is found before anything is
    written.

    Raises:
        ValueError: config, checkpoint, input or run folder are not fit for the job.
    """
    checkpoint = fetch_checkpoint(config.model.path, config.model.revision)
    make_prompter(config, checkpoint)
    if not config.stand_in:
        check_weights(checkpoint)
    num_workers = worker.world // config.engine.tensor_parallel
    return make_plan(config, checkpoint, planned_before(folder), num_workers)


def pin_plan(config: JobConfig, plan: Plan, folder: RunFolder) -> Plan:
    """
    Raises:
        ValueError: the run folder is another run's.
    """
    plan = pin(plan, folder)
    folder.write_text(folder.config_file, yaml.safe_dump(as_dict(config), sort_keys=False))
    return plan


def start_line(
    config: JobConfig, plan: Plan, left: Remaining, folder: RunFolder, session: Session
) -> Line:
    """Say what is to be done. Rows that were done before count as done, and in no rate."""
    num_done = plan.num_outcomes - left.num_outcomes
    if left.last_at is not None:
        CLOCK.not_before(datetime.fromisoformat(left.last_at), session.age_s)
    name = config.name or folder.path.name
    workers = workers_said(session.worker, config.engine.tensor_parallel)
    if session.worker.is_first:
        columns = (f"{setting} in {column!r}" for setting, column in plan.overrides.items())
        own = f"; rows with settings of their own: {', '.join(columns)}" if plan.overrides else ""
        print(
            f"{name}: {plan.num_outcomes} rows in {len(plan.parts)} parts{plan.what_changes}, "
            f"{num_done} rows done before{own}; workers: {workers}; output: {folder.path}\n"
            f"{name}: loading {plan.model_path}",
            file=sys.stderr,
            flush=True,
        )
    num_workers = session.worker.world // config.engine.tensor_parallel
    room = shared_out(config.engine, left.num_outcomes, num_workers).max_sequences
    return Line(name, plan.num_outcomes, num_done, left.num_failed, room)


def print_summary(config: JobConfig, folder: RunFolder, summary: dict[str, Any]) -> None:
    lines = [*figures(summary), ("files", f"{folder.data}/*.parquet")]
    print(f"\n{config.name or folder.path.name} is done")
    print("\n".join(f"  {name:<32}{value}" for name, value in lines), flush=True)


if __name__ == "__main__":
    launch(run)
