"""Whether PostgreSQL has connections for the whole fleet, and what becomes of them behind RDS Proxy."""

from collections.abc import Iterator
from typing import Any

from dualstore.rollout.doctor.findings import Finding, advice, ok, problem
from dualstore.rollout.doctor.patient import Patient
from dualstore.stores.rds_endpoints import Kind

_MUCH = 0.8
_BYTES_FOR_A_CONNECTION, _MOST_ON_AURORA = 9_531_392, 5_000
_SERVERLESS = {1: 189, 4: 823, 8: 1_669, 16: 3_360, 32: 5_000}
"""By the most ACUs (Aurora User Guide, "Maximum connections for Aurora Serverless v2"); from 32 on, 5,000."""
_SMALL_MINIMUM_ACU, _SMALL_MINIMUM_CONNECTIONS = 0.5, 2_000
_GIB_OF_LARGE = 16
_TIMES_LARGE = {"large": 1, "xlarge": 2} | {f"{n}xlarge": 2 * n for n in (2, 4, 8, 12, 16, 24)}
_GIB_OF_MEMORY_OPTIMIZED = {step: _GIB_OF_LARGE * times for step, times in _TIMES_LARGE.items()}
_GIB_OF_BURSTABLE = {"medium": 4, "large": 8}

_LIMITS = """
    SELECT current_setting('max_connections')::int,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0),
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"""


def connections(patient: Patient) -> Iterator[Finding]:
    """PostgreSQL has a connection for every one that the fleet's pools may open."""
    ((most, reserved, of_role, of_database, used),) = patient.rows(_LIMITS)
    settings = patient.configuration.postgres
    each = settings.pool_size + settings.max_overflow
    processes = max(len(_processes(patient)), 1)
    limits = {"max_connections": most - reserved, "the role's limit": of_role, "the database's": of_database}
    name, limit = min(
        ((name, limit) for name, limit in limits.items() if limit >= 0), key=lambda named: named[1]
    )
    seen = {
        "processes": processes,
        "connections_each": each,
        "needed": processes * each,
        "limit": limit,
        "limited_by": name,
        "used_now": used,
    }
    yield judge_connections(seen)


