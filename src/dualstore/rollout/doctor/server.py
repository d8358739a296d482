"""What PostgreSQL is and may do: version, settings, roles, connections."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dualstore.rollout.doctor.findings import Finding, Verdict, advice, ok, problem
from dualstore.rollout.doctor.patient import Patient
from dualstore.stores.postgres.trigger_functions import sql_table

_OLDEST = 160_000
_AURORA = "SELECT to_regproc('aurora_version') IS NOT NULL"


def version(patient: Patient) -> Iterator[Finding]:
    """PostgreSQL is of a version that dualstore is tested on, and takes writes."""
    ((number, name, recovering, aurora),) = patient.rows(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
        "pg_is_in_recovery(), to_regproc('aurora_version') IS NOT NULL"
    )
    seen = {"server_version": name, "aurora": aurora, "read_only": recovering}
    if number < _OLDEST:
        yield problem(
            f"PostgreSQL is {name}; dualstore needs 16 or later",
            "aws rds modify-db-cluster --engine-version 16.x --allow-major-version-upgrade, or pg_upgrade",
            **seen,
        )
    if recovering:
        yield problem(
            "postgres.url leads to a replica, which takes no writes", "name the writer endpoint", **seen
        )
    if number >= _OLDEST and not recovering:
        yield ok(f"PostgreSQL {name} takes writes", **seen)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a setting should be.

    Attributes:
        setting: its name.
        wanted: whether its value will do.
        verdict: what it means where it will not.
        why: what comes of it.
        to: what to set it to.
        on_aurora: whether Aurora's value says anything: its storage does without some of PostgreSQL's means.
    """

    setting: str
    wanted: Callable[[str], bool]
    verdict: Verdict
    why: str
    to: str
    on_aurora: bool = True


