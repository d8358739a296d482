"""Repositories: a model's own methods stay as they are, what goes through the repository is routed."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pynamodb.exceptions import DoesNotExist, PutError, TransactWriteError, UpdateError

from dualstore import DualStore, Repository
from dualstore.flags import StaticFlags
from dualstore.items import STAMP
from dualstore.stages import Side
from integration.deployment import (
    LASTING,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    mirrored,
    served_by,
)

NAME = "orders"


@pytest.fixture(scope="module")
def routed(deployment: Deployment) -> Iterator[tuple[DualStore, Repository[Any]]]:
    """A repository of a table whose every read PostgreSQL serves."""
    with deployment.store(StaticFlags(), grants=LASTING) as store:
        model, row = deployment.table()
        repository = store.repository(model, row, name=NAME)
        bring_to(store, NAME, WHOLE_MIGRATION["shadow"])
        yield store, repository
        assert store.table(NAME).verify(segments=1, workers=1).proven


@pytest.fixture
def repository(routed: tuple[DualStore, Repository[Any]]) -> Repository[Any]:
    return routed[1]


@pytest.fixture
def store(routed: tuple[DualStore, Repository[Any]]) -> DualStore:
    return routed[0]


@pytest.fixture
def p() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def answers(store: DualStore, repository: Repository[Any], deployment: Deployment, p: str) -> Iterator[Any]:
    """How many reads PostgreSQL has answered since the test began; both sides agree at its end."""
    before = served_by(store, Side.POSTGRES)
    yield lambda: served_by(store, Side.POSTGRES) - before
    table = repository.model.Meta.table_name
    assert mirrored(store, table, p) == authoritative(deployment, table, p)


def fill(repository: Repository[Any], p: str, count: int) -> None:
    with repository.batch_write() as batch:
        for sk in range(count):
            batch.save(repository.model(p, sk, name=f"{p}-{sk % 2}", n=sk))


def test_items_are_saved_read_updated_refreshed_and_deleted(
    repository: Repository[Any], answers: Any, p: str
) -> None:
    model = repository.model
    item = model(p, 1, name="one", n=1)
    repository.save(item, model.pk.does_not_exist())
    repository.update(item, [model.n.add(2)], model.n == 1)
    assert (item.n, item.version) == (3, 2)
    other = repository.get(p, 1, attributes_to_get=["n", "version"])
    assert (other.n, other.name) == (3, None)
    found = repository.get(p, 1, consistent_read=True)
    repository.update(item, [model.name.set("two")])
    repository.refresh(found, consistent_read=True)
    assert found.name == "two"
    repository.delete(found)
    with pytest.raises(DoesNotExist):
        repository.get(p, 1)
    assert answers() == 4


def test_pages_are_routed_when_they_are_asked_for(repository: Repository[Any], answers: Any, p: str) -> None:
    model = repository.model
    fill(repository, p, 7)
    results = repository.query(p, model.sk > 0, page_size=2, filter_condition=model.n != 3)
    assert answers() == 0
    assert next(results).sk == 1
    assert answers() == 1
    middle = results.last_evaluated_key
    assert [item.sk for item in results] == [2, 4, 5, 6]
    assert [item.sk for item in repository.query(p, last_evaluated_key=middle)] == [2, 3, 4, 5, 6]
    assert repository.count(p) == 7
    assert [item.sk for item in repository.query(f"{p}-1", index_name="by-name")] == [1, 3, 5]
    assert sorted(item.sk for item in repository.scan(model.name == f"{p}-0")) == [0, 2, 4, 6]
    assert sorted(item.sk for item in repository.batch_get([(p, 1), (p, 2), (p, 404)])) == [1, 2]


def test_what_is_not_done_through_the_repository_is_not_routed(
    store: DualStore, repository: Repository[Any], deployment: Deployment, p: str
) -> None:
    table = repository.model.Meta.table_name
    repository.save(repository.model(p, 1))
    repository.model(p, 2).save()
    assert [STAMP in item for item in authoritative(deployment, table, p)] == [True, False]
    assert len(mirrored(store, table, p)) == 1
    repository.save(repository.model.get(p, 2))
    repository.query(p)  # never begun
    assert [item.sk for item in repository.query(p)] == [1, 2]


def test_pynamodbs_own_exceptions_are_raised(repository: Repository[Any], answers: Any, p: str) -> None:
    model = repository.model
    repository.save(model(p, 1, name="one"))
    with pytest.raises(PutError) as put:
        repository.save(model(p, 1), model.pk.does_not_exist())
    with pytest.raises(UpdateError) as update:
        repository.update(model(p, 1), [model.n.set(1)], model.name == "two", add_version_condition=False)
    for error in (put.value, update.value):
        assert error.cause_response_code == "ConditionalCheckFailedException"
        assert STAMP not in str(error)


def test_a_batch_that_fails_in_its_body_is_committed_as_pynamodb_does_it(
    repository: Repository[Any], answers: Any, p: str
) -> None:
    with pytest.raises(RuntimeError), repository.batch_write() as batch:  # noqa: PT012 - the commit is after
        batch.save(repository.model(p, 1))
        raise RuntimeError
    assert repository.get(p, 1).sk == 1


def test_transactions_of_the_store_are_routed(
    store: DualStore, repository: Repository[Any], answers: Any, p: str
) -> None:
    model = repository.model
    repository.save(model(p, 1, name="one"))
    with store.transact_write() as transaction:
        transaction.save(model(p, 2, name="two"))
        transaction.update(model(p, 1), [model.name.set("uno")], add_version_condition=False)
        transaction.update(model(p, 3), [model.name.remove()], add_version_condition=False)
    with store.transact_get() as reading:
        futures = [reading.get(model, p, sk) for sk in (1, 2)]
    assert [future.get().name for future in futures] == ["uno", "two"]
    with pytest.raises(TransactWriteError), store.transact_write() as transaction:  # noqa: PT012 - its end
        transaction.delete(model(p, 1), condition=model.name == "one", add_version_condition=False)
        transaction.save(model(p, 4))
    assert {1, 2} <= {item.sk for item in repository.query(p)}
    assert 4 not in {item.sk for item in repository.query(p)}


def test_a_transaction_with_a_token_may_be_repeated(
    store: DualStore, repository: Repository[Any], answers: Any, p: str
) -> None:
    model, token = repository.model, uuid.uuid4().hex
    for _ in range(2):
        with store.transact_write(client_request_token=token) as transaction:
            transaction.update(model(p, 1), [model.n.add(1)], add_version_condition=False)
    assert repository.get(p, 1).n == 1


def test_rows_may_be_selected_as_sql_sees_them(
    store: DualStore, repository: Repository[Any], deployment: Deployment, p: str
) -> None:
    fill(repository, p, 3)
    row = repository.row
    with deployment.engine.connect() as connection:
        rows = connection.execute(repository.select().where(row.pk == p, row.n > 0).order_by(row.sk)).all()
    assert [int(each.sk) for each in rows] == [1, 2]
    with pytest.raises(TypeError, match="SQLAlchemy model"):
        store.repository(repository.model).select()


def test_a_repository_inside_another_ones_batch_writes_to_its_own_store(
    repository: Repository[Any], deployment: Deployment, p: str
) -> None:
    model, row = deployment.table()
    with deployment.store() as second:
        other = second.repository(model, row)
        with repository.batch_write() as batch:
            batch.save(repository.model(p, 1))
            other.save(model(p, 1))
        assert other.get(p, 1).sk == 1
    for each in (repository.model, model):
        assert [STAMP in item for item in authoritative(deployment, each.Meta.table_name, p)] == [True]
