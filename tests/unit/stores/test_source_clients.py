"""Whose table it is that a backfill reads."""

import boto3
import pytest
from botocore.config import Config
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


@pytest.mark.parametrize(
    ("option", "host"),
    [
        ("use_dualstack_endpoint", "https://dynamodb.eu-west-1.api.aws"),
        ("use_fips_endpoint", "https://dynamodb-fips.us-east-1.amazonaws.com"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "code"])
def test_clients_go_where_a_client_goes_whose_endpoint_is_of_a_kind(option, host, where, monkeypatch):
    if where == "environment":
        monkeypatch.setenv(f"AWS_{option.upper()}", "true")
    region = host.split(".")[1]
    config = Config(connect_timeout=3, **({option: True} if where == "code" else {}))
    like = boto3.client("dynamodb", region_name=region, config=config)
    with SourceClients.like(like) as clients:
        for client in (clients.scan(), clients.exports()):
            with Stubber(client) as stub:
                stub.add_response("list_tables", {})
                client.list_tables()  # botocore refuses an endpoint when it is asked for something
            assert client.meta.endpoint_url == like.meta.endpoint_url == host


def test_clients_go_to_an_endpoint_that_was_given_by_its_url():
    vpc = "https://vpce-1-a.dynamodb.eu-west-1.vpce.amazonaws.com"
    with SourceClients.like(boto3.client("dynamodb", region_name="eu-west-1", endpoint_url=vpc)) as clients:
        assert clients.scan().meta.endpoint_url == vpc
