"""The proof that both sides of a migrated table hold the same: what it reads, and which keys it compares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy

from dualstore import schema
from dualstore.backfill import Processes
from dualstore.backfill.sources import SourceContext, source_of
from dualstore.errors import ConfigurationError
from dualstore.items import Key
from dualstore.mapping import Mapped
from dualstore.mapping.transcoding import transcoder_of
from dualstore.store.evidence import upper_bound
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_findings import PostgresFindings
from dualstore.stores.postgres_fingerprints import fingerprints_of
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.stores.postgres_mapped import register
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.verify import (
    BulkVerify,
    Crew,
    Judge,
    KeyedVerify,
    PastJudge,
    Threads,
    Verification,
    VerifyProgress,
    compare_pieces,
)
from dualstore.verify.report import Inputs, document

DEFAULT_THRESHOLD = 0.999
"""The share of keys that have to be equal, unless more is asked for. A change of authority asks for all."""


class Source(Protocol):
    """What a full comparison reads from: a source of `backfill.sources`."""

    @property
    def kind(self) -> str:
        """Which source it is, in a word."""
        ...

    def pieces(self) -> Sequence[Mapping[str, Any]]:
        """Plan the pieces."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """What it takes to make this source again."""
        ...

    def read_raw(self, description: Any, position: Any, limits: Any) -> Iterator[Any]:
        """Read a piece on."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProofOrder:
    """Which keys are to be compared: those of a source, or some.

    Attributes:
        source: read all items from here, and compare them at the speed of COPY, resumably.
        sample: compare so many rows, drawn at random.
        since: compare the keys written since a revision, or since a moment.
        keys: compare these keys.
        repair: settle what differs.
        against: the moment whose state the source, an export, holds: what has changed since is told apart.
            For where PostgreSQL is the authority.
        workers: how many threads, or what else `crew` is made of.
        crew: who compares the pieces; None: threads of this process.
        items_per_second: the most items to read per second from the source, of all workers; of a Scan that is
            also the most rows to look up. None for no limit.
        rows_per_second: the most rows to look up, or to read for their fingerprints, per second from
            PostgreSQL, of all workers, or None.
        progress: called now and then.
    """

    source: Source | None = None
    sample: int | None = None
    since: int | datetime | None = None
    keys: Iterable[Key] | None = None
    repair: bool = False
    against: datetime | None = None
    workers: int = 2
    crew: Crew | None = None
    items_per_second: float | None = None
    rows_per_second: float | None = None
    progress: Callable[[VerifyProgress], None] = lambda _: None

    @property
    def proves_the_present(self) -> bool:
        """Whether finding no difference means that there is none now.

        An export says what was: where a row equals it, the item may have changed since, and the row not.
        """
        return self.mode == "full" and self.source is not None and self.source.kind == "scan"

    @property
    def mode(self) -> str:
        """In a word."""
        chosen = {
            "sample": self.sample,
            "recent": self.since,
            "keys": self.keys,
            "against-export": self.against,
        }
        return next((mode for mode, value in chosen.items() if value is not None), "full")


