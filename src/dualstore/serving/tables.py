"""Tables on PostgreSQL alone, made by CreateTable: their definitions, and the operations on them."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from dualstore.errors import RequestRejected, invalid
from dualstore.items import table_shape_from_description
from dualstore.mapping import TableMapping, unmapped_table
from dualstore.serving.definitions import Definition, check_name, created, table_arn, updated
from dualstore.stores.postgres_transaction import explained, transaction
from dualstore.stores.semantics.constraints import Fault, at_least, at_most, refusal

Response = dict[str, Any]

SQL_SCHEMA = "dualstore_served"
"""The SQL schema of the tables; the application's own are elsewhere."""

_FRESH_SECONDS = 1.0
_NAME_CHARACTERS = 50
_MAX_LISTED = 100
_LOCK = 0x6475616C  # "dual"
_READ = 'SELECT definition FROM dualstore.served_tables ORDER BY name COLLATE "C"'
_READ_ONE = "SELECT definition FROM dualstore.served_tables WHERE name = %s"
_ADD = (
    "INSERT INTO dualstore.served_tables (name, definition) VALUES (%s, %s) "
    "ON CONFLICT (name) DO NOTHING RETURNING name"
)
_CHANGE = "UPDATE dualstore.served_tables SET definition = %s WHERE name = %s"
_REMOVE = "DELETE FROM dualstore.served_tables WHERE name = %s"
_FORGET = "DELETE FROM dualstore.tombstones WHERE table_name = %s"


