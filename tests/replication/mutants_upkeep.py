"""Mutants of what goes on beside single writes: relay, verification, copy, batches, late mirroring."""

from dataclasses import replace
from typing import Any

from dualstore.backfill import scanning
from dualstore.control import ControlRecord
from dualstore.items import items_equal
from dualstore.replication import many, mirroring, relay_records
from dualstore.replication.agent import Agent
from dualstore.replication.carrier import Carrier
from dualstore.replication.following import Following
from dualstore.replication.repair import Repair
from dualstore.store import table as migrated
from dualstore.store.table import MigratedTable
from dualstore.stores.memory import MemoryStore
from dualstore.stores.memory import store as memory_store
from dualstore.stores.postgres_load import RowPage
from dualstore.stores.scan import Page
from replication import histories
from replication.bulk import MemoryLoad, MemorySeenKeys
from replication.mutant import Mutant

_doubt = mirroring.Mirroring.doubt


def _shown_by_stamp(record: Any, state: Any, authority_: Any) -> bool:
    """As `shows`, and where a record left the stamp as it was."""
    told = _shows(record, state, authority_)
    if told or record.new_image is None or state is None or state.item is None:
        return told
    return record.new_stamp == memory_store.stamp_of(state.item) and items_equal(record.new_image, state.item)


_shows = relay_records.shows


def _removal_shown_by_absence(record: Any, state: Any, authority_: Any) -> bool:
    if record.new_image is None:
        return state is None or state.item is None
    return _shows(record, state, authority_)


def _settled_one_by_one(self: Any, groups: Any, token: str) -> bool:
    return False


def _lost_replies_forgotten(self: Any, table: Any, keys: Any, reason: str) -> None:
    if reason != "the authority's reply was lost":
        _doubt(self, table, keys, reason)


def _confirmed_at_once(self: MigratedTable) -> int:
    return self._agent.decided(self.physical).mirrored_since


def _confirmed_without_stopping_reads(self: MigratedTable) -> int:
    return self.confirm_dualwrite()


def _inconsistent_page(store: Any, table: str, *, segment: int, segments: int, start: Any, **_: Any) -> Any:
    response = store.execute(histories.Scan({"TableName": table}))
    return Page(response["Items"], None)


def _inserted_over_tombstones(self: MemoryLoad, item: Any) -> None:
    raw = histories.key_bytes(histories.SHAPE.keys, item)
    if self._table.item(raw) is None:
        self._table.put(raw, dict(item))


def _no_rows(self: MemoryLoad, *, revision: int, start: Any) -> RowPage:
    return RowPage([], None)


def _clears_everything(record: ControlRecord, before: ControlRecord) -> dict[str, object]:
    return {"suspects": frozenset(), "verified": True}


def _readable_while_deferred(self: ControlRecord) -> bool:
    return _readable(replace(self, deferred=False))


def _readable_unloaded(self: ControlRecord) -> bool:
    return _readable(replace(self, loaded=True))


def _readable_suspect(self: ControlRecord) -> bool:
    return _readable(replace(self, suspects=frozenset()))


_readable: Any = ControlRecord.mirror_readable.fget  # type: ignore[attr-defined] - a property


def _deferred_at_once(self: Agent, table: str) -> bool:
    return self._known.tables[table].deferring


def _doubts_of_its_key_alone(self: MemoryStore, operation: Any) -> Any:
    if isinstance(operation, histories.GetItem):
        return _execute_as_mirror(self, operation)
    return MemoryStore.execute(self, operation)


_execute_as_mirror = MemoryStore.execute_as_mirror


