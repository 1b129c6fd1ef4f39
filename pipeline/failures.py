"""How does a worker stop a job? One clear message for all workers, a traceback in its log, exit 1.

A ValueError or an OSError is something the user can mend, and its message says how. Any other
exception is our own fault or the machine's, and the message says where its traceback is.
"""

import errno
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.memory import GroupOutOfMemory
from pipeline.input.errors import Unreachable
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import without_secrets
from pipeline.workers.groups import lost_a_rank
from pipeline.workers.logs import Kept, kept_log
from pipeline.workers.session import Session
from pipeline.workers.shutdown import Terminated

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SILENCE_S = 15.0
"""How long a worker whose failure is not the first, or only follows from the end of another, waits
for its launcher to end it."""
RESUME = "Finished parts are kept: the same command goes on with the rest."


@contextmanager
def stop_says_why(session: Session, folder: RunFolder) -> Iterator[None]:
    """Turn an exception into a message, said by the worker that fails first."""
    kept = Kept()
    try:
        with kept_log(folder, session.worker.rank) as kept:
            yield
    except KeyboardInterrupt:
        if session.worker.is_first:
            print(f"pipeline.run interrupted. {RESUME}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except Terminated:
        if session.worker.is_first:
            print(f"pipeline.run terminated (SIGTERM). {RESUME}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    except Exception as error:
        if lost_a_rank(error) or session.add("failures", 1) > 1:
            time.sleep(SILENCE_S)
        message = without_secrets(explanation(error, session, folder, kept))
        print(f"pipeline.run stopped: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def explanation(error: Exception, session: Session, folder: RunFolder, kept: Kept) -> str:
    rank = session.worker.rank
    if isinstance(error, Unreachable):
        return f"{error}. {RESUME}"
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        return f"output={folder.path}: the disk is full ({error}); make room. {RESUME}"
    if isinstance(error, OSError | GroupOutOfMemory):
        return f"rank {rank} on {session.worker.host}: {error}. {RESUME}"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"rank {rank}: {str(error).splitlines()[0]}\nLower engine.cache_tokens (where it "
            f"is null, engine.memory_fraction) or engine.max_sequences. {RESUME}"
        )
    where = f"the traceback is in {folder.log_file(rank)}"
    if not kept.has_end:
        where = "".join(traceback.format_exception(error))
    return (
        f"rank {rank} on {session.worker.host}: {type(error).__name__}: {error}\n"
        f"{RESUME} This is no fault of the job's settings; {where}"
    )
