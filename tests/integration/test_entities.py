"""Several models and SQL tables behind one DynamoDB table, in a whole `DualStore` and in PostgreSQL alone."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import DiscriminatorAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase

from dualstore import Stage
from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError
from dualstore.flags import Requested, StaticFlags
from dualstore.items import STAMP, Item
from dualstore.mapping import Entity, Mirrored, SplitMapping, split_table
from dualstore.mapping.transcoding import transcoder_of
from dualstore.operations import parse
from dualstore.schema import create_unmapped
from dualstore.stages import Side
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres.layouts import other_layout, record_layout
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_expiry import PostgresExpiry
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_runs import PostgresRuns
from equivalence.entities import mapping
from integration.deployment import REGION, Deployment, bring_to, mirrored, served_by

EPOCH = 5


@dataclass(frozen=True)
class Accounts:
    """A team's models of one DynamoDB table, and their SQL models."""

    Thing: Any
    User: Any
    Admin: Any
    Credential: Any
    UserRow: Any
    CredentialRow: Any

    @property
    def name(self) -> str:
        return str(self.Thing.Meta.table_name)


@pytest.fixture(scope="module")
def accounts(deployment: Deployment) -> Accounts:
    return made_accounts(deployment)


def made_accounts(deployment: Deployment) -> Accounts:
    """A table of DynamoDB with its models, and a SQL table for users and one for credentials."""
    name = f"accounts-{uuid.uuid4().hex[:8]}"

    class Thing(Model):
        class Meta:
            table_name = name
            region = REGION
            host = deployment.endpoint_url
            aws_access_key_id = "dualstore"
            aws_secret_access_key = "dualstore"

        pk = UnicodeAttribute(hash_key=True)
        sk = UnicodeAttribute(range_key=True)
        kind = DiscriminatorAttribute()

    class User(Thing, discriminator="user"):
        email = UnicodeAttribute(null=True)

    class Admin(User, discriminator="admin"):
        level = NumberAttribute(null=True)

    class Credential(Thing, discriminator="credential"):
        secret = UnicodeAttribute(null=True)

    class Base(DeclarativeBase):
        pass

    key = {"pk": sa.Text(collation="C"), "sk": sa.Text(collation="C")}

    def row(table: str, **columns: Any) -> Any:
        keys = {column: sa.Column(type_, primary_key=True) for column, type_ in key.items()}
        others = {column: sa.Column(type_) for column, type_ in columns.items()}
        return type(table, (Mirrored, Base), {"__tablename__": f"{name}_{table}", **keys, **others})

    users, credentials = row("users", kind=sa.Text, email=sa.Text), row("credentials", secret=sa.Text)
    Thing.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
    deployment.created.append(name)
    Base.metadata.create_all(deployment.engine)
    return Accounts(Thing, User, Admin, Credential, users, credentials)


def rows(engine: sa.Engine, row: Any, partition: str) -> list[str]:
    """The sort keys of a partition that one SQL table holds."""
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.select(row.sk).where(row.pk == partition)))


def test_a_hierarchy_is_mirrored_table_by_table_and_read_back_as_one(
    deployment: Deployment, accounts: Accounts
):
    accounts.User("old", "1", email="o@x").save()
    accounts.Credential("old", "2", secret="s").save()
    deployment.dynamodb.put_item(
        TableName=accounts.name, Item={"pk": {"S": "old"}, "sk": {"S": "3"}, "kind": {"S": "stranger"}}
    )
    with deployment.store(StaticFlags()) as store:
        store.bind(accounts.User, accounts.UserRow, name="accounts")
        store.bind(accounts.Credential, accounts.CredentialRow, name="accounts")
        store.prepare()
        table = bring_to(store, "accounts", Requested(stage=Stage.SHADOW, postgres_read_percent=100.0))
        assert isinstance(table.mapping, SplitMapping)
        engine = deployment.engine
        assert rows(engine, accounts.UserRow, "old") == ["1"]
        assert rows(engine, accounts.CredentialRow, "old") == ["2"]
        assert [item["sk"]["S"] for item in mirrored(store, accounts.name, "old")] == ["1", "2", "3"]

        accounts.Admin("p", "1", email="a@x", level=1).save()
        accounts.Credential("p", "2", secret="s").save()
        accounts.User("p", "3", email="u@x").save()
        assert rows(engine, accounts.UserRow, "p") == ["1", "3"]
        assert rows(engine, accounts.CredentialRow, "p") == ["2"]
        before = served_by(store, Side.POSTGRES)
        found = list(accounts.Thing.query("p", limit=10, page_size=1))
        assert [type(each) for each in found] == [accounts.Admin, accounts.Credential, accounts.User]
        assert served_by(store, Side.POSTGRES) > before

        store.client().update_item(
            TableName=accounts.name,
            Key={"pk": {"S": "p"}, "sk": {"S": "3"}},
            UpdateExpression="SET kind = :kind",
            ExpressionAttributeValues={":kind": {"S": "credential"}},
        )
        assert rows(engine, accounts.UserRow, "p") == ["1"]
        assert rows(engine, accounts.CredentialRow, "p") == ["2", "3"]
        assert isinstance(accounts.Thing.get("p", "3"), accounts.Credential)
        assert table.verify(segments=1, workers=1).proven


