"""`dualstore serve`: programs that know nothing of dualstore, through real HTTP."""

import base64
import http.client
import json
import operator
import socket
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from click.testing import CliRunner
from pynamodb.exceptions import PutError, TableDoesNotExist

from dualstore.cli import main
from dualstore.schema import upgrade
from dualstore.testing.servers import Postgres
from integration.deployment import (
    REGION,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    eventually,
    mirrored,
    order_model,
)
from integration.serving import Served, configuration_alone, configuration_of, served

KEYS = ("DUALSTORE_SERVE_ACCESS_KEY_ID", "DUALSTORE_SERVE_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> Iterator[str]:
    """A database with dualstore's schema."""
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    upgrade(engine)
    engine.dispose()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, database: str) -> Path:
    """A folder with a configuration of PostgreSQL alone."""
    place = tmp_path_factory.mktemp("serve")
    configuration_alone(place, database)
    return place


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Served]:
    """A server of PostgreSQL alone, for all tests of the module."""
    with served("--side", "postgres", "--auto-create", folder=folder) as server:
        yield server


@pytest.fixture
def things(alone: Served) -> str:
    """A table with a sort key."""
    return created(alone.client())


def created(client: Any) -> str:
    name = f"things-{uuid.uuid4().hex[:8]}"
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )
    return name


def key(number: int) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"N": str(number)}}


# --- Programs -------------------------------------------------------------------------------------------


