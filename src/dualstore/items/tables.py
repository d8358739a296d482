"""The shape of a table: its key, its indexes, and a key as bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any, Literal, TypeAlias

from dualstore.errors import ConfigurationError, invalid
from dualstore.items.limits import text_size_bytes, validate_item, validate_value
from dualstore.items.numbers import canonical_numeral, is_canonical
from dualstore.items.values import AttributeValue, Item, Key

KeyType: TypeAlias = Literal["S", "N", "B"]
Projection: TypeAlias = Literal["ALL", "KEYS_ONLY"] | tuple[str, ...]

MAX_PARTITION_KEY_BYTES = 2_048
MAX_SORT_KEY_BYTES = 1_024

_KEY_SIZE_BYTES: dict[KeyType, Callable[[Any], int]] = {
    "S": text_size_bytes,
    "N": lambda _: 1,
    "B": len,
}

_EMPTY_CONTENT = ("", b"")
_EMPTY: dict[KeyType, str] = {"S": "string", "B": "binary"}

# Whether a key's content is surely valid, as nearly all are; what is not is looked at closely.
_SURELY_VALID: dict[KeyType, Callable[[Any], bool]] = {
    "S": lambda text: type(text) is str and 0 < len(text) <= MAX_SORT_KEY_BYTES and text.isascii(),
    "N": lambda text: type(text) is str and is_canonical(text),
    "B": lambda content: type(content) is bytes and 0 < len(content) <= MAX_SORT_KEY_BYTES,
}


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """One attribute of a primary or index key."""

    name: str
    type: KeyType


@dataclass(frozen=True, slots=True)
class KeySchema:
    """The attributes that make up a primary or index key.

    Attributes:
        partition: the partition key.
        sort: the sort key, where there is one.
        attributes: one or both of them, partition key first.
        names: their names.
    """

    partition: KeyAttribute
    sort: KeyAttribute | None = None
    attributes: tuple[KeyAttribute, ...] = field(init=False, repr=False, compare=False)
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        attributes = (self.partition,) if self.sort is None else (self.partition, self.sort)
        object.__setattr__(self, "attributes", attributes)
        object.__setattr__(self, "names", tuple(attribute.name for attribute in attributes))

    def key_of(self, item: Item) -> Key:
        """The key of an item.

        Raises:
            RequestRejected: a key attribute is missing, of another type, empty or too long.
        """
        return {
            attribute.name: self._checked(attribute, item.get(attribute.name))
            for attribute in self.attributes
        }

    def exact_key(self, key: Key) -> Key:
        """A request's `Key`, once it is known to hold the key attributes and nothing else.

        Raises:
            RequestRejected: as `key_of`, or there are other attributes.
        """
        if len(key) != len(self.attributes) or any(
            attribute.type not in key.get(attribute.name, ()) for attribute in self.attributes
        ):
            raise invalid("The provided key element does not match the schema")
        return self.key_of(key)

    def _checked(self, attribute: KeyAttribute, value: AttributeValue | None) -> AttributeValue:
        if value is None:
            raise invalid(
                f"One or more parameter values were invalid: Missing the key {attribute.name} in the item"
            )
        if attribute.type not in value:
            raise invalid(
                "One or more parameter values were invalid: "
                f"Type mismatch for key {attribute.name} "
                f"expected: {attribute.type} actual: {_type_named(value)}"
            )
        if len(value) == 1 and _SURELY_VALID[attribute.type](value[attribute.type]):
            return value
        validate_value(value)
        size = _KEY_SIZE_BYTES[attribute.type](value[attribute.type])
        if size == 0:
            raise invalid(
                "One or more parameter values are not valid. The AttributeValue for a key attribute "
                f"cannot contain an empty {_EMPTY[attribute.type]} value. Key: {attribute.name}"
            )
        is_partition = attribute is self.partition
        if size > (MAX_PARTITION_KEY_BYTES if is_partition else MAX_SORT_KEY_BYTES):
            raise invalid(
                "One or more parameter values were invalid: Size of "
                + ("hashkey has exceeded 2048 bytes" if is_partition else "rangekey has exceeded 1024 bytes")
            )
        return value


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index.

    Attributes:
        name: its name.
        keys: its key, by which its entries are ordered.
        projection: what its entries hold: everything, the keys only, or these attributes as well.
        is_global: whether it is a global secondary index (else a local one).
    """

    name: str
    keys: KeySchema
    projection: Projection = "ALL"
    is_global: bool = True

    def held_attributes(self, table_keys: KeySchema) -> frozenset[str] | None:
        """The attributes of an item that its entries hold; None: all of them.

        Args:
            table_keys: the key of the table.
        """
        if self.projection == "ALL":
            return None
        included = () if self.projection == "KEYS_ONLY" else self.projection
        return frozenset((*table_keys.names, *self.keys.names, *included))

    def entry_of(self, item: Item, table_keys: KeySchema) -> Item | None:
        """What it holds of an item, which may be the item itself; None where a part of its key is missing.

        One of another type is no key either: others may have written it by SQL.

        Args:
            item: an item of the table.
            table_keys: the key of the table.
        """
        if any(attribute.type not in item.get(attribute.name, ()) for attribute in self.keys.attributes):
            return None
        held = self.held_attributes(table_keys)
        return item if held is None else {name: value for name, value in item.items() if name in held}

    def check_key(self, attribute: KeyAttribute, value: AttributeValue) -> None:
        """Reject a value that this attribute of an index's key cannot have.

        Raises:
            RequestRejected: it is of another type, empty or too long.
        """
        if attribute.type not in value:
            raise invalid(
                f"One or more parameter values were invalid: Type mismatch for Index Key {attribute.name} "
                f"Expected: {attribute.type} Actual: {_type_named(value)} IndexName: {self.name}"
            )
        if value[attribute.type] in _EMPTY_CONTENT:
            raise invalid(
                "One or more parameter values are not valid. A value specified for a secondary index key is "
                "not supported. The AttributeValue for a key attribute cannot contain an empty "
                f"{_EMPTY[attribute.type]} value. IndexName: {self.name}, IndexKey: {attribute.name}"
            )
        self.keys._checked(attribute, value)  # noqa: SLF001 - same module


