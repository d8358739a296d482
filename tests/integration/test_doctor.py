"""`dualstore doctor` on real databases: each check finds the fault that was planted for it, and else none."""

import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from dualstore import DualStore
from dualstore.cli import main
from dualstore.config import load
from dualstore.rollout.doctor import CHECKS, Check, Finding, Patient, Verdict, examine
from dualstore.rollout.doctor.findings import ok
from dualstore.stages import Side
from dualstore.stores.describing import DescribingClients
from dualstore.testing.servers import DynamoDB, Postgres
from integration.deployment import REGION, Deployment, deployed
from integration.writing import NAME

pytestmark = pytest.mark.usefixtures("patient_doctor")

BY_NAME = {check.name: check for check in CHECKS}


@dataclass
class Clinic:
    """One table on a deployment, and the configuration that names it."""

    deployment: Deployment
    sql_table: str
    physical: str
    config: Path
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    patient: Patient | None = None
    of: str = ""

    def sql(self, statement: str) -> None:
        with self.deployment.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def looked_at(self) -> Patient:
        """The deployment by its present configuration, and by new connections."""
        text = self.config.read_text()
        if self.patient is None or text != self.of:
            self.opened.close()
            configuration = load(self.config)
            endpoint = configuration.dynamodb.endpoint_url
            self.patient, self.of = (
                Patient(
                    configuration=configuration,
                    store=self.opened.enter_context(DualStore.from_config(self.config, registers=False)),
                    aws=self.opened.enter_context(DescribingClients(endpoint_url=endpoint, region=REGION)),
                ),
                text,
            )
        self.patient.store.engine.dispose()
        return self.patient

    def found(self, check: str, **changed: Any) -> list[Finding]:
        """What one check finds, as the command makes it."""
        patient = replace(self.looked_at(), **changed)
        seen = examine(patient, [NAME], checks=[BY_NAME[check]], patience=timedelta(seconds=60))
        return [each.finding for each in seen.found if each.check == check]

    def verdicts(self, check: str, **patient: Any) -> list[Verdict]:
        return [each.verdict for each in self.found(check, **patient)]

    def written(self, *, postgres: str = "", more: str = "", url: str | None = None) -> None:
        """Write the configuration anew."""
        own = self.deployment.engine.url.render_as_string(hide_password=False)
        self.config.write_text(
            f'[postgres]\nurl = "{url or own.replace("+psycopg", "")}"\n{postgres}\n'
            f'[dynamodb]\nendpoint_url = "{self.deployment.endpoint_url}"\nregion = "{REGION}"\n'
            f'bookkeeping_table = "{self.deployment.bookkeeping}"\n{more}\n'
            f'[tables.{NAME}]\nmodel = "{self.models}:Order"\nrow = "{self.models}:OrderRow"\n'
        )

    @property
    def models(self) -> str:
        return f"models_of_{self.sql_table}"


@pytest.fixture(scope="module")
def clinic(
    postgres_server: Postgres,
    dynamodb_server: DynamoDB,
    dynamodb: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Clinic]:
    url = postgres_server.create_database()
    with deployed(url, dynamodb, dynamodb_server.endpoint_url) as deployment:
        model, row = deployment.table()
        physical, sql_name = model.Meta.table_name, row.__tablename__
        made = Clinic(deployment, sql_name, physical, tmp_path_factory.mktemp("doctor") / "dualstore.toml")
        module = sys.modules[made.models] = ModuleType(made.models)
        module.Order, module.OrderRow = model, row  # type: ignore[attr-defined]
        made.written()
        with DualStore.from_config(made.config, registers=False) as store:
            store.prepare()
        made.sql(f'CREATE INDEX by_name_{sql_name} ON "{sql_name}" (name, n)')
        yield made
        made.opened.close()
        del sys.modules[made.models]
    postgres_server.drop_database(url)


@pytest.fixture(autouse=True)
def as_it_was(clinic: Clinic) -> None:
    clinic.written()


Plant = Callable[[Clinic], contextlib.AbstractContextManager[None]]


def planted(done: str, undone: str) -> Plant:
    """A fault that SQL makes and takes away; `{t}` is the table, `{d}` the database."""

    @contextlib.contextmanager
    def plant(clinic: Clinic) -> Iterator[None]:
        names = {"t": f'"{clinic.sql_table}"', "d": f'"{clinic.deployment.engine.url.database}"'}
        clinic.sql(done.format(**names))
        try:
            yield
        finally:
            clinic.sql(undone.format(**names))

    return plant


