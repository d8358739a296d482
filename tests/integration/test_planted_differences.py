"""Differences of every class, planted between real databases: each is recorded once, and rightly classed.

The canary is a part of every key and every value. It is looked for in everything that dualstore says.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from botocore.awsrequest import AWSResponse
from click.testing import CliRunner

from dualstore import Stage
from dualstore.cli import main
from dualstore.config import ShadowSettings
from dualstore.flags import Requested, StaticFlags
from dualstore.items import KeyAttribute, KeySchema, key_hash
from dualstore.shadow import Rules, ShadowMismatch
from dualstore.telemetry import DiscrepancyKind, Role, names
from integration.deployment import REGION, bring_to, deployed

NAME = "orders"
CANARY = f"canary{uuid4().hex}"
ANOTHER_STAMP = UUID("01900000-0000-7000-8000-00000000cafe")
KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
PLANTED = {1: "missing_on_postgres", 2: "missing_on_dynamodb", 3: "value", 4: "type", 5: "stale"}
"""What `plant` makes of items, by their sort keys."""
QUICK_SHADOW = ShadowSettings(recheck_pause_seconds=0.01, linger_seconds=0)


def key(sk, partition="items"):
    return {"pk": {"S": f"{CANARY}-{partition}"}, "sk": {"N": str(sk)}}


def item(sk, partition="items", **attributes):
    return {**key(sk, partition), "note": {"S": f"{CANARY} as it was"}, **attributes}


class Twin:
    """A served table at stage `shadow`, and a hand that reaches DynamoDB past it."""

    def __init__(self, deployment, store, table):
        self.deployment, self.store, self.table = deployment, store, table
        self.client, self.rogue = store.client(), deployment.dynamodb

    def put(self, *items):
        for each in items:
            self.client.put_item(TableName=self.table, Item=each)

    def read(self, operation, **request):
        """A caller's read, compared; where the machine is slow, not each is."""
        before = self.compared
        for _ in range(100):
            answer = self._ask(operation, request)
            assert self.store._shadow.drain()
            if self.compared > before:
                return answer
        raise AssertionError("none of a hundred reads was compared")

    def _ask(self, operation, request):
        try:
            return getattr(self.client, operation)(TableName=self.table, **request)
        except self.client.exceptions.ClientError:
            return None

    @property
    def compared(self):
        return self.store.telemetry.snapshot().count(names.SHADOW_COMPARED)

    @property
    def record(self):
        return self.store.table(NAME).discrepancies

    def found(self):
        """What is recorded, by class."""
        return {each.discrepancy.kind: each.discrepancy for each in self.record.recorded(states=None)}


@contextmanager
def twin_of(deployment, *, rules=None, **shadow) -> Iterator[Twin]:
    settings = QUICK_SHADOW.model_copy(update=shadow)
    comparisons = {NAME: rules} if rules else {}
    with deployment.store(StaticFlags(), shadow=settings, comparisons=comparisons) as store:
        model, row = deployment.table()
        store.repository(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.SHADOW)).physical
        yield Twin(deployment, store, table)


@pytest.fixture
def deployment(postgres_url, dynamodb_server, dynamodb):
    """A database of this test's own: all that is kept there is searched."""
    with deployed(postgres_url, dynamodb, dynamodb_server.endpoint_url) as both:
        yield both


@pytest.fixture
def twin(deployment):
    with twin_of(deployment) as one:
        yield one


@contextmanager
def answering(twin, event, hook):
    """DynamoDB answers as the hook makes it."""
    events = twin.deployment.clients.reads.meta.events
    events.register(event, hook)
    try:
        yield
    finally:
        events.unregister(event, hook)


def reverse(parsed, **_):
    parsed["Items"].reverse()


def refuse(request, **_):
    body = json.dumps({"__type": "com.amazon.coral.validate#ValidationException", "message": CANARY})

    class Raw:
        def stream(self, **_):
            yield body.encode()

    return AWSResponse(request.url, 400, {"x-amzn-errortype": "ValidationException"}, Raw())


def plant(twin):
    """One difference of each class; gives back the reads that meet them, each twice, and nothing else."""
    twin.put(*(item(sk) for sk in range(2, 7)), *(item(sk, "ordered") for sk in (1, 2)), item(1, "counted"))
    rogue, table = twin.rogue, twin.table
    rogue.put_item(TableName=table, Item=item(1))
    rogue.delete_item(TableName=table, Key=key(2))
    for sk, note in ((3, {"S": f"{CANARY} as it is"}), (4, {"N": "1"})):
        rogue.update_item(
            TableName=table,
            Key=key(sk),
            UpdateExpression="SET note = :note",
            ExpressionAttributeValues={":note": note},
        )
    rogue.put_item(
        TableName=table, Item=item(5, note={"S": f"{CANARY} later"}, _dsv={"B": ANOTHER_STAMP.bytes})
    )
    rogue.put_item(TableName=table, Item=item(2, "counted"))

    def partition(name):
        return {
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": {":p": key(0, name)["pk"]},
        }

    for _ in range(2):
        for sk in range(1, 6):
            twin.read("get_item", Key=key(sk))
        twin.read("query", **partition("counted"), Select="COUNT")
        with answering(twin, "after-call.dynamodb.Query", reverse):
            twin.read("query", **partition("ordered"))
        with answering(twin, "before-send.dynamodb.GetItem", refuse):
            twin.read("get_item", Key=key(6))


