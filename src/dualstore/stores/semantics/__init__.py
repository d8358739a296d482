"""What the item operations do to items and answer, as pure functions: the rules that stores share.

A store that carries out operations itself goes these ways:

- one item: `shape_of` and `checked_key`, read that item, `get_response` or `write`;
- a write of any kind: `plan_write`, read its items, `WritePlan.decide`, write them, `WritePlan.respond`;
- Query and Scan: `shape_of` and `plan`, walk the items in order, `page`;
- several items: `batch_gets`, `batch_writes`, `transact_gets` or `transact_writes` give the single
  operations, and the functions of the same names with `_response` the answer.

`_dsv` and `_dsp` are attributes like any other here.
"""

from dualstore.stores.semantics.batches import (
    batch_get_response,
    batch_gets,
    batch_write_response,
    batch_writes,
)
from dualstore.stores.semantics.collections import (
    Collection,
    collection_size_bytes,
    collections_asked,
    tell_collections,
)
from dualstore.stores.semantics.plans import WritePlan, plan_write
from dualstore.stores.semantics.reads import (
    MAX_PAGE_SIZE_BYTES,
    PagePlan,
    Scanned,
    get_response,
    page,
    page_of,
    plan,
    scanned,
)
from dualstore.stores.semantics.requests import shape_named, shape_of
from dualstore.stores.semantics.transactions import (
    transact_get_response,
    transact_gets,
    transact_write,
    transact_write_response,
    transact_writes,
)
from dualstore.stores.semantics.writes import (
    ConditionCheck,
    Written,
    answered,
    carried_out,
    check,
    checked_key,
    delete,
    put,
    repeated,
    update,
    write,
)

__all__ = [
    "MAX_PAGE_SIZE_BYTES",
    "Collection",
    "ConditionCheck",
    "PagePlan",
    "Scanned",
    "WritePlan",
    "Written",
    "answered",
    "batch_get_response",
    "batch_gets",
    "batch_write_response",
    "batch_writes",
    "carried_out",
    "check",
    "checked_key",
    "collection_size_bytes",
    "collections_asked",
    "delete",
    "get_response",
    "page",
    "page_of",
    "plan",
    "plan_write",
    "put",
    "repeated",
    "scanned",
    "shape_named",
    "shape_of",
    "tell_collections",
    "transact_get_response",
    "transact_gets",
    "transact_write",
    "transact_write_response",
    "transact_writes",
    "update",
    "write",
]
