"""Which reads PostgreSQL, the mirror, is asked for: cohorts, dials, grants and the breaker."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from dualstore.errors import RequestRejected
from dualstore.flags import included, index_share
from dualstore.items import Key, partition_bytes
from dualstore.items.numbers import canonical_numeral
from dualstore.operations import GetItem, Operation, Query
from dualstore.replication.agent import Agent
from dualstore.replication.health import MirrorHealth
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing import units
from dualstore.routing.breaker import Admission, BreakerLimits, Breakers, BreakerState
from dualstore.routing.listings import partition_of
from dualstore.routing.rules import PLAIN, CohortOf, ReadRules
from dualstore.stages import Side
from dualstore.telemetry import BreakerSeen, FellBack, GrantExpired, Role, Telemetry

logger = logging.getLogger(__name__)


class Dialling:
    """Decides, in under a microsecond where the dial is at 0 or 100, whether the mirror is asked for a read.

    What decides, in this order: the record must let the mirror be read; the cohort; the dial; then whether
    the mirror can be reached, the grant, and the breaker. `hold` freezes the cohort and the dial only.

    Args:
        agent: knows the control records, and how long they may be acted on.
        health: knows whether the mirror can be reached.
        telemetry: told why a dialled read goes elsewhere.
        rules: by logical name, the cohorts that are configured.
        cohorts: by logical name, what tells the cohort of a partition key; may grow.
        limits: of the breakers.
    """

    def __init__(
        self,
        agent: Agent,
        health: MirrorHealth,
        *,
        telemetry: Telemetry,
        rules: Mapping[str, ReadRules],
        cohorts: Mapping[str, CohortOf],
        limits: BreakerLimits,
    ) -> None:
        self._agent = agent
        self._health = health
        self._telemetry = telemetry
        self._rules = rules
        self._cohorts = cohorts
        self.breakers = {
            role: Breakers(limits, on_change=partial(self._breaker_changed, role), clock=agent.clock)
            for role in (Role.MIRROR, Role.AUTHORITATIVE, Role.READER)
        }
        """Of PostgreSQL, in each role in which something else may answer for it."""
        self.mirror_breakers = self.breakers[Role.MIRROR]
        self._baffled: set[str] = set()

    def hold(self) -> AbstractContextManager[None]:
        """Keep the dials and the cohort of this moment within a block; see `DualStore.hold_route`."""
        return units.holding(self, self._agent.views())

    def admit(self, table: ServedTable, operation: GetItem | Query, view: View) -> Admission:
        """Whether the mirror is asked for a read of one partition, or of an index."""
        if not view.mirror_readable:
            return Admission.REFUSED
        unit = units.current()
        percent = view.record.dials.postgres_read_percent
        if unit.held is not None:
            percent = self._held_percent(table, view, unit.held)
        rules = self._rules.get(table.logical, PLAIN)
        if rules.names_cohorts or 0 < percent < 100:  # noqa: PLR2004 - per cent; saves the hash
            try:
                covered = self._covers(table, operation, percent, rules, unit)
            except (RequestRejected, KeyError, TypeError, AttributeError):
                return Admission.REFUSED  # boto3 or DynamoDB refuses it in its own words
        else:
            covered = percent > 0
        return self.admit_covered(table, operation, view) if covered else Admission.REFUSED

    def admit_covered(self, table: ServedTable, operation: Operation, view: View) -> Admission:
        """Whether the mirror, which dial or cohort sends a read to, can be asked for it."""
        if not self._health.up:
            return Admission.REFUSED
        if self._agent.clock.now() >= view.read_until:
            self._telemetry.record(GrantExpired(table.logical, "read"))
            return Admission.REFUSED
        admission = self.mirror_breakers.of(table.logical).admit()
        if not admission:
            self._telemetry.record(FellBack(table.logical, operation.name, "breaker"))
        return admission

    def covered_keys(self, table: ServedTable, asked: Mapping[str, Any], view: View) -> Iterator[Key]:
        """Those of the keys of one table in a BatchGetItem that dial or cohort send to the mirror.

        Args:
            table: the table.
            asked: the table's part of `RequestItems`.
            view: of the table.

        Raises:
            RequestRejected, KeyError, TypeError, AttributeError: the request is one that DynamoDB refuses.
        """
        if not view.mirror_readable:
            return
        unit = units.current()
        percent = self._held_percent(table, view, unit.held or {})
        rules = self._rules.get(table.logical, PLAIN)
        if not percent and not rules.names_cohorts:
            return
        for key in asked["Keys"]:
            if self._covers_partition(table, key, percent, rules, unit):
                yield key

    def still_granted(self, table: ServedTable, view: View, now: float) -> bool:
        """Whether every write has been mirrored, and the gate stood open, from before the read until now.

        The view may have been refreshed since; what counts is that it is the same opening of the gate.
        """
        latest = self._agent.view(table.physical)
        if latest is not view:
            record, then = latest.record, view.record
            if (
                record.gate_sequence != then.gate_sequence
                or record.mirrored_since != then.mirrored_since
                or record.epoch != then.epoch
            ):
                return False
        return latest.mirror_readable and now < latest.read_until

    def _held_percent(self, table: ServedTable, view: View, held: Mapping[int, units.Views]) -> float:
        """The read dial that a unit of work goes by, where it holds one; else that of a view."""
        return held.get(id(self), {}).get(table.physical, view).record.dials.postgres_read_percent

    def _covers(
        self,
        table: ServedTable,
        operation: GetItem | Query,
        percent: float,
        rules: ReadRules,
        unit: units.Unit,
    ) -> bool:
        if isinstance(operation, GetItem):
            return self._covers_partition(table, operation.key, percent, rules, unit)
        partition = partition_of(table.shape, operation)
        if partition is not None:
            return self._covers_partition(table, partition, percent, rules, unit)
        listed = _listed(rules, unit.cohort)
        if listed is not None:
            return listed
        index = table.shape.indexes[operation.request["IndexName"]]
        value = operation.key_condition(index.keys).partition
        request = partition_bytes(index.keys, {index.keys.partition.name: value})
        return included(index_share(table.logical, index.name, request), percent)

    def _covers_partition(
        self, table: ServedTable, key: Key, percent: float, rules: ReadRules, unit: units.Unit
    ) -> bool:
        if rules.names_cohorts:
            listed = _listed(rules, unit.cohort if unit.cohort is not None else self._cohort(table, key))
            if listed is not None:
                return listed
        return included(table.share_of(key), percent)

    def _cohort(self, table: ServedTable, key: Key) -> str | None:
        """The cohort that the application's own function tells of a partition key."""
        cohort_of = self._cohorts.get(table.logical)
        if cohort_of is None:
            return None
        attribute = table.shape.keys.partition
        value = key[attribute.name][attribute.type]
        try:
            return cohort_of(canonical_numeral(value) if attribute.type == "N" else value)
        except Exception as error:  # noqa: BLE001 - it is the application's; a read must not fail for it
            if table.logical not in self._baffled:
                self._baffled.add(table.logical)
                logger.warning(
                    "The cohort function of %s raises %s: such keys are in no cohort; mend it",
                    table.logical,
                    type(error).__name__,  # its text may hold the key
                )
            return None

    def _breaker_changed(self, role: Role, logical: str, state: BreakerState) -> None:
        is_open = state is BreakerState.OPEN
        self._telemetry.record(BreakerSeen(logical, Side.POSTGRES, is_open, role))
        logger.warning(
            "PostgreSQL, as %s, %s for reads of %s",
            role,
            "fails or is slow: it is left alone" if is_open else "is asked again",
            logical,
        )


def _listed(rules: ReadRules, cohort: str | None) -> bool | None:
    """What the lists say of a cohort; None: nothing."""
    if cohort in rules.always_off:
        return False
    return True if cohort in rules.always_on else None
