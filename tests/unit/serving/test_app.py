"""The ASGI application, spoken to without a server."""

import asyncio
import json
import threading

import pytest

from dualstore.errors import OutcomeUnknown, RequestRejected, Unavailable, UnsupportedOperation
from dualstore.serving import Application, Credentials, app
from dualstore.serving.app import means_this_machine

TARGET = (b"x-amz-target", b"DynamoDB_20120810.GetItem")
HERE = (b"host", b"127.0.0.1:8000")


class Answering:
    """An API that answers, or raises, always the same."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def execute(self, name, request):
        self.asked.append((name, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def exchange(application, *messages, headers=(TARGET, HERE), method="POST"):
    """What the application sends when it is sent these messages; None: nothing."""
    sent = []

    async def talk():
        waiting = list(messages)

        async def receive():
            return waiting.pop(0) if waiting else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await application({"type": "http", "method": method, "headers": headers}, receive, send)

    asyncio.run(talk())
    if not sent:
        return None
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def error_of(answer):
    document = json.loads(answer[2])
    return answer[0], document["__type"].rpartition("#")[2], document["message"]


def test_an_operation_is_handed_on_and_its_answer_told():
    api = Answering({"Item": {"b": {"B": b"x"}}})
    status, headers, body = exchange(Application(api), part(b'{"Table', more=True), part(b'Name": "t"}'))
    assert api.asked == [("GetItem", {"TableName": "t"})]
    assert (status, json.loads(body)) == (200, {"Item": {"b": {"B": "eA=="}}})
    assert headers[b"content-length"] == str(len(body)).encode()
    assert {b"x-amz-crc32", b"x-amzn-requestid"} <= headers.keys()


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (RequestRejected("ResourceNotFoundException", "told"), 400, "ResourceNotFoundException"),
        (UnsupportedOperation("told"), 400, "UnknownOperationException"),
        (Unavailable("told"), 503, "ServiceUnavailable"),
        (OutcomeUnknown("told"), 500, "InternalServerError"),
    ],
)
def test_what_cannot_be_done_is_told_in_dynamodbs_words(raised, status, code):
    assert error_of(exchange(Application(Answering(raised)), part(b"{}"))) == (status, code, "told")


def test_a_bug_ends_neither_the_server_nor_tells_what_it_met(caplog):
    answer = error_of(exchange(Application(Answering(KeyError("secret"))), part(b"{}")))
    assert answer == (500, "InternalServerError", "Internal server error")
    assert "secret" not in caplog.text
    assert "GetItem failed with KeyError" in caplog.text


def test_half_a_request_is_never_carried_out():
    api = Answering({})
    assert exchange(Application(api), part(b"{}", more=True), {"type": "http.disconnect"}) is None
    assert api.asked == []


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(app, "_BODY_PATIENCE", app.timedelta(milliseconds=10))
    assert error_of(exchange(Application(Answering({})), part(b"{", more=True)))[0] == 408


def test_a_body_of_more_than_16_megabytes_is_refused_when_it_has_been_read():
    chunk = part(bytes(2**20), more=True)
    answer = exchange(Application(Answering({})), *[chunk] * 17, part(b""))
    assert error_of(answer)[:2] == (413, "RequestEntityTooLargeException")


def test_who_may_not_call_is_told_so_before_the_body_is_read():
    credentials = Credentials("AKID", "secret")
    answer = exchange(Application(Answering({}), credentials=credentials))
    assert error_of(answer)[:2] == (400, "MissingAuthenticationTokenException")


@pytest.mark.parametrize("host", [b"attacker.example", b"127.0.0.1.attacker.example", b"", b"10.0.0.1", b"["])
def test_without_credentials_a_page_whose_name_leads_here_is_refused(host):
    api = Answering({})
    answer = exchange(Application(api), part(b"{}"), headers=(TARGET, (b"host", host)))
    assert error_of(answer)[1] == "AccessDeniedException"
    assert api.asked == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1", "127.1.2.3:1", "[::1]:8000", "db.localhost"]
)
def test_these_names_mean_this_machine(host):
    assert means_this_machine(host)


def test_a_get_tells_that_the_server_lives():
    status, _, body = exchange(Application(Answering({})), method="GET")
    assert (status, body.startswith(b"healthy")) == (200, True)


def test_it_ends_when_what_is_under_way_has_ended():
    started, go_on = threading.Event(), threading.Event()

    class Slow:
        def execute(self, name, request):
            started.set()
            assert go_on.wait(10)
            return {}

    application = Application(Slow())
    sent = []

    async def live():
        lifespan = asyncio.Queue()
        for step in ("startup", "shutdown"):
            lifespan.put_nowait({"type": f"lifespan.{step}"})

        async def send(message):
            sent.append(message.get("type"))

        async def receive():
            return part(b"{}")

        call = asyncio.create_task(
            application({"type": "http", "method": "POST", "headers": (TARGET, HERE)}, receive, send)
        )
        await asyncio.to_thread(started.wait, 10)
        ending = asyncio.create_task(application({"type": "lifespan"}, lifespan.get, send))
        go_on.set()
        await asyncio.gather(call, ending)

    asyncio.run(live())
    assert "http.response.body" in sent
    assert sent.count("lifespan.shutdown.complete") == 1
