"""What the parameters of a request are checked for one by one; all that is wrong stands in one message.

Source: the constraints of each parameter in the Amazon DynamoDB API Reference, and the wording of the answers
that nubo-db/dynamodb-conformance has from AWS. A message tells names, sizes and choices, never an item's
value: where DynamoDB repeats a whole list of items, it tells how many there are.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from dualstore.errors import RequestRejected, invalid
from dualstore.operations import (
    BatchGetItem,
    BatchWriteItem,
    Operation,
    Query,
    TransactGetItems,
    Transaction,
    TransactWriteItems,
)

MAX_BATCH_READS = 100
MAX_BATCH_WRITES = 25
MAX_TRANSACTION_ACTIONS = 100
MAX_SEGMENTS = 1_000_000
_MAX_TOKEN_LENGTH = 36

_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_MAX_NAME_LENGTH = 255
_NOT_NULL = "Member must not be null"


class Fault(NamedTuple):
    """One parameter that cannot be.

    Attributes:
        told: what it is, in the words of the message; None: it is missing.
        place: where it stands in the request, as DynamoDB writes it.
        why: the constraint that it does not satisfy.
    """

    told: str | None
    place: str
    why: str


def refusal(faults: Sequence[Fault]) -> RequestRejected:
    """DynamoDB's error for parameters that do not satisfy their constraints."""
    said = "; ".join(
        f"Value {_quoted(told)} at '{place}' failed to satisfy constraint: {why}"
        for told, place, why in faults
    )
    return invalid(f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected: {said}")


def _quoted(told: str | None) -> str:
    return "null" if told is None else f"'{told}'"


Check: TypeAlias = Callable[[Any], tuple[str, str] | None]
"""What is told of a value and the constraint that it does not satisfy; None: all is well."""


class _Parameter(NamedTuple):
    name: str
    place: str
    check: Check | None
    required: bool


def _parameter(name: str, check: Check | None = None, *, required: bool = False) -> _Parameter:
    return _Parameter(name, name[0].lower() + name[1:], check, required)


def at_least(least: int) -> str:
    """The constraint on a number."""
    return f"Member must have value greater than or equal to {least}"


def at_most(most: int) -> str:
    """The constraint on a number."""
    return f"Member must have value less than or equal to {most}"


def no_shorter(least: int) -> str:
    """The constraint on a length."""
    return f"Member must have length greater than or equal to {least}"


def no_longer(most: int) -> str:
    """The constraint on a length."""
    return f"Member must have length less than or equal to {most}"


def _one_of(*choices: str) -> Check:
    why = f"Member must satisfy enum value set: [{', '.join(choices)}]"
    return lambda value: None if value in choices else (str(value), why)


def _from(least: int, most: int | None = None) -> Check:
    def check(value: int) -> tuple[str, str] | None:
        if value < least:
            return str(value), at_least(least)
        if most is not None and value > most:
            return str(value), at_most(most)
        return None

    return check


@lru_cache(1_024)
def table_name_fault(name: str) -> tuple[str, str] | None:
    """Why this cannot name a table, if it cannot; an ARN can."""
    if not name:
        return name, no_shorter(1)
    if name.startswith("arn:"):
        return None
    if len(name) > _MAX_NAME_LENGTH:
        return name, no_longer(_MAX_NAME_LENGTH)
    if _NAME.fullmatch(name) is None:
        return name, f"Member must satisfy regular expression pattern: {_NAME.pattern}"
    return None


def _actions(entries: Sequence[Any]) -> tuple[str, str] | None:
    if not entries:
        return "[]", no_shorter(1)
    if len(entries) > MAX_TRANSACTION_ACTIONS:
        return f"[{len(entries)} actions]", no_longer(MAX_TRANSACTION_ACTIONS)
    return None


def _token(token: str) -> tuple[str, str] | None:
    if not token:
        return "", no_shorter(1)
    if len(token) > _MAX_TOKEN_LENGTH:
        return f"{len(token)} characters", no_longer(_MAX_TOKEN_LENGTH)
    return None


_CAPACITY = _parameter("ReturnConsumedCapacity", _one_of("INDEXES", "TOTAL", "NONE"))
_COLLECTIONS = _parameter("ReturnItemCollectionMetrics", _one_of("SIZE", "NONE"))
_TABLE = _parameter("TableName", table_name_fault, required=True)
_KEY = _parameter("Key", required=True)
_ITEM = _parameter("Item", required=True)
_RETURNED = _parameter("ReturnValues", _one_of("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"))
_RETURNED_ON_REFUSAL = _parameter("ReturnValuesOnConditionCheckFailure", _one_of("ALL_OLD", "NONE"))
_SELECT = _parameter(
    "Select", _one_of("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")
)
_WRITTEN = (_COLLECTIONS, _RETURNED, _RETURNED_ON_REFUSAL)

# By operation, or by the kind of an action in a transaction; in the order in which they are told.
_PARAMETERS: Mapping[str, Sequence[_Parameter]] = {
    "GetItem": (_CAPACITY, _TABLE, _KEY),
    "PutItem": (_CAPACITY, _TABLE, _ITEM, *_WRITTEN),
    "UpdateItem": (_CAPACITY, _TABLE, _KEY, *_WRITTEN),
    "DeleteItem": (_CAPACITY, _TABLE, _KEY, *_WRITTEN),
    "Query": (_CAPACITY, _TABLE, _SELECT),
    "Scan": (
        _CAPACITY,
        _TABLE,
        _SELECT,
        _parameter("Limit", _from(1)),
        _parameter("Segment", _from(0, MAX_SEGMENTS - 1)),
        _parameter("TotalSegments", _from(1, MAX_SEGMENTS)),
    ),
    "BatchGetItem": (_CAPACITY, _parameter("RequestItems", required=True)),
    "BatchWriteItem": (_CAPACITY, _COLLECTIONS, _parameter("RequestItems", required=True)),
    "TransactGetItems": (_CAPACITY, _parameter("TransactItems", _actions, required=True)),
    "TransactWriteItems": (
        _CAPACITY,
        _COLLECTIONS,
        _parameter("TransactItems", _actions, required=True),
        _parameter("ClientRequestToken", _token),
    ),
    "Get": (_TABLE, _KEY),
    "Put": (_TABLE, _ITEM, _RETURNED_ON_REFUSAL),
    "Update": (_TABLE, _KEY, _parameter("UpdateExpression", required=True), _RETURNED_ON_REFUSAL),
    "Delete": (_TABLE, _KEY, _RETURNED_ON_REFUSAL),
    "ConditionCheck": (
        _TABLE,
        _KEY,
        _parameter("ConditionExpression", required=True),
        _RETURNED_ON_REFUSAL,
    ),
}


def check_constraints(operation: Operation) -> None:
    """Reject parameters that are missing, or that cannot be whatever else the request says.

    Raises:
        RequestRejected: with all of them; a table's name that cannot be is told alone, as DynamoDB does.
    """
    faults = list(_faults(operation.name, operation.request))
    if not faults and type(operation) in _PARTS:
        faults = list(_PARTS[type(operation)](operation))
    if faults:
        raise refusal([fault for fault in faults if fault.place == "tableName"] or faults)


def _faults(kind: str, request: Mapping[str, Any], within: str = "") -> Iterator[Fault]:
    for name, place, check, required in _PARAMETERS[kind]:
        value = request.get(name)
        if value is None:
            if required:
                yield Fault(None, within + place, _NOT_NULL)
        elif check is not None and (found := check(value)) is not None:
            told, why = found
            yield Fault(told, within + place, why)


def _query_faults(operation: Query) -> Iterator[Fault]:
    """Of a Query the limit is told in words of its own."""
    if operation.limit is not None and operation.limit < 1:
        raise invalid(
            f"1 validation error detected: Value at 'Limit' failed to satisfy constraint: {at_least(1)}"
        )
    return iter(())


def _named_tables(operation: Operation) -> Mapping[str, Any]:
    """RequestItems, not empty, with names that tables can have."""
    asked: Mapping[str, Any] = operation.request["RequestItems"]
    if not asked:
        raise invalid(f"The requestItems parameter is required for {operation.name}")
    for table in asked:
        found = table_name_fault(table)
        if found is not None:
            raise refusal(
                [Fault(found[0], "requestItems", f"Map keys must satisfy constraint: [{found[1]}]")]
            )
    return asked


def _batch_get_faults(operation: BatchGetItem) -> Iterator[Fault]:
    count = 0
    for table, asked in _named_tables(operation).items():
        keys = asked.get("Keys")
        place = f"requestItems.{table}.member.keys"
        if keys is None:
            yield Fault(None, place, _NOT_NULL)
        elif not keys:
            yield Fault("[]", place, no_shorter(1))
        elif len(keys) > MAX_BATCH_READS:
            raise invalid(
                f"1 validation error detected: Value at 'RequestItems.{table}.member.Keys' failed to satisfy "
                f"constraint: {no_longer(MAX_BATCH_READS)}"
            )
        else:
            count += len(keys)
    if count > MAX_BATCH_READS:
        raise invalid("Too many items requested for the BatchGetItem call")


def _batch_write_faults(operation: BatchWriteItem) -> Iterator[Fault]:
    asked = _named_tables(operation)
    for table, entries in asked.items():
        if not 1 <= len(entries) <= MAX_BATCH_WRITES:
            told = f"[{len(entries)} requests]" if entries else "[]"
            why = f"Map value must satisfy constraint: [{no_longer(MAX_BATCH_WRITES)}, {no_shorter(1)}]"
            yield Fault(f"{{{table}={told}}}", "requestItems", why)
        else:
            yield from _write_request_faults(table, entries)
    if max(map(len, asked.values())) <= MAX_BATCH_WRITES < sum(map(len, asked.values())):
        raise invalid("Too many items requested for the BatchWriteItem call")


def _write_request_faults(table: str, entries: Iterable[Mapping[str, Any]]) -> Iterator[Fault]:
    for number, entry in enumerate(entries, 1):
        for kind, content in (("PutRequest", "Item"), ("DeleteRequest", "Key")):
            if kind in entry and entry[kind].get(content) is None:
                place = f"{number}.member.{kind[0].lower()}{kind[1:]}.{content.lower()}"
                yield Fault(None, f"requestItems.{table}.member.{place}", _NOT_NULL)


def _transaction_faults(operation: Transaction) -> Iterator[Fault]:
    kinds = _KINDS[type(operation)]
    for number, entry in enumerate(operation.request["TransactItems"], 1):
        if len(entry) != 1 or not entry.keys() <= kinds:
            raise invalid(f"Each of TransactItems must hold exactly one of {', '.join(sorted(kinds))}")
        for kind, body in entry.items():
            yield from _faults(kind, body, f"transactItems.{number}.member.{kind[0].lower()}{kind[1:]}.")


_KINDS: Mapping[type[Operation], frozenset[str]] = {
    TransactGetItems: frozenset({"Get"}),
    TransactWriteItems: frozenset({"Put", "Update", "Delete", "ConditionCheck"}),
}

_PARTS: Mapping[type[Operation], Callable[[Any], Iterable[Fault]]] = {
    Query: _query_faults,
    BatchGetItem: _batch_get_faults,
    BatchWriteItem: _batch_write_faults,
    TransactGetItems: _transaction_faults,
    TransactWriteItems: _transaction_faults,
}
