"""First versions of the two files of a migration: `dualstore.toml`, and the plan."""

from collections.abc import Mapping, Sequence

_CONFIGURATION = """\
# What dualstore reads; DUALSTORE_… variables win over it. docs/reference/configuration.md has every key.

environment = "production"  # a plan names the same; load tests run in "staging" only

[postgres]
# Leave the password out: set DUALSTORE_POSTGRES__URL in the environment instead.
url = "postgresql://dualstore@localhost/service"

[dynamodb]
region = "us-east-1"

[flags]
kind = "file"
path = "flags.json"
"""
_TABLE = """
[tables.{name}]
model = "{model}"
"""
_NO_TABLES = """
# [tables.orders]
# model = "service.models:Order"
# row = "service.rows:OrderRow"
"""
_PLAN = """\
# yaml-language-server: $schema=migration-plan.schema.json
# A migration from DynamoDB to PostgreSQL: `dualstore plan show {file}` says it in words,
# `dualstore plan run {file}` carries it out, `dualstore plan rollback {file}` goes back.
plan: {name}
environment: production
tables: [{tables}]

# No step begins outside of it; rollbacks do not wait.
window: {{days: mon-fri, hours: "09:00-17:00", timezone: Etc/UTC}}

# What every step of the traffic has to show; a step may have gates of its own.
gates:
  verified_within: 24h
  mismatch_percent: 0.1
  error_percent: 0.1
  latency_increase_percent: 20
  # p99_ms: 50

stages:
  - stage: pre-deployment
    steps:
      - verify_database_connection
      - step: backup_dynamodb
        point_in_time_recovery: required
      - step: run_schema_migrations
        # command: [alembic, upgrade, head]

  - stage: data-migration
    steps:
      - start_dual_writing
      - migrate_historical_data
      - step: verify_data_integrity
        repair: true

  - stage: traffic-shift
    steps:
      - enable_feature_flag
      - step: gradual_traffic_increase
        schedule: [1, 5, 10, 25, 50, 100]
        soak: 24h
        patience: 24h
      - step: monitor_error_rates
        soak: 3d
        patience: 24h
      - step: flip_authority
        approval: required
        soak: 7d
        patience: 24h

  - stage: cleanup
    steps:
      - rampdown
      - step: verify_all_traffic_postgres
        soak: 24h
      - step: stop_dual_writing
        approval: four-eyes
      - step: backup_verification
        scratch_url_variable: DUALSTORE_SCRATCH_URL
"""


def draft_configuration(models: Mapping[str, tuple[str, str | None]]) -> str:
    """The text of a `dualstore.toml`.

    Args:
        models: by logical name, the import paths of the PynamoDB model and of the SQL model, if there is one.
    """
    tables = "".join(
        _TABLE.format(name=name, model=model) + ("" if row is None else f'row = "{row}"\n')
        for name, (model, row) in models.items()
    )
    return _CONFIGURATION + (tables or _NO_TABLES)


def draft_plan(tables: Sequence[str], *, name: str, file: str) -> str:
    """The text of a plan that moves some tables, with the usual steps.

    Args:
        tables: their logical names.
        name: of the plan, in the record.
        file: where it will be, for its comments.
    """
    return _PLAN.format(name=name, file=file, tables=", ".join(tables))
