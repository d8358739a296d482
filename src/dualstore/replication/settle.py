"""Settle a key: make the mirror hold what the authority holds, whatever happened before.

DESIGN, replication protocol, rule 3. The only way to write the mirror besides the direct write: the mirror's
revision is read first, the authority second, and the answer is written only if the revision still stands.
Every state the mirror takes on was one of the authority's, none is older than the one before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from botocore.exceptions import ClientError

from dualstore.errors import MirrorUnavailable
from dualstore.items import PREDECESSOR, Item, Key, TableShape, key_bytes
from dualstore.operations import BatchGetItem, GetItem, TransactGetItems
from dualstore.stores.base import NOTHING, Mirror, MirrorState, Revision, SettledWrite, Store

# Optimistic tries before the key is locked. Under contention the lock ends what tries would prolong.
_TRIES = 3
_BATCH_GET_KEYS = 100


def settle(mirror: Mirror, authority: Store, shape: TableShape, key: Key, *, epoch: int) -> None:
    """Make the mirror hold what the authority holds for one key.

    Args:
        mirror: the store that follows.
        authority: the store whose word is final.
        shape: the table.
        key: its primary key.
        epoch: of the control record that is acted on.

    Raises:
        MirrorFenced: the mirror is none at that epoch.
        MirrorUnavailable: the mirror could not be read or written.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the authority could not be read.
    """
    for _ in range(_TRIES):
        if _once(mirror, authority, shape, key, epoch):
            return
    with mirror.locked(shape.name, key):
        if not _once(mirror, authority, shape, key, epoch):
            raise MirrorUnavailable(
                f"a key of {shape.name} changed under its own lock; is something writing the mirrored "
                "table's bookkeeping columns? Run `dualstore verify`"
            )


def settle_many(
    mirror: Mirror, authority: Store, shape: TableShape, keys: Sequence[Key], *, epoch: int
) -> None:
    """Settle many different keys with few round trips; the same promise for each as `settle`."""
    for some in _chunks(keys, _BATCH_GET_KEYS):
        states = mirror.items_of(shape.name, some)
        answered = _read_many(authority, shape, some)
        for key in some:
            name = key_bytes(shape.keys, key)
            seen = states[name].revision if name in states else NOTHING
            if name not in answered or not mirror.write_settled(
                shape.name, key, answered[name], seen=seen, epoch=epoch
            ):
                settle(mirror, authority, shape, key, epoch=epoch)


def settle_together(
    mirror: Mirror,
    authority: Store,
    groups: Sequence[tuple[TableShape, Sequence[Key], int]],
    *,
    token: str,
) -> None:
    """Settle the keys that one transaction wrote, so that no read of the mirror sees half of it.

    The authority is read by one transaction, too: what the mirror takes on is a state that it was in. Where
    others keep writing to the same keys, each is settled alone in the end: the sides still converge.

    Args:
        mirror: the store that follows.
        authority: the store whose word is final.
        groups: shape, keys and epoch of each table.
        token: the transaction's ClientRequestToken, for the mirror to remember.
    """
    keys = [(shape, key, epoch) for shape, keys, epoch in groups for key in keys]
    for _ in range(_TRIES):
        states = {shape.name: mirror.items_of(shape.name, some) for shape, some, _ in groups}
        images = _read_transaction(authority, keys)
        if images is None:
            break
        writes = [
            SettledWrite(shape.name, key, image, seen=_seen(states[shape.name], shape, key), epoch=epoch)
            for (shape, key, epoch), image in zip(keys, images, strict=True)
        ]
        if mirror.write_settled_together(writes, token=token):
            return
    mirror.write_settled_together((), token=token)  # carried out it is, whoever writes the keys next
    for shape, some, epoch in groups:
        settle_many(mirror, authority, shape, some, epoch=epoch)


def _seen(states: Mapping[bytes, MirrorState], shape: TableShape, key: Key) -> Revision:
    state = states.get(key_bytes(shape.keys, key))
    return NOTHING if state is None else state.revision


def _read_transaction(
    authority: Store, keys: Sequence[tuple[TableShape, Key, int]]
) -> list[Item | None] | None:
    """The items of some keys as they were at one moment; None where that is not to be had."""
    gets = [{"Get": {"TableName": shape.name, "Key": key}} for shape, key, _ in keys]
    try:
        response = authority.execute(TransactGetItems({"TransactItems": gets}))
    except ClientError:  # others are writing to them: TransactionCanceledException
        return None
    return [_image(entry.get("Item")) for entry in response["Responses"]]


def _once(mirror: Mirror, authority: Store, shape: TableShape, key: Key, epoch: int) -> bool:
    seen = mirror.state(shape.name, key).revision
    image = read_authority(authority, shape, key)
    return mirror.write_settled(shape.name, key, image, seen=seen, epoch=epoch)


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