def _is(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_DURABLE = "acknowledged writes are lost when the server crashes"
_RULES = (
    _Rule("fsync", _is("on"), Verdict.PROBLEM, _DURABLE, "on", on_aurora=False),
    _Rule("full_page_writes", _is("on"), Verdict.PROBLEM, _DURABLE, "on", on_aurora=False),
    _Rule(
        "synchronous_commit",
        _is("on", "local", "remote_write", "remote_apply"),
        Verdict.PROBLEM,
        f"{_DURABLE}, once PostgreSQL is the authority",
        "on",
    ),
    _Rule(
        "autovacuum", _is("on"), Verdict.PROBLEM, "tables and the outbox grow until queries time out", "on"
    ),
    _Rule(
        "server_encoding",
        _is("UTF8"),
        Verdict.PROBLEM,
        "items with other letters are refused",
        "UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
    ),
    _Rule("standard_conforming_strings", _is("on"), Verdict.PROBLEM, "literals are read otherwise", "on"),
    _Rule("default_transaction_read_only", _is("off"), Verdict.PROBLEM, "every write is refused", "off"),
    _Rule(
        "default_transaction_isolation",
        _is("read committed"),
        Verdict.ADVICE,
        "each mirrored write takes BEGIN and COMMIT of its own",
        "'read committed'",
    ),
    _Rule(
        "idle_in_transaction_session_timeout",
        lambda value: value != "0",
        Verdict.ADVICE,
        "a stuck transaction of any client holds locks and keeps vacuum from working, for ever",
        "'60s'",
    ),
    _Rule(
        "shared_preload_libraries",
        lambda value: "pg_stat_statements" in value,
        Verdict.ADVICE,
        "nobody can tell which statements take the time",
        "'pg_stat_statements,…', and restart",
    ),
)


def settings(patient: Patient) -> Iterator[Finding]:
    """PostgreSQL's settings keep what it acknowledges, and let it be looked into."""
    aurora = patient.value(_AURORA)
    query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(:names)"
    rows = patient.rows(query, names=[rule.setting for rule in _RULES])
    found: dict[str, str] = {name: value for name, value in rows}  # noqa: C416 - rows are typed so
    wrong = [
        rule
        for rule in _RULES
        if rule.setting in found and not rule.wanted(found[rule.setting]) and (rule.on_aurora or not aurora)
    ]
    for rule in wrong:
        how = f"ALTER ROLE … SET {rule.setting} = {rule.to}, or in the parameter group"
        says = f"{rule.setting} is {found[rule.setting] or 'empty'}: {rule.why}"
        yield Finding(rule.verdict, says, how, {rule.setting: found[rule.setting]})
    if not wrong:
        yield ok(f"the {len(found)} settings that matter are as they should be", **found)


_ROLE = """
    SELECT current_user, rolsuper, rolcreaterole, rolbypassrls,
        to_regrole('rds_superuser') IS NOT NULL AND pg_has_role(to_regrole('rds_superuser'), 'MEMBER')
    FROM pg_roles WHERE rolname = current_user"""
_TABLE_RIGHTS = """
    SELECT format('%I.%I', n.nspname, c.relname), string_agg(p.name, ', ')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name)
    WHERE ((n.nspname = 'dualstore' AND c.relkind IN ('r', 'p')) OR c.oid = ANY(
            SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) AS t))
        AND NOT CASE WHEN c.relkind IN ('r', 'p') THEN has_table_privilege(c.oid, p.name) ELSE true END
    GROUP BY 1 ORDER BY 1"""
_OTHER_RIGHTS = """
    SELECT 'GRANT USAGE ON SCHEMA dualstore TO %I'
        WHERE NOT has_schema_privilege('dualstore', 'USAGE')
    UNION ALL
    SELECT format('GRANT USAGE ON SEQUENCE dualstore.%I TO %%I', c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'dualstore'
            AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE') END
    UNION ALL
    SELECT format('GRANT EXECUTE ON FUNCTION %s TO %%I', f.oid::regprocedure)
        FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE n.nspname = 'dualstore' AND NOT has_function_privilege(f.oid, 'EXECUTE')
    UNION ALL
    SELECT format('GRANT TEMPORARY ON DATABASE %I TO %%I', current_database())
        WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')"""


def roles(patient: Patient) -> Iterator[Finding]:
    """The service's role may do what dualstore does, and not much more."""
    ((role, is_super, creates_roles, bypasses, rds_super),) = patient.rows(_ROLE)
    seen: dict[str, Any] = {"role": role, "superuser": is_super, "rds_superuser": rds_super}
    findings = list(_too_much(role, seen, powers={"CREATEROLE": creates_roles, "BYPASSRLS": bypasses}))
    if patient.value("SELECT to_regnamespace('dualstore') IS NULL"):
        findings.append(problem("there is no schema dualstore", "dualstore schema upgrade", **seen))
    else:
        findings += _too_little(patient, role)
    yield from findings
    if not findings:
        yield ok(f"role {role} may do what dualstore does, and is no superuser", **seen)


def _too_much(role: str, seen: dict[str, Any], *, powers: dict[str, bool]) -> Iterator[Finding]:
    if seen["superuser"] or seen["rds_superuser"]:
        which = "a superuser" if seen["superuser"] else "a member of rds_superuser"
        yield advice(
            f"the service's role {role} is {which}: whoever takes the service over has the whole server",
            "CREATE ROLE for the service, with the grants of docs/how-to/check-a-deployment.md",
            **seen,
        )
        return
    for power, has in powers.items():
        if has:
            yield advice(f"role {role} has {power}, which no service needs", f'ALTER ROLE "{role}" NO{power}')


def _too_little(patient: Patient, role: str) -> Iterator[Finding]:
    tables = [sql_table(part) for table in patient.store.tables() for part in table.mapping.parts]
    quoted = '"' + role.replace('"', '""') + '"'
    for table, rights in patient.rows(_TABLE_RIGHTS, tables=tables):
        yield problem(f"role {role} may not {rights} on {table}", f"GRANT {rights} ON {table} TO {quoted}")
    for (grant,) in patient.rows(_OTHER_RIGHTS):
        told = grant.replace("%I", quoted)
        yield problem(f"role {role} lacks {told.removeprefix('GRANT ').partition(' TO ')[0]}", told)
