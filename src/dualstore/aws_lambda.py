"""The relay as an AWS Lambda function: `dualstore.aws_lambda:handler`.

It goes behind an event source mapping of a stream with `NEW_AND_OLD_IMAGES`, with the function response type
`ReportBatchItemFailures`. Lambda keeps the checkpoints, and calls again from the first record that was not
dealt with (AWS, "Configuring partial batch response with DynamoDB and Lambda").
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from dualstore.replication.relay import Relay
from dualstore.store import DualStore
from dualstore.stores.dynamo_streams import record_of_event, table_of_arn

logger = logging.getLogger(__name__)

_CONFIG_VARIABLE = "DUALSTORE_CONFIG"
_making = threading.Lock()


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:  # noqa: ARG001 - Lambda's shape
    """Bring the other side after the records of an event.

    Args:
        event: as Lambda hands over what a DynamoDB stream tells.
        context: of the invocation.

    Returns:
        `batchItemFailures`: the sequence number of the first record that could not be dealt with, or none.

    Raises:
        ConfigurationError: the configuration is wrong, or does not know the stream's table; the message says
            what to do. Lambda then keeps the whole batch.
    """
    store = _store()
    try:
        store.refresh()
        return relay_event(store.relay(), event)
    finally:
        # Until the next event this process is frozen, and so is the thread that would do it.
        _report(store)


def _report(store: DualStore) -> None:
    try:
        store.report()
    except Exception as error:  # noqa: BLE001 - no records wait for figures
        logger.warning("The figures of this function were not reported: %s", type(error).__name__)


def relay_event(relay: Relay, event: Mapping[str, Any]) -> dict[str, Any]:
    """As `handler`, through a relay that is there already."""
    for table, records in groupby(event.get("Records", ()), key=_table):
        failed = _first_failure(relay, table, list(records))
        if failed is not None:
            return {"batchItemFailures": [{"itemIdentifier": failed}]}
    return {"batchItemFailures": []}


def _first_failure(relay: Relay, table: str, records: Sequence[Mapping[str, Any]]) -> str | None:
    carried = relay.carry(table, [record_of_event(record) for record in records])
    if carried.failure is None:
        return None
    logger.warning(
        "%d of %d records of %s were dealt with, then: %s",
        carried.done,
        len(records),
        table,
        type(carried.failure).__name__,
    )
    sequence: str = records[carried.done]["dynamodb"]["SequenceNumber"]
    return sequence


def _table(record: Mapping[str, Any]) -> str:
    return table_of_arn(record["eventSourceARN"])


def _store() -> DualStore:
    """The store of this container, made when the first event comes."""
    with _making:
        return _made()


@cache
def _made() -> DualStore:
    """From the file that `DUALSTORE_CONFIG` names, and the environment (see `config.load`)."""
    store = DualStore.from_config(os.environ.get(_CONFIG_VARIABLE), registers=False)
    try:
        store.tables()
    except BaseException:
        store.close()
        raise
    return store
