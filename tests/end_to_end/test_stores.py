"""Addresses, keys and errors of the three object stores, and a run on Google Cloud Storage."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from engine.errors import UserError
from pipeline.input.listing import list_inputs
from pipeline.run import run
from pipeline.run_folder import lease, store
from pipeline.run_folder.files import place
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import assert_same_rows, output_rows
from tests.end_to_end.conftest import forget_the_store
from tests.end_to_end.flaky_store import FlakyStore, Google, flaky_store
from tests.launched import composed

UNSET = [*store.SECRETS, "AWS_PROFILE", "AWS_SKIP_SIGNATURE", "AZURE_STORAGE_ACCOUNT_NAME"]


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without keys, in which nothing else is asked for them."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_the_store()
    yield
    forget_the_store()


@pytest.fixture
def google(no_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    with flaky_store(0.0, kind=Google) as server:
        server.make_bucket("elsewhere")
        account = {"client_email": "", "private_key": "", "private_key_id": ""}
        account |= {"gcs_base_url": server.endpoint, "disable_oauth": True}
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
        yield server


@pytest.fixture
def requests(no_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator["Requests"]:
    with flaky_store(0.0, kind=Requests) as server:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0a2V5")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.endpoint)
        assert isinstance(server, Requests)
        yield server


class Requests(FlakyStore):
    """Keeps the requests, and answers each write with an ETag."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(share, seed)
        self.seen: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        self.seen.append(environ)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        date = "Thu, 26 Nov 2026 18:00:00 GMT"
        start("201 Created", [("ETag", '"0x1"'), ("Last-Modified", date)])
        return []


