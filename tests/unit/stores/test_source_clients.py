"""Whose table it is that a backfill reads."""

import pytest
from botocore.stub import Stubber

from dualstore.stores.dynamo_exports import TableIdentity
from dualstore.stores.source_clients import SourceClients

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody")


@pytest.mark.parametrize(
    "endpoint_url",
    [
        None,
        "https://dynamodb.eu-west-1.amazonaws.com",
        "https://123456789012.ddb.eu-west-1.amazonaws.com",
        "https://dynamodb.cn-north-1.amazonaws.com.cn",
    ],
)
def test_a_table_at_aws_is_told_by_arn_and_id(endpoint_url):
    with SourceClients(endpoint_url=endpoint_url, region="eu-west-1") as clients:
        stub = Stubber(clients.exports())
        stub.add_response("describe_table", {"Table": {"TableArn": ARN, "TableId": "some-id"}})
        with stub:
            assert clients.identity_of("orders") == TableIdentity(ARN, "some-id")


@pytest.mark.parametrize("endpoint_url", ["http://127.0.0.1:8000", "https://amazonaws.com.example.org"])
def test_a_table_of_a_stand_in_has_no_identity_that_an_export_could_have(endpoint_url):
    with SourceClients(endpoint_url=endpoint_url, region="eu-west-1") as clients, Stubber(clients.exports()):
        assert clients.identity_of("orders") is None
