"""Batches and transactions: carried out at the authority, then settled on the mirror.

DESIGN, replication protocol, rule 5. Their replies name no predecessors, so nothing is written directly.
What a transaction wrote the mirror takes on in one transaction, too.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import stamina
from botocore.exceptions import ClientError

from dualstore.errors import AuthorityMoved, OutcomeUnknown, RequestRejected, Unavailable
from dualstore.items import Item, Key, key_bytes, without_stamps
from dualstore.operations import BatchWriteItem, Operation, Request, Response, TransactWriteItems
from dualstore.replication.authority import error_code
from dualstore.replication.mirroring import Group, Mirroring, mirrors
from dualstore.replication.requests import may_create, put_with_stamp, update_with_stamp
from dualstore.replication.served import ServedTable
from dualstore.replication.stamps import derived_stamp, new_stamp
from dualstore.replication.views import View
from dualstore.stores.dynamo import Outcome, outcome

_ATTEMPTS, _TIMEOUT_SECONDS = 5, 10.0


@dataclass(frozen=True, slots=True)
class _Touched:
    """One key that an operation writes."""

    table: ServedTable
    key: Key


def write_batch(
    mirroring: Mirroring,
    tables: Mapping[str, ServedTable],
    operation: BatchWriteItem,
    views: Mapping[str, View],
) -> Response:
    """Carry out a BatchWriteItem; tables that are not served pass through unchanged.

    Every put and delete in it is unconditional, so that a repetition after a lost reply does no harm that
    DynamoDB's own clients would not do.
    """
    requests = operation.request["RequestItems"]
    try:
        touched = [
            _Touched(tables[name], _key_in(tables[name], _body(entry)))
            for name, entries in requests.items()
            if name in tables
            for entry in entries
        ]
    except (KeyError, RequestRejected):
        return mirroring.authority.execute(operation)  # refused there, in DynamoDB's own words
    stamped = {
        name: [_stamped_entry(entry) for entry in entries] if name in tables else entries
        for name, entries in requests.items()
    }
    request = {**operation.request, "RequestItems": stamped}
    response = _carry_out(
        mirroring,
        touched,
        BatchWriteItem(request),
        operation,
        views,
        lambda groups: _settle(mirroring, groups),
    )
    for name, entries in response.get("UnprocessedItems", {}).items():
        if name in tables:
            response["UnprocessedItems"][name] = [_unstamped_entry(entry) for entry in entries]
    return response


def write_transaction(
    mirroring: Mirroring,
    tables: Mapping[str, ServedTable],
    operation: TransactWriteItems,
    views: Mapping[str, View],
) -> Response:
    """Carry out a TransactWriteItems; actions on tables that are not served pass through unchanged.

    A caller without a ClientRequestToken gets one, so that a repetition after a lost reply is recognised
    by DynamoDB (for ten minutes: Amazon DynamoDB Developer Guide, "Idempotency" of transactions).
    """
    token = operation.request.get("ClientRequestToken") or uuid.uuid4().hex
    actions: list[dict[str, Any]] = []
    touched: list[_Touched] = []
    try:
        for kind, body in operation.actions:
            table = tables.get(body["TableName"])
            if table is None or kind == "ConditionCheck":
                actions.append({kind: body})
                continue
            key = _key_in(table, body)
            touched.append(_Touched(table, key))
            stamp = derived_stamp(token, table.physical, key_bytes(table.shape.keys, key))
            actions.append({kind: _STAMPED_ACTION[kind](body, stamp)})
    except (KeyError, RequestRejected):
        return mirroring.authority.execute(operation)  # refused there, in DynamoDB's own words
    unstamped = {**operation.request, "ClientRequestToken": token}
    stamped = {**unstamped, "TransactItems": actions}
    try:
        return _carry_out(
            mirroring,
            touched,
            TransactWriteItems(stamped),
            TransactWriteItems(unstamped),
            views,
            lambda groups: mirroring.settle_together(groups, token),
        )
    except ClientError as error:
        for reason in error.response.get("CancellationReasons", ()):
            if "Item" in reason:
                reason["Item"] = without_stamps(reason["Item"])
        raise


def _carry_out(  # noqa: PLR0917 - one caller for batches, one for transactions
    mirroring: Mirroring,
    touched: list[_Touched],
    stamped: Operation,
    unstamped: Operation,
    views: Mapping[str, View],
    follow: Callable[[Sequence[Group]], None],
) -> Response:
    """Send an operation that may be repeated, then have the mirror brought after what it touched."""
    if not touched:
        return mirroring.authority.execute(unstamped)
    lost_replies: list[Exception] = []
    try:
        try:
            with mirroring.timed(touched[0].table, stamped):
                response = _repeated(mirroring, stamped, lost_replies)
        except ClientError as error:
            if not _is_invalid(error):
                raise
            # 400 KB, 4 MB: the stamps may be what did not fit.
            with mirroring.timed(touched[0].table, unstamped):
                response = _repeated(mirroring, unstamped, lost_replies)
        _require_same_epochs(mirroring, touched, views, OutcomeUnknown)
        if groups := list(_mirrored(mirroring, touched, views)):
            follow(groups)
    except BaseException as error:
        if lost_replies or isinstance(error, OutcomeUnknown) or not isinstance(error, Exception):
            with ExitStack() as stack:  # for every table, though it fails for one
                for table, keys in _mirrored(mirroring, touched, views):
                    stack.callback(mirroring.doubt, table, keys, "the authority's reply was lost")
        elif isinstance(error, ClientError):
            _require_same_epochs(mirroring, touched, views, AuthorityMoved)
        raise
    return response


def _require_same_epochs(
    mirroring: Mirroring, touched: list[_Touched], views: Mapping[str, View], otherwise: type[Unavailable]
) -> None:
    for table in {one.table.physical: one.table for one in touched}.values():
        mirroring.require_same_epoch(table, views[table.physical], otherwise)


def _settle(mirroring: Mirroring, groups: Sequence[Group]) -> None:
    """Settle the keys of every table, though it fails for one; then raise what was raised last."""
    with ExitStack() as stack:
        for table, keys in groups:
            stack.callback(mirroring.settle, table, keys)


def _is_invalid(error: ClientError) -> bool:
    reasons = error.response.get("CancellationReasons", ())
    return error_code(error) == "ValidationException" or any(
        reason.get("Code") == "ValidationError" for reason in reasons
    )


def _repeated(mirroring: Mirroring, operation: Operation, lost_replies: list[Exception]) -> Response:
    for retry in stamina.retry_context(
        on=lambda error: outcome(error) is not Outcome.REFUSED,
        attempts=_ATTEMPTS,
        timeout=_TIMEOUT_SECONDS,
        wait_initial=0.05,
        wait_max=1.0,
        wait_jitter=0.05,
    ):
        with retry:
            try:
                return mirroring.authority.execute(operation)
            except Exception as error:
                if outcome(error) is Outcome.UNKNOWN:
                    lost_replies.append(error)
                raise
    raise AssertionError("the retry loop neither returned nor raised")


def _mirrored(
    mirroring: Mirroring, touched: list[_Touched], views: Mapping[str, View]
) -> Iterator[tuple[ServedTable, list[Key]]]:
    """The keys to bring after, each once, by table."""
    served = {one.table.physical: one.table for one in touched}
    later = {name: mirroring.later_view(table, views[name]) for name, table in served.items()}
    by_table: dict[str, tuple[ServedTable, dict[bytes, Key]]] = {}
    for one in touched:
        now = later[one.table.physical]
        began_to = now is None or mirrors(one.table, one.key, now)
        if began_to or mirrors(one.table, one.key, views[one.table.physical]):
            keys = by_table.setdefault(one.table.physical, (one.table, {}))[1]
            keys[key_bytes(one.table.shape.keys, one.key)] = one.key
    for table, keys in by_table.values():
        yield table, list(keys.values())


def _stamped_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    put = entry.get("PutRequest")
    return entry if put is None else {"PutRequest": put_with_stamp(put, new_stamp())}


def _unstamped_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    put = entry.get("PutRequest")
    return entry if put is None else {"PutRequest": {"Item": without_stamps(put["Item"])}}


def _body(entry: Mapping[str, Any]) -> Request:
    """The one request in an entry of a BatchWriteItem."""
    body: Request = entry["PutRequest"] if "PutRequest" in entry else entry["DeleteRequest"]
    return body


def _key_in(table: ServedTable, body: Request) -> Key:
    source: Item = body["Item"] if "Item" in body else body["Key"]
    return table.shape.keys.key_of(source)


def _as_it_is(body: Request, stamp: bytes) -> Request:  # noqa: ARG001 - a deletion leaves no place for one
    return body


def _stamped_update(body: Request, stamp: bytes) -> Request:
    return update_with_stamp(body, stamp) if may_create(body) else body


_STAMPED_ACTION: dict[str, Callable[[Request, bytes], Request]] = {
    "Put": put_with_stamp,
    "Update": _stamped_update,
    "Delete": _as_it_is,
}