FAULTS: dict[str, tuple[str, Plant, str]] = {
    "a setting that loses writes": (
        "server-settings",
        planted(
            "ALTER DATABASE {d} SET synchronous_commit = off", "ALTER DATABASE {d} RESET synchronous_commit"
        ),
        "synchronous_commit is off",
    ),
    "a key column in a language's order": (
        "collations",
        planted(
            "CREATE COLLATION spoken (locale = 'C.UTF-8'); "
            "ALTER TABLE {t} ALTER COLUMN pk TYPE text COLLATE spoken",
            'ALTER TABLE {t} ALTER COLUMN pk TYPE text COLLATE "C"; DROP COLLATION spoken',
        ),
        "key column pk sorts by C.UTF-8",
    ),
    "an index that is missing": (
        "indexes",
        planted("ALTER TABLE {t} RENAME COLUMN name TO other", "ALTER TABLE {t} RENAME COLUMN other TO name"),
        "no index serves queries of DynamoDB's by-name",
    ),
    "triggers that are gone": (
        "sql-tables",
        planted("ALTER TABLE {t} DISABLE TRIGGER USER", "ALTER TABLE {t} ENABLE TRIGGER USER"),
        "triggers are not there",
    ),
    "a constraint that a mirror cannot keep": (
        "sql-tables",
        planted("ALTER TABLE {t} ADD CONSTRAINT one UNIQUE (n)", "ALTER TABLE {t} DROP CONSTRAINT one"),
        "constraint one is checked at once",
    ),
    "bookkeeping that was changed by hand": (
        "bookkeeping",
        planted(
            "ALTER TABLE dualstore.dirty ADD COLUMN stray text",
            "ALTER TABLE dualstore.dirty DROP COLUMN stray",
        ),
        "somebody changed dualstore.dirty, column stray",
    ),
    "a database that few may enter": (
        "connections",
        planted("ALTER DATABASE {d} CONNECTION LIMIT 5", "ALTER DATABASE {d} CONNECTION LIMIT -1"),
        "some will be refused",
    ),
    "values in the log": (
        "audit-log",
        planted("ALTER DATABASE {d} SET log_statement = 'all'", "ALTER DATABASE {d} RESET log_statement"),
        "log_statement = all",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_with_its_fix_and_is_gone_when_it_is_mended(
    clinic: Clinic, fault: str
) -> None:
    check, plant, says = FAULTS[fault]
    if check != "server-settings":  # this server has fsync = off, for the tests' speed
        assert Verdict.PROBLEM not in clinic.verdicts(check)
    with plant(clinic):
        (found,) = [each for each in clinic.found(check) if says in each.says]
    assert found.verdict is Verdict.PROBLEM
    assert found.fix
    assert not any(says in each.says for each in clinic.found(check))


def test_another_table_of_the_name_is_told_of_where_the_model_names_no_schema(clinic: Clinic) -> None:
    plant = planted(
        "CREATE SCHEMA tenant; CREATE TABLE tenant.{t} (n int)", "DROP TABLE tenant.{t}; DROP SCHEMA tenant"
    )
    with plant(clinic):
        well, told = clinic.found("sql-tables")
    assert (well.verdict, told.verdict) == (Verdict.OK, Verdict.ADVICE)
    assert "is in public" in told.says
    assert "another of the name in tenant:" in told.says
    assert "__table_args__ = {'schema': 'public'}" in told.fix


@pytest.mark.parametrize(
    "check",
    [
        *("postgres-connection", "dynamodb-connection", "tls", "iam-authentication", "server-version"),
        *("proxy-pinning", "clocks", "bookkeeping", "flags", "sql-tables", "collations", "indexes"),
        *("connections", "instance-size", "postgres-encryption", "dynamodb-encryption", "convergence"),
    ],
)
def test_a_check_has_nothing_to_say_against_a_deployment_that_is_well(clinic: Clinic, check: str) -> None:
    assert set(clinic.verdicts(check)) == {Verdict.OK}


def test_settings_that_lose_writes_in_a_crash_are_found_on_the_server_of_the_tests(clinic: Clinic) -> None:
    found = [each for each in clinic.found("server-settings") if each.verdict is Verdict.PROBLEM]
    assert [each.says.partition(" is ")[0] for each in found] == ["fsync"]


@pytest.fixture
def service(clinic: Clinic) -> Iterator[str]:
    """A role that may do nothing yet, of which the configuration makes the service."""
    role = f"service_{uuid.uuid4().hex[:8]}"
    clinic.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'aVerySecretWord'")
    url = clinic.deployment.engine.url.set(drivername="postgresql", username=role, password="aVerySecretWord")
    clinic.written(url=url.render_as_string(hide_password=False))
    yield role
    clinic.sql(f"DROP OWNED BY {role}")
    clinic.sql(f"DROP ROLE {role}")


def test_the_grants_that_a_role_lacks_are_named_and_are_enough(clinic: Clinic, service: str) -> None:
    grants = []
    for _ in range(2):  # tables are not seen through a schema that may not be used
        found = [each for each in clinic.found("roles") if each.verdict is Verdict.PROBLEM]
        assert found
        for each in found:
            assert each.fix.startswith("GRANT ")
            clinic.sql(each.fix)
            grants.append(each.fix)
        if set(clinic.verdicts("roles")) == {Verdict.OK}:
            break
    assert f'GRANT USAGE ON SCHEMA dualstore TO "{service}"' in grants
    assert set(clinic.verdicts("roles")) == {Verdict.OK}
    clinic.sql(f'REVOKE DELETE ON "{clinic.sql_table}" FROM {service}')
    (lacking,) = clinic.found("roles")
    assert lacking.fix == f'GRANT DELETE ON public.{clinic.sql_table} TO "{service}"'


def test_a_superuser_is_advised_against(clinic: Clinic) -> None:
    (found,) = clinic.found("roles")
    assert found.verdict is Verdict.ADVICE
    assert "is a superuser" in found.says


def test_a_clock_that_is_off_is_found_on_both_sides(clinic: Clinic) -> None:
    assert clinic.verdicts("clocks", clock=lambda: time.time() - 10) == [Verdict.ADVICE] * 2
    assert clinic.verdicts("clocks", clock=lambda: time.time() + 100) == [Verdict.PROBLEM] * 2


def test_a_stream_is_advised_and_one_without_images_is_a_problem(clinic: Clinic) -> None:
    client = clinic.deployment.dynamodb
    assert clinic.verdicts("stream") == [Verdict.ADVICE]
    for view, verdict in (("KEYS_ONLY", Verdict.PROBLEM), ("NEW_AND_OLD_IMAGES", Verdict.OK)):
        on = {"StreamEnabled": True, "StreamViewType": view}
        client.update_table(TableName=clinic.physical, StreamSpecification=on)
        assert clinic.verdicts("stream") == [verdict]
        client.update_table(TableName=clinic.physical, StreamSpecification={"StreamEnabled": False})


def test_flags_that_cannot_be_had_are_found(clinic: Clinic, tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    clinic.written(more=f'[flags]\nkind = "file"\npath = "{path}"')
    assert clinic.verdicts("flags") == [Verdict.PROBLEM]
    path.write_text(json.dumps({"flagValues": {f"dualstore-{NAME}-stage": "sideways"}}))
    assert Verdict.PROBLEM in clinic.verdicts("flags")


def test_a_pool_larger_than_the_server_is_found(clinic: Clinic) -> None:
    clinic.written(postgres="pool_size = 90\nmax_overflow = 5")
    (found,) = clinic.found("connections")
    assert found.verdict is Verdict.ADVICE
    clinic.written(postgres="pool_size = 90\nmax_overflow = 90")
    (found,) = clinic.found("connections")
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence["needed"] == 180


def test_an_instance_that_has_memory_for_more_connections_is_found(clinic: Clinic) -> None:
    clinic.written(more='[backfill]\ndb_instance = "writer"')
    with mock_aws():
        rds = boto3.client("rds", region_name=REGION)
        rds.create_db_cluster(
            DBClusterIdentifier="main",
            Engine="aurora-postgresql",
            MasterUsername="administrator",
            MasterUserPassword="aVerySecretWord",
            ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 1},
        )
        rds.create_db_instance(
            DBInstanceIdentifier="writer",
            DBClusterIdentifier="main",
            DBInstanceClass="db.serverless",
            Engine="aurora-postgresql",
        )
        (found,) = clinic.found("instance-size")
        audited = clinic.found("audit-log")
    assert found.verdict is Verdict.ADVICE
    assert (found.evidence["max_connections"], found.evidence["by_its_memory"]) == (100, 189)
    assert "log does not leave the instance" in audited[-1].says


# One failing check, and databases that are away


def test_a_check_that_fails_or_hangs_stops_no_other_and_tells_no_value(clinic: Clinic) -> None:
    def fails(_: Patient) -> Iterator[Finding]:
        yield ok("so far")
        raise ValueError("aVerySecretWord")

    over = threading.Event()

    def hangs(_: Patient) -> Iterator[Finding]:
        over.wait(60)
        yield ok("never")

    def looks(patient: Patient) -> Iterator[Finding]:
        yield ok(str(patient.value("SELECT 1")))

    none: frozenset[Any] = frozenset()
    checks = [
        Check(name=look.__name__, asks="", of=none, on=none, look=look) for look in (fails, hangs, looks)
    ]
    seen = examine(clinic.looked_at(), checks=checks, patience=timedelta(seconds=5))
    over.set()
    told = {(each.check, each.finding.verdict) for each in seen.found[2:]}
    assert told == {
        *(("fails", Verdict.OK), ("fails", Verdict.UNKNOWN)),
        *(("hangs", Verdict.UNKNOWN), ("looks", Verdict.OK)),
    }
    assert "aVerySecretWord" not in str(seen)


def run(clinic: Clinic, *arguments: str) -> Any:
    credentials = {"AWS_ACCESS_KEY_ID": "dualstore", "AWS_SECRET_ACCESS_KEY": "dualstore"}
    return CliRunner(env=credentials).invoke(main, ["doctor", *arguments, "--config", str(clinic.config)])


@pytest.mark.parametrize("lost", list(Side))
def test_a_database_that_is_away_ends_in_3_and_the_other_is_looked_at(clinic: Clinic, lost: Side) -> None:
    away = {Side.POSTGRES: "postgresql://me:aVerySecretWord@127.0.0.1:9/none", Side.DYNAMODB: None}[lost]
    clinic.written(url=away)
    if lost is Side.DYNAMODB:
        text = clinic.config.read_text().replace(clinic.deployment.endpoint_url, "http://127.0.0.1:9")
        clinic.config.write_text(text)
    outcome = run(clinic, "--json")
    assert outcome.exit_code == 3, outcome.output
    document = json.loads(outcome.stdout)
    assert document["unreachable"] == [lost.value]
    seen = {each["check"]: each["verdict"] for each in document["findings"]}
    other = {Side.POSTGRES: "dynamodb-connection", Side.DYNAMODB: "server-settings"}[lost]
    assert seen[other] != "could not look"
    (collations,) = (each for each in document["findings"] if each["check"] == "collations")
    name = {Side.POSTGRES: "PostgreSQL", Side.DYNAMODB: "DynamoDB"}[lost]
    assert collations["says"] == f"not asked: {name} does not answer"
    assert "aVerySecretWord" not in outcome.output


def test_the_command_says_each_problem_with_its_fix_and_ends_in_1(clinic: Clinic) -> None:
    outcome = run(clinic, NAME)
    assert outcome.exit_code == 1, outcome.output
    assert "PROBLEM  server-settings: fsync is off" in outcome.output
    assert "fix: ALTER ROLE" in outcome.output
    assert clinic.deployment.engine.url.password not in outcome.output


@pytest.mark.parametrize("checklist", ["data-integrity", "performance", "security"])
def test_a_checklist_has_its_checks_with_evidence_and_no_other(clinic: Clinic, checklist: str) -> None:
    outcome = run(clinic, "--checklist", checklist)
    assert outcome.exit_code in {0, 1}, outcome.output
    assert "seen: " in outcome.output
    on = {name for name, check in BY_NAME.items() if checklist in {str(each) for each in check.on}}
    reaching = {"postgres-connection", "dynamodb-connection"}
    named = {name for name in BY_NAME if f" {name}: " in outcome.output or f" {name} of " in outcome.output}
    assert named == on | reaching


def test_a_table_that_nobody_knows_is_wrong_usage(clinic: Clinic) -> None:
    assert run(clinic, "nothing").exit_code == 2