def stored(address: str) -> UPath:
    found = place(address)
    assert isinstance(found, UPath)
    return found


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("gcs://bucket/run", "output=gcs://bucket/run: give a folder, s3://BUCKET/FOLDER, gs://"),
        ("https://host/run", "output=https://host/run: give a folder, s3://BUCKET/FOLDER, gs://"),
        ("s3://id:key@bucket/run", "holds no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ("gs://key@bucket/run", "holds no keys; set GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://key@bucket/run", "holds no keys; set AZURE_STORAGE_ACCOUNT_NAME and AZURE"),
    ],
)
def test_invalid_output_addresses_are_refused(output: str, message: str) -> None:
    with pytest.raises(UserError, match="output=") as raised:
        place(output)
    assert message in str(raised.value)
    assert "key@" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/run", r"s3://bucket: cannot be opened \(.*\); set AWS_ACCESS_KEY_ID and "),
        (
            "az://bucket/run",
            r"az://bucket: cannot be opened \(.*\); set AZURE_STORAGE_ACCOUNT_NAME",
        ),
    ],
)
def test_without_keys_a_message_names_them(no_keys: None, address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunFolder(address).make()
    with pytest.raises(UserError, match=message):
        list_inputs(address)


@pytest.mark.parametrize(
    ("address", "name"),
    [("s3://bucket/run", "AWS_ENDPOINT_URL"), ("az://bucket/run", "AZURE_STORAGE_ENDPOINT")],
)
def test_an_endpoint_without_a_scheme_is_refused(
    requests: "Requests", monkeypatch: pytest.MonkeyPatch, address: str, name: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv(name, "me:9000")
    with pytest.raises(UserError, match=f"{name} is not a URL; let it begin with") as raised:
        RunFolder(address).make()
    assert "me:9000" not in str(raised.value)


def test_an_empty_variable_counts_as_unset(
    requests: "Requests", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", requests.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    store.write(stored("s3://bucket/file"), lambda to: to.write(b"text"))
    (seen,) = requests.seen
    assert seen["PATH_INFO"] == "/bucket/file"
    assert "HTTP_X_AMZ_SECURITY_TOKEN" not in seen


def test_keys_of_a_profile_are_used(
    requests: "Requests", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = "[mine]\naws_access_key_id = KEYOFMINE\naws_secret_access_key = secret\n"
    (tmp_path / "credentials").write_text(profile)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_ENDPOINT_URL", requests.endpoint)
    store.write(stored("s3://bucket/file"), lambda to: to.write(b"text"))
    assert "Credential=KEYOFMINE/" in requests.seen[0]["HTTP_AUTHORIZATION"]


def test_a_run_on_google_cloud_storage(google: FlakyStore, tmp_path: Path) -> None:
    args = ["conf=demo", "data.limit=8", "data.part_rows=2", "stand_in=true"]
    here = composed(*args, f"output={tmp_path / 'here'}")
    run(here, 0)
    data = Path(str(here.data.path))
    store.write(stored(f"gs://elsewhere/in/{data.name}"), lambda to: to.write(data.read_bytes()))
    google.share = 0.2
    run(composed(*args, "data.path=gs://elsewhere/in", "output=gs://elsewhere/run"), 0)
    google.share = 0.0
    folder = RunFolder("gs://elsewhere/run")
    assert folder.parts_done() == {0, 1, 2, 3}
    assert not store.exists(stored("gs://elsewhere/run/run.lock"))
    (tmp_path / "there" / "data").mkdir(parents=True)
    for part in range(4):
        name = folder.data_file(part).name
        part_file = tmp_path / "there" / "data" / name
        part_file.write_bytes(store.read(stored(f"gs://elsewhere/run/data/{name}")))
    assert_same_rows(output_rows(tmp_path / "there"), output_rows(tmp_path / "here"))


def test_the_lock_on_google_cloud_storage_is_taken_over_once(google: FlakyStore) -> None:
    lock = stored("gs://elsewhere/run.lock")
    old, new, late = (lease.Lease(lock, name) for name in ("old", "new", "late"))
    old.take()
    seen = store.read_tagged(lock)
    assert seen is not None
    assert not new._put(None), "the object exists"
    assert new._put(seen.tag)
    assert not late._put(seen.tag), "the object has changed since `seen`"
    assert not old._put(old._tag)
    new.release()
    assert store.read_tagged(lock) is None


def test_writes_to_azure_go_to_the_container_under_their_condition(requests: Requests) -> None:
    file = stored("az://container/run/run.lock")
    tag = store.write_if(file, "text", None)
    assert tag == {"e_tag": '"0x1"'}
    store.write_if(file, "text", tag)
    first, second = requests.seen
    assert first["PATH_INFO"] == "/container/run/run.lock"
    assert first["HTTP_AUTHORIZATION"].startswith("SharedKey someone:")
    assert first["HTTP_IF_NONE_MATCH"] == "*"
    assert second["HTTP_IF_MATCH"] == '"0x1"'


def test_input_files_are_found_on_a_store_like_on_a_disk(google: FlakyStore) -> None:
    """Also at the root of a bucket, and under names that URLs have to escape."""
    google.make_bucket("found")
    names = ["in/a b#1%20é?x=1.parquet", "in/sub/c&d+e.jsonl", "in/_hidden.parquet", "top.parquet"]
    for name in [*names, "in/other.txt"]:
        store.write(stored(f"gs://found/{name}"), lambda to: to.write(b'{"prompt": "x"}\n'))
    odd, below, _, top = (f"gs://found/{name}" for name in names)
    assert list_inputs("gs://found/in").paths == list_inputs("gs://found/in/").paths == [odd, below]
    assert list_inputs("gs://found").paths == [odd, below, top]
    assert list_inputs("gs://found/**/*.jsonl").paths == [below]
    assert list_inputs(odd).paths == [odd]
    with store.open_for_reading(odd) as file:
        assert file.read() == b'{"prompt": "x"}\n'
    with pytest.raises(UserError, match="no such file or folder"):
        list_inputs("gs://found/nothing")


class Ended(BaseException):
    """What the signal handler of the next test raises."""


def test_sigterm_ends_the_wait_for_a_store_that_is_silent(
    no_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise Ended

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0a2V5")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}")
        before = signal.signal(signal.SIGTERM, ended)
        began = time.monotonic()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            with pytest.raises(Ended):
                store.read(stored("az://container/file"))
        finally:
            signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Error performing PUT http://me:9/b in 2s - 403 Forbidden: <?xml version='1.0'?>\n"
            "<Error><Code>SignatureDoesNotMatch</Code><Message>The signatures differ.</Message>"
            "<AWSAccessKeyId>AKIA123</AWSAccessKeyId></Error>\n\nDebug source:\nGeneric { }",
            "Error performing PUT $AZURE_ENDPOINT/b in 2s - 403 Forbidden "
            "(SignatureDoesNotMatch: The signatures differ.)",
        ),
        (
            "HTTP error: error sending request\n\nDebug source:\nOs { code: 111, kind: "
            'ConnectionRefused, message: "Connection refused", }',
            "HTTP error: error sending request (Connection refused)",
        ),
        ("the key c2VjcmV0a2V5\nmore", "the key $AZURE_STORAGE_ACCESS_KEY"),
        ("", "ValueError"),
    ],
)
def test_an_error_is_told_on_one_line_without_secrets(
    no_keys: None, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    monkeypatch.setenv("AZURE_ENDPOINT", "http://me:9/")
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0a2V5")
    assert store.reason(ValueError(said)) == told
