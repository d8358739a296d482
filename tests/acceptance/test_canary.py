"""No value and no plain key is ever told: canaries in both are looked for in everything that dualstore says.

Everything that an application and an operator can do is done once, and most of what can go wrong, with
PostgreSQL as the mirror and as the authority.
"""

import base64
import gzip
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from click.testing import CliRunner
from pynamodb.exceptions import PynamoDBException

from acceptance.canaries import KEY, KEYS, NUMBER, SORT_KEY, TOO_LARGE, VALUE, VALUES, Told
from dualstore import DualStore
from dualstore.cli import main
from dualstore.config import RecordingSettings
from dualstore.flags import FileFlags
from dualstore.recording import Note, read_lines
from dualstore.rollout.load import condense, profile_text
from dualstore.stages import Stage
from dualstore.telemetry import DiscrepancyKind
from dualstore.testing.servers import DynamoDB
from integration import test_planted_differences as planted
from integration.commands import NOBODY
from integration.deployment import QUICK, REGION, Deployment, deployed, eventually
from integration.test_flip import relaying, with_stream
from integration.test_telemetry import Observed

NAME = "orders"
HOLDS_KEYS: Mapping[str, str] = {
    "dualstore.dirty.key": "whoever reads the mirror looks its key up here",
    "dualstore.dirty.item_key": "whoever settles the key asks DynamoDB for it",
    "dualstore.tombstones.key": "what is mirrored looks its key up here",
    "dualstore.outbox.key": "whoever brings DynamoDB after PostgreSQL reads the row by it",
    "dualstore.outbox.sent_image": "holds the item, and so its key",
    "dualstore.run_pieces.cursor": "where a backfill or verification goes on: DynamoDB's LastEvaluatedKey",
    "dualstore.quarantine.key": "the key to settle once its item fits",
    "dualstore.quarantine.item": "the item as it came, for whoever has to find out why it did not fit",
    "the journal": "the keys to settle, where PostgreSQL could not be told of them",
}
HOLDS_VALUES: Mapping[str, str] = {
    "dualstore.outbox.sent_image": "an attempt whose reply is missing is repeated with the same item",
    "dualstore.quarantine.item": "by choice: encrypted or redacted, it holds none",
}
RECORDED = frozenset({"GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "BatchGetItem"})


class Service:
    """A table on both databases with everything that tells of it.

    Args:
        deployment: the databases.
        folder: for flags and configuration.
        told: takes down what is said.
    """

    def __init__(self, deployment: Deployment, folder: Path, told: Told) -> None:
        self.deployment, self.folder, self.told = deployment, folder, told
        self.model, self.row = deployment.table()
        self.physical: str = self.model.Meta.table_name
        with_stream(deployment, self.physical)
        self.flags = FileFlags(folder / "flags.json")
        self.flags.create()
        self.recordings = folder / "recordings"
        self.observed = Observed(
            deployment,
            self.flags,  # type: ignore[arg-type]
            recording=RecordingSettings(directory=self.recordings),
            recorded_percents={NAME: 100.0},
        )
        self.store: DualStore = self.observed.store
        deployment.clients.reads.meta.events.register("before-send.dynamodb", self.overhear)
        self.store.bind(self.model, self.row, name=NAME)
        self.store.prepare()
        (folder / f"{self._module}.py").write_text(
            "from integration.deployment import order_model, order_row\n"
            f"Order = order_model({self.physical!r}, {deployment.endpoint_url!r})\n"
            f"OrderRow = order_row({self.physical.replace('-', '_')!r})\n"
        )

    @property
    def _module(self) -> str:
        return f"models_of_{self.physical.replace('-', '_')}"

    def close(self) -> None:
        self.store.close()
        self.store.unbind(self.model)
        self.observed.traces.shutdown()
        self.observed.meters.shutdown()

    def dualstore(self, *arguments: str, code: int | None = 0, url: str | None = None) -> str:
        """What a command says; `code` None takes any."""
        here = self.deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        config = self.folder / "dualstore.toml"
        config.write_text(
            f"[postgres]\nurl = {json.dumps(url or here)}\n"
            f"[dynamodb]\nendpoint_url = {json.dumps(self.deployment.endpoint_url)}\n"
            f'region = "{REGION}"\nbookkeeping_table = {json.dumps(self.deployment.bookkeeping)}\n'
            f'[flags]\nkind = "file"\npath = "flags.json"\n'
            f'[tables.{NAME}]\nmodel = "{self._module}:Order"\nrow = "{self._module}:OrderRow"\n'
        )
        outcome = CliRunner().invoke(main, [*arguments, "--config", str(config)])
        self.told.add("command line", outcome.output)
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        assert code is None or outcome.exit_code == code, outcome.output
        return outcome.output

    def look(self) -> None:
        """Take down what PostgreSQL keeps besides the items now."""
        with self.deployment.engine.connect() as connection:
            for table in sa.inspect(connection).get_table_names(schema="dualstore"):
                rows = connection.scalars(sa.text(f"SELECT to_jsonb(t) FROM dualstore.{table} t")).all()
                for row in rows:
                    for column, content in row.items():
                        self.told.add(f"dualstore.{table}.{column}", json.dumps(content))

    def look_at_recordings(self) -> None:
        """Take down what is recorded for load tests, line by line, and the profile that is made of it."""
        recorder = self.store._recorder
        assert recorder is not None
        recorder.write(everything=True)
        for file in self.recordings.iterdir():
            self.told.add("recordings", gzip.decompress(file.read_bytes()).decode())
        self.told.add("load profile", profile_text(condense(read_lines(self.recordings), name=NAME)))
        kinds = {line.operation for line in read_lines(self.recordings) if isinstance(line, Note)}
        assert kinds >= RECORDED, kinds

    def overhear(self, request: Any, **_: object) -> None:
        """Take down what is sent to the bookkeeping table; to be called before each request to DynamoDB."""
        if json.loads(request.body).get("TableName") == self.deployment.bookkeeping:
            said = request.body.decode()
            self.told.add("the journal" if '"journal#' in said else "DynamoDB's bookkeeping", said)


# What is done


def key(name: str, sk: int = SORT_KEY) -> dict[str, Any]:
    return {"pk": {"S": f"{KEY}-{name}"}, "sk": {"N": str(sk)}}


def item(name: str, sk: int = SORT_KEY, **attributes: Any) -> dict[str, Any]:
    return {
        **key(name, sk),
        "name": {"S": f"{VALUE}-name"},
        "n": {"N": str(NUMBER)},
        "extra": {"M": {"inner": {"L": [{"S": VALUE}, {"B": VALUE.encode()}]}}},
        **attributes,
    }


def applications_work(service: Service, told: Told) -> None:
    """Everything that a model, a repository, a client, batches and transactions do, and how they fail."""
    store, model, client, table = service.store, service.model, service.store.client(), service.physical
    for who in (model, store.repository(model, service.row, name=NAME)):
        of_model(service, who, told)
    client.put_item(TableName=table, Item=item("client"))
    client.update_item(
        TableName=table,
        Key=key("client"),
        UpdateExpression="SET #n = :v ADD n :one",
        ExpressionAttributeNames={"#n": "name"},
        ExpressionAttributeValues={":v": {"S": f"{VALUE}-other"}, ":one": {"N": "1"}},
    )
    requests, is_live = malformed(table), store.table(NAME).stage is Stage.LIVE
    if is_live:
        # DynamoDB itself repeats such a set, and its answers are passed on as they are.
        twice = item("set", s={"SS": [VALUE, VALUE]})
        requests["put_item with a set of one twice"] = {"TableName": table, "Item": twice}
    for operation, request in requests.items():
        with told.refused(ClientError):
            getattr(client, operation.partition(" ")[0])(**request)
            pytest.fail(f"{operation} was not refused")
    writes = [{"PutRequest": {"Item": item("batch", sk)}} for sk in range(3)]
    writes.append({"DeleteRequest": {"Key": key("client")}})
    client.batch_write_item(RequestItems={table: writes})
    client.batch_get_item(RequestItems={table: {"Keys": [key("batch", sk) for sk in range(3)]}})
    # The SQL table refuses it, which concerns callers only where PostgreSQL is the authority.
    with told.refused(ClientError) if is_live else nullcontext():
        client.put_item(TableName=table, Item=item("refused", n={"N": str(TOO_LARGE)}))
    client.get_item(TableName=table, Key=key("refused"))
    client.delete_item(TableName=table, Key=key("refused"))


def of_model(service: Service, who: Any, told: Told) -> None:
    """What PynamoDB's names do, on a bound model or a repository."""
    store, model, row = service.store, service.model, (f"{KEY}-model", SORT_KEY)
    is_bound = who is model

    def save(one: Any, condition: Any = None) -> None:
        one.save(condition) if is_bound else who.save(one, condition)

    save(model(*row, name=VALUE, n=NUMBER, lines=[VALUE], tags={VALUE}, address={"street": VALUE}))
    with told.refused(PynamoDBException):
        save(model(*row, name=VALUE), model.name == f"{VALUE}-absent")
    with told.refused(PynamoDBException):
        who.get(f"{KEY}-absent", SORT_KEY)
    found = who.get(*row)
    actions = [model.name.set(f"{VALUE}-updated")]
    if is_bound:
        found.update(actions)
        found.refresh()
        with told.refused(PynamoDBException):
            found.update([model.n.set(model.name)], condition=model.name == VALUE)
    list(who.query(row[0], model.sk > 1))
    list(who.scan(model.name == VALUE))
    list(who.batch_get([row, (f"{KEY}-absent", 1)]))
    if is_bound:
        list(model.by_name.query(f"{VALUE}-updated"))
    with who.batch_write() as batch:
        batch.save(model(f"{KEY}-batched", 1, name=VALUE))
        batch.delete(found)
    with store.transact_write() as transaction:
        transaction.save(model(f"{KEY}-transacted", 1, name=VALUE))
    with told.refused(PynamoDBException), store.transact_write() as transaction:
        transaction.save(model(f"{KEY}-transacted", 1, name=VALUE), condition=model.name == "other")
    with store.transact_get() as transaction:
        future = transaction.get(model, f"{KEY}-transacted", 1)
    assert future.get().name == VALUE
    with told.refused(PynamoDBException):
        model(f"{KEY}-transacted", 1).delete(model.name == f"{VALUE}-absent")
    model.get(f"{KEY}-transacted", 1).delete()


def malformed(table: str) -> dict[str, dict[str, Any]]:
    """Requests that are refused, each with canaries in it."""
    values = {":v": {"S": VALUE}}
    return {
        "put_item without a key": {"TableName": table, "Item": {"name": {"S": VALUE}}},
        "put_item of another type": {"TableName": table, "Item": item("typed") | {"sk": {"S": VALUE}}},
        "put_item on condition": {
            "TableName": table,
            "Item": item("client"),
            "ConditionExpression": "extra = :v",
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
        "put_item too large": {"TableName": table, "Item": item("large", blob={"S": VALUE * 30_000})},
        "update_item of a string": {
            "TableName": table,
            "Key": key("client"),
            "UpdateExpression": "ADD extra.inner :v",
            "ExpressionAttributeValues": values,
        },
        "update_item unused": {
            "TableName": table,
            "Key": key("client"),
            "UpdateExpression": "REMOVE extra",
            "ExpressionAttributeValues": values,
        },
        "get_item of half a key": {"TableName": table, "Key": {"pk": {"S": KEY}}},
        "batch_get_item twice": {"RequestItems": {table: {"Keys": [key("batch"), key("batch")]}}},
        "batch_write_item twice": {
            "RequestItems": {table: [{"PutRequest": {"Item": item("batch")}} for _ in range(2)]}
        },
        "transact_write_items cancelled": {
            "TransactItems": [
                {"Put": {"TableName": table, "Item": item("transacted")}},
                {
                    "Update": {
                        "TableName": table,
                        "Key": key("client"),
                        "UpdateExpression": "SET extra = :v",
                        "ConditionExpression": "attribute_not_exists(pk) OR extra = :v",
                        "ExpressionAttributeValues": values,
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                },
            ]
        },
    }


def differences_are_found_and_dealt_with(service: Service) -> None:
    twin = planted.Twin(service.deployment, service.store, service.physical)
    planted.plant(twin)
    assert set(DiscrepancyKind) == {each.discrepancy.kind for each in twin.record.recorded(states=None)}
    listed = json.loads(service.dualstore("discrepancies", "list", NAME, "--json"))
    assert {each["class"] for each in listed} == set(DiscrepancyKind)
    service.dualstore("discrepancies", "list")
    for each in listed:
        service.dualstore("discrepancies", "show", NAME, str(each["id"]))
    service.dualstore("discrepancies", "ignore", NAME, str(listed[0]["id"]))
    service.dualstore("verify", NAME, code=1)
    service.dualstore("discrepancies", "repair", NAME, code=1)
    service.dualstore("discrepancies", "show", NAME, "999999", code=2)
    service.dualstore("repair", NAME, "--key", json.dumps(key("client")), code=0)
    service.dualstore("repair", NAME, "--key", json.dumps({"pk": KEY, "sk": VALUE}), code=2)
    service.dualstore("repair", NAME, "--key", VALUE, code=2)


def writes_without_postgres(service: Service) -> None:
    """Another process, which does not reach PostgreSQL, writes: the journal takes the keys."""
    engine = sa.create_engine(NOBODY_SQL, connect_args={"connect_timeout": 1})
    options = replace(QUICK, bookkeeping_table=service.deployment.bookkeeping)
    with DualStore(
        engine=engine,
        dynamodb=service.deployment.clients,
        flags=FileFlags(service.flags.path),
        options=options,
    ) as store:
        repository = store.repository(service.model, service.row, name=NAME)
        repository.save(service.model(f"{KEY}-journal", SORT_KEY, name=VALUE))
    engine.dispose()


NOBODY_SQL = next(url for url in NOBODY.values() if url.startswith("postgresql")).replace(
    "://", "+psycopg://"
)


def strangers_write(service: Service) -> None:
    """SQL of the team's own, at `live`: what it changes goes through the outbox; some DynamoDB refuses."""
    rows = service.row.__table__
    with service.deployment.engine.begin() as connection:
        connection.execute(
            sa.insert(rows), [{"pk": f"{KEY}-sql", "sk": SORT_KEY, "name": VALUE, "n": NUMBER}]
        )
        connection.execute(sa.insert(rows), [{"pk": f"{KEY}-large", "sk": 1, "name": VALUE * 30_000}])
    outbox = service.store._mirroring.outbox
    eventually(lambda: outbox.depth(service.physical).refused, seconds=30)
    service.look()
    with service.deployment.engine.begin() as connection:
        connection.execute(sa.delete(rows).where(rows.c.pk == f"{KEY}-large"))
    eventually(lambda: not outbox.depth(service.physical).refused, seconds=30)


def dialled(service: Service, *arguments: str) -> None:
    service.dualstore("dial", NAME, *arguments, "--yes")


def walked(service: Service, told: Told) -> None:
    """From `off` to `live`, with work and trouble at every stage."""
    deployment, table, store = service.deployment, service.physical, service.store
    for name, attributes in {"history": {}, "refused": {"n": {"N": str(TOO_LARGE)}}}.items():
        deployment.dynamodb.put_item(TableName=table, Item=item(name, **attributes))
    for sk in range(4):  # more than one page of a Scan
        deployment.dynamodb.put_item(TableName=table, Item=item("page", sk, blob={"S": VALUE * 23_000}))
    dialled(service, "--stage", "dualwrite")
    store.table(NAME).backfill(segments=1, workers=1, progress=lambda _: service.look())
    service.dualstore("backfill", NAME, code=None)
    deployment.dynamodb.delete_item(TableName=table, Key=key("refused"))
    service.dualstore("repair", NAME)
    dialled(service, "--stage", "shadow", "--read-percent", "50", "--shadow-percent", "100")
    with service.observed.tracer.start_as_current_span("request"):
        applications_work(service, told)
        service.look()
        differences_are_found_and_dealt_with(service)
    service.look()
    service.dualstore("status")
    service.dualstore("status", "--json")
    service.dualstore("dial", NAME, "--stage", "complete", "--yes", code=1)
    service.dualstore("stop", NAME, "--reason", "a test")
    service.dualstore("stop", NAME, "--release")
    service.dualstore("status", url=NOBODY_SQL.replace("+psycopg", ""), code=None)
    writes_without_postgres(service)
    with relaying(store):
        deployment.dynamodb.put_item(TableName=table, Item=item("rogue"))
        deployment.dynamodb.delete_item(TableName=table, Key=key("history"))
        migrated = store.table(NAME)
        eventually(lambda: not migrated.status().pending, seconds=30)
        service.dualstore("verify", NAME, "--repair", code=None)
        service.look()
        eventually(
            lambda: migrated.verify(repair=True).proven and not migrated.status().record.suspects, seconds=60
        )
        relay = store.relay()
        eventually(lambda: relay.drained_since(table, relay.now() - timedelta(seconds=9)))
        dialled(service, "--stage", "live")
        # Before a creation is sent, its image is kept.
        deployment.clients.writes.meta.events.register(
            "before-send.dynamodb.TransactWriteItems", lambda **_: service.look()
        )
        with service.observed.tracer.start_as_current_span("request"):
            applications_work(service, told)
            strangers_write(service)
        service.look()
        service.dualstore("status")
        assert migrated.stage is Stage.LIVE


@pytest.fixture
def service(
    postgres_url: str,
    dynamodb_server: DynamoDB,
    dynamodb: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Service]:
    monkeypatch.syspath_prepend(tmp_path)
    with deployed(postgres_url, dynamodb, dynamodb_server.endpoint_url) as deployment:
        one = Service(deployment, tmp_path, Told())
        try:
            yield one
        finally:
            one.close()


@pytest.mark.timeout(400)
def test_canaries_in_values_and_keys_are_told_nowhere_but_where_they_must_be_kept(
    service: Service, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    told, observed = service.told, service.observed
    with caplog.at_level(logging.DEBUG, logger="dualstore"):
        walked(service, told)
        observed.store._shadow.drain(timedelta(seconds=20))
        observed.store.report()
        observed.emf.flush()
        service.look_at_recordings()
    told.add("logs", caplog.text)
    told.add("log arguments", [(record.args, record.exc_info) for record in caplog.records])
    told.add("spans", json.dumps(observed.spans()))
    told.add("metrics", json.dumps(observed.metrics()))
    told.add("CloudWatch", "".join(observed.lines))
    told.add("snapshot", repr(observed.telemetry.snapshot()))
    told.add("status", repr(service.store.table(NAME).status()))
    told.add("evidence", repr((service.store.evidence(NAME), service.store.fleet(NAME))))
    told.add("output", "".join(capfd.readouterr()))
    told.add("discrepancies", repr(service.store.table(NAME).discrepancies.recorded(states=None)))

    said = {where for where, texts in told.said.items() if any(texts)}
    assert said >= {
        "errors",
        "command line",
        "logs",
        "spans",
        "metrics",
        "CloudWatch",
        "DynamoDB's bookkeeping",
        "recordings",
        "load profile",
        *HOLDS_KEYS,
    }, said
    assert {
        where: texts[:2] for where, texts in told.with_any(VALUES).items() if where not in HOLDS_VALUES
    } == {}
    assert {where: texts[:2] for where, texts in told.with_any(KEYS).items() if where not in HOLDS_KEYS} == {}
    # What is listed without need would hide a leak.
    assert told.with_any(KEYS).keys() == HOLDS_KEYS.keys()
    assert told.with_any(VALUES).keys() == HOLDS_VALUES.keys()


def test_a_canary_is_found_in_plain_text_in_hexadecimal_digits_and_in_base64_however_it_is_shifted() -> None:
    for shift in range(3):
        hidden = b"x" * shift + KEY.encode() + b"yz"
        for text in (hidden.decode(), hidden.hex(), base64.b64encode(hidden).decode()):
            told = Told()
            told.add("here", f"before {text} after")
            assert told.with_any([KEY]), text
            assert not told.with_any([VALUE])
