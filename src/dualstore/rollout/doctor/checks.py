"""Every check, in the order in which they are made, and the checklists that they are on."""

from dualstore.rollout.doctor import capacity, keeping, mapped, proof, reaching, server
from dualstore.rollout.doctor.findings import Check, Checklist, TableCheck
from dualstore.stages import Side

_POSTGRES, _DYNAMODB = frozenset({Side.POSTGRES}), frozenset({Side.DYNAMODB})
_BOTH, _NEITHER = _POSTGRES | _DYNAMODB, frozenset[Side]()
_INTEGRITY = frozenset({Checklist.DATA_INTEGRITY})
_PERFORMANCE = frozenset({Checklist.PERFORMANCE})
_SECURITY = frozenset({Checklist.SECURITY})
_RDS = "rds:DescribeDBClusters, rds:DescribeDBInstances, rds:DescribeDBProxies, rds:DescribeDBProxyTargets"

REACHING = {
    Side.POSTGRES: Check(
        name="postgres-connection",
        asks="PostgreSQL answers, and soon",
        of=_POSTGRES,
        on=_PERFORMANCE,
        look=reaching.postgres_connection,
    ),
    Side.DYNAMODB: Check(
        name="dynamodb-connection",
        asks="DynamoDB answers, and has the bookkeeping table",
        of=_DYNAMODB,
        on=_INTEGRITY,
        look=reaching.dynamodb_connection,
        allow="dynamodb:DescribeTable on the bookkeeping table",
    ),
}
"""The checks that come first: a database that does not answer is not asked anything else."""

CHECKS: tuple[Check | TableCheck, ...] = (
    *REACHING.values(),
    Check(
        name="tls",
        asks="what travels to PostgreSQL is encrypted, and its certificate checked",
        of=_POSTGRES,
        on=_SECURITY,
        look=reaching.transport,
    ),
    Check(
        name="iam-authentication",
        asks="whoever signs in to RDS does so with a token",
        of=_NEITHER,
        on=_SECURITY,
        look=reaching.iam,
        allow=_RDS,
    ),
    Check(
        name="roles",
        asks="the service's role may do what dualstore does, and not much more",
        of=_BOTH,
        on=_SECURITY | _INTEGRITY,
        look=server.roles,
    ),
    Check(
        name="server-version",
        asks="PostgreSQL is 16 or later, and takes writes",
        of=_POSTGRES,
        on=_INTEGRITY,
        look=server.version,
    ),
    Check(
        name="server-settings",
        asks="PostgreSQL keeps what it acknowledges, and lets it be looked into",
        of=_POSTGRES,
        on=_INTEGRITY | _PERFORMANCE,
        look=server.settings,
    ),
    Check(
        name="connections",
        asks="PostgreSQL has a connection for every one that the fleet may open",
        of=_BOTH,
        on=_PERFORMANCE,
        look=capacity.connections,
    ),
    Check(
        name="instance-size",
        asks="max_connections suits the instance",
        of=_POSTGRES,
        on=_PERFORMANCE,
        look=capacity.instance_size,
        allow=_RDS,
    ),
    Check(
        name="proxy-pinning",
        asks="what pins connections of RDS Proxy is known",
        of=_NEITHER,
        on=_PERFORMANCE,
        look=capacity.proxy_pinning,
    ),
    Check(
        name="clocks",
        asks="the clocks of both databases and of this machine agree",
        of=_BOTH,
        on=_INTEGRITY,
        look=reaching.clocks,
        allow="dynamodb:ListTables",
    ),
    Check(
        name="bookkeeping",
        asks="the schema dualstore is of this version, and as the migrations left it",
        of=_POSTGRES,
        on=_INTEGRITY,
        look=mapped.bookkeeping,
    ),
    Check(
        name="flags",
        asks="the flags are reached, and usable",
        of=_NEITHER,
        on=_INTEGRITY,
        look=proof.flags,
    ),
    Check(
        name="postgres-encryption",
        asks="what PostgreSQL stores is encrypted",
        of=_NEITHER,
        on=_SECURITY,
        look=keeping.encryption,
        allow=_RDS,
    ),
    Check(
        name="postgres-safety",
        asks="PostgreSQL is backed up, has a standby, and is protected",
        of=_NEITHER,
        on=_SECURITY | _INTEGRITY,
        look=keeping.safety,
        allow=_RDS,
    ),
    Check(
        name="audit-log",
        asks="who reads and writes is written down",
        of=_POSTGRES,
        on=_SECURITY,
        look=keeping.audit,
        allow=_RDS,
    ),
    TableCheck(
        name="sql-tables",
        asks="the SQL tables are there, with triggers, and nothing of theirs hurts a mirror",
        of=_BOTH,
        on=_INTEGRITY,
        look=mapped.sql_tables,
    ),
    TableCheck(
        name="collations",
        asks="text columns of keys sort as DynamoDB does",
        of=_BOTH,
        on=_INTEGRITY,
        look=mapped.collations,
    ),
    TableCheck(
        name="indexes",
        asks="every query of a secondary index has an index of PostgreSQL",
        of=_BOTH,
        on=_PERFORMANCE,
        look=mapped.indexes,
    ),
    TableCheck(
        name="stream",
        asks="the DynamoDB table has a stream with both images",
        of=_DYNAMODB,
        on=_INTEGRITY,
        look=mapped.stream,
        allow="dynamodb:DescribeTable",
    ),
    TableCheck(
        name="dynamodb-recovery",
        asks="DynamoDB can be restored to any moment, and not deleted by a slip",
        of=_DYNAMODB,
        on=_INTEGRITY | _SECURITY,
        look=mapped.recovery,
        allow="dynamodb:DescribeContinuousBackups, dynamodb:DescribeTable",
    ),
    TableCheck(
        name="dynamodb-encryption",
        asks="DynamoDB encrypts the table with a key whose uses can be seen",
        of=_DYNAMODB,
        on=_SECURITY,
        look=mapped.dynamodb_encryption,
        allow="dynamodb:DescribeTable",
    ),
    TableCheck(
        name="convergence",
        asks="nothing is in doubt, and both sides were proven equal lately",
        of=_BOTH,
        on=_INTEGRITY,
        look=proof.convergence,
    ),
    TableCheck(
        name="latencies",
        asks="PostgreSQL reads about as fast as DynamoDB",
        of=_BOTH,
        on=_PERFORMANCE,
        look=proof.latencies,
    ),
)