def judge_connections(seen: dict[str, Any]) -> Finding:
    """What comes of a fleet's pools on a server.

    Args:
        seen: `processes`, `connections_each`, `needed`, `limit` and by what it is given, `used_now`.
    """
    needed, limit = seen["needed"], seen["limit"]
    says = (
        f"{seen['processes']} process(es) may open {seen['connections_each']} connections each, {needed} in "
        f"all, of the {limit} that {seen['limited_by']} leaves"
    )
    a_pool = max(int(limit * _MUCH) // seen["processes"], 1)
    fix = f"postgres.pool_size + max_overflow of {a_pool} at most, or a larger max_connections, or RDS Proxy"
    if needed > limit:
        return problem(f"{says}: some will be refused", fix, **seen)
    if needed > limit * _MUCH:
        return advice(f"{says}: little is left for a deployment that overlaps, and for people", fix, **seen)
    return ok(says, **seen)


def _processes(patient: Patient) -> set[str]:
    return {process.label for table in patient.store.tables() for process in table.status().processes}


def instance_size(patient: Patient) -> Iterator[Finding]:
    """`max_connections` suits the size of the instance."""
    if not patient.names_an_instance:
        yield ok("no RDS instance is named: its size is not asked for")
        return
    cluster, instance = patient.cluster(), patient.instance()
    size = "" if instance is None else str(instance.get("DBInstanceClass", ""))
    capacity = (cluster or {}).get("ServerlessV2ScalingConfiguration") or {}
    bound = connections_of(size, capacity)
    most = int(patient.value("SELECT current_setting('max_connections')::int"))
    seen = {"instance_class": size, "max_connections": most, "by_its_memory": bound, **_acus(capacity)}
    if bound is None:
        yield ok(f"max_connections is {most} on {size or 'an instance of unknown size'}", **seen)
    elif most > bound:
        yield advice(
            f"max_connections is {most}; the memory of {size} suits {bound}: with all of them open it swaps, "
            "or restarts",
            f"max_connections = {bound} in the parameter group, or a larger instance",
            **seen,
        )
    elif most < bound and size == "db.serverless":
        yield advice(
            f"max_connections is {most}; {capacity.get('MaxCapacity')} ACU give {bound} after a restart",
            "aws rds reboot-db-instance, at a quiet time",
            **seen,
        )
    else:
        yield ok(f"max_connections is {most}, which {size} has the memory for", **seen)


def connections_of(size: str, capacity: dict[str, Any]) -> int | None:
    """How many connections Aurora gives an instance by default, at most; None where that is not known.

    Of provisioned ones it is LEAST(DBInstanceClassMemory / 9531392, 5000), and some of the memory is left out
    (Aurora User Guide, "Maximum connections to an Aurora PostgreSQL DB instance").

    Args:
        size: the instance class.
        capacity: of Serverless v2: MinCapacity and MaxCapacity, in ACU.
    """
    if size == "db.serverless" and capacity:
        most = _SERVERLESS.get(min(capacity["MaxCapacity"], max(_SERVERLESS)))
        small = capacity["MinCapacity"] <= _SMALL_MINIMUM_ACU
        return most if most is None or not small else min(most, _SMALL_MINIMUM_CONNECTIONS)
    _, _, rest = size.partition("db.")
    family, _, step = rest.partition(".")
    of_family = {"r": _GIB_OF_MEMORY_OPTIMIZED, "t": _GIB_OF_BURSTABLE}.get(family[:1], {})
    gib = of_family.get(step)
    return None if gib is None else min(gib * 2**30 // _BYTES_FOR_A_CONNECTION, _MOST_ON_AURORA)


def _acus(capacity: dict[str, Any]) -> dict[str, Any]:
    return {name: capacity[name] for name in ("MinCapacity", "MaxCapacity") if name in capacity}


PINNING: tuple[tuple[str, str, bool], ...] = (
    ("nextval('dualstore.revision')", "every write of a mirrored or authoritative row", True),
    ("set_config(…, true)", "writes of several keys, and the bulk copy", True),
    ("SET LOCAL", "migrations, and reports of figures", True),
    ("set_config(…, false)", "one run of a kind a table, and plans", True),
    ("CREATE TEMPORARY TABLE", "backfill and verify", True),
    ("pg_advisory_lock", "one run of a kind a table, and plans", True),
    ("statements of more than 16 KB", "batches and transactions of many keys", True),
    ("DEALLOCATE, from 100 prepared statements a connection on", "psycopg, with many tables", True),
    ("pg_advisory_xact_lock", "writes of several keys", False),
    ("functions of the schema dualstore", "the lock of one key, the triggers", False),
    ("statements prepared by the protocol", "every operation", False),
)
"""What dualstore uses, where, and whether it pins a connection of RDS Proxy.

Sources: Amazon Aurora User Guide, "Avoiding pinning an RDS Proxy", the conditions for Aurora PostgreSQL (also
cursors, LISTEN, DISCARD and LOAD: dualstore uses none) and those for all engine families. It makes no
exception of SET LOCAL; of locks it excepts those of a transaction. Of statements that are prepared by the
protocol: AWS Database Blog, "Amazon RDS Proxy multiplexing support for PostgreSQL Extended Query Protocol".
"""


def proxy_pinning(patient: Patient) -> Iterator[Finding]:
    """Behind RDS Proxy, what pins a connection to one of the database's is known."""
    if patient.endpoint.kind is not Kind.PROXY:
        yield ok("PostgreSQL is not reached through RDS Proxy, by its name")
        return
    pins = {use: where for use, where, pinned in PINNING if pinned}
    yield advice(
        "RDS Proxy pins each connection at its first write, until the pool closes it: it saves no "
        "connections, though it still signs in and fails over",
        "name the cluster endpoint in postgres.url; or leave the proxy as many connections as the pools may "
        "open (MaxConnectionsPercent), and watch DatabaseConnectionsCurrentlySessionPinned",
        pins=pins,
        does_not_pin=[use for use, _, pinned in PINNING if not pinned],
        # Amazon Aurora User Guide, "Amazon RDS Proxy for Aurora", limitations for Aurora PostgreSQL.
        not_passed_on="CancelRequest: what was given up works on in the database, to its statement_timeout",
    )