@dataclass(frozen=True, kw_only=True)
class Proving:
    """Both sides of one table, and what compares them.

    Attributes:
        logical: the table's logical name.
        mapping: how its items become rows.
        engine: PostgreSQL.
        judge: what gives keys their verdicts.
        past: what gives them for an export of a moment, where PostgreSQL decides by now; None where it does
            not.
        context: JSON, kept with a run from its start and handed back with its result.
        goes_on: whether a run that began in such a context, and was interrupted, is worth going on with.
    """

    logical: str
    mapping: Mapped
    engine: sqlalchemy.Engine
    judge: Judge
    past: Callable[[datetime], PastJudge] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    goes_on: Callable[[Mapping[str, Any]], bool] = lambda _: True

    def run(self, order: ProofOrder) -> Verification:
        """Compare what the order asks for.

        Raises:
            ConfigurationError: the source cannot be read as a whole, or there is nothing to compare.
            SchemaError: the bookkeeping schema or the SQL table is missing.
            Unavailable: a side was away for too long; run it again to go on.
        """
        if order.source is None and order.mode == "full":
            raise ConfigurationError(
                f"which keys of {self.logical} are to be compared? Give a source to read all items from, or "
                "keys, a sample, or a moment"
            )
        runs = PostgresRuns(self.engine)
        runs.check()
        register(self.engine, self.mapping)
        if order.source is None:
            return KeyedVerify(
                judge=self.judge,
                runs=runs,
                keys=self._keys(order),
                mode=order.mode,
                progress=order.progress,
            ).run()
        return self.bulk(order, order.source).run()

    def bulk(self, order: ProofOrder, source: Source) -> BulkVerify:
        """What compares all items of a source, or helps with that.

        Raises:
            ConfigurationError: it is to compare with the past, and PostgreSQL is not the authority.
        """
        judge = self.judge if order.against is None else self._past(order.against, repair=order.repair)
        return BulkVerify(
            mapping=self.mapping,
            source=source,
            transcoder=transcoder_of(self.mapping),
            comparison=PostgresComparison(self.engine, self.mapping),
            fingerprints=None if order.against else fingerprints_of(self.engine, self.mapping),
            findings=PostgresFindings(self.engine, self.mapping.shape.keys),
            runs=PostgresRuns(self.engine),
            judge=judge,
            context=self.context,
            goes_on=self.goes_on,
            # What differs from the past is judged by the items at hand.
            at_once=source.kind == "scan" or order.against is not None,
            crew=order.crew or Threads(order.workers),
            items_per_second=_each(order.items_per_second, order.workers),
            rows_per_second=_each(order.rows_per_second, order.workers),
            progress=order.progress,
        )

    def size_bytes(self) -> int:
        """How large the SQL tables are, without their indexes."""
        return PostgresComparison(self.engine, self.mapping).size_bytes()

    def _past(self, moment: datetime, *, repair: bool) -> PastJudge:
        if self.past is None:
            raise ConfigurationError(
                f"DynamoDB is the authority of {self.logical}, and says itself what holds: compare with it "
                "as it is now, by --source with a Scan or the export"
            )
        return replace(self.past(moment), repair=repair)

    def _keys(self, order: ProofOrder) -> Iterator[Key]:
        chosen = PostgresKeys(self.engine, self.mapping)
        if order.sample is not None:
            yield from chosen.sample(order.sample)
        elif order.since is not None:
            for some in chosen.changed_since(order.since):
                yield from some
        else:
            yield from order.keys or ()

    def report(
        self,
        verification: Verification,
        order: ProofOrder,
        *,
        threshold: float,
        table_arn: str | None = None,
    ) -> dict[str, Any]:
        """The report of a verification, unsigned.

        Args:
            verification: the result.
            order: what was asked for.
            threshold: the success rate that was asked for.
            table_arn: the table's ARN, where it is known.
        """
        source = {"kind": "keys"} if order.source is None else dict(order.source.parameters())
        return document(
            verification,
            Inputs(
                logical=self.logical,
                table_arn=table_arn,
                mode=order.mode,
                source={name: value for name, value in source.items() if name != "tuning"},
                schema_revision=schema.current(self.engine),
                code_version=version("dualstore"),
                threshold=threshold,
                bound=bound_of(verification) if order.mode == "sample" else None,
            ),
        )


def _each(all_of_them: float | None, workers: int) -> float | None:
    return None if all_of_them is None else all_of_them / workers


@contextmanager
def opened_verification(
    config: Path, table: str, *, parameters: Mapping[str, Any], order: ProofOrder
) -> Iterator[BulkVerify]:
    """What a worker's process compares with; it serves no table, and is in no register.

    Args:
        config: the configuration, which each of them reads.
        table: the logical name.
        parameters: of the source, which each of them makes again.
        order: what is asked for, without its source.
    """
    from dualstore.store.assembly import DualStore  # noqa: PLC0415 - the assembly imports this module

    with DualStore.from_config(config, registers=False) as store, store.source_clients() as clients:
        migrated = store.table(table)
        source = source_of(parameters, SourceContext(migrated.served.shape, clients))
        yield migrated.proving(repair=order.repair).bulk(order, source)


def verifying_processes(config: Path, table: str, order: ProofOrder) -> Processes:
    """Processes of their own as the workers of a full comparison.

    Args:
        config: the configuration, which each of them reads.
        table: the logical name.
        order: what is asked for.

    Raises:
        ConfigurationError: the order has no source.
    """
    opening = partial(opened_verification, config.absolute(), table, **opened_with(order))
    return Processes(order.workers, opening, working=compare_pieces)


def opened_with(order: ProofOrder) -> dict[str, Any]:
    """What another process needs of an order, in a form that can be sent.

    Raises:
        ConfigurationError: it has no source.
    """
    if order.source is None:
        raise ConfigurationError("only a comparison of all items is shared by several processes")
    sent = ProofOrder(
        repair=order.repair,
        against=order.against,
        workers=order.workers,
        items_per_second=order.items_per_second,
        rows_per_second=order.rows_per_second,
        progress=_nowhere,
    )
    return {"parameters": dict(order.source.parameters()), "order": sent}


def _nowhere(_: VerifyProgress) -> None:
    """The process that began it tells how far it has come."""


def bound_of(verification: Verification) -> float:
    """With 95 % confidence, the share of rows that differ is not above this, judging by a random sample."""
    different = verification.difference_count + verification.moving
    return upper_bound(different, verification.equal + different)
