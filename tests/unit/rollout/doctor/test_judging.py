"""What facts mean to `dualstore doctor`, without a database; RDS is played by moto."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dualstore import DualStore
from dualstore.config import load
from dualstore.rollout.doctor import CHECKS, Finding, Patient, Verdict
from dualstore.rollout.doctor.capacity import PINNING, connections_of, judge_connections, proxy_pinning
from dualstore.rollout.doctor.keeping import encryption, safety
from dualstore.rollout.doctor.proof import judge_latency
from dualstore.rollout.doctor.reaching import iam, judge_clock, judge_transport
from dualstore.stores.describing import DescribingClients

REGION = "eu-west-1"
CLUSTER_HOST = f"main.cluster-c0ffee.{REGION}.rds.amazonaws.com"
PROXY_HOST = f"main.proxy-c0ffee.{REGION}.rds.amazonaws.com"

OK, ADVICE, PROBLEM, UNKNOWN = Verdict.OK, Verdict.ADVICE, Verdict.PROBLEM, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("connection", "verdict"),
    [
        ({"encrypted": True, "mode": "verify-full", "local": False}, OK),
        ({"encrypted": True, "mode": "verify-ca", "local": False}, ADVICE),
        ({"encrypted": True, "mode": "require", "local": False}, ADVICE),
        ({"encrypted": True, "mode": "prefer", "local": False}, ADVICE),
        ({"encrypted": False, "mode": "prefer", "local": False}, PROBLEM),
        ({"encrypted": False, "mode": "prefer", "local": True}, OK),
    ],
)
def test_a_connection_is_well_if_it_is_encrypted_and_its_certificate_is_checked(
    connection: dict[str, Any], verdict: Verdict
) -> None:
    found = judge_transport(**connection)
    assert found.verdict is verdict
    assert bool(found.fix) is (verdict is not OK)


def test_a_clock_is_off_only_by_what_the_measurement_cannot_explain() -> None:
    assert judge_clock("DynamoDB", 2.4, precision=0.5).verdict is OK
    assert judge_clock("DynamoDB", -2.6, precision=0.5).verdict is ADVICE
    assert judge_clock("DynamoDB", 61.0, precision=0.5).verdict is PROBLEM


def test_a_fleet_that_asks_for_more_connections_than_there_are_is_told_how_many_it_may_have() -> None:
    def found(needed: int) -> Finding:
        seen = {"processes": 10, "connections_each": needed // 10, "needed": needed}
        return judge_connections({**seen, "limit": 100, "limited_by": "max_connections"})

    assert [found(n).verdict for n in (80, 90, 110)] == [OK, ADVICE, PROBLEM]
    assert "pool_size + max_overflow of 8 at most" in found(110).fix


@pytest.mark.parametrize(
    ("size", "least", "most", "connections"),
    [
        ("db.serverless", 1.0, 16.0, 3_360),
        ("db.serverless", 0.5, 16.0, 2_000),
        ("db.serverless", 0.5, 1.0, 189),
        ("db.serverless", 8.0, 128.0, 5_000),
        ("db.serverless", 1.0, 12.0, None),
        ("db.r6g.large", 0.0, 0.0, 1_802),
        ("db.r7g.4xlarge", 0.0, 0.0, 5_000),
        ("db.t4g.medium", 0.0, 0.0, 450),
        ("db.strange", 0.0, 0.0, None),
    ],
)
def test_connections_follow_from_the_memory_of_the_instance(
    size: str, least: float, most: float, connections: int | None
) -> None:
    capacity = {"MinCapacity": least, "MaxCapacity": most} if most else {}
    assert connections_of(size, capacity) == connections


def test_postgresql_may_take_a_fifth_longer_than_dynamodb() -> None:
    assert judge_latency("reads", dynamodb_ms=5, postgres_ms=5.9).verdict is OK
    assert judge_latency("reads", dynamodb_ms=5, postgres_ms=6.1).verdict is ADVICE


def test_every_check_has_a_name_of_its_own_and_is_on_a_checklist() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.on for check in CHECKS)


# What RDS says


Look = Callable[[Patient], Iterator[Finding]]


@pytest.fixture
def rds() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("rds", region_name=REGION)


def cluster(rds: Any, **changed: Any) -> None:
    well = {
        "StorageEncrypted": True,
        "EnableIAMDatabaseAuthentication": True,
        "BackupRetentionPeriod": 14,
        "DeletionProtection": True,
    }
    rds.create_db_cluster(
        DBClusterIdentifier="main",
        Engine="aurora-postgresql",
        MasterUsername="administrator",
        MasterUserPassword="aVerySecretWord",
        **{**well, **changed},
    )
    for name in ("writer", "standby"):
        rds.create_db_instance(
            DBInstanceIdentifier=name,
            DBClusterIdentifier="main",
            DBInstanceClass="db.serverless",
            Engine="aurora-postgresql",
            PubliclyAccessible=False,
        )


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., dict[Verdict, str]]:
    """What a check finds of a service, by verdict; PostgreSQL is not asked."""

    def look(
        check: Look, *, host: str = CLUSTER_HOST, iam: bool = True, more: str = ""
    ) -> dict[Verdict, str]:
        config = tmp_path / "dualstore.toml"
        user = "me" if iam else "me:aVerySecretWord"
        config.write_text(
            f'[postgres]\nurl = "postgresql://{user}@{host}/app?sslmode=require"\niam = {str(iam).lower()}\n'
            f'[dynamodb]\nregion = "{REGION}"\n{more}'
        )
        with DualStore.from_config(config, registers=False) as store, DescribingClients(region=REGION) as aws:
            seen = list(check(Patient(configuration=load(config), store=store, aws=aws)))
        assert "aVerySecretWord" not in str(seen)
        return {each.verdict: each.says for each in seen}

    return look


def test_an_aurora_that_is_kept_well_has_no_finding(rds: Any, found: Any) -> None:
    cluster(rds)
    for check in (iam, encryption, safety):
        assert set(found(check)) == {OK}, check


@pytest.mark.parametrize(
    ("check", "changed", "told"),
    [
        (iam, {"EnableIAMDatabaseAuthentication": False}, (PROBLEM, "RDS does not take tokens")),
        (encryption, {"StorageEncrypted": False}, (PROBLEM, "storage is not encrypted")),
        (safety, {"BackupRetentionPeriod": 1}, (ADVICE, "backups are kept for 1 day(s)")),
        (safety, {"DeletionProtection": False}, (ADVICE, "can be deleted by one call")),
    ],
)
def test_an_aurora_that_lacks_something_is_found(
    rds: Any, found: Any, check: Look, changed: dict[str, Any], told: tuple[Verdict, str]
) -> None:
    verdict, says = told
    cluster(rds, **changed)
    assert says in found(check)[verdict]


def test_a_public_instance_without_a_standby_is_found(rds: Any, found: Any) -> None:
    cluster(rds)
    rds.delete_db_instance(DBInstanceIdentifier="standby")
    assert "no standby" in found(safety)[ADVICE]
    rds.modify_db_instance(DBInstanceIdentifier="writer", PubliclyAccessible=True)
    assert "public address" in found(safety)[PROBLEM]


def test_a_password_at_rds_is_advised_against_and_elsewhere_is_not(rds: Any, found: Any) -> None:
    cluster(rds)
    assert "with a password" in found(iam, iam=False)[ADVICE]
    assert set(found(iam, host="db.example", iam=False)) == {OK}


def test_what_no_host_name_tells_is_said_to_be_unknown(found: Any) -> None:
    assert set(found(encryption, host="db.example", iam=False)) == {UNKNOWN}
    assert set(found(safety, host="db.example", iam=False)) == {UNKNOWN}


def test_the_configuration_may_name_the_instance(rds: Any, found: Any) -> None:
    cluster(rds, StorageEncrypted=False)
    more = '[backfill]\ndb_instance = "writer"\n'
    assert set(found(encryption, host="db.example", iam=False, more=more)) == {PROBLEM}


def test_what_pins_connections_is_told_behind_a_proxy_only(found: Any) -> None:
    assert set(found(proxy_pinning)) == {OK}
    assert "pins each connection" in found(proxy_pinning, host=PROXY_HOST)[ADVICE]


@pytest.mark.parametrize(
    ("use", "source"),
    [
        ("nextval('dualstore.revision')", "stores/postgres/statements.py"),
        ("set_config(…, true)", "stores/postgres/sessions.py"),
        ("SET LOCAL", "stores/postgres_rollup.py"),
        ("CREATE TEMPORARY TABLE", "stores/postgres_staging.py"),
        ("pg_advisory_lock", "stores/postgres_runs.py"),
        ("set_config(…, false)", "stores/postgres_runs.py"),
        ("pg_advisory_xact_lock", "stores/postgres/sessions.py"),
    ],
)
def test_what_is_said_to_pin_is_still_used(use: str, source: str) -> None:
    text = (Path(__file__).parents[4] / "src" / "dualstore" / source).read_text()
    assert use.partition("…")[0].removesuffix("(") in text
    assert use in {each for each, _, _ in PINNING}
