"""What of each table's mapping, and of its DynamoDB table, a migration depends on."""

from collections.abc import Iterator, Sequence

from dualstore import schema
from dualstore.errors import SchemaError
from dualstore.mapping import TableMapping
from dualstore.mapping.advice import missing_indexes
from dualstore.rollout.doctor.findings import Finding, advice, ok, problem
from dualstore.rollout.doctor.patient import Patient
from dualstore.store.table import MigratedTable
from dualstore.stores.dynamo_description import description_of
from dualstore.stores.postgres import triggers
from dualstore.stores.postgres.hazards import hazards
from dualstore.stores.postgres.trigger_functions import sql_table

_IN_CODE_POINTS = {"C", "POSIX"}
_COLLATIONS = """
    SELECT a.attname,
        CASE c.collname WHEN 'default' THEN d.datcollate ELSE coalesce(c.collcollate, c.collname) END
    FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation
        JOIN pg_database d ON d.datname = current_database()
    WHERE a.attrelid = to_regclass(:table) AND a.attname = ANY(:columns)"""
_INDEXES = """
    SELECT i.indexrelid::regclass::text, i.indisvalid AND i.indisready,
        ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int[]) WITH ORDINALITY AS k(number, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
            WHERE k.place <= i.indnkeyatts ORDER BY k.place)
    FROM pg_index i WHERE i.indrelid = to_regclass(:table) AND i.indpred IS NULL AND i.indexprs IS NULL"""
# Temporary tables too: they come before all others.
_NAMESAKES = """
    SELECT DISTINCT CASE relpersistence WHEN 't' THEN 'pg_temp' ELSE nspname::text END AS place
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace AND nspname <> 'information_schema'
    WHERE relname = :name AND relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid <> to_regclass(:table)
    ORDER BY place"""


def bookkeeping(patient: Patient) -> Iterator[Finding]:
    """The schema dualstore is of this version, and as the migrations left it."""
    try:
        drift = schema.check(patient.store.engine)
    except SchemaError as error:
        yield problem(str(error), "dualstore schema upgrade")
        return
    for sentence in drift:
        yield problem(f"somebody changed {sentence}", "put it back, then: dualstore schema check")
    if not drift:
        yield ok("the schema dualstore is as the migrations left it", revision=schema.HEAD)