UPKEEP: tuple[Mutant, ...] = (
    Mutant(
        "4",
        "the relay settles a record's key, unless PostgreSQL shows exactly what it tells",
        "strangers",
        ((relay_records, "shows", lambda *_: True),),
    ),
    Mutant(
        "4",
        "a record that left the stamp as it was is settled in any case",
        "strangers",
        ((relay_records, "shows", _shown_by_stamp),),
        within=5_000,
    ),
    Mutant(
        "4",
        "a removal is shown by the tombstone of its stamp alone",
        "thieves",
        ((relay_records, "shows", _removal_shown_by_absence),),
        within=5_000,
    ),
    Mutant(
        "4",
        "where the stream is the journal, the gate opens once it has been read",
        "cut_off",
        ((Repair, "_stream_is_drained", lambda *_: True),),
    ),
    Mutant(
        "4",
        "a write is left to the relay only where nobody reads the mirror",
        "cut_off",
        ((Agent, "reads_are_stopped", lambda *_: True),),
    ),
    Mutant(
        "4",
        "without a stream that counts, failures go to the journal",
        "outage",
        ((mirroring.Mirroring, "_record_in_journal", lambda *_: None),),
    ),
    Mutant(
        "4",
        "a silent process is noticed, and its tables are suspect",
        "many_keys",
        ((Following, "_find_silent_processes", lambda _: None),),
    ),
    Mutant(
        "4",
        "only a verification that began later clears a suspect",
        "verified",
        ((migrated, "_proven", _clears_everything),),
        within=5_000,
    ),
    Mutant(
        "4",
        "a verification looks for rows whose items are gone",
        "verified",
        ((MemorySeenKeys, "unseen", lambda _: iter(())),),
        within=5_000,
    ),
    Mutant(
        "4",
        "a gap in the stream makes the table suspect",
        "cut_stream",
        ((Carrier, "gap", lambda *_, **__: None),),
    ),
    Mutant(
        "4",
        "the copy begins when every process mirrors",
        "copying",
        ((MigratedTable, "confirm_dualwrite", _confirmed_at_once),),
        within=5_000,
    ),
    Mutant(
        "4",
        "nobody reads the mirror while it is copied",
        "copying_again",
        ((MigratedTable, "_stop_reads_and_confirm_dualwrite", _confirmed_without_stopping_reads),),
    ),
    Mutant(
        "4",
        "the copy's Scan is consistent",
        "copying",
        ((scanning, "read_page", _inconsistent_page),),
        within=5_000,
    ),
    Mutant(
        "4",
        "the copy looks for a tombstone when it inserts a row",
        "copying_what_goes",
        ((MemoryLoad, "_insert", _inserted_over_tombstones),),
    ),
    Mutant(
        "4",
        "the copy settles what differs",
        "copying_over",
        ((MemoryLoad, "_differs", lambda *_: False),),
    ),
    Mutant(
        "4",
        "the copy is done when keys with a row and a tombstone are settled",
        "copying_what_goes",
        ((MemoryLoad, "tombstoned_keys", lambda _: iter(())),),
        within=5_000,
    ),
    Mutant(
        "4",
        "rows from before whose items are gone are settled",
        "copying_over",
        ((MemoryLoad, "row_page", _no_rows),),
    ),
    Mutant(
        "5",
        "a transaction is mirrored whole",
        "whole",
        ((mirroring.Mirroring, "_settled_together", _settled_one_by_one),),
    ),
    Mutant(
        "5",
        "the keys of a batch are settled",
        "batches",
        ((many, "_settle", lambda *_: None),),
    ),
    Mutant(
        "5",
        "keys are in doubt where the reply to a batch was lost",
        "batches",
        ((mirroring.Mirroring, "doubt", _lost_replies_forgotten),),
    ),
    Mutant(
        "5",
        "and where that to a transaction was",
        "transacting",
        ((mirroring.Mirroring, "doubt", _lost_replies_forgotten),),
        within=5_000,
    ),
    Mutant(
        "6",
        "any dirty key sends a listing to the authority",
        "listing",
        ((MemoryStore, "execute_as_mirror", _doubts_of_its_key_alone),),
    ),
    Mutant(
        "6",
        "a mirror that is not loaded is not read",
        "copying_over",
        ((ControlRecord, "mirror_readable", property(_readable_unloaded)),),
    ),
    Mutant(
        "6",
        "a mirror is not read while a process mirrors late",
        "deferring",
        ((ControlRecord, "mirror_readable", property(_readable_while_deferred)),),
    ),
    Mutant(
        "6",
        "a process mirrors late once nobody can read the mirror",
        "deferring",
        ((Agent, "may_defer", _deferred_at_once),),
    ),
)
