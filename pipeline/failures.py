"""Turn the exception that stops a job into one message for all workers and an exit code.

    UserError         the message as it is: the user can correct something
    OSError           what the machine refused, of which file, and what helps
    out of memory     which settings need less
    anything else     a bug: its type and message, and where its traceback is

The exit code is 1, or 130 after Ctrl-C, or 143 after SIGTERM. A UserError would stop the job again
however often torchrun starts its workers again (--max-restarts), so it is remembered for the next
start, which says the same and does no work.

Of a job that was submitted to Slurm, the last message also goes to its supervisor, which may queue
the job again: not if another start would end like this one.
"""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from engine.errors import UserError
from engine.memory import GroupOutOfMemory
from pipeline.input.errors import Unreachable
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import InUse
from pipeline.run_folder.store import StoreError, without_secrets
from pipeline.slurm.this_start import record_stopped
from pipeline.stats.formatting import one_line
from pipeline.workers.groups import lost_a_rank
from pipeline.workers.last_words import bug_report, has_restarts, say_stopped
from pipeline.workers.logs import LogState, worker_log
from pipeline.workers.refusals import UNREACHABLE, refusal
from pipeline.workers.session import STOPPED, Session, launchers_store
from pipeline.workers.shutdown import Terminated

SILENCE_S = 15.0
"""Seconds that a worker holds its message back if another worker failed before it, or if it failed
only because another rank of its group ended. Its launcher normally ends it within this time, so
that only the first failure is reported."""
ELSEWHERE = (*UNREACHABLE, errno.EIO, errno.ESTALE)
"""What a machine refuses that another may not: its network, a disk of its own, a mount."""
RESUME = "Finished parts are kept: run the same command again to resume."


@contextmanager
def exit_with_message(session: Session, folder: RunFolder) -> Iterator[None]:
    """Turn an exception into an exit code and a message, which the first worker to fail prints."""
    log_state = LogState()
    try:
        with worker_log(folder, session.worker.rank) as log_state:
            yield
    except Terminated as end:
        if session.worker.is_first and (end.is_interrupt or not _others_failed(session)):
            how = "interrupted (Ctrl-C)" if end.is_interrupt else "terminated (SIGTERM)"
            print(f"pipeline.run {how}. {RESUME}", file=sys.stderr, flush=True)
        raise SystemExit(end.exit_code) from None
    except Exception as error:
        if is_late := lost_a_rank(error) or session.add("failures", 1) > 1:
            time.sleep(SILENCE_S)  # if its launcher lives, it ends this worker meanwhile
        message = without_secrets(explanation(error, session, folder, log_state))
        is_final = isinstance(error, UserError) and not isinstance(error, Unreachable)
        if is_final and (store := launchers_store(session.worker)):
            store.set(STOPPED, message)
        if not is_late and (is_final or not has_restarts()):
            lasts = not may_pass(error)
            record_stopped(message, session.worker.rank, is_final=lasts, folder=folder)
        say_stopped(message, is_final=is_final, to_launcher=not is_late)
        raise SystemExit(1) from error


def may_pass(error: Exception) -> bool:
    """Whether the job may get further in another start, perhaps on other machines: the network, a
    store or a piece of hardware has failed, and nothing of the job's own; or another launch, which
    may be a dead one whose lock lasts, is in the way."""
    if isinstance(error, UserError):
        cause = error.__cause__
        is_elsewhere = isinstance(cause, OSError) and cause.errno in ELSEWHERE
        return isinstance(error, Unreachable | InUse) or is_elsewhere
    if isinstance(error, OSError) and not isinstance(error, StoreError):
        return error.errno in ELSEWHERE or isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, StoreError | torch.AcceleratorError) or lost_a_rank(error)


def explanation(error: Exception, session: Session, folder: RunFolder, log_state: LogState) -> str:
    """What stopped the job, and what the user can do about it."""
    rank = session.worker.rank
    if isinstance(error, Unreachable):
        return f"{error}. {RESUME}"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, GroupOutOfMemory):
        return f"rank {rank} on {session.worker.host}: {error}. {RESUME}"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"rank {rank}: {str(error).splitlines()[0]}\nLower engine.max_sequences or "
            f"engine.cache_tokens (if that is null, engine.memory_fraction). {RESUME}"
        )
    if isinstance(error, OSError) and (refused := refusal(error, folder.path)):
        return f"{refused}. {RESUME} (This was rank {rank} on {session.worker.host}.)"
    if lost_a_rank(error):
        return (
            f"rank {rank} on {session.worker.host}: its launcher, or another rank of its group, "
            f"has ended or cannot be reached ({one_line(str(error))}). {RESUME}"
        )
    log = folder.log_file(rank) if log_state.has_traceback else None
    return f"{bug_report(error, log)} (rank {rank} on {session.worker.host}). {RESUME}"


def _others_failed(session: Session) -> bool:
    """Whether SIGTERM comes from torchrun, which ends the workers when one of them has failed."""
    try:
        return session.add("failures", 0) > 0
    except dist.DistError:  # the launcher is gone, and its store with it
        return False