def test_an_entity_is_not_bound_after_the_first_operation(deployment: Deployment, accounts: Accounts):
    with deployment.store(StaticFlags()) as store:
        users = store.repository(
            accounts.User, accounts.UserRow, where=Entity.by_attribute("kind", "user", "admin")
        )
        assert list(users.query("nobody")) == []
        with pytest.raises(ConfigurationError, match="after the table's first operation"):
            store.bind(accounts.Credential, accounts.CredentialRow, where=Entity.by_attribute("kind", "c"))


def test_a_table_that_is_served_whole_is_not_split(deployment: Deployment, accounts: Accounts):
    with deployment.store(StaticFlags()) as store:
        store.bind(accounts.Thing)
        with pytest.raises(ConfigurationError, match="already mirrored in one SQL table"):
            store.bind(accounts.User, accounts.UserRow, where=Entity.by_attribute("kind", "user"))
        store.unbind(accounts.Thing)


# -- PostgreSQL alone ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split(deployment: Deployment) -> SplitMapping:
    made = mapping(f"things-{uuid.uuid4().hex[:8]}")
    create_unmapped(deployment.engine, made)
    triggers.install(deployment.engine, made)
    return made


@pytest.fixture
def at_work(deployment: Deployment, split: SplitMapping) -> PostgresStore:
    """The empty split table, PostgreSQL its authority."""
    control = PostgresControl(deployment.engine)
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM dualstore.control")
        for part in split.parts:
            connection.exec_driver_sql(f'DELETE FROM "{part.table.name}"')
    control.install(ControlRecord(split.shape.name, stage=Stage.LIVE, epoch=EPOCH))
    return PostgresStore(deployment.engine, {split.shape.name: split})


def test_rows_that_other_entities_placed_are_an_obstacle(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore
):
    other = split_table(split.logical_name, [split.entities[0]], rest=split.rest)
    record_layout(deployment.engine, split)
    assert other_layout(deployment.engine, split) is None
    turned = split_table(split.logical_name, split.entities[::-1], rest=split.rest)
    assert other_layout(deployment.engine, turned) is not None, "the first that claims an item has it"
    insert(deployment.engine, split.parts[1].table.name, tenant="acme", user="META", kind="user")
    record_layout(deployment.engine, other)
    assert other_layout(deployment.engine, split) is None
    assert "placed by other entities" in str(other_layout(deployment.engine, other))
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql(f'DELETE FROM "{split.parts[1].table.name}"')
    record_layout(deployment.engine, other)
    assert other_layout(deployment.engine, other) is None


def insert(engine: sa.Engine, table: str, **columns: Any) -> None:
    """Write a row around dualstore."""
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f":{name}" for name in columns)
    with engine.begin() as connection:
        connection.execute(sa.text(f'INSERT INTO "{table}" ({names}) VALUES ({values})'), columns)


def test_the_triggers_are_on_every_table(deployment: Deployment, split: SplitMapping):
    assert triggers.is_installed(deployment.engine, split)
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql(f'DROP TRIGGER dualstore_alone_insert ON "{split.parts[1].table.name}"')
    assert not triggers.is_installed(deployment.engine, split)
    triggers.install(deployment.engine, split)
    assert triggers.is_installed(deployment.engine, split)


def test_a_second_row_of_a_key_is_refused_whoever_writes_it(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore
):
    users, events = split.parts[1].table.name, split.parts[2].table.name
    insert(deployment.engine, users, tenant="acme", user="META", kind="user")
    with pytest.raises(sa.exc.IntegrityError, match="already, and"):
        insert(deployment.engine, events, sk2="acme", pk2="META")
    insert(deployment.engine, events, sk2="acme", pk2="z")
    with pytest.raises(sa.exc.IntegrityError, match="already, and"), deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE \"{events}\" SET pk2 = 'META'")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_at_complete_too_an_older_snapshot_makes_no_second_row_of_a_key(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore, level: Any
):
    PostgresControl(deployment.engine).install(
        ControlRecord(split.shape.name, stage=Stage.COMPLETE, epoch=EPOCH)
    )
    users, events = split.parts[1].table.name, split.parts[2].table.name
    with deployment.engine.connect().execution_options(isolation_level=level) as connection:
        connection.exec_driver_sql("SELECT FROM dualstore.control")  # the snapshot
        insert(deployment.engine, users, tenant="acme", user="META", kind="user")
        with pytest.raises(sa.exc.NotSupportedError, match="cannot be inserted"):
            connection.exec_driver_sql(f"INSERT INTO \"{events}\" (sk2, pk2) VALUES ('acme', 'META')")


