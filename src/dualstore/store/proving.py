"""The proof that both sides of a migrated table hold the same: what it reads, and which keys it compares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Protocol

import sqlalchemy

from dualstore import schema
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
from dualstore.verify import BulkVerify, Judge, KeyedVerify, Verification, VerifyProgress
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
        workers: how many threads.
        items_per_second: the most items to read per second from the source, or None for no limit.
        rows_per_second: the most rows to read per second from PostgreSQL to take their fingerprints, or None.
        progress: called now and then.
    """

    source: Source | None = None
    sample: int | None = None
    since: int | datetime | None = None
    keys: Iterable[Key] | None = None
    repair: bool = False
    workers: int = 2
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
        chosen = {"sample": self.sample, "recent": self.since, "keys": self.keys}
        return next((mode for mode, value in chosen.items() if value is not None), "full")


@dataclass(frozen=True, kw_only=True)
class Proving:
    """Both sides of one table, and what compares them.

    Attributes:
        logical: the table's logical name.
        mapping: how its items become rows.
        engine: PostgreSQL.
        judge: what gives keys their verdicts.
        context: JSON, kept with a run from its start and handed back with its result.
    """

    logical: str
    mapping: Mapped
    engine: sqlalchemy.Engine
    judge: Judge
    context: Mapping[str, Any] = field(default_factory=dict)

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
        return BulkVerify(
            mapping=self.mapping,
            source=order.source,
            transcoder=transcoder_of(self.mapping),
            comparison=PostgresComparison(self.engine, self.mapping),
            fingerprints=fingerprints_of(self.engine, self.mapping),
            findings=PostgresFindings(self.engine, self.mapping.shape.keys),
            runs=runs,
            judge=self.judge,
            context=self.context,
            at_once=order.source.kind == "scan",
            workers=order.workers,
            items_per_second=order.items_per_second,
            rows_per_second=order.rows_per_second,
            progress=order.progress,
        ).run()

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


def bound_of(verification: Verification) -> float:
    """With 95 % confidence, the share of rows that differ is not above this, judging by a random sample."""
    different = verification.difference_count + verification.moving
    return upper_bound(different, verification.equal + different)
