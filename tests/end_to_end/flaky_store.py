"""An S3 server on this machine that fails a share of its requests, drawn from a seed."""

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SHARE = 0.2
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA7Q0IDID", "AWS_SECRET_ACCESS_KEY": "s3cr3t/of+this+test"}
FAULTS = {
    "slow": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "error": ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
}
Start = Callable[..., Any]


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """No log lines for requests."""


class FlakyStore:
    """moto's S3 as a WSGI application with faults: 503, 500, and connections dropped before
    (`dropped`) or after (`unanswered`) the request was carried out."""

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.num_requests: Counter[str] = Counter()
        self.num_faults: Counter[str] = Counter()
        self.endpoint = ""
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        fault = self._fault(environ)
        if fault in FAULTS:
            status, code, message = FAULTS[fault]
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            length = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(length)
            start(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        if fault == "dropped":
            return _drop(environ)
        answer = self._moto(environ, start)
        if fault == "unanswered":
            list(answer)
            return _drop(environ)
        return answer

    def make_bucket(self, name: str) -> None:
        keys = {name.lower(): value for name, value in KEYS.items()}
        retries = Config(region_name="us-east-1", retries={"max_attempts": 10})
        s3 = boto3.client("s3", endpoint_url=self.endpoint, config=retries, **keys)
        s3.create_bucket(Bucket=name)

    def _fault(self, environ: dict[str, Any]) -> str | None:
        path = environ["PATH_INFO"]
        with self._lock:
            self.num_requests[f"{environ['REQUEST_METHOD']} {path}"] += 1
            if self._draw.random() >= self.share:
                return None
            fault = self._draw.choice([*FAULTS, "dropped", "unanswered"])
            self.num_faults[fault] += 1
            return fault


def _drop(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError("dropped")


class Google(FlakyStore):
    """The same store for a client of Google Cloud Storage. Its requests differ from S3's in what
    the condition of a write compares: a generation, which here stands for an ETag."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(share, seed)
        self._tags: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        generation = environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)
        if generation == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        elif generation is not None:
            environ["HTTP_IF_MATCH"] = self._tags[generation]
        environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=a/1/us-east-1/s3/aws4_request"

        def started(status: str, headers: Iterable[tuple[str, str]], *error: Any) -> Any:
            added = [
                ("x-goog-generation", self._generation(value))
                for name, value in headers
                if name.lower() == "etag"
            ]
            return start(status, [*headers, *added], *error)

        return super().__call__(environ, started)

    def _generation(self, tag: str) -> str:
        generation = str(int(tag.strip('"')[:12], 16))
        self._tags[generation] = tag
        return generation


@contextmanager
def flaky_store(
    share: float, seed: int = 0, kind: type[FlakyStore] = FlakyStore
) -> Iterator[FlakyStore]:
    store = kind(share, seed)
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Quiet)
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