class ServedTables:
    """The tables of one PostgreSQL, with DynamoDB's operations on tables.

    Several processes may serve one PostgreSQL: what one changes the others see when they are asked for it.
    For the operations on items they look every second, and at once where they do not know a table. Each
    table created has a SQL table of its own, whose name nothing has had before.

    Args:
        engine: the database, where the schema `dualstore` has been created.
        mappings: filled with the mapping of each table by its name; a store shares it.
        now: tells the time, in seconds since the epoch.
        monotonic: tells how old what is known is, in seconds.
    """

    def __init__(
        self,
        engine: sa.Engine,
        mappings: dict[str, TableMapping],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._mappings = mappings
        self._definitions: Mapping[str, Definition] = {}
        self._now = now
        self._monotonic = monotonic
        self._known_until = float("-inf")
        self._lock = Lock()
        self.operations: Mapping[str, Callable[[Mapping[str, Any]], Response]] = {
            "CreateTable": self._create,
            "DeleteTable": self._delete,
            "DescribeTable": self._describe,
            "ListTables": self._list,
            "UpdateTable": self._update,
            "UpdateTimeToLive": self._update_ttl,
            "DescribeTimeToLive": self._describe_ttl,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsOfResource": self._tags,
            "DescribeContinuousBackups": self._describe_backups,
            "DescribeEndpoints": lambda _: {"Endpoints": []},
        }

    def expiring(self) -> Mapping[str, str]:
        """The tables whose items expire, each with the attribute that says when."""
        return {
            name: definition["_ttl"] for name, definition in self._definitions.items() if "_ttl" in definition
        }

    @property
    def names(self) -> list[str]:
        """The names of all tables, in order."""
        return sorted(self._definitions)

    def sql_tables(self, names: Iterable[str]) -> Mapping[str, str]:
        """The SQL tables of those of these tables that are known."""
        found = {name: self._mappings.get(name) for name in names}
        return {name: mapping.table.name for name, mapping in found.items() if mapping is not None}

    def look(self) -> None:
        """Read the definitions again where they are older than a second, unless another thread is about to.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        if self._monotonic() < self._known_until or not self._lock.acquire(blocking=False):
            return
        try:
            self._load()
        finally:
            self._lock.release()

    def reload(self) -> bool:
        """Read the definitions of all tables; whether there was anything new.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        with self._lock:
            return self._load()

    def _load(self) -> bool:
        with transaction(self._engine, "Reading the served tables") as cursor:
            cursor.execute(_READ)
            found = {row[0]["TableName"]: row[0] for row in cursor.fetchall()}
        self._known_until = self._monotonic() + _FRESH_SECONDS
        if found == self._definitions:
            return False
        for name, definition in found.items():
            if self._definitions.get(name) != definition:
                self._mappings[name] = _mapping(definition)
        for gone in self._mappings.keys() - found.keys():
            del self._mappings[gone]
        self._definitions = found
        return True

    @contextmanager
    def _alone(self, doing: str) -> Iterator[sa.Connection]:
        """A transaction in which nobody else changes tables."""
        with explained(doing), self._engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK:d})")
            yield connection
        self.reload()

    def _named(self, request: Mapping[str, Any]) -> Definition:
        name = _name_in(request)
        self.reload()
        return _found(self._definitions.get(name), name)

    def _changed(self, name: str, change: Callable[[Definition], Definition]) -> Definition:
        with self._alone("Changing a served table") as connection:
            row = connection.exec_driver_sql(_READ_ONE, (name,)).first()
            definition = change(_found(None if row is None else row[0], name))
            connection.exec_driver_sql(_CHANGE, (Jsonb(dict(definition)), name))
        return definition

    def _create(self, request: Mapping[str, Any]) -> Response:
        definition = dict(created(request, now=self._now()))
        name = definition["TableName"]
        definition |= {"_tags": _tags_of(request), "_sql_name": _sql_name(name)}
        with self._alone("Creating a table") as connection:
            if connection.exec_driver_sql(_ADD, (name, Jsonb(definition))).first() is None:
                raise RequestRejected("ResourceInUseException", f"Table already exists: {name}")
            connection.execute(sa.schema.CreateSchema(SQL_SCHEMA, if_not_exists=True))
            _mapping(definition).table.create(connection)
        return {"TableDescription": _told(definition)}

    def _delete(self, request: Mapping[str, Any]) -> Response:
        name = _name_in(request)
        with self._alone("Removing a table") as connection:
            row = connection.exec_driver_sql(_READ_ONE, (name,)).first()
            definition = _found(None if row is None else row[0], name)
            if definition.get("DeletionProtectionEnabled"):
                raise invalid(
                    f"Resource cannot be deleted as it is currently protected against deletion: Table: {name}"
                )
            _mapping(definition).table.drop(connection)
            connection.exec_driver_sql(_REMOVE, (name,))
            connection.exec_driver_sql(_FORGET, (name,))
        return {"TableDescription": {**_told(definition), "TableStatus": "DELETING"}}

    def _describe(self, request: Mapping[str, Any]) -> Response:
        return {"Table": _told(self._named(request))}

    def _list(self, request: Mapping[str, Any]) -> Response:
        limit = request.get("Limit", _MAX_LISTED)
        if limit < 1:
            raise refusal([Fault(str(limit), "limit", at_least(1))])
        if limit > _MAX_LISTED:
            raise refusal([Fault(str(limit), "limit", at_most(_MAX_LISTED))])
        self.reload()
        after = request.get("ExclusiveStartTableName")
        rest = [name for name in self.names if after is None or name > after]
        answer: Response = {"TableNames": rest[:limit]}
        if len(rest) > limit:
            answer["LastEvaluatedTableName"] = rest[limit - 1]
        return answer

    def _update(self, request: Mapping[str, Any]) -> Response:
        name = _name_in(request)
        changed = self._changed(name, lambda definition: updated(definition, request, now=self._now()))
        return {"TableDescription": _told(changed)}

    def _update_ttl(self, request: Mapping[str, Any]) -> Response:
        asked = request.get("TimeToLiveSpecification") or {}
        attribute, enabled = asked.get("AttributeName"), asked.get("Enabled")
        if not attribute or enabled is None:
            place = "attributeName" if enabled is not None else "enabled"
            raise refusal([Fault(None, f"timeToLiveSpecification.{place}", "Member must not be null")])

        def change(definition: Definition) -> Definition:
            if enabled == ("_ttl" in definition):
                raise invalid(f"TimeToLive is already {'enabled' if enabled else 'disabled'}")
            kept = {name: value for name, value in definition.items() if name != "_ttl"}
            return {**kept, "_ttl": attribute} if enabled else kept

        self._changed(_name_in(request), change)
        return {"TimeToLiveSpecification": {"AttributeName": attribute, "Enabled": enabled}}

    def _describe_ttl(self, request: Mapping[str, Any]) -> Response:
        attribute = self._named(request).get("_ttl")
        if attribute is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": attribute}}

    def _describe_backups(self, request: Mapping[str, Any]) -> Response:
        self._named(request)
        return {"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "DISABLED"}}

    def _tagged(self, request: Mapping[str, Any]) -> str:
        """The name of the table of an ARN."""
        arn = str(request.get("ResourceArn") or "")
        name = arn.rpartition(":table/")[2]
        if not name or not arn.startswith("arn:aws:dynamodb:"):
            raise invalid("Invalid TableArn: it is no ARN of a table")
        self.reload()
        if name not in self._definitions:
            raise RequestRejected(
                "AccessDeniedException", f"Not authorized to perform this action on {table_arn('…')}"
            )
        return name

    def _tag(self, request: Mapping[str, Any]) -> Response:
        tags = _tags_of(request)
        self._changed(
            self._tagged(request), lambda known: {**known, "_tags": {**known.get("_tags", {}), **tags}}
        )
        return {}

    def _untag(self, request: Mapping[str, Any]) -> Response:
        gone = set(request.get("TagKeys") or ())

        def change(known: Definition) -> Definition:
            kept = {key: value for key, value in known.get("_tags", {}).items() if key not in gone}
            return {**known, "_tags": kept}

        self._changed(self._tagged(request), change)
        return {}

    def _tags(self, request: Mapping[str, Any]) -> Response:
        name = self._tagged(request)
        tags = self._definitions.get(name, {}).get("_tags", {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _name_in(request: Mapping[str, Any]) -> str:
    """The name of the table that a request is about, which may give its ARN."""
    name: str | None = request.get("TableName")
    return check_name(None if name is None else name.rpartition(":table/")[2])


def _found(definition: Definition | None, name: str) -> Definition:
    if definition is None:
        raise RequestRejected(
            "ResourceNotFoundException", f"Requested resource not found: Table: {name} not found"
        )
    return definition


def _mapping(definition: Definition) -> TableMapping:
    return unmapped_table(
        definition["TableName"],
        table_shape_from_description(definition),
        table_name=definition["_sql_name"],
        metadata=sa.MetaData(schema=SQL_SCHEMA),
    )


def _told(definition: Definition) -> Response:
    """A definition as it is described: what is kept beside it has operations of its own."""
    return {name: value for name, value in definition.items() if not name.startswith("_")}


def _tags_of(request: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}


def _sql_name(name: str) -> str:
    """A SQL table's name that nothing has had: statements prepared for a table before must not meet it."""
    return f"{name[:_NAME_CHARACTERS]}-{secrets.token_hex(4)}"
