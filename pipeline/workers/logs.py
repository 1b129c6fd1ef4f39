"""Where does a worker's log go? Into logs/ of the run; on a store, which cannot append, by way of a
temporary folder, when the worker ends.
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
    """No keys and no endpoint, whoever's message or traceback it is."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class Uploaded(logging.FileHandler):
    """A file that stands for a log on a store until it is sent there."""

    def __init__(self, file: UPath) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="dllm-log-")) / file.name
        self._file = file
        if store.exists(file):
            self.here.write_bytes(store.read(file))
        super().__init__(self.here, encoding="utf-8")

    def send(self) -> None:
        self.close()
        store.write(self._file, lambda stream: stream.write(self.here.read_bytes()))
        shutil.rmtree(self.here.parent)


def log_to(folder: RunFolder, rank: int) -> None:
    """Log this worker's doings to logs/, after what earlier starts wrote."""
    _detach()
    file = folder.log_file(rank)
    handler = (
        Uploaded(file) if isinstance(file, UPath) else logging.FileHandler(file, encoding="utf-8")
    )
    handler.setFormatter(Cleaned("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a log on a full disk must not bury the message


class Kept:
    """What became of a worker's log."""

    has_end = False
    """Whether the exception that ended the worker stands in a file of the run."""


def _detach() -> None:
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    log.addHandler(logging.NullHandler())  # no traceback of a user's error on the terminal


@contextmanager
def kept_log(folder: RunFolder, rank: int) -> Iterator[Kept]:
    """Whatever ends a worker stands in its log, and the log where it belongs. Before `log_to` there
    is none, neither that of the job before in a sweep."""
    answers, kept = True, Kept()
    _detach()
    try:
        yield kept
    except Terminated:
        log.info("terminated")
        raise
    except Exception as error:
        log.exception("stopped")
        kept.has_end = any(isinstance(its, logging.FileHandler) for its in log.handlers)
        answers = not isinstance(error, StoreError)
        raise
    finally:
        for handler in [its for its in log.handlers if isinstance(its, Uploaded)]:
            log.removeHandler(handler)
            _send(handler, folder, rank, answers)


def _send(handler: Uploaded, folder: RunFolder, rank: int, answers: bool) -> None:
    """What does not answer is not asked again: then the log stays here, and that is said."""
    why = "the store does not answer"
    if answers:
        try:
            handler.send()
            return
        except OSError as error:
            why = str(error)
    print(
        f"pipeline.run: {folder.log_file(rank)} is not written ({why}); the log is {handler.here}",
        file=sys.stderr,
        flush=True,
    )