def test_boto3_does_everything_with_a_table_that_it_has_created(alone: Served, things: str):
    table = boto3.resource("dynamodb", endpoint_url=alone.endpoint_url, region_name=REGION).Table(things)
    with table.batch_writer() as batch:
        for number in range(30):
            batch.put_item(Item={"pk": "p", "sk": number, "payload": b"\0\xff", "tags": {"a", "b"}})
    table.update_item(
        Key={"pk": "p", "sk": 3},
        UpdateExpression="SET payload = :b ADD tags :t",
        ExpressionAttributeValues={":b": b"new", ":t": {"c"}},
    )
    table.delete_item(Key={"pk": "p", "sk": 4})
    found = table.get_item(Key={"pk": "p", "sk": 3})["Item"]
    assert (bytes(found["payload"]), found["tags"]) == (b"new", {"a", "b", "c"})
    client = alone.client()
    pages = client.get_paginator("query").paginate(
        TableName=things,
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": "p"}},
        PaginationConfig={"PageSize": 7},
    )
    numbers = [int(item["sk"]["N"]) for page in pages for item in page["Items"]]
    assert numbers == [number for number in range(30) if number != 4]
    client.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": things, "Item": key(100)}},
            {"Delete": {"TableName": things, "Key": key(0)}},
        ]
    )
    with pytest.raises(client.exceptions.TransactionCanceledException) as cancelled:
        client.transact_write_items(
            TransactItems=[
                {
                    "Put": {
                        "TableName": things,
                        "Item": key(100),
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                }
            ]
        )
    assert cancelled.value.response["CancellationReasons"][0]["Code"] == "ConditionalCheckFailed"
    client.delete_table(TableName=things)
    client.get_waiter("table_not_exists").wait(TableName=things)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_item(TableName=things, Key=key(1))


def test_pynamodb_knows_no_difference(alone: Served):
    order = order_model(f"orders-{uuid.uuid4().hex[:8]}", alone.endpoint_url)
    assert not order.exists()
    order.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
    saved = order("p", 1, name="n", n=5, tags={"a"}, lines=[1, "two"])
    saved.save()
    with pytest.raises(PutError) as refused:
        order("p", 1).save(order.pk.does_not_exist())
    assert refused.value.cause_response_code == "ConditionalCheckFailedException"
    saved.update(actions=[order.n.set(order.n + 1)])
    assert order.get("p", 1).n == 6
    assert [each.sk for each in order.by_name.query("n", order.n > 5)] == [1]
    assert [each.sk for each in order.scan(order.tags.contains("a"))] == [1]
    order.delete_table()
    assert not order.exists()
    with pytest.raises(TableDoesNotExist):
        order.describe_table()


def test_indexes_come_and_go_and_a_server_that_starts_again_finds_its_tables(folder: Path, alone: Served):
    client = alone.client()
    name = created(client)
    client.put_item(TableName=name, Item={**key(1), "g": {"S": "x"}})
    client.update_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "g", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "by-g",
                    "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )
    query = {
        "TableName": name,
        "IndexName": "by-g",
        "KeyConditionExpression": "g = :g",
        "ExpressionAttributeValues": {":g": {"S": "x"}},
    }
    assert client.query(**query)["Count"] == 1
    client.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True}
    )
    with served("--side", "postgres", "--auto-create", folder=folder) as again:
        other = again.client()
        assert name in other.list_tables()["TableNames"]
        assert other.query(**query)["Count"] == 1
        described = other.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert described == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
        # Two servers of one database: what one changes the other knows at once, or a second later.
        fresh = created(other)
        client.put_item(TableName=fresh, Item=key(1))
        other.delete_table(TableName=fresh)
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.get_item(TableName=fresh, Key=key(1))
        other.update_table(TableName=name, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-g"}}])
        eventually(lambda: refused(lambda: client.query(**query)) == "ValidationException")


def refused(call: Any) -> str | None:
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def test_a_table_that_is_made_anew_is_empty_and_may_have_another_key(alone: Served):
    client = alone.client()
    name = f"again-{uuid.uuid4().hex[:8]}"
    for kind, value in (("S", "x"), ("N", "1"), ("B", b"\0")):
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": kind}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        item = {"pk": {kind: value}}
        for _ in range(8):  # until the driver prepares the statement
            assert client.scan(TableName=name)["Items"] == []
        client.put_item(TableName=name, Item=item)
        assert client.get_item(TableName=name, Key=item)["Item"] == item
        client.delete_table(TableName=name)


def test_two_servers_create_a_table_once(folder: Path, alone: Served):
    name = f"race-{uuid.uuid4().hex[:8]}"
    with served("--side", "postgres", "--auto-create", folder=folder) as other:
        clients = [alone.client(), other.client()] * 4
        request = {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        }
        with ThreadPoolExecutor(len(clients)) as pool:
            outcomes = list(pool.map(lambda client: refused(lambda: client.create_table(**request)), clients))
    assert sorted(outcomes, key=str) == [None, *["ResourceInUseException"] * 7]


# --- Requests that no SDK sends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body", "status", "code"),
    [
        ("GetItem", b"", 400, "SerializationException"),
        ("GetItem", b"{nonsense", 400, "SerializationException"),
        ("GetItem", b'{"TableName": 5}', 400, "SerializationException"),
        ("GetItem", b"{}", 400, "ValidationException"),
        (
            "PutItem",
            b'{"TableName": "t", "Item": {"pk": ' + b'{"L": [' * 50_000 + b"]}" * 50_000 + b"}}",
            400,
            "SerializationException",
        ),
        ("PutItem", b'{"Item": "' + b"x" * 17 * 2**20 + b'"}', 413, "RequestEntityTooLargeException"),
        ("MakeCoffee", b"{}", 400, "UnknownOperationException"),
        ("ExecuteStatement", b'{"Statement": "SELECT * FROM t"}', 400, "UnknownOperationException"),
    ],
    ids=["empty", "no JSON", "type", "nothing", "deep", "large", "unknown", "PartiQL"],
)
def test_what_is_no_request_gets_dynamodbs_error_and_the_server_lives_on(
    alone: Served, operation: str, body: bytes, status: int, code: str
):
    answer = alone.post(operation, body)
    assert answer[0] == status
    assert json.loads(answer[1])["__type"].rpartition("#")[2] == code
    assert alone.client().list_tables()["TableNames"] is not None


def test_an_item_that_nests_too_deep_for_dynamodb_is_refused_by_its_rule(alone: Served, things: str):
    value: dict[str, Any] = {"S": "x"}
    for _ in range(40):
        value = {"L": [value]}
    with pytest.raises(ClientError, match="Nesting Levels") as refusal:
        alone.client().put_item(TableName=things, Item={**key(1), "deep": value})
    assert refusal.value.response["Error"]["Code"] == "ValidationException"


def test_a_message_never_repeats_a_value(alone: Served, things: str):
    client = alone.client()
    requests: list[dict[str, Any]] = [
        {"Item": {**key(1), "bad": {"SS": ["secret", "secret"]}}},
        {"Item": {**key(1), "bad": {"N": "secret"}}},
        {"Item": {"pk": {"S": "secret"}, "sk": {"S": "secret"}}},
        {"Item": {**key(1), "bad": {"S": "secret"}}, "ReturnValues": "ALL_NEW"},
    ]
    for request in requests:
        with pytest.raises(ClientError) as refusal:
            client.put_item(TableName=things, **request)
        assert refusal.value.response["Error"]["Code"] == "ValidationException"
        assert "secret" not in str(refusal.value)
    too_many = [{"PutRequest": {"Item": {**key(n), "a": {"S": "secret"}}}} for n in range(26)]
    with pytest.raises(ClientError, match="less than or equal to 25") as refusal:
        client.batch_write_item(RequestItems={things: too_many})
    assert "secret" not in str(refusal.value)


