"""What the machine, the network or a store has refused, and what helps.

`refusal` says it of an OSError of any kind. The commands that read a run (status, score, report)
end with `why_not_read`.
"""

import errno
import os
import socket
import sys

import pyarrow as pa

from engine.errors import UserError
from pipeline.run_folder.files import Place
from pipeline.run_folder.store import StoreError, without_secrets
from pipeline.workers.last_words import bug_report

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    errno.EACCES: "this user may not read or write it; change its permissions",
    errno.EPERM: "this user may not read or write it; change its permissions or owner",
    errno.EROFS: "its file system is read-only; mount it for writing, or give another output",
    errno.ENOENT: "is not there, or no longer; put it back",
    errno.EMFILE: "this process has too many files open; raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many files open; raise its limit (fs.file-max)",
    errno.ENOMEM: "this machine has no memory left; start fewer workers, or free some",
    errno.EIO: "the disk cannot read or write it; check the disk",
    errno.ESTALE: "the network file system has lost it; mount it again",
    errno.ENAMETOOLONG: "the name is too long for this file system; give a shorter output",
}
"""What an OSError's code says about its file, and what helps."""
CODES: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
}
"""The code of an exception that comes without one."""
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def refusal(error: OSError, run: str | Place) -> str | None:
    """What the machine, the network or the store has refused, and what helps; None if `error` does
    not say, which makes it a library's own."""
    if isinstance(error, StoreError):
        return f"{error}; check the network and the store, and start again"
    code = error.errno or CODES.get(type(error))
    said = error.strerror or " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or code in UNREACHABLE:
        return f"the network has failed ({said}); start again once it is up"
    if code is None:
        return None
    output, file = f"output={run}", error.filename
    if code in FULL:
        full = file if file and not str(file).startswith(str(run)) else output
        if code == errno.EFBIG:
            limit = "or a limit on the size of files is reached"
            return f"{full}: the disk is full, {limit} ({said}); raise it (ulimit -f) or make room"
        return f"{full}: the disk is full ({said}); make room"
    file = file or output
    return f"{file}: {REMEDIES.get(code, 'check the disk or file system that holds it')} ({said})"


def why_not_read(error: Exception, run: str | Place) -> str:
    """What stopped a command that reads the run, and what the user can do about it."""
    if isinstance(error, UserError):
        return without_secrets(str(error))
    if isinstance(error, OSError) and (refused := refusal(error, run)):
        return without_secrets(refused)
    if isinstance(error, pa.ArrowException | OSError | UnicodeError):
        said = " ".join(str(error).split())[:300]
        return without_secrets(
            f"{run}: holds a file that cannot be read ({said}); start the job again, which "
            "sets broken files aside"
        )
    return bug_report(error)


def show(text: str) -> None:
    """Print to stdout. If its reader has closed it, as `| head` does, end without a word and with
    the exit code that such a program has (128 + SIGPIPE)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
