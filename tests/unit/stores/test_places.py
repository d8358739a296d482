"""A file on S3 is read to its end through broken connections; on a client that is answered by a hook."""

from functools import partial

import boto3
import botocore.awsrequest
import pytest
from botocore.config import Config
from urllib3.exceptions import IncompleteRead, ProtocolError, ReadTimeoutError

from dualstore.errors import Unavailable, UnusableSource
from dualstore.stores.places import S3Folder


class Broken:
    """A response that ends, or breaks, in the middle."""

    def __init__(self, content, error=None):
        self._content, self._error = content, error
        self.closed = False

    def read(self, amount=None, **_):
        amount = len(self._content) if amount is None else amount
        data, self._content = self._content[:amount], self._content[amount:]
        if not data and self._error is not None:
            raise self._error
        return data

    def stream(self, *_, **__):
        yield self.read()

    def close(self): ...


STATUS = {"SlowDown": 503, "PreconditionFailed": 412}


class Faults:
    """Breaks one GetObject after the other, and serves the rest of what was asked for."""

    def __init__(self, content, faults):
        self.content, self.faults, self.ranges, self.only = content, list(faults), [], []

    def __call__(self, request, **_):
        asked = request.headers.get("Range", b"bytes=0-")
        begin = int(asked.decode().removeprefix("bytes=").removesuffix("-"))
        self.ranges.append(begin)
        self.only.append(request.headers.get("If-Match"))
        rest = self.content[begin:]
        fault = self.faults.pop(0) if self.faults else None
        headers = {"ETag": '"e"', "Content-Length": str(len(rest))}
        if isinstance(fault, str):
            refusal = f"<Error><Code>{fault}</Code><Message>injected</Message></Error>".encode()
            return botocore.awsrequest.AWSResponse(request.url, STATUS[fault], {}, Broken(refusal))
        if isinstance(fault, int):
            return botocore.awsrequest.AWSResponse(request.url, fault, {}, Broken(b""))
        body = Broken(rest) if fault is None else Broken(rest[: len(rest) // 2], fault[0])
        return botocore.awsrequest.AWSResponse(request.url, 206 if begin else 200, headers, body)


@pytest.fixture(scope="module")
def client():
    once = Config(retries={"total_max_attempts": 1})
    account = {"aws_access_key_id": "dualstore", "aws_secret_access_key": "dualstore"}
    return boto3.client("s3", region_name="us-east-1", config=once, **account)


@pytest.fixture
def faulty_folder(client):
    return partial(make_faulty_folder, client)


def make_faulty_folder(client, content, *faults):
    server = Faults(content, faults)
    client.meta.events.unregister("before-send.s3.GetObject", unique_id="faults")
    client.meta.events.register("before-send.s3.GetObject", server, unique_id="faults")
    waits: list[float] = []
    return S3Folder(client, "exports", "p", sleep=waits.append), server, waits


def content_of(folder):
    with folder.open("file") as body:
        return b"".join(iter(lambda: body.read(100), b""))


CONTENT = bytes(range(256)) * 40
RESET = ConnectionResetError("reset")


def test_a_broken_download_goes_on_where_it_broke(faulty_folder):
    breaks = [
        (None,),  # it just ends
        (ProtocolError("broken", RESET),),
        (ReadTimeoutError(None, "/", "late"),),
        500,
        "SlowDown",
        (ProtocolError("broken", IncompleteRead(1, 2)),),
    ]
    folder, server, waits = faulty_folder(CONTENT, *breaks)
    assert content_of(folder) == CONTENT
    assert server.ranges[0] == 0
    assert sorted(server.ranges) == server.ranges
    assert len(server.ranges) == len(breaks) + 1
    assert len(waits) == len(breaks)


def test_a_download_that_comes_to_nothing_is_given_up_until_later(faulty_folder):
    folder, server, waits = faulty_folder(CONTENT, *[500] * 99)
    with pytest.raises(Unavailable, match="cannot be read on at byte 0"):
        content_of(folder)
    assert len(server.ranges) == 8
    assert waits == sorted(waits) or sum(waits) < 60


def test_a_refusal_is_not_tried_again(faulty_folder):
    folder, server, _ = faulty_folder(CONTENT, 403)
    with pytest.raises(UnusableSource, match=r"refuses|may not"):
        content_of(folder)
    assert len(server.ranges) == 1


def test_an_object_that_changes_while_it_is_read_is_not_read_on(faulty_folder):
    folder, server, _ = faulty_folder(CONTENT, (None,), "PreconditionFailed")
    with pytest.raises(UnusableSource, match="it has changed since it was first looked at"):
        content_of(folder)
    assert server.only == [None, b'"e"']