def test_connections_are_kept_and_a_body_may_be_announced_first(alone: Served, things: str):
    body = json.dumps({"TableName": things, "Item": {**key(7), "b": {"B": base64.b64encode(b"x").decode()}}})
    head = (
        f"POST / HTTP/1.1\r\nhOsT: localhost\r\nX-AMZ-target: DynamoDB_20120810.PutItem\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", alone.port), timeout=30) as raw:
        for _ in range(2):
            raw.sendall(head.encode())
            assert raw.recv(1024).startswith(b"HTTP/1.1 100")
            raw.sendall(body.encode())
            answer = http.client.HTTPResponse(raw)
            answer.begin()
            content = answer.read()
            assert (answer.status, content) == (200, b"{}")
            assert answer.headers["X-Amz-Crc32"] == str(zlib.crc32(content))
    assert alone.client().get_item(TableName=things, Key=key(7))["Item"]["b"] == {"B": b"x"}


# --- Who may call ---------------------------------------------------------------------------------------


def test_only_who_signs_with_the_configured_credentials_is_served(folder: Path):
    known = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret"}
    environment = dict(zip(KEYS, known.values(), strict=True))
    with served("--side", "postgres", "--auto-create", folder=folder, environment=environment) as server:
        client = server.client(**known)
        assert "TableNames" in client.list_tables()
        assert "TableNames" in server.client(**known, aws_session_token="any").list_tables()
        codes = {
            "secret": refused(server.client(**{**known, "aws_secret_access_key": "other"}).list_tables),
            "key": refused(server.client(**{**known, "aws_access_key_id": "OTHER"}).list_tables),
        }
        assert codes == {"secret": "InvalidSignatureException", "key": "UnrecognizedClientException"}
        status, answer = server.post("ListTables", b"{}")
        assert (status, b"MissingAuthenticationTokenException" in answer) == (400, True)
        late = {
            "X-Amz-Date": "20200101T000000Z",
            "Authorization": (
                "AWS4-HMAC-SHA256 Credential=AKID/20200101/us-east-1/dynamodb/aws4_request, "
                f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}"
            ),
        }
        status, answer = server.post("ListTables", b"{}", **late)
        assert (status, b"Signature expired" in answer) == (400, True)
        assert "TableNames" in client.list_tables()


def test_without_credentials_a_web_page_whose_name_leads_here_is_refused(alone: Served):
    status, answer = alone.post("ListTables", b"{}", Host="attacker.example")
    assert (status, b"AccessDeniedException" in answer) == (400, True)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--host", "0.0.0.0", "--side", "postgres", "--auto-create"], {}, "no credentials are set"),
        (["--side", "postgres"], {KEYS[0]: "AKID"}, "set both"),
        (["--auto-create"], {}, "add --side postgres"),
        (["--embedded", "--side", "dynamodb"], {}, "add --side postgres"),
    ],
)
def test_what_cannot_be_served_safely_is_refused_at_the_start(folder, arguments, environment, told):
    config = str(folder / "dualstore.toml")
    result = CliRunner(env=environment).invoke(main, ["serve", "--port", "0", "--config", config, *arguments])
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_a_database_without_the_schema_is_refused_with_the_command_that_mends_it(
    postgres_server: Postgres, tmp_path: Path
):
    url = postgres_server.create_database()
    config = str(configuration_alone(tmp_path, url))
    result = CliRunner().invoke(
        main, ["serve", "--side", "postgres", "--auto-create", "--port", "0", "--config", config]
    )
    postgres_server.drop_database(url)
    assert (result.exit_code, "dualstore schema upgrade" in result.output) == (2, True), result.output


# --- A table that is being migrated ---------------------------------------------------------------------


