"""Time to live: which attribute it is, when an item has expired, and where SQL finds that.

The rules are DynamoDB's (AWS, "Using time to live (TTL) in DynamoDB" and "Working with expired items"): the
value is a top-level Number, seconds since the epoch; other types are ignored, and so is what expired more
than five years ago. Expired items stay readable until they are deleted, within a few days.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property

from pynamodb.attributes import TTLAttribute
from pynamodb.models import Model

from dualstore.items import Item
from dualstore.mapping.rows import OVERFLOW_COLUMN
from dualstore.mapping.tables import MappedColumn, TableMapping
from dualstore.mapping.text import quoted

OLDEST_EXPIRY = timedelta(days=5 * 365)
"""What expired longer ago is kept: such a value is more likely to mean something else."""


def ttl_attribute_of_model(model: type[Model]) -> str | None:
    """The DynamoDB name of the attribute that a PynamoDB model declares as its time to live, or None."""
    declared = (each for each in model.get_attributes().values() if isinstance(each, TTLAttribute))
    return next((str(attribute.attr_name) for attribute in declared), None)


def has_expired(item: Item, attribute: str, *, now: float, grace: timedelta = timedelta(0)) -> bool:
    """Whether DynamoDB may delete an item at any moment, or would have by now.

    Args:
        item: the item.
        attribute: the table's TTL attribute.
        now: seconds since the epoch.
        grace: how long after its time an item stays at least.
    """
    content = item.get(attribute, {}).get("N")
    if content is None:
        return False
    age = Decimal(now) - Decimal(content)
    return Decimal(grace.total_seconds()) < age <= Decimal(OLDEST_EXPIRY.total_seconds())


# A moment as seconds since the epoch, in the type that the column is compared in: another type would keep
# PostgreSQL from using its index. What is compared with is a whole second for whole numbers.
_MOMENTS = {
    "numeric": "({0})::numeric",
    **dict.fromkeys(("int2", "int4", "int8"), "ceil({0})::int8"),
    **dict.fromkeys(("float4", "float8"), "({0})::float8"),
    "timestamptz": "to_timestamp({0})",
    "timestamp": "(to_timestamp({0}) AT TIME ZONE 'UTC')",
}
# Not `clock_timestamp()`, which changes within a statement, so that no index would be used.
_NOW = "extract(epoch FROM statement_timestamp())"


@dataclass(frozen=True)
class ExpiryPlace:
    """Where the TTL attribute of a mapped table is found in its SQL table.

    Attributes:
        mapping: the table.
        attribute: the TTL attribute.
    """

    mapping: TableMapping
    attribute: str

    @cached_property
    def column(self) -> MappedColumn | None:
        """The column that holds the numbers among the attribute's values, or most of them."""
        column = self.mapping.column_of.get(self.attribute)
        if column is None or column.type != "N" or column.codec.cast:
            return None
        return column if column.codec.pg_type in _MOMENTS else None

    @property
    def overflows(self) -> bool:
        """Whether numbers may also be in the overflow."""
        return self.column is None or not self.column.total

    def column_has_expired(self, grace: str, oldest: str) -> str:
        """A condition on the column of table `t`.

        Args:
            grace: SQL, in seconds: how long after its time an item stays at least.
            oldest: SQL, in seconds: what expired longer ago is kept.
        """
        assert self.column is not None  # noqa: S101 - the caller looked
        name, moment = f"t.{quoted(self.column.name)}", _MOMENTS[self.column.codec.pg_type]
        since, before = (moment.format(f"{_NOW} - {age}") for age in (oldest, grace))
        return f"{name} < {before} AND {name} >= {since}"

    def overflow_has_expired(self, attribute: str, grace: str, oldest: str) -> str:
        """A condition on the overflow of table `t`; no value is NULL where it is of another type or missing.

        Args:
            attribute: SQL, of type text: the attribute's name as the overflow holds it.
            grace: as for `column_has_expired`.
            oldest: as for `column_has_expired`.
        """
        value = f"(t.{OVERFLOW_COLUMN} -> {attribute} ->> 'N')::numeric"
        return f"coalesce({value} < {_NOW} - {grace} AND {value} >= {_NOW} - {oldest}, false)"

    def notes(self) -> list[str]:
        """What would make expiry faster, a sentence each."""
        place = f"table {self.mapping.table.fullname!r}, time to live {self.attribute!r}"
        if self.column is None:
            note = (
                f"{place}: no column holds it, so expired rows are found by reading the whole table bit by "
                "bit: give it a column of type BigInteger, Numeric or DateTime, and an index"
            )
            return [note]
        name = self.column.name
        if any(
            next(iter(index.columns)).name == name for index in self.mapping.table.indexes if index.columns
        ):
            return []
        return [f"{place}: no SQL index starts with its column: add Index(None, {name!r})"]