def sql_tables(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """The SQL tables are there, with dualstore's triggers, and nothing of theirs would hurt a mirror."""
    there = [
        name
        for part in table.mapping.parts
        if patient.value("SELECT to_regclass(:table) IS NOT NULL", table=(name := sql_table(part)))
    ]
    for part in table.mapping.parts:
        if sql_table(part) not in there:
            yield problem(f"there is no SQL table {part.table.fullname}", "run the service's own migrations")
    if len(there) < len(table.mapping.parts):
        return
    if not triggers.is_installed(patient.store.engine, table.mapping):
        yield problem(f"{', '.join(there)}: dualstore's triggers are not there", "dualstore schema upgrade")
        return
    found = hazards(patient.store.engine, table.mapping)
    for sentence in found:
        says, _, fix = sentence.rpartition(": ")
        yield problem(says, fix)
    if not found:
        yield ok(f"{', '.join(there)}: triggers are there, and nothing in the way of a mirror")
    for part in table.mapping.parts:
        yield from _namesakes(patient, part)


def _namesakes(patient: Patient, part: TableMapping) -> Iterator[Finding]:
    """Tables that statements would reach in place of a mapped one where `search_path` is another."""
    if part.table.schema is not None:
        return
    name = sql_table(part)
    places = [place for (place,) in patient.rows(_NAMESAKES, name=part.table.name, table=name)]
    if places:
        mine = patient.value(
            "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE c.oid = to_regclass(:table)",
            table=name,
        )
        yield advice(
            f"{name} is in {mine}, which the model does not say, and another of the name in "
            f"{', '.join(places)}: the search_path of a role or an application decides between them",
            f"have the model name its schema: __table_args__ = {{'schema': '{mine}'}}; "
            "then: dualstore schema upgrade",
            schemas=places,
        )


def collations(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """Text columns of keys sort as DynamoDB does, by the bytes of UTF-8."""
    for part in table.mapping.parts:
        name = sql_table(part)
        of_keys = {column.name for column in part.key_columns}
        of_indexes = {
            part.column_of[attribute].name
            for index in part.shape.indexes.values()
            for attribute in index.keys.names
            if attribute in part.column_of
        }
        rows = patient.rows(_COLLATIONS, table=name, columns=sorted(of_keys | of_indexes))
        wrong = [(column, collation) for column, collation in rows if collation not in _IN_CODE_POINTS]
        for column, collation in wrong:
            yield problem(
                f"{name}: key column {column} sorts by {collation}: pages and ranges come in another "
                "order than DynamoDB's",
                f'ALTER TABLE {name} ALTER COLUMN "{column}" TYPE text COLLATE "C"',
                column=column,
                collation=collation,
            )
        if not wrong:
            yield ok(f"{name}: {len(rows)} text column(s) of keys sort by the bytes", columns=len(rows))


def indexes(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """Every query of a secondary index of DynamoDB has an index of PostgreSQL to go by."""
    for part in table.mapping.parts:
        name = sql_table(part)
        present = patient.rows(_INDEXES, table=name)
        for index, valid, _ in present:
            if not valid:
                yield problem(
                    f"{name}: index {index} is invalid: its build broke off",
                    f"REINDEX INDEX CONCURRENTLY {index}",
                )
        served = [list(columns) for _, valid, columns in present if valid]
        found = list(_unserved(part, name, served))
        yield from found
        if part.shape.indexes and not found:
            yield ok(f"{name}: {len(part.shape.indexes)} secondary index(es) of DynamoDB are served")


def _unserved(part: TableMapping, name: str, served: Sequence[Sequence[str]]) -> Iterator[Finding]:
    for index in part.shape.indexes.values():
        if any(attribute not in part.column_of for attribute in index.keys.names):
            for sentence in missing_indexes(part, [index.name]):
                says, _, fix = sentence.rpartition(": ")
                yield advice(says, fix)
            continue
        wanted = [part.column_of[attribute].name for attribute in index.keys.names]
        if not any(columns[: len(wanted)] == wanted for columns in served):
            columns = ", ".join(f'"{each}"' for each in wanted)
            yield problem(
                f"{name}: no index serves queries of DynamoDB's {index.name}: each reads the whole table",
                f"CREATE INDEX CONCURRENTLY ON {name} ({columns})",
                index=index.name,
            )


# -- DynamoDB ------------------------------------------------------------------------------------


def stream(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """The table has a stream with both images, which `live`, the relay and its healing need."""
    described = description_of(patient.dynamodb.describe_table(TableName=table.physical)["Table"])
    if described.streams_images:
        yield ok("the stream has both images", view=described.stream_view)
        return
    enable = (
        f"aws dynamodb update-table --table-name {table.physical} --stream-specification "
        "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"
    )
    if described.stream_view is None:
        yield advice(
            "there is no stream: `live` is refused, and writes past dualstore are not noticed", enable
        )
    else:
        yield problem(
            f"the stream has view type {described.stream_view}, which the relay cannot follow",
            f"disable it (--stream-specification StreamEnabled=false), then {enable}",
            view=described.stream_view,
        )
    if described.other_regions:
        yield problem(
            "the table is replicated to other regions, where writes pass dualstore by",
            "remove the replicas: aws dynamodb update-table --replica-updates Delete={RegionName=…}",
            regions=list(described.other_regions),
        )


def recovery(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """DynamoDB can be restored to any moment of the last weeks, and cannot be deleted by a slip."""
    described = patient.dynamodb.describe_continuous_backups(TableName=table.physical)
    status = described["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if status.get("PointInTimeRecoveryStatus") == "ENABLED":
        yield ok("point-in-time recovery is on")
    else:
        yield problem(
            "point-in-time recovery is off: no export can be taken, and nothing be restored",
            f"aws dynamodb update-continuous-backups --table-name {table.physical} "
            "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
        )
    if not patient.dynamodb.describe_table(TableName=table.physical)["Table"].get(
        "DeletionProtectionEnabled"
    ):
        yield advice(
            "the table can be deleted by one call",
            f"aws dynamodb update-table --table-name {table.physical} --deletion-protection-enabled",
        )


def dynamodb_encryption(patient: Patient, table: MigratedTable) -> Iterator[Finding]:
    """DynamoDB encrypts the table, with a key whose uses can be seen (DynamoDB, "Encryption at rest")."""
    described = patient.dynamodb.describe_table(TableName=table.physical)["Table"].get("SSEDescription", {})
    status, kind = described.get("Status"), described.get("SSEType")
    if described.get("InaccessibleEncryptionDateTime"):
        yield problem(
            "DynamoDB has lost access to the table's key, and archives the table after seven days",
            "enable the KMS key, or give DynamoDB's grant back",
            status=status,
        )
    elif status in {"ENABLED", "ENABLING", "UPDATING"}:
        yield ok("the table is encrypted with a KMS key of the account", status=status, type=kind)
    elif not patient.dynamodb_is_aws:
        yield ok("DynamoDB is a stand-in: how it keeps items is this machine's affair")
    else:
        yield advice(
            "the table is encrypted with a key that AWS owns: nobody sees its uses, or can take it away",
            f"aws dynamodb update-table --table-name {table.physical} --sse-specification "
            "Enabled=true,SSEType=KMS,KMSMasterKeyId=<key>",
        )
