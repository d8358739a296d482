"""What is known of the migration itself: flags, doubts, verification, comparisons, latencies."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from dualstore.control import Gate
from dualstore.flags import ProblemKind
from dualstore.flags.sdk import SdkFlags
from dualstore.rollout.doctor.findings import Finding, advice, ok, problem, unknown
from dualstore.rollout.doctor.patient import Patient
from dualstore.rollout.evidence import snapshot_of
from dualstore.rollout.judgement import EvidenceSnapshot
from dualstore.stages import Stage
from dualstore.store.evidence import upper_bound
from dualstore.store.table import MigratedTable

_REACHED_WITHIN_SECONDS, _LOOK_SECONDS = 4.0, 0.1
_FRESH = timedelta(days=1)
_ENOUGH = {0.95: 100, 0.99: 500}
_SLOWER = 1.2


def flags(patient: Patient) -> Iterator[Finding]:
    """The flags are reached, and have a usable value for every table."""
    settings = patient.configuration.flags
    source = patient.store.flags
    if settings.kind == "static":
        yield ok("flags are in the configuration: every process has to be restarted to move a table")
        return
    if settings.kind == "file" and not Path(settings.path or "").is_file():
        yield problem(
            "the flag file is not there", "create it, or correct flags.path", path=str(settings.path)
        )
        return
    for name in patient.configuration.tables:
        source.requested(name)  # the first question brings an SDK up
    if isinstance(source, SdkFlags):
        yield from _flags_of_sdk(patient, source)


def _flags_of_sdk(patient: Patient, source: SdkFlags) -> Iterator[Finding]:
    ends = time.monotonic() + _REACHED_WITHIN_SECONDS
    while not source.is_reached and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)
    if not source.is_reached:
        yield problem(
            f"flags of kind {patient.configuration.flags.kind} are not reached: tables stay as recorded",
            "see that the SDK key is right and stream.launchdarkly.com can be reached; or mend the file",
        )
        return
    found = [each for name in patient.configuration.tables for each in source.problems.present(name)]
    for each in found:
        if each.kind is ProblemKind.MISSING:
            yield advice(str(each), f"create flag {each.flag}; until then nothing asks for it")
        else:
            yield problem(str(each), f"correct flag {each.flag}: until then it is not followed")
    if not found:
        yield ok(f"flags of kind {patient.configuration.flags.kind} are reached, and usable")


def convergence(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """Nothing is in doubt, and both sides have been proven equal lately."""
    seen = snapshot_of(patient.store, table.served.logical)
    evidence = seen.to_json()
    if seen.stage is Stage.OFF:
        yield ok("the table is at stage off: nothing is mirrored, so nothing can differ", stage="off")
        return
    findings = [*_failover(table), *_doubts(seen), *_proof_of(seen)]
    yield from findings
    if not findings:
        yield ok("nothing is in doubt, and both sides are proven equal", **evidence)


def _failover(table: MigratedTable) -> Iterator[Finding]:
    record = table.view.record
    if record.unreconciled:
        yield problem(
            f"the table was {record.failed_over}, and what that lost has not been listed",
            f"dualstore failover {table.served.logical} --reconcile",
        )


def _doubts(seen: EvidenceSnapshot) -> Iterator[Finding]:
    name = seen.table
    if seen.read_gate is not Gate.OPEN or seen.dirty_keys or seen.journal_keys:
        yield advice(
            "keys are in doubt, so reads go to the authority",
            f"dualstore repair {name}",
            gate=str(seen.read_gate),
            dirty_keys=seen.dirty_keys,
            journal_keys=seen.journal_keys,
        )
    if seen.suspects:
        yield problem(
            "processes ended unclean, or the stream has gaps: writes may be missing on the mirror",
            f"dualstore verify {name} --repair",
            suspects=seen.suspects,
        )
    if seen.outbox_refused:
        yield problem(
            "DynamoDB refuses changes of PostgreSQL's",
            "SELECT reason, count(*) FROM dualstore.outbox WHERE done_at IS NULL GROUP BY 1",
            refused=seen.outbox_refused,
        )
    if seen.mismatches:
        yield problem(
            f"{seen.mismatches:,} of {seen.comparisons:,} compared reads differed, and went on to",
            f"dualstore discrepancies list {name}",
            mismatches=seen.mismatches,
            comparisons=seen.comparisons,
            bound=upper_bound(seen.mismatches, seen.comparisons),
        )


def _proof_of(seen: EvidenceSnapshot) -> Iterator[Finding]:
    verify = f"dualstore verify {seen.table}"
    if not seen.verified or seen.verified_at is None:
        yield advice("no verification has proved both sides equal", verify, stage=str(seen.stage))
    elif seen.taken_at - seen.verified_at > _FRESH:
        age = seen.taken_at - seen.verified_at
        yield advice(
            f"both sides were last proven equal {age.days} day(s) ago",
            verify,
            at=seen.verified_at.isoformat(),
        )


def latencies(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """PostgreSQL answers reads about as fast as DynamoDB, as the whole fleet has seen it."""
    seen = snapshot_of(patient.store, table.served.logical)
    judged = 0
    for speeds in seen.speeds:
        for quantile, enough in _ENOUGH.items():
            if min(speeds.dynamodb.count, speeds.postgres.count) < enough:
                continue
            theirs, ours = speeds.dynamodb.quantile_ms(quantile), speeds.postgres.quantile_ms(quantile)
            if theirs is None or ours is None:
                continue
            judged += 1
            yield judge_latency(
                f"{speeds.work.value} at p{quantile * 100:g}", dynamodb_ms=theirs, postgres_ms=ours
            )
    if not judged:
        yield unknown(
            "the fleet has not read both sides often enough to compare their latencies",
            "shadow-percent above 0, and traffic",
        )


def judge_latency(what: str, *, dynamodb_ms: float, postgres_ms: float) -> Finding:
    """What a latency of PostgreSQL means beside DynamoDB's."""
    seen = {"dynamodb_ms": round(dynamodb_ms, 2), "postgres_ms": round(postgres_ms, 2)}
    if postgres_ms > dynamodb_ms * _SLOWER:
        return advice(
            f"{what}: PostgreSQL takes {postgres_ms:.1f} ms, DynamoDB {dynamodb_ms:.1f} ms",
            "SELECT query, mean_exec_time FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 10",
            **seen,
        )
    return ok(f"{what}: PostgreSQL takes {postgres_ms:.1f} ms, DynamoDB {dynamodb_ms:.1f} ms", **seen)
