"""How does a worker say why it stops, so that the user reads it once, and last?

Under torchrun that is not on stderr: torchrun prints forty lines of its own after it. It prints
last what a worker has written to the file that it gave it, so the message goes there
(torch.distributed.elastic.multiprocessing.errors; the format is that of its ErrorHandler).
"""

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping

from pipeline.run_folder.store import without_secrets

Environment = Mapping[str, str]


def say_stopped(
    message: str,
    *,
    is_final: bool = True,
    to_launcher: bool = True,
    env: Environment = os.environ,
) -> None:
    """Say that this worker stops because of `message`.

    If it is not final, torchrun may start the workers again (--max-restarts); until it no longer
    does, the message is only one of several, and goes to stderr. It also goes there if there is no
    torchrun, or none that lives to print it (not `to_launcher`).
    """
    text = f"pipeline.run stopped: {message}"
    file = env.get("TORCHELASTIC_ERROR_FILE") if to_launcher else None
    if file is None or not os.path.isdir(os.path.dirname(file)):
        print(text, file=sys.__stderr__, flush=True)
        return
    if not is_final and has_restarts(env):
        print(f"pipeline.run starts again, after this: {message}", file=sys.stderr, flush=True)
    # torchrun shows `py_callstack`, and `message` only if that is missing.
    told = {"py_callstack": text, "timestamp": str(int(time.time()))}
    with open(file, "w") as stream:
        json.dump({"message": {"message": text, "extraInfo": told}}, stream)


def bug_report(error: BaseException, log: object | None = None) -> str:
    """What is said of an exception that is nobody's mistake but ours. `log` is a file that has the
    traceback; if there is none yet, the traceback gets a file of its own."""
    name = log or _write_traceback(error)
    line = " ".join(without_secrets(f"{type(error).__name__}: {error}").split())[:300]
    return f"a bug: {line}; please report it, with the traceback in {name}"


def _write_traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="dllm-traceback-", suffix=".txt", delete=False
    ) as file:
        file.write(without_secrets(text))
    return file.name


def has_restarts(env: Environment = os.environ) -> bool:
    """Whether torchrun starts the workers again if one of them fails now."""
    return int(env.get("TORCHELASTIC_RESTART_COUNT", "0")) < most_restarts(env)


def most_restarts(env: Environment = os.environ) -> int:
    """How often torchrun starts the workers again if one of them fails (--max-restarts)."""
    return int(env.get("TORCHELASTIC_MAX_RESTARTS", "0"))
