"""How does a worker say why it stops, so that the user reads it once, and last?

Under torchrun that is not on stderr: torchrun prints forty lines of its own after it. It prints
last what a worker has written to the file that it gave it, so the message goes there
(torch.distributed.elastic.multiprocessing.errors; the format is that of its ErrorHandler).
"""

import json
import os
import sys
import time
from collections.abc import Mapping

Environment = Mapping[str, str]


def say_stopped(message: str, is_final: bool = True, env: Environment = os.environ) -> None:
    """Say that this worker stops because of `message`.

    If it is not final, torchrun may start the workers again (--max-restarts); until it no longer
    does, the message is only one of several, and goes to stderr.
    """
    text = f"pipeline.run stopped: {message}"
    file = env.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        print(text, file=sys.stderr, flush=True)
        return
    if not is_final and int(env["TORCHELASTIC_RESTART_COUNT"]) < most_restarts(env):
        print(f"pipeline.run starts again, after this: {message}", file=sys.stderr, flush=True)
    # torchrun shows `py_callstack`, and `message` only if that is missing.
    told = {"py_callstack": text, "timestamp": str(int(time.time()))}
    with open(file, "w") as stream:
        json.dump({"message": {"message": text, "extraInfo": told}}, stream)


def most_restarts(env: Environment = os.environ) -> int:
    """How often torchrun starts the workers again if one of them fails (--max-restarts)."""
    return int(env.get("TORCHELASTIC_MAX_RESTARTS", "0"))
