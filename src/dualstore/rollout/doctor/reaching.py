"""Whether both databases are reached, how, and whether their clocks agree with this machine's."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from statistics import median

import psycopg

from dualstore.rollout.doctor.findings import Finding, advice, ok, problem, unknown
from dualstore.rollout.doctor.patient import Patient
from dualstore.stores.rds_endpoints import Kind

_TRIPS = 5
_FAR_MS = 10.0
_SKEW_ADVICE_SECONDS, _SKEW_PROBLEM_SECONDS = 2.0, 60.0
_DATE_HEADER_SECONDS = 1.0
_BUNDLE = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"


def postgres_connection(patient: Patient) -> Iterator[Finding]:
    """PostgreSQL answers, and soon; the reader endpoint does, where there is one."""
    began = time.perf_counter()
    with patient.store.engine.connect() as connection:
        connected_ms = (time.perf_counter() - began) * 1000
        trips = []
        for _ in range(_TRIPS):
            began = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            trips.append((time.perf_counter() - began) * 1000)
    seen = {"connected_ms": round(connected_ms, 1), "round_trip_ms": round(median(trips), 2)}
    if median(trips) > _FAR_MS:
        yield advice(
            f"PostgreSQL answers, after {median(trips):.0f} ms: every mirrored write waits for that",
            "run the service in the region, and best in the Availability Zone, of PostgreSQL's writer",
            **seen,
        )
    else:
        yield ok(f"PostgreSQL answers within {median(trips):.1f} ms", **seen)


def dynamodb_connection(patient: Patient) -> Iterator[Finding]:
    """DynamoDB answers, and has the bookkeeping table."""
    name = patient.configuration.dynamodb.bookkeeping_table
    try:
        described = patient.dynamodb.describe_table(TableName=name)["Table"]
    except patient.dynamodb.exceptions.ResourceNotFoundException:
        yield problem(f"DynamoDB answers, and has no bookkeeping table {name}", "dualstore schema upgrade")
        return
    yield ok(
        f"DynamoDB answers, and has the bookkeeping table {name}", status=described.get("TableStatus", "?")
    )


def transport(patient: Patient) -> Iterator[Finding]:
    """What travels to PostgreSQL is encrypted, and its certificate is looked at."""
    with patient.store.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the store requires psycopg
        encrypted = bool(driver.pgconn.ssl_in_use)
        row = connection.exec_driver_sql(
            "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).one_or_none()
    version, cipher = (None, None) if row is None else row
    yield judge_transport(
        encrypted=encrypted,
        mode=patient.sslmode,
        local=patient.is_local,
        protocol=version,
        cipher=cipher,
    )


def judge_transport(
    *, encrypted: bool, mode: str, local: bool, protocol: str | None = None, cipher: str | None = None
) -> Finding:
    """What a connection's encryption is worth (PostgreSQL, libpq, "SSL Support", table 34.1).

    Args:
        encrypted: whether this connection is.
        mode: libpq's `sslmode`.
        local: whether the server is on this machine.
        protocol: such as `TLSv1.3`, as the server sees it.
        cipher: likewise.
    """
    seen = {"encrypted": encrypted, "sslmode": mode, "protocol": protocol, "cipher": cipher}
    verify = f"sslmode=verify-full&sslrootcert=<file> in postgres.url; for AWS the file is {_BUNDLE}"
    if not encrypted and local:
        return ok("PostgreSQL is on this machine, without TLS", **seen)
    if not encrypted:
        return problem("items and passwords travel to PostgreSQL unencrypted", verify, **seen)
    if mode == "verify-full":
        return ok("PostgreSQL is reached over TLS, and its certificate and name are checked", **seen)
    if mode in {"disable", "allow", "prefer"}:
        return advice(
            f"this connection is encrypted, but sslmode={mode} would also take one that is not",
            verify,
            **seen,
        )
    left = "the name in it is" if mode == "verify-ca" else "its certificate is"
    return advice(f"PostgreSQL is reached over TLS, but {left} not checked", verify, **seen)


def iam(patient: Patient) -> Iterator[Finding]:
    """Whoever signs in to RDS, Aurora or RDS Proxy does so with a token, not with a password."""
    endpoint, on = patient.endpoint, patient.configuration.postgres.iam
    seen = {"endpoint": str(endpoint.kind), "iam": on}
    if not endpoint.is_rds and not on:
        yield ok("PostgreSQL is not of RDS by its name: IAM does not apply", **seen)
        return
    enabled = _iam_enabled(patient)
    if not on:
        yield advice(
            "the service signs in to RDS with a password",
            "postgres.iam = true, no password in postgres.url, GRANT rds_iam TO the role, and "
            "rds-db:connect for the service's IAM role",
            **seen,
            enabled_at_rds=enabled,
        )
    elif enabled is False:
        yield problem(
            "postgres.iam is on, and RDS does not take tokens",
            "aws rds modify-db-cluster --enable-iam-database-authentication --apply-immediately; for a "
            "proxy, IAMAuth=REQUIRED in its Auth",
            **seen,
        )
    else:
        yield ok("the service signs in to RDS with a token for each connection", **seen)


def _iam_enabled(patient: Patient) -> bool | None:
    """Whether RDS takes tokens; None where it cannot be asked."""
    if not patient.names_an_instance:
        return None
    if patient.endpoint.kind is Kind.PROXY:
        proxy = patient.proxy()
        return None if proxy is None else any(each.get("IAMAuth") != "DISABLED" for each in proxy["Auth"])
    described = patient.cluster() or patient.instance()
    return None if described is None else bool(described.get("IAMDatabaseAuthenticationEnabled"))


def clocks(patient: Patient) -> Iterator[Finding]:
    """The clocks of both databases and of this machine agree."""
    began = patient.clock()
    theirs = float(patient.value("SELECT extract(epoch FROM clock_timestamp())"))
    took = patient.clock() - began
    yield judge_clock("PostgreSQL", theirs - began - took / 2, precision=took / 2)
    began = patient.clock()
    answer = patient.dynamodb.list_tables(Limit=1)
    took = patient.clock() - began
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        yield unknown("DynamoDB's answer has no Date header, so its clock is not known")
        return
    theirs = parsedate_to_datetime(date).timestamp() + _DATE_HEADER_SECONDS / 2
    yield judge_clock("DynamoDB", theirs - began - took / 2, precision=took / 2 + _DATE_HEADER_SECONDS / 2)


def judge_clock(whose: str, ahead: float, *, precision: float) -> Finding:
    """What a difference of clocks does: expiry, "lately" and signatures go by them, the order of writes not.

    Args:
        whose: the other clock.
        ahead: by how many seconds it is ahead of ours.
        precision: how far off that may be.
    """
    seen = {"ahead_seconds": round(ahead, 3), "precision_seconds": round(precision, 3)}
    surely = max(abs(ahead) - precision, 0.0)
    says = f"{whose}'s clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    fix = "run an NTP client on this machine: chronyd with Amazon Time Sync, server 169.254.169.123"
    if surely > _SKEW_PROBLEM_SECONDS:
        return problem(
            f"{says}: signatures are refused at 5 minutes, and items expire early or late", fix, **seen
        )
    if surely > _SKEW_ADVICE_SECONDS:
        return advice(f"{says}: lags are told wrong by as much", fix, **seen)
    return ok(f"{whose}'s clock agrees with this machine's", **seen)
