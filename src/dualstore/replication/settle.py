"""Settle a key: make the mirror hold what the authority holds, whatever happened before.

DESIGN, replication protocol, rule 3. The only way to write the mirror besides the direct write: the mirror's
revision is read first, the authority second, and the answer is written only if the revision still stands.
Every state the mirror takes on was one of the authority's, none is older than the one before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from dualstore.errors import MirrorUnavailable
from dualstore.items import PREDECESSOR, Item, Key, TableShape, key_bytes
from dualstore.operations import BatchGetItem, GetItem
from dualstore.stores.base import NOTHING, Mirror, Store

# Optimistic tries before the key is locked. Under contention the lock ends what tries would prolong.
_TRIES = 3
_BATCH_GET_KEYS = 100


def settle(mirror: Mirror, authority: Store, shape: TableShape, key: Key) -> None:
    """Make the mirror hold what the authority holds for one key.

    Args:
        mirror: the store that follows.
        authority: the store whose word is final.
        shape: the table.
        key: its primary key.

    Raises:
        MirrorUnavailable: the mirror could not be read or written.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the authority could not be read.
    """
    for _ in range(_TRIES):
        if _once(mirror, authority, shape, key):
            return
    with mirror.locked(shape.name, key):
        if not _once(mirror, authority, shape, key):
            raise MirrorUnavailable(
                f"a key of {shape.name} changed under its own lock; is something writing the mirrored "
                "table's bookkeeping columns? Run `dualstore verify`"
            )


def settle_many(mirror: Mirror, authority: Store, shape: TableShape, keys: Sequence[Key]) -> None:
    """Settle many different keys with few round trips; the same promise for each as `settle`."""
    for some in _chunks(keys, _BATCH_GET_KEYS):
        states = mirror.items_of(shape.name, some)
        answered = _read_many(authority, shape, some)
        for key in some:
            name = key_bytes(shape.keys, key)
            seen = states[name].revision if name in states else NOTHING
            if name not in answered or not mirror.write_settled(shape.name, key, answered[name], seen=seen):
                settle(mirror, authority, shape, key)


def _once(mirror: Mirror, authority: Store, shape: TableShape, key: Key) -> bool:
    seen = mirror.state(shape.name, key).revision
    image = read_authority(authority, shape, key)
    return mirror.write_settled(shape.name, key, image, seen=seen)


def read_authority(authority: Store, shape: TableShape, key: Key) -> Item | None:
    """The item as the authority has it now, stamp included, or None."""
    response = authority.execute(GetItem({"TableName": shape.name, "Key": key, "ConsistentRead": True}))
    return _image(response.get("Item"))


def _read_many(authority: Store, shape: TableShape, keys: Sequence[Key]) -> dict[bytes, Item | None]:
    """What the authority holds for the keys that one BatchGetItem answers; the unprocessed are left out."""
    request = {shape.name: {"Keys": list(keys), "ConsistentRead": True}}
    response = authority.execute(BatchGetItem({"RequestItems": request}))
    unprocessed = response.get("UnprocessedKeys", {}).get(shape.name, {}).get("Keys", ())
    left_out = {key_bytes(shape.keys, key) for key in unprocessed}
    answered: dict[bytes, Item | None] = {key_bytes(shape.keys, key): None for key in keys}
    for item in response.get("Responses", {}).get(shape.name, ()):
        answered[key_bytes(shape.keys, shape.keys.key_of(item))] = _image(item)
    return {name: item for name, item in answered.items() if name not in left_out}


def _image(item: Item | None) -> Item | None:
    if item is None:
        return None
    item.pop(PREDECESSOR, None)
    return item


def _chunks(keys: Iterable[Key], size: int) -> Iterator[Sequence[Key]]:
    remaining = iter(keys)
    while some := list(islice(remaining, size)):
        yield some