@dataclass(frozen=True, slots=True)
class TableShape:
    """What must be known of a DynamoDB table to carry out operations on it.

    Attributes:
        name: the physical name of the DynamoDB table.
        keys: its primary key.
        indexes: its secondary indexes, by name.
    """

    name: str
    keys: KeySchema
    indexes: Mapping[str, Index] = field(default_factory=dict, hash=False)

    def check_item(self, item: Item) -> None:
        """Reject an item that DynamoDB would not store in this table.

        Raises:
            RequestRejected: the item itself is invalid, its key is missing or malformed, or an
                attribute that is some index's key has another type or is empty.
        """
        validate_item(item)
        self.check_keys(item)

    def check_keys(self, item: Item) -> Key:
        """As `check_item`, of an item that is valid for a table with other keys; its key."""
        key = self.keys.key_of(item)
        for index in self.indexes.values():
            for attribute in index.keys.attributes:
                if attribute.name in item:
                    index.check_key(attribute, item[attribute.name])
        return key


def _type_named(value: AttributeValue) -> str:
    """The type of a value for a message; it may be any mapping."""
    return next(iter(value), "none")


def table_shape_from_description(description: Mapping[str, Any]) -> TableShape:
    """Read a table's shape from DynamoDB's description of it.

    Args:
        description: the request of CreateTable, the answer of DescribeTable, or its `Table`.

    Raises:
        ConfigurationError: an index has several partition or several sort attributes.
    """
    table = description.get("Table", description)
    types: dict[str, KeyType] = {
        definition["AttributeName"]: definition["AttributeType"]
        for definition in table["AttributeDefinitions"]
    }
    indexes = chain(
        ((entry, True) for entry in table.get("GlobalSecondaryIndexes") or ()),
        ((entry, False) for entry in table.get("LocalSecondaryIndexes") or ()),
    )
    return TableShape(
        name=table["TableName"],
        keys=_key_schema(table, types),
        indexes={
            entry["IndexName"]: Index(
                name=entry["IndexName"],
                keys=_key_schema(entry, types),
                projection=_projection(entry.get("Projection", {})),
                is_global=is_global,
            )
            for entry, is_global in indexes
        },
    )


def _key_schema(described: Mapping[str, Any], types: Mapping[str, KeyType]) -> KeySchema:
    roles = {element["KeyType"]: element["AttributeName"] for element in described["KeySchema"]}
    if len(roles) < len(described["KeySchema"]):
        raise ConfigurationError(
            f"Index {described.get('IndexName')!r} has several partition or sort attributes, which "
            "dualstore does not read: index a concatenated attribute instead"
        )
    attributes = {role: KeyAttribute(name, types[name]) for role, name in roles.items()}
    return KeySchema(attributes["HASH"], attributes.get("RANGE"))


def _projection(described: Mapping[str, Any]) -> Projection:
    match described.get("ProjectionType", "ALL"):
        case "INCLUDE":
            return tuple(described["NonKeyAttributes"])
        case "KEYS_ONLY":
            return "KEYS_ONLY"
        case _:
            return "ALL"


_KEY_PAYLOAD: dict[KeyType, Callable[[Any], bytes]] = {
    "S": lambda text: text.encode(),
    "N": lambda text: canonical_numeral(text).encode(),
    "B": bytes,
}


_KEY_TYPE_BYTES: dict[KeyType, bytes] = {"S": b"S", "N": b"N", "B": b"B"}


def _component_bytes(attribute: KeyAttribute, key: Key) -> bytes:
    type_ = attribute.type
    payload = _KEY_PAYLOAD[type_](key[attribute.name][type_])
    return _KEY_TYPE_BYTES[type_] + len(payload).to_bytes(4, "big") + payload


def partition_bytes(keys: KeySchema, key: Key) -> bytes:
    """The partition key as bytes: the first component of `key_bytes`."""
    return _component_bytes(keys.partition, key)


def key_bytes(keys: KeySchema, key: Key) -> bytes:
    """A primary key as bytes, for locks, tombstones and ledgers. Stored, so it never changes.

    Per key attribute, partition key first: its type (`S`, `N` or `B`, one byte), the length of its
    payload (four bytes, big-endian) and the payload: UTF-8, the number's one text in ASCII (so `1`
    and `1.00` agree), or the bytes themselves. Each component delimits itself, so different keys
    have different bytes.

    Args:
        keys: the table's key schema.
        key: a key, or an item that holds one.
    """
    return b"".join([_component_bytes(attribute, key) for attribute in keys.attributes])


def key_hash(keys: KeySchema, key: Key) -> str:
    """A key as 16 hexadecimal characters for logs: the 64-bit BLAKE2b digest of `key_bytes`."""
    return blake2b(key_bytes(keys, key), digest_size=8).hexdigest()
