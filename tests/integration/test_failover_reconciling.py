"""A reconciliation after a failover: of several SQL tables, interrupted wherever it may be, and done once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import DualStore, Stage
from dualstore.control import Phase
from dualstore.flags import StaticFlags
from dualstore.store import MigratedTable, reconciling
from dualstore.store.reconciling import epoch_before_failover
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_lost_writes import Loss, PostgresLostWrites
from integration.deployment import Deployment, authoritative, bring_to, eventually, mirrored
from integration.test_entities import Accounts, made_accounts
from integration.test_failover import GRANTS, Live
from integration.test_flip import READY, ask, drained, relaying, with_stream
from integration.writing import NAME


class Killed(BaseException):
    """The process that reconciles ends at this moment."""


DEATHS: tuple[tuple[Any, str, str], ...] = (
    (PostgresLostWrites, "keep", "before"),
    (PostgresLostWrites, "keep", "after"),
    (PostgresControl, "raise_fence", "before"),
    (PostgresControl, "raise_fence", "after"),
    (reconciling, "settle_many", "before"),  # the record says by then that it is reconciled
)


@dataclass
class FailedOver:
    """A table of two SQL tables that was failed over with changes in its outbox.

    Attributes:
        store: the service's.
        table: the table.
        accounts: its models.
        straggler: ends a transaction of another client, which wrote before the failover.
    """

    store: DualStore
    table: MigratedTable
    accounts: Accounts
    straggler: Callable[[], None]

    def listed(self) -> list[tuple[str, Loss]]:
        """What is kept of the lost changes."""
        after_epoch = epoch_before_failover(self.table.view.record)
        pages = self.table.lost_writes.entries(after_epoch=after_epoch)
        return sorted((each.key["sk"]["S"], each.kind) for page in pages for each in page)


@pytest.fixture
def failed_over(deployment: Deployment) -> Iterator[FailedOver]:
    accounts = made_accounts(deployment)
    with_stream(deployment, accounts.name)
    with deployment.store(StaticFlags(), grants=GRANTS, relay_lease=timedelta(seconds=2)) as store:
        store.bind(accounts.User, accounts.UserRow, name=NAME)
        store.bind(accounts.Credential, accounts.CredentialRow, name=NAME)
        store.prepare()
        with relaying(store):
            table = bring_to(store, NAME, READY)
            assert table.verify(repair=True).proven
            ask(table, store, Stage.LIVE)
            live = Live(store, table, None)  # type: ignore[arg-type]
            accounts.User("p", "1", email="1@x").save()
            accounts.Credential("p", "2", secret="2").save()
            accounts.Credential("p", "3", secret="3").save()
            drained(store, table)
            live.hold_back()
            accounts.User("p", "1", email="lost").save()
            accounts.Credential("p", "2", secret="lost").delete()
            accounts.User("p", "3", email="lost").save()  # it leaves one SQL table for the other
            accounts.User("p", "4", email="lost").save()
            with written_late(deployment, accounts) as straggler:
                store.fail_over(store.foresee_failover(NAME), by="kim")
                fence = store._replication.fence
                eventually(lambda: fence.read_all()[table.physical].phase is Phase.MOVED, seconds=30)
                accounts.User("p", "1", email="kept").save()
                yield FailedOver(store, table, accounts, straggler)
            live.let_go()


@contextmanager
def written_late(deployment: Deployment, accounts: Accounts) -> Iterator[Callable[[], None]]:
    """Another client's transaction, which has written and not ended; gives what ends it."""
    with deployment.engine.connect() as connection:
        row = accounts.CredentialRow.__table__
        connection.execute(sa.insert(row).values(pk="p", sk="5", secret="late"))
        yield connection.commit


def dying(real: Callable[..., Any], moment: str) -> Callable[..., Any]:
    def last_act(*arguments: Any, **options: Any) -> Any:
        if moment == "after":
            real(*arguments, **options)
        raise Killed

    return last_act


def test_a_reconciliation_that_is_killed_wherever_it_may_be_lists_every_lost_change_once_and_converges(
    failed_over: FailedOver, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, table = failed_over.store, failed_over.table
    with ThreadPoolExecutor() as threads, monkeypatch.context() as patch:
        patch.setattr(PostgresLostWrites, "keep", dying(PostgresLostWrites.keep, "before"))
        waits = threads.submit(table.reconcile)
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.5)  # for the transaction that is still open
        failed_over.straggler()
        with pytest.raises(Killed):
            waits.result(timeout=60)
    for owner, name, moment in DEATHS:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dying(getattr(owner, name), moment))
            with pytest.raises(Killed):
                table.reconcile()
    done = table.reconcile()
    assert done.before
    assert failed_over.listed() == [
        ("1", Loss.WRITTEN),
        ("2", Loss.DELETED),
        ("3", Loss.WRITTEN),
        ("4", Loss.WRITTEN),
        ("5", Loss.WRITTEN),
    ]
    assert (done.lost, table.stage) == (5, Stage.SHADOW)

    physical = failed_over.accounts.name

    def is_equal() -> bool:
        return mirrored(store, physical, "p") == authoritative(deployment, physical, "p")

    eventually(is_equal, seconds=30)
    kept = {item["sk"]["S"]: item for item in authoritative(deployment, physical, "p")}
    assert kept.keys() == {"1", "2", "3"}
    assert kept["1"]["email"] == {"S": "kept"}
    assert table.verify(repair=True).proven
    eventually(lambda: table.view.record.mirror_readable)