def test_a_row_whose_key_is_of_another_entity_is_refused(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore
):
    credentials, users = split.parts[0].table.name, split.parts[1].table.name
    with pytest.raises(sa.exc.IntegrityError, match="of another entity"):
        insert(deployment.engine, users, tenant="acme", user="CRED#1", kind="user")
    with pytest.raises(sa.exc.IntegrityError, match="of another entity"):
        insert(deployment.engine, credentials, pk="acme", sk="META")


def test_expired_rows_of_every_table_are_found_and_deleted(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore
):
    name = split.shape.name
    for number, kind in enumerate(("user", "event", "else")):
        item = {"pk": {"S": "p"}, "sk": {"S": str(number)}, "kind": {"S": kind}, "until": {"N": "1700000000"}}
        put = parse("PutItem", {"TableName": name, "Item": item})
        at_work.execute_as_authority(put, epochs={name: EPOCH})
    expiry = PostgresExpiry(deployment.engine, {name: split})
    found, after = [], None
    for _ in range(20):
        page = expiry.in_overflow(name, "until", after=after, rows=2)
        found += page.rows
        after = page.next
        if after is None:
            break
    assert sorted(row.key["sk"]["S"] for row in found) == ["0", "1", "2"]
    assert expiry.delete(name, found, epoch=EPOCH).rows == 3
    assert [page for page in at_work.all_items(name) if page] == []


def lines(*items: Item) -> bytes:
    """As DynamoDB exports them."""
    return b"\n".join(json.dumps({"Item": item}).encode() for item in items)


def test_a_load_brings_each_item_to_its_table_and_leaves_what_is_elsewhere(
    deployment: Deployment, split: SplitMapping, at_work: PostgresStore
):
    name, engine = split.shape.name, deployment.engine
    PostgresControl(engine).install(ControlRecord(name, stage=Stage.LIVE, epoch=EPOCH))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dualstore.control SET role = 'mirror'")

    def item(sk: str, **rest: Any) -> Item:
        return {"pk": {"S": "p"}, "sk": {"S": sk}, **rest}

    stamp = uuid.uuid4().bytes
    moved = item("USER#2", kind={"S": "event"}) | {STAMP: {"B": stamp}}
    seen = at_work.state(name, item("USER#2")).revision
    assert at_work.write_settled(name, item("USER#2"), moved, seen=seen, epoch=EPOCH)
    runs = PostgresRuns(engine)
    run = runs.start("backfill", name, {}, pieces=1)
    load = PostgresLoad(engine, split, epoch=EPOCH)
    block = transcoder_of(split).block(
        lines(
            item("CRED#1", owner={"S": "ann"}),
            item("USER#1", kind={"S": "user"}, rank={"N": "2.5"}),
            item("USER#2", kind={"S": "user"}),
            item("META", kind={"N": "7"}),
        )
    )
    piece = load.load_blocks(
        load.piece(runs.claim(run.id, 0)), [block], position=None, reject=lambda *_: None
    )
    assert piece.row.inserted == 3
    assert piece.unsettled == (item("USER#2"),), "what is in another table is settled"
    assert [each["sk"]["S"] for page in at_work.all_items(name) for each in page] == [
        "CRED#1",
        "META",
        "USER#1",
        "USER#2",
    ]
    assert list(load.doubled_keys()) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT set_config('dualstore.writer', 'mirror', true)")
        connection.exec_driver_sql(
            f"INSERT INTO \"{split.parts[1].table.name}\" (tenant, \"user\") VALUES ('p', 'USER#2')"
        )
    assert list(load.doubled_keys()) == [[item("USER#2")]]
    seen = at_work.state(name, item("USER#2")).revision
    later = {"stamp": uuid.uuid4().bytes, "predecessor": stamp, "epoch": EPOCH}
    image = {**moved, STAMP: {"B": later["stamp"]}}
    assert not at_work.write_direct(name, item("USER#2"), image, **later), "what is doubled is in doubt"
    assert not at_work.write_direct(name, item("USER#2"), None, **later), "what is doubled is in doubt"
    assert at_work.write_settled(name, item("USER#2"), moved, seen=seen, epoch=EPOCH)
    assert list(load.doubled_keys()) == []
