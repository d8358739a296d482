"""What DynamoDB is told while PostgreSQL is the authority, for whoever is left with DynamoDB alone.

How far DynamoDB is behind, by whoever works off the outbox; and by every process, that it lives, and when it
last reached PostgreSQL. Both are kept in the bookkeeping table, and nothing waits for them.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

from dualstore.items import Item
from dualstore.operations import DeleteItem, PutItem
from dualstore.replication.control import carried_out, query_partition
from dualstore.stores.base import Store
from dualstore.stores.outbox import OutboxDepth

_PARTITION, _SORT = "pk", "sk"
_DEPTH, _WITNESS = "outbox-depth", "witness"
_FORGOTTEN_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DepthNote:
    """How far DynamoDB was behind PostgreSQL at one moment.

    Attributes:
        table: the physical name.
        epoch: at which PostgreSQL was the authority.
        at: the moment before the outbox was asked, in seconds since the epoch, by the clock of who asked.
        rows: the changes that waited for DynamoDB.
        oldest_age: the age of the oldest of them; zero without any.
    """

    table: str
    epoch: int
    at: float
    rows: int
    oldest_age: timedelta

    @property
    def recovery_point(self) -> float:
        """Every write that was acknowledged before this had reached DynamoDB."""
        return self.at - self.oldest_age.total_seconds()


@dataclass(frozen=True, slots=True)
class Witness:
    """A process, as it last described itself here while PostgreSQL was the authority of some of its tables.

    Attributes:
        id: names one life of the process.
        label: host and process id, for people.
        tables: those tables, by physical name.
        beat: counts its words: one that moves is of a process that lives.
        postgres_at: when it last reached PostgreSQL, by its own clock: to be compared with nothing but an
            earlier word of its own. Zero: never.
        at: its wall clock at this word, in seconds since the epoch, for people.
    """

    id: str
    label: str
    tables: frozenset[str]
    beat: int
    postgres_at: float
    at: float


class FailoverNotes:
    """The notes, in DynamoDB's bookkeeping table.

    Every method raises what the store raises: `botocore` errors, or `Unavailable` where there is no such
    table.

    Args:
        store: DynamoDB.
        name: the bookkeeping table's physical name.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def note_depth(self, table: str, *, epoch: int, at: float, depth: OutboxDepth) -> None:
        """Note how far DynamoDB is behind.

        Args:
            table: the physical name.
            epoch: at which PostgreSQL is the authority.
            at: the moment before the outbox was asked.
            depth: what it answered. Second looks do not count: their changes have arrived.
        """
        self._put(
            _DEPTH,
            table,
            {
                "epoch": {"N": str(epoch)},
                "at": {"N": f"{at:.3f}"},
                "rows": {"N": str(depth.entries - depth.second_looks)},
                "oldest_age": {"N": f"{depth.oldest_age.total_seconds():.3f}"},
            },
        )

    def depth(self, table: str, *, epoch: int) -> DepthNote | None:
        """The last note of a table, where it is of this epoch."""
        for item in query_partition(self._store, self._name, _DEPTH):
            if item[_SORT]["S"] == table and int(item["epoch"]["N"]) == epoch:
                return DepthNote(
                    table,
                    epoch,
                    float(item["at"]["N"]),
                    int(item["rows"]["N"]),
                    timedelta(seconds=float(item["oldest_age"]["N"])),
                )
        return None

    def note_witness(self, witness: Witness) -> None:
        """Have a process say that it lives; its first word removes those that have long been silent."""
        self._put(
            _WITNESS,
            witness.id,
            {
                "label": {"S": witness.label},
                "tables": {"SS": sorted(witness.tables)},
                "beat": {"N": str(witness.beat)},
                "postgres_at": {"N": f"{witness.postgres_at:.3f}"},
                "at": {"N": f"{witness.at:.3f}"},
            },
        )
        if witness.beat == 1:
            for each in self._all_witnesses():
                if each.at < time.time() - _FORGOTTEN_AFTER.total_seconds():
                    self.forget_witness(each.id)

    def forget_witness(self, process: str) -> None:
        """Take a process out: it has ended."""
        key = {_PARTITION: {"S": _WITNESS}, _SORT: {"S": process}}
        carried_out(self._store, DeleteItem({"TableName": self._name, "Key": key}))

    def witnesses(self, table: str) -> dict[str, Witness]:
        """The last word of each process for which PostgreSQL was the authority of a table, by process."""
        return {each.id: each for each in self._all_witnesses() if table in each.tables}

    def _all_witnesses(self) -> list[Witness]:
        return [
            Witness(
                id=item[_SORT]["S"],
                label=item["label"]["S"],
                tables=frozenset(item["tables"]["SS"]),
                beat=int(item["beat"]["N"]),
                postgres_at=float(item["postgres_at"]["N"]),
                at=float(item["at"]["N"]),
            )
            for item in query_partition(self._store, self._name, _WITNESS)
        ]

    def _put(self, partition: str, sort: str, attributes: Item) -> None:
        item = {_PARTITION: {"S": partition}, _SORT: {"S": sort}, **attributes}
        carried_out(self._store, PutItem({"TableName": self._name, "Item": item}))
