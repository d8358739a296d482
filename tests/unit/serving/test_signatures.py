"""Signature Version 4, with botocore as the one who signs."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Signing

from dualstore.serving.signatures import Credentials
from dualstore.serving.wire import WireError

CREDENTIALS = Credentials("AKID", "secret/with+signs=")
BODY = b'{"TableName": "things"}'


def signed(key="AKID", secret="secret/with+signs=", token=None, body=BODY, **more):
    """The headers of a request that botocore has signed, by their names in lower case."""
    headers = {
        "X-Amz-Target": "DynamoDB_20120810.GetItem",
        "Content-Type": "application/x-amz-json-1.0",
        **more,
    }
    request = AWSRequest("POST", "http://127.0.0.1:8000/", headers=headers, data=body)
    SigV4Auth(Signing(key, secret, token), "dynamodb", "eu-west-1").add_auth(request)
    request.headers["Host"] = "127.0.0.1:8000"
    return {name.lower(): value for name, value in request.headers.items()}


def check(headers, body=BODY, *, later=timedelta(0)):
    CREDENTIALS.check(CREDENTIALS.claim(headers, now=lambda: datetime.now(UTC) + later), headers, body)


def refused(headers, body=BODY, *, later=timedelta(0)):
    with pytest.raises(WireError) as caught:
        check(headers, body, later=later)
    return caught.value.code


def test_what_botocore_signs_is_accepted():
    check(signed())
    check(signed(**{"X-Amz-Meta": "  several   spaces  "}))
    check(signed(body=b""), b"")


def test_a_session_token_is_signed_with_the_rest():
    headers = signed(token="session")
    check(headers)
    assert refused({**headers, "x-amz-security-token": "another"}) == "InvalidSignatureException"


@pytest.mark.parametrize("later", [timedelta(minutes=4), timedelta(minutes=-4)])
def test_clocks_may_differ_by_some_minutes(later):
    check(signed(), later=later)


@pytest.mark.parametrize("later", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=1)])
def test_an_old_or_early_signature_is_refused(later):
    assert refused(signed(), later=later) == "InvalidSignatureException"


def test_another_body_is_refused():
    assert refused(signed(), BODY + b" ") == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-target", "DynamoDB_20120810.DeleteTable"),
        ("host", "elsewhere"),
        ("content-type", "text/plain"),
    ],
)
def test_a_signed_header_that_was_changed_is_refused(header, value):
    assert refused({**signed(), header: value}) == "InvalidSignatureException"


def test_a_target_that_was_added_unsigned_is_refused():
    request = AWSRequest("POST", "http://127.0.0.1:8000/", data=BODY)
    SigV4Auth(Signing("AKID", "secret/with+signs="), "dynamodb", "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()} | {"host": "127.0.0.1:8000"}
    check(headers)
    assert refused({**headers, "x-amz-target": "DynamoDB_20120810.GetItem"}) == "IncompleteSignatureException"


def test_another_secret_and_another_caller_are_refused():
    assert refused(signed(secret="guessed")) == "InvalidSignatureException"
    assert refused(signed(key="OTHER")) == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("", "IncompleteSignatureException"),
        ("Bearer x", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=AKID", "IncompleteSignatureException"),
    ],
)
def test_no_signature_and_half_of_one_are_refused(authorization, code):
    headers = signed()
    del headers["authorization"]
    if authorization is not None:
        headers["authorization"] = authorization
    assert refused(headers) == code


def test_a_request_without_a_time_is_refused():
    headers = signed()
    del headers["x-amz-date"]
    assert refused(headers) == "IncompleteSignatureException"


def test_the_secret_is_not_shown():
    assert "secret" not in repr(CREDENTIALS)
