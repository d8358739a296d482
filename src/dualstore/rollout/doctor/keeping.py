"""How PostgreSQL is kept: encryption at rest, backups, who may reach it, and what is written down of it."""

from collections.abc import Iterator

from dualstore.rollout.doctor.findings import Finding, advice, ok, problem, unknown
from dualstore.rollout.doctor.patient import Patient

_KEPT_DAYS = 7


def encryption(patient: Patient) -> Iterator[Finding]:
    """What PostgreSQL stores is encrypted."""
    described = (patient.cluster() or patient.instance()) if patient.names_an_instance else None
    if described is None:
        if patient.is_local:
            yield ok("PostgreSQL is on this machine: its disk is this machine's affair")
        else:
            yield unknown(
                "how PostgreSQL's disk is encrypted cannot be told from its host name",
                "backfill.db_instance = the instance at RDS, where it is one",
            )
    elif described.get("StorageEncrypted"):
        yield ok("PostgreSQL's storage is encrypted", own_key=bool(described.get("KmsKeyId")))
    else:
        yield problem(
            "PostgreSQL's storage is not encrypted, and cannot be later",
            "restore a snapshot into an encrypted cluster: aws rds restore-db-cluster-from-snapshot "
            "--kms-key-id <key>",
        )


def safety(patient: Patient) -> Iterator[Finding]:
    """PostgreSQL is backed up, has a second instance, and is neither open to the world nor easily deleted."""
    if not patient.names_an_instance:
        yield unknown(
            "backups of PostgreSQL are not known: its host name tells of no RDS",
            "backfill.db_instance = the instance at RDS, where it is one; else see that backups are restored "
            "now and then",
        )
        return
    cluster, instance = patient.cluster(), patient.instance()
    found = list(_unsafe(cluster or instance or {}, instance or {}, members=_members(cluster)))
    yield from found
    if not found:
        yield ok("PostgreSQL is backed up, has a standby, and is protected")


def _members(cluster: dict[str, object] | None) -> int | None:
    members = None if cluster is None else cluster.get("DBClusterMembers")
    return len(members) if isinstance(members, list) else None


def _unsafe(
    kept: dict[str, object], instance: dict[str, object], *, members: int | None
) -> Iterator[Finding]:
    days = kept.get("BackupRetentionPeriod")
    if not isinstance(days, int) or days < 1:
        yield problem("PostgreSQL has no automatic backups", f"BackupRetentionPeriod: {_KEPT_DAYS} or more")
    elif days < _KEPT_DAYS:
        yield advice(f"backups are kept for {days} day(s)", f"BackupRetentionPeriod: {_KEPT_DAYS} or more")
    if not kept.get("DeletionProtection"):
        yield advice("PostgreSQL can be deleted by one call", "DeletionProtection: true")
    if instance.get("PubliclyAccessible"):
        yield problem("PostgreSQL has a public address", "PubliclyAccessible: false")
    standby = members > 1 if members is not None else bool(kept.get("MultiAZ"))
    if not standby:
        yield advice(
            "PostgreSQL has no standby: at `live` its failure is an outage",
            "a second instance in another Availability Zone: aws rds create-db-instance "
            "--db-cluster-identifier …",
        )


def audit(patient: Patient) -> Iterator[Finding]:
    """Who reads and writes is written down, on both sides."""
    ((libraries, logged, statements),) = patient.rows(
        "SELECT current_setting('shared_preload_libraries'), current_setting('pgaudit.log', true), "
        "current_setting('log_statement')"
    )
    seen = {"shared_preload_libraries": libraries, "pgaudit.log": logged, "log_statement": statements}
    on = "pgaudit" in libraries and (logged or "none") != "none"
    if on:
        yield ok(f"pgaudit writes down {logged}", **seen)
    else:
        yield advice(
            "PostgreSQL keeps no audit log",
            "shared_preload_libraries = 'pgaudit,…', pgaudit.log = 'ddl,role,write'; CREATE EXTENSION "
            "pgaudit",
            **seen,
        )
    if statements in {"mod", "all"}:
        yield problem(
            f"log_statement = {statements} writes statements to the log, and those of people hold values",
            "log_statement = 'ddl'",
            **seen,
        )
    if patient.names_an_instance:
        exported = (patient.cluster() or patient.instance() or {}).get("EnabledCloudwatchLogsExports", [])
        if "postgresql" not in exported:
            yield advice(
                "PostgreSQL's log does not leave the instance, and goes with it",
                "aws rds modify-db-cluster --cloudwatch-logs-export-configuration EnableLogTypes=postgresql",
            )
    if patient.dynamodb_is_aws:
        yield unknown(
            "whether CloudTrail records data events of DynamoDB's items cannot be seen from here: trails may "
            "belong to the organization",
            "aws cloudtrail get-event-selectors --trail-name <trail>, in the account of the trail: look for "
            "AWS::DynamoDB::Table",
        )
