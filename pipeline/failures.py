"""Turn the exception that stops a job into one message for all workers and an exit code.

A UserError or OSError is something the user can fix, and the message says how. Any other exception
is a bug or a fault of the machine, and the message says where its traceback is: in the worker's
log. The exit code is 1, or 130 after Ctrl-C, or 143 after SIGTERM.
"""

import errno
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import UserError
from engine.memory import GroupOutOfMemory
from pipeline.input.errors import Unreachable
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import without_secrets
from pipeline.workers.groups import lost_a_rank
from pipeline.workers.logs import LogState, worker_log
from pipeline.workers.session import Session
from pipeline.workers.shutdown import Terminated

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SILENCE_S = 15.0
"""Seconds that a worker holds its message back if another worker failed before it, or if it failed
only because another rank of its group ended. Its launcher normally ends it within this time, so
that only the first failure is reported."""
RESUME = "Finished parts are kept: run the same command again to resume."


@contextmanager
def exit_with_message(session: Session, folder: RunFolder) -> Iterator[None]:
    """Turn an exception into an exit code and a message, which the first worker to fail prints."""
    log_state = LogState()
    try:
        with worker_log(folder, session.worker.rank) as log_state:
            yield
    except Terminated as end:
        if session.worker.is_first:
            how = "interrupted (Ctrl-C)" if end.is_interrupt else "terminated (SIGTERM)"
            print(f"pipeline.run {how}. {RESUME}", file=sys.stderr, flush=True)
        raise SystemExit(end.exit_code) from None
    except Exception as error:
        if lost_a_rank(error) or session.add("failures", 1) > 1:
            time.sleep(SILENCE_S)
        message = without_secrets(explanation(error, session, folder, log_state))
        print(f"pipeline.run stopped: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def explanation(error: Exception, session: Session, folder: RunFolder, log_state: LogState) -> str:
    """What stopped the job, and what the user can do about it."""
    rank = session.worker.rank
    if isinstance(error, Unreachable):
        return f"{error}. {RESUME}"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        return f"output={folder.path}: the disk is full ({error}); make room. {RESUME}"
    if isinstance(error, OSError | GroupOutOfMemory):
        return f"rank {rank} on {session.worker.host}: {error}. {RESUME}"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"rank {rank}: {str(error).splitlines()[0]}\nLower engine.max_sequences or "
            f"engine.cache_tokens (if that is null, engine.memory_fraction). {RESUME}"
        )
    where = f"the traceback is in {folder.log_file(rank)}"
    if not log_state.has_traceback:
        where = "".join(traceback.format_exception(error))
    return (
        f"rank {rank} on {session.worker.host}: {type(error).__name__}: {error}\n"
        f"{RESUME} The job's settings are not the cause; {where}"
    )
