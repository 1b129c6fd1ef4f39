"""Write each worker's log to logs/ of the run folder.

An object store cannot append to a file. If the run folder is on one, the log is written to a
temporary folder of this machine and uploaded when the worker ends.
"""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath

from pipeline.run_folder import store
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import StoreError, without_secrets
from pipeline.workers.shutdown import Terminated

log = logging.getLogger("pipeline")
log.addHandler(logging.NullHandler())
log.propagate = False


class Cleaned(logging.Formatter):
    """Removes the store's keys and endpoint from all messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class Uploaded(logging.FileHandler):
    """Writes a local file that `send` uploads to `file` on a store.

    It begins with the content that `file` already has, from earlier starts.
    """

    def __init__(self, file: UPath) -> None:
        self.local_file = Path(tempfile.mkdtemp(prefix="dllm-log-")) / file.name
        self._file = file
        if store.exists(file):
            self.local_file.write_bytes(store.read(file))
        super().__init__(self.local_file, encoding="utf-8")

    def send(self) -> None:
        self.close()
        store.write(self._file, lambda stream: stream.write(self.local_file.read_bytes()))
        shutil.rmtree(self.local_file.parent)


def log_to(folder: RunFolder, rank: int) -> None:
    """From now on, append this worker's log to its file in logs/."""
    _detach()
    file = folder.log_file(rank)
    handler = (
        Uploaded(file) if isinstance(file, UPath) else logging.FileHandler(file, encoding="utf-8")
    )
    handler.setFormatter(Cleaned("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # If the disk is full, logging would print a traceback for every line.
    logging.raiseExceptions = False


class LogState:
    has_traceback = False
    """Whether the exception that ended the worker was logged to a file."""


def _detach() -> None:
    """Close the log of the previous job of a sweep."""
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    # Without any handler, logging prints errors with their traceback to stderr.
    log.addHandler(logging.NullHandler())


@contextmanager
def worker_log(folder: RunFolder, rank: int) -> Iterator[LogState]:
    """Log the exception that ends the worker, and upload the log if it belongs on a store.

    Nothing is logged before `log_to` is called.
    """
    store_answers, state = True, LogState()
    _detach()
    try:
        yield state
    except Terminated as end:
        log.info("terminated by %s", end)
        raise
    except Exception as error:
        log.exception("stopped")
        state.has_traceback = any(isinstance(its, logging.FileHandler) for its in log.handlers)
        store_answers = not isinstance(error, StoreError)
        raise
    finally:
        for handler in [its for its in log.handlers if isinstance(its, Uploaded)]:
            log.removeHandler(handler)
            _send(handler, folder, rank, store_answers)


def _send(handler: Uploaded, folder: RunFolder, rank: int, store_answers: bool) -> None:
    """Upload the log. If that fails, the log stays on this machine and a message says where.

    A store that has just failed to answer is not tried again: each attempt takes minutes.
    """
    why = "the store does not answer"
    if store_answers:
        try:
            handler.send()
            return
        except OSError as error:
            why = str(error)
    print(
        f"pipeline.run: {folder.log_file(rank)} is not written ({why}); "
        f"the log is {handler.local_file}",
        file=sys.stderr,
        flush=True,
    )
