"""Takes a snapshot of what is known of a table: the record, both sides' doubts, and the fleet's figures."""

from datetime import datetime

from dualstore.rollout.judgement import EvidenceSnapshot
from dualstore.stages import Side
from dualstore.store import DualStore
from dualstore.store.evidence import Speeds
from dualstore.stores.postgres_plans import PostgresPlans
from dualstore.stores.postgres_rollup import PostgresRollup, step_of
from dualstore.telemetry import Verdict
from dualstore.telemetry.figures import Work

_JUDGED = (Verdict.EQUAL, Verdict.LAG, Verdict.MISMATCH)


def snapshot_of(store: DualStore, name: str, *, since: datetime | None = None) -> EvidenceSnapshot:
    """What is known of a table now.

    Args:
        store: with the table.
        name: its logical name.
        since: from when on the fleet's figures count; None: since stage or dials last changed.

    Raises:
        ConfigurationError: there is no table of that name.
        Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does not
            answer.
        SchemaError: the `dualstore` schema is missing or older.
    """
    table = store.table(name)
    status = table.status()
    record = status.record
    rollup, plans = PostgresRollup(store.engine), PostgresPlans(store.engine)
    rolled = (
        rollup.of_step(table.physical, step_of(record))
        if since is None
        else rollup.since(table.physical, since)
    )
    figures, counts = rolled.figures, rolled.figures.counts
    asked = figures.by(side=Side.POSTGRES, works=tuple(Work))
    outbox = status.outbox
    return EvidenceSnapshot(
        table=name,
        stage=record.stage,
        read_percent=record.effective_dials.postgres_read_percent,
        taken_at=plans.now(),
        since=rolled.began_at,
        verified=record.verified,
        verified_at=plans.proven_at(table.physical),
        dirty_keys=status.dirty_keys,
        journal_keys=status.journal_keys,
        read_gate=record.gate,
        suspects=len(record.suspects),
        outbox_age=None if outbox is None else outbox.oldest_age,
        outbox_refused=0 if outbox is None else outbox.refused,
        processes=len(status.processes),
        unconfirmed=tuple(each.label for each in status.processes if not each.confirmed),
        comparisons=sum(counts.get(verdict, 0) for verdict in _JUDGED),
        mismatches=counts.get(Verdict.MISMATCH, 0),
        calls=asked.count,
        errors=asked.errors,
        speeds=tuple(
            Speeds(
                work, *(figures.by(side=s, works=[work]).latencies for s in (Side.DYNAMODB, Side.POSTGRES))
            )
            for work in (Work.READ, Work.LISTING)
        ),
    )