@pytest.fixture
def migrating(deployment: Deployment, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """A table at `dualwrite`, by its name; and the store of another process that serves it, too."""
    model, row = deployment.table()
    name = model.Meta.table_name
    configuration_of(tmp_path, deployment, name, "orders")
    with deployment.store() as store:
        store.bind(model, row, name="orders")
        bring_to(store, "orders", WHOLE_MIGRATION["dualwrite"])
        yield name, store


def test_an_unmodified_program_writes_through_the_router_and_both_sides_agree(
    deployment: Deployment, tmp_path: Path, migrating: tuple[str, Any]
):
    name, store = migrating
    with served(folder=tmp_path) as server:
        order = order_model(name, server.endpoint_url)
        for number in range(5):
            order("p", number, name="n", n=number, tags={"a"}).save()
        order.get("p", 1).update(actions=[order.n.add(10)])
        order.get("p", 2).delete()
        with order.batch_write() as batch:
            batch.save(order("p", 9, name="late"))
        assert [each.sk for each in order.query("p")] == [0, 1, 3, 4, 9]
        assert server.client().describe_table(TableName=name)["Table"]["TableName"] == name
        with pytest.raises(ClientError) as refusal:
            server.client().delete_table(TableName=name)
        assert refusal.value.response["Error"]["Code"] == "AccessDeniedException"
        assert server.stop() == 0

    def sides() -> list[dict[str, Any]]:
        both = mirrored(store, name, "p"), authoritative(deployment, name, "p")
        return [{item["sk"]["N"]: item for item in side} for side in both]

    eventually(lambda: operator.eq(*sides()))
    on_postgres, at_dynamodb = sides()
    assert on_postgres == at_dynamodb
    assert len(at_dynamodb) == 5
    assert all("_dsv" in item for item in at_dynamodb.values())


@pytest.mark.parametrize("side", ["dynamodb", "postgres"])
def test_one_side_alone_is_for_reading_and_shows_no_stamps(
    deployment: Deployment, tmp_path: Path, migrating: tuple[str, Any], side: str
):
    name, store = migrating
    store.client().put_item(TableName=name, Item=key(1))
    with served("--side", side, folder=tmp_path) as server:
        client = server.client()
        assert client.get_item(TableName=name, Key=key(1))["Item"] == key(1)
        assert client.scan(TableName=name)["Items"] == [key(1)]
        found = client.batch_get_item(RequestItems={name: {"Keys": [key(1)]}})["Responses"]
        assert found == {name: [key(1)]}
        got = client.transact_get_items(TransactItems=[{"Get": {"TableName": name, "Key": key(1)}}])
        assert got["Responses"] == [{"Item": key(1)}]
        assert client.list_tables()["TableNames"] == [name]
        schema = client.describe_table(TableName=name)["Table"]["KeySchema"]
        assert [each["AttributeName"] for each in schema] == ["pk", "sk"]
        with pytest.raises(ClientError, match="reads only") as refusal:
            client.put_item(TableName=name, Item=key(2))
        assert refusal.value.response["Error"]["Code"] == "AccessDeniedException"


# --- Its end --------------------------------------------------------------------------------------------


def test_a_request_under_way_is_answered_before_the_server_ends(folder: Path, database: str):
    engine = sa.create_engine(database)
    with served("--side", "postgres", "--auto-create", folder=folder) as server:
        client = server.client()
        name = created(client)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"LOCK TABLE {_sql_table(connection, name)} IN ACCESS EXCLUSIVE MODE")
            answered: list[Any] = []
            call = threading.Thread(
                target=lambda: answered.append(client.put_item(TableName=name, Item=key(1)))
            )
            call.start()
            eventually(lambda: _waiting(engine))
            server.process.terminate()
            connection.rollback()
        call.join(30)
        assert len(answered) == 1
        assert server.process.wait(timeout=60) == 0
    engine.dispose()


def _sql_table(connection: sa.Connection, name: str) -> str:
    sql_name = connection.exec_driver_sql(
        "SELECT definition ->> '_sql_name' FROM dualstore.served_tables WHERE name = %s", (name,)
    ).scalar_one()
    return f'dualstore_served."{sql_name}"'


def _waiting(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.exec_driver_sql(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                "WHERE NOT l.granted AND d.datname = current_database()"
            ).scalar_one()
        )


def test_the_embedded_server_is_there_at_once_and_leaves_nothing_behind(tmp_path: Path):
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)  # PostgreSQL runs as somebody else where root starts it
        with served(
            "--side", "postgres", "--embedded", folder=tmp_path, environment={"TMPDIR": scratch}
        ) as server:
            client = server.client()
            name = created(client)
            client.put_item(TableName=name, Item=key(1))
            assert client.get_item(TableName=name, Key=key(1))["Item"] == key(1)
            assert list(Path(scratch).iterdir())
            assert server.stop() == 0
        assert list(Path(scratch).iterdir()) == []