def everything_kept(engine):
    """Every row of the bookkeeping, as text."""
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names(schema="dualstore")
        return "\n".join(
            str(row)
            for table in tables
            for (row,) in connection.execute(sa.text(f"SELECT t::text FROM dualstore.{table} t"))
        )


def test_differences_of_every_class_are_recorded_once_as_what_they_are(twin, caplog):
    with caplog.at_level(logging.DEBUG, logger="dualstore"):
        plant(twin)
    found = twin.found()
    assert set(found) == set(DiscrepancyKind)
    assert len(twin.record.recorded(states=None)) == len(DiscrepancyKind), "each once"
    assert {each.count for each in found.values()} == {2}
    of_items = {"missing_on_postgres", "missing_on_dynamodb", "value", "type", "stale"}
    assert {kind for kind, each in found.items() if not each.of_request} == of_items
    assert {kind: each.key_hash for kind, each in found.items() if not each.of_request} == {
        kind: key_hash(KEYS, key(sk)) for sk, kind in PLANTED.items()
    }
    assert {kind: each.operation for kind, each in found.items() if each.of_request} == {
        "count": "Query",
        "order": "Query",
        "error": "GetItem",
    }
    assert {kind: each.paths for kind, each in found.items() if each.paths} == dict.fromkeys(
        ("value", "type", "stale"), ("note",)
    )
    stale = found[DiscrepancyKind.STALE].versions
    assert stale.dynamodb == str(ANOTHER_STAMP) != stale.postgres
    value = found[DiscrepancyKind.VALUE].versions
    assert value.dynamodb == value.postgres is not None
    assert found[DiscrepancyKind.MISSING_ON_POSTGRES].versions == (None, None), "a rogue has no stamp"
    snapshot = twin.store.telemetry.snapshot()
    assert snapshot.count(names.SHADOW_COMPARED, verdict="mismatch") == 16
    assert CANARY not in f"{caplog.text} {snapshot!r} {found!r}"
    assert CANARY.encode().hex() not in everything_kept(twin.deployment.engine)
    assert CANARY not in everything_kept(twin.deployment.engine)


def test_a_verification_shares_the_record_and_its_repair_closes_it(twin):
    plant(twin)
    before = twin.found()
    verification = twin.store.table(NAME).verify()
    found = twin.found()
    assert set(found) == set(before)
    verified = {kind: each for kind, each in found.items() if each.finder == "verify"}
    assert {kind for kind, each in before.items() if not each.of_request} == set(verified)
    assert {each.run_id for each in verified.values()} == {verification.run_id}
    assert {each.operation for each in verified.values()} == {"Verify"}
    # the key that only its count told of, too
    assert verified[DiscrepancyKind.VALUE].count == 3
    assert verification.difference_count == 6
    assert twin.store.table(NAME).verify(repair=True).proven
    repaired = {kind for kind, each in twin.found().items() if each.repaired}
    assert repaired == set(verified)


