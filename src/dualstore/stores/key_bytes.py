"""A key from its bytes: the inverse of `items.key_bytes`, for tombstones and checkpoints."""

from collections.abc import Callable

from dualstore.items import AttributeValue, Key, KeySchema

_HEADER_BYTES = 5
_CONTENT: dict[str, Callable[[bytes], AttributeValue]] = {
    "S": lambda payload: {"S": payload.decode()},
    "N": lambda payload: {"N": payload.decode()},
    "B": lambda payload: {"B": payload},
}


def key_from_bytes(keys: KeySchema, encoded: bytes) -> Key:
    """The key behind its bytes.

    Args:
        keys: the table's key schema.
        encoded: what `items.key_bytes` made of the key.

    Raises:
        ValueError: the bytes are not those of such a key.
    """
    key: Key = {}
    rest = encoded
    for attribute in keys.attributes:
        end = _HEADER_BYTES + int.from_bytes(rest[1:_HEADER_BYTES], "big")
        if rest[:1] != attribute.type.encode() or len(rest) < end:
            raise ValueError(f"these are not the bytes of a key of {', '.join(keys.names)}")
        key[attribute.name] = _CONTENT[attribute.type](rest[_HEADER_BYTES:end])
        rest = rest[end:]
    if rest:
        raise ValueError(f"bytes are left over behind a key of {', '.join(keys.names)}")
    return key
