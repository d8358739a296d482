"""What `dualstore relay` does: both sides are brought after each other, and the bookkeeping is kept small."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import DualStoreError
from dualstore.replication.agent import Agent
from dualstore.replication.carrier import Carrier
from dualstore.replication.expiry import Expiry
from dualstore.replication.relay import Relay, RelayTimes
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.served import ServedTable
from dualstore.replication.suspects import STREAM_OFF
from dualstore.stages import Side
from dualstore.store.replicating import Replication
from dualstore.store.table import MigratedTable
from dualstore.store.upkeep import prune, upkeep_of
from dualstore.stores.dynamo_streams import DynamoStreams
from dualstore.stores.outbox import OutboxDepth
from dualstore.stores.postgres_expiry import PostgresExpiry
from dualstore.stores.postgres_upkeep import PostgresUpkeep

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 15.0
_HOUSEKEEPING_SECONDS = 5.0
_UPKEEP_SECONDS = 60.0


class MirroredOut(Mapping[str, ServedTable]):
    """The served tables whose changes in PostgreSQL are to reach DynamoDB, as this process sees it now.

    Args:
        served: all served tables, by physical name.
        agent: knows their stages.
    """

    def __init__(self, served: Mapping[str, ServedTable], agent: Agent) -> None:
        self._served = served
        self._agent = agent

    def __getitem__(self, table: str) -> ServedTable:
        if not self._is_one(table):
            raise KeyError(table)
        return self._served[table]

    def __iter__(self) -> Iterator[str]:
        return (table for table in list(self._served) if self._is_one(table))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _is_one(self, table: str) -> bool:
        view = self._agent.views().get(table)
        if view is None or not view.record.decides:
            return False
        return view.record.authority is Side.POSTGRES and view.record.stage.rule.mirrored


class Relaying:
    """The work of a relay process, in three threads.

    Args:
        relay: follows DynamoDB's streams.
        sender: works off PostgreSQL's outbox.
        expiry: sweeps expired rows.
        upkeep: removes bookkeeping that nothing needs any more.
        tables: gives the tables of this process.
    """

    def __init__(
        self,
        *,
        relay: Relay,
        sender: Sender,
        expiry: Expiry,
        upkeep: PostgresUpkeep,
        tables: Callable[[], list[MigratedTable]],
    ) -> None:
        self._relay = relay
        self._sender = sender
        self._expiry = expiry
        self._upkeep = upkeep
        self._tables = tables

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, then give everything back that other relays could go on with."""
        rounds: dict[str, Callable[[threading.Event], None]] = {
            "dualstore-relay": self._follow,
            "dualstore-sender": self._sender.run,
            "dualstore-upkeep": self._keep_house,
        }
        threads = [
            threading.Thread(target=act, args=(stop,), name=name, daemon=True) for name, act in rounds.items()
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.join(_JOIN_SECONDS)

    def _follow(self, stop: threading.Event) -> None:
        with self._relay:
            self._relay.run(stop)

    def _keep_house(self, stop: threading.Event) -> None:
        waited = 0.0
        while not stop.wait(_HOUSEKEEPING_SECONDS):
            waited += _HOUSEKEEPING_SECONDS
            for table in self._tables():
                self._try(table, self._attend)
            if waited >= _UPKEEP_SECONDS:
                waited = 0.0
                prune(self._upkeep, self._tables())

    def _attend(self, table: MigratedTable) -> None:
        """Note that the stream is followed; delete what has expired."""
        streamed = self._relay.drained_since(table.physical, self._relay.now() - table.stream_lag_tolerated)
        if streamed:
            table.note_streamed(streamed=True)
        elif self._relay.stream_is_off(table.physical) and table.view.record.streamed:
            table.suspect(STREAM_OFF)  # before anybody stops counting on it
            table.note_streamed(streamed=False)
        if table.ttl_attribute is not None:
            self._expiry.sweep(table.served, table.ttl_attribute, table.view.record, streamed=streamed)

    @staticmethod
    def _try(table: MigratedTable, act: Callable[[MigratedTable], None]) -> None:
        try:
            act(table)
        except (ClientError, BotoCoreError, DualStoreError) as error:
            logger.warning("Upkeep of %s ended early: %s", table.served.logical, type(error).__name__)
        except Exception:
            logger.exception("Upkeep of %s failed; the next round follows", table.served.logical)


def relay_of(replication: Replication) -> Relay:
    """What follows the streams of a process's tables."""
    tables = replication.catalog.tables
    return Relay(
        streams=DynamoStreams(replication.clients),
        checkpoints=replication.checkpoints,
        tables=replication.catalog.served.values,
        carrier=Carrier(
            dynamodb=replication.mirroring.authority,
            postgres=replication.postgres,
            outbox=replication.mirroring.outbox,
            view=replication.agent.view,
            suspect=lambda name, kind, *, once: tables[name].suspect(kind, once=once),
            telemetry=replication.telemetry,
        ),
        clear_suspects=lambda name, suspects: tables[name].clear(suspects),
        telemetry=replication.telemetry,
        write_grant=replication.options.grants.write,
        times=RelayTimes(lease=replication.options.relay_lease),
    )


def sender_of(replication: Replication) -> Sender:
    """What hands on to DynamoDB what was changed in PostgreSQL."""
    agent = replication.agent

    def note_depth(table: str, at: float, depth: OutboxDepth) -> None:
        epoch = agent.view(table).record.epoch
        replication.notes.note_depth(table, epoch=epoch, at=at, depth=depth)

    return Sender(
        replication.mirroring.outbox,
        replication.postgres,
        replication.mirroring.authority,
        MirroredOut(replication.catalog.served, agent),
        epoch_of=lambda table: agent.view(table).record.epoch,
        granted=agent.is_granted,
        noted=note_depth,
        telemetry=replication.telemetry,
        options=SenderOptions(lease=replication.options.relay_lease),
    )


def relaying_of(replication: Replication, *, relay: Relay, sender: Sender) -> Relaying:
    """Everything that a relay process does for its tables.

    Args:
        replication: both databases.
        relay: follows DynamoDB's streams.
        sender: works off PostgreSQL's outbox.
    """
    mirroring = replication.mirroring
    return Relaying(
        relay=relay,
        sender=sender,
        expiry=Expiry(
            PostgresExpiry(replication.engine, replication.catalog.mappings),
            mirroring.authority,
            mirroring.settle,
        ),
        upkeep=upkeep_of(replication),
        tables=lambda: list(replication.catalog.tables.values()),
    )
