"""Every store in turn, each with empty tables of its own for every test."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contract import models, shapes
from contract.divergences import divergence
from contract.tables import TableUnderTest
from dualstore.control import ControlRecord
from dualstore.items import TableShape, without_stamps
from dualstore.mapping import Mapped, unmapped_table
from dualstore.operations import Operation, Response
from dualstore.schema import create_unmapped, upgrade
from dualstore.stages import Side, Stage
from dualstore.stores import DynamoStore, MemoryStore, Store, dynamo_clients
from dualstore.stores.base import Authority
from dualstore.stores.control_homes import Fence
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres_control import PostgresControl

STORES = ("memory", "dynamodb", "postgres", "postgres_mapped", "postgres_authority")
# Of several SQL tables, and where no write is noted for DynamoDB any more.
FURTHER_AUTHORITIES = ("postgres_entities_authority", "postgres_complete")
MIRRORS = ("memory", "postgres", "postgres_mapped", "postgres_entities")
# Several SQL tables behind one are another form of the statements that read and write rows, not of what is
# evaluated: they run what reads and writes rows by default, and all of it in `nox -s entities`.
ROWS = frozenset({"indexes", "scans", "transactions"})
EVERYTHING = "DUALSTORE_CONTRACT_EVERYTHING"


@dataclass(frozen=True)
class Subject:
    """A store under test.

    Attributes:
        store: the store.
        create: makes an empty table of this name.
        drop: removes it.
        fence: keeps late writes out of it, if it can be a mirror.
    """

    store: Any
    create: Callable[[str, str], None]
    drop: Callable[[str], None]
    fence: Fence | None = None


@pytest.fixture(scope="session")
def dynamodb_subject(dynamodb_server: Any, dynamodb: Any) -> Iterator[Subject]:
    def create(kind: str, name: str) -> None:
        dynamodb.create_table(**shapes.create_request(kind, name))
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})

    with dynamo_clients(endpoint_url=dynamodb_server.endpoint_url) as clients:
        yield Subject(
            store=DynamoStore(reads=clients.reads, writes=clients.writes),
            create=create,
            drop=lambda name: dynamodb.delete_table(TableName=name),
        )


@pytest.fixture(scope="session")
def postgres_engine(postgres_server: Any) -> Iterator[sa.Engine]:
    """A database with the schema `dualstore`."""
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


def postgres(engine: sa.Engine, mapping: Callable[[str, str], Mapped]) -> Subject:
    """PostgreSQL, with tables mapped in one way."""
    tables: dict[str, Mapped] = {}

    def create(kind: str, name: str) -> None:
        tables[name] = mapping(kind, name)
        create_unmapped(engine, tables[name])

    def drop(name: str) -> None:
        for part in tables.pop(name).parts:
            part.table.drop(engine)

    return Subject(PostgresStore(engine, tables), create, drop, fence=PostgresControl(engine))


@pytest.fixture(scope="session")
def postgres_subject(postgres_engine: sa.Engine) -> Subject:
    return postgres(postgres_engine, lambda kind, name: unmapped_table(name, shapes.shape(kind, name)))


@pytest.fixture(scope="session")
def postgres_mapped_subject(postgres_engine: sa.Engine) -> Subject:
    return postgres(postgres_engine, models.mapping)


@pytest.fixture(scope="session")
def postgres_entities_subject(postgres_engine: sa.Engine) -> Subject:
    return postgres(postgres_engine, models.split)


class AsAuthority:
    """PostgreSQL as the authority of its tables, its answers without stamps, as the router gives them on."""

    side = Side.POSTGRES
    epoch = 7

    def __init__(self, store: Authority) -> None:
        self._store = store

    def execute(self, operation: Operation) -> Response:
        epochs = dict.fromkeys(operation.tables, self.epoch)
        return _unstamped(self._store.execute_as_authority(operation, epochs=epochs))


def _unstamped(answer: Any) -> Any:
    """A response with its stamps taken out of every map that may be an item."""
    if isinstance(answer, list):
        return [_unstamped(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {name: _unstamped(inner) for name, inner in without_stamps(answer).items()}


def authority(engine: sa.Engine, mapping: Callable[[str, str], Mapped], stage: Stage = Stage.LIVE) -> Subject:
    """PostgreSQL where every write goes through the fence, the triggers and the outbox."""
    tables: dict[str, Mapped] = {}
    control = PostgresControl(engine)

    def create(kind: str, name: str) -> None:
        tables[name] = mapping(kind, name)
        create_unmapped(engine, tables[name])
        triggers.install(engine, tables[name])
        control.install(ControlRecord(name, stage=stage, epoch=AsAuthority.epoch))

    def drop(name: str) -> None:
        mapped = tables.pop(name)
        for part in mapped.parts:
            part.table.drop(engine)
        triggers.remove(engine, mapped)

    return Subject(AsAuthority(PostgresStore(engine, tables)), create, drop)


@pytest.fixture(scope="session")
def postgres_authority_subject(postgres_engine: sa.Engine) -> Subject:
    return authority(postgres_engine, models.mapping)


@pytest.fixture(scope="session")
def postgres_entities_authority_subject(postgres_engine: sa.Engine) -> Subject:
    return authority(postgres_engine, models.split)


@pytest.fixture(scope="session")
def postgres_complete_subject(postgres_engine: sa.Engine) -> Subject:
    return authority(postgres_engine, models.mapping, Stage.COMPLETE)


@pytest.fixture(scope="session")
def memory_subject() -> Subject:
    tables: dict[str, TableShape] = {}
    store = MemoryStore(tables)
    return Subject(
        store=store,
        create=lambda kind, name: tables.update({name: shapes.shape(kind, name)}),
        drop=tables.pop,
        fence=store,
    )


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Subject:
    """The store that this test runs on; marked where a stand-in is known to differ from AWS."""
    kind = request.param
    engine = request.getfixturevalue("dynamodb_server").engine if kind == "dynamodb" else kind
    reason = divergence(engine.removesuffix("_mapped").removesuffix("_entities"), request.node)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=f"{engine}: {reason}", strict=True))
    found: Subject = request.getfixturevalue(f"{kind}_subject")
    return found


@pytest.fixture
def store(subject: Subject) -> Store:
    """The store that this test runs on."""
    found: Store = subject.store
    return found


@pytest.fixture
def table(subject: Subject) -> Iterator[Callable[[str], TableUnderTest]]:
    """Makes an empty table of a kind that `shapes` describes."""
    with contextlib.ExitStack() as stack:

        def empty(kind: str) -> TableUnderTest:
            name = f"{kind}-{uuid.uuid4().hex[:12]}"
            subject.create(kind, name)
            stack.callback(subject.drop, name)
            return TableUnderTest(subject.store, name)

        yield empty


@pytest.fixture
def things(table: Callable[[str], TableUnderTest]) -> TableUnderTest:
    """A table with a sort key and indexes of every sort."""
    return table("things")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every store that can take it."""
    if "subject" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition("test_")[2]
        stores = MIRRORS if module.endswith("mirror") else STORES
        everything = EVERYTHING in os.environ and stores is STORES
        if module in ROWS or everything:
            stores = (*stores, "postgres_entities")
        if module == "transactions" or everything:
            stores = (*stores, *FURTHER_AUTHORITIES)
        metafunc.parametrize("subject", stores, indirect=True)