@pytest.fixture
def command(twin, tmp_path, monkeypatch):
    """Runs a command on the table, as another process would."""
    deployment, table = twin.deployment, twin.table
    module = f"models_{table.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "from integration.deployment import order_model, order_row\n"
        f"Order = order_model({table!r}, {deployment.endpoint_url!r})\n"
        f"OrderRow = order_row({table.replace('-', '_')!r})\n"
    )
    url = deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    config = tmp_path / "dualstore.toml"
    config.write_text(
        f"[postgres]\nurl = {json.dumps(url)}\n"
        f"[dynamodb]\nendpoint_url = {json.dumps(deployment.endpoint_url)}\nregion = {json.dumps(REGION)}\n"
        f"bookkeeping_table = {json.dumps(deployment.bookkeeping)}\n"
        f'[tables.orders]\nmodel = "{module}:Order"\nrow = "{module}:OrderRow"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dualstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dualstore")
    said = []

    def run(*arguments):
        result = CliRunner().invoke(main, ["discrepancies", *map(str, arguments), "--config", str(config)])
        said.append(result.output)
        return result.exit_code, result.output

    yield run
    assert CANARY not in "".join(said)


def test_the_commands_list_show_ignore_and_repair_and_say_no_value(twin, command):
    plant(twin)
    code, listed = command("list", NAME)
    assert code == 0, listed
    assert all(kind in listed for kind in DiscrepancyKind)
    kept = {each["class"]: each for each in json.loads(command("list", "--json")[1])}
    number = kept["stale"]["id"]
    assert kept["stale"]["dynamodb_version"] == str(ANOTHER_STAMP)
    code, shown = command("show", NAME, number)
    assert code == 0
    assert str(ANOTHER_STAMP) in shown
    code, _ = command("ignore", NAME, kept["value"]["id"])
    assert code == 0
    code, repaired = command("repair", NAME, "--json")
    assert code == 1, "what concerns no one item is left"
    outcomes = {each["class"]: each["outcome"] for each in json.loads(repaired)}
    of_items = ("missing_on_postgres", "missing_on_dynamodb", "type", "stale")
    assert outcomes == dict.fromkeys(of_items, "repaired") | dict.fromkeys(
        ("order", "count", "error"), "no_item"
    )
    plant_again = [twin.read("get_item", Key=key(sk)) for sk in range(1, 6)]
    assert len(plant_again) == 5
    states = {
        each["class"]: each["state"] for each in json.loads(command("list", "--state", "all", "--json")[1])
    }
    assert states == dict.fromkeys(of_items, "repaired") | dict.fromkeys(
        ("order", "count", "error"), "open"
    ) | {"value": "ignored"}
    code, said = command("show", NAME, 999_999)
    assert (code, "has no discrepancy 999999" in said) == (2, True)


def test_a_key_that_is_not_among_those_searched_is_refused_in_words(twin, command):
    twin.put(item(1))
    twin.rogue.delete_item(TableName=twin.table, Key=key(1))
    twin.read("get_item", Key=key(1))
    code, said = command("repair", NAME, "--search-keys", 0)
    assert code == 1
    assert "plain_keys" in said
    assert command("repair", NAME)[0] == 0


def test_a_recorded_key_is_repaired_without_a_search(deployment):
    with twin_of(deployment, plain_keys=True) as twin:
        twin.rogue.put_item(TableName=twin.table, Item=item(1))
        twin.read("get_item", Key=key(1))
        (kept,) = twin.record.recorded()
        assert twin.record.key_of(kept) == key(1)
        (done,) = twin.record.repair(kept.id, searched_keys=0)
        assert done.outcome == "repaired"
        assert twin.read("get_item", Key=key(1))["Item"] == item(1)


def test_rules_hold_between_real_databases(deployment):
    rules = Rules(ignore=("note",), normalise=lambda each: {**each, "name": {"S": each["name"]["S"].upper()}})
    with twin_of(deployment, rules=rules) as twin:
        twin.put(item(1, name={"S": "ann"}))
        for name, verdict in (("ANN", "equal"), ("BOB", "mismatch")):
            twin.rogue.update_item(
                TableName=twin.table,
                Key=key(1),
                UpdateExpression="SET note = :n, #n = :v",
                ExpressionAttributeNames={"#n": "name"},
                ExpressionAttributeValues={":n": {"S": "else"}, ":v": {"S": name}},
            )
            twin.read("get_item", Key=key(1))
            counted = twin.store.telemetry.snapshot()
            assert counted.count(names.SHADOW_COMPARED, verdict=verdict) == 1
        assert twin.found()[DiscrepancyKind.VALUE].paths == ("name",)


def test_an_application_under_test_meets_its_mismatches(deployment):
    with twin_of(deployment, raise_on_mismatch=True) as twin:
        twin.rogue.put_item(TableName=twin.table, Item=item(1))
        with pytest.raises(ShadowMismatch) as raised:
            twin.read("get_item", Key=key(1))
        assert CANARY not in str(raised.value)


def test_reads_that_wait_are_asked_for_together_on_postgresql(deployment):
    with twin_of(deployment, linger_seconds=0.2, batch_keys=50) as twin:
        twin.put(*(item(sk) for sk in range(20)))
        twin.rogue.update_item(
            TableName=twin.table,
            Key=key(7),
            UpdateExpression="SET note = :note",
            ExpressionAttributeValues={":note": {"S": f"{CANARY} as it is"}},
        )
        for sk in range(22):
            twin.client.get_item(TableName=twin.table, Key=key(sk))
        assert twin.store._shadow.drain()
        counted = twin.store.telemetry.snapshot()
        assert counted.latencies(operation="BatchGetItem", role=Role.SHADOW, outcome="ok").count >= 1
        assert counted.latencies(operation="GetItem", role=Role.SHADOW).count < 11
        assert counted.count(names.SHADOW_COMPARED, verdict="equal") == 21
        (kept,) = twin.record.recorded()
        assert (kept.discrepancy.kind, kept.discrepancy.operation) == (DiscrepancyKind.VALUE, "GetItem")
