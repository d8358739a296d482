"""The bookkeeping columns that every mirrored SQL table carries."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import mapped_column

STAMP_COLUMN = "dualstore_stamp"
REVISION_COLUMN = "dualstore_revision"
OVERFLOW_COLUMN = "dualstore_overflow"
BOOKKEEPING_COLUMNS = (OVERFLOW_COLUMN, STAMP_COLUMN, REVISION_COLUMN)

_NEXT_REVISION = "nextval('dualstore.revision')"
_LAST = 10_000  # the bookkeeping stands behind the team's own columns in CREATE TABLE


class Mirrored:
    """Mixin for the SQLAlchemy model of a table that dualstore mirrors.

    ```python
    class OrderRow(Mirrored, Base):
        __tablename__ = "orders"
        customer: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
        number: Mapped[Decimal] = mapped_column(Numeric, primary_key=True)
        total: Mapped[Decimal | None]
    ```

    Attributes:
        dualstore_stamp: names the write that made this row, as `_dsv` does in DynamoDB.
        dualstore_revision: changes with every write to the key; from the sequence `dualstore.revision`,
            which `dualstore schema upgrade` creates.
        dualstore_overflow: the attributes that have no column or do not fit theirs exactly, as
            DynamoDB-JSON.
    """

    # Without annotations, so that a model that is a dataclass does not take them for its fields.
    dualstore_stamp = mapped_column(sa.LargeBinary(16), nullable=True, sort_order=_LAST)
    dualstore_revision = mapped_column(
        sa.BigInteger, nullable=False, server_default=sa.text(_NEXT_REVISION), sort_order=_LAST
    )
    # Python's None is SQL's NULL here, never the JSON null.
    dualstore_overflow = mapped_column(JSONB(none_as_null=True), nullable=True, sort_order=_LAST)


def bookkeeping_columns() -> tuple[sa.Column[object], ...]:
    """The columns of `Mirrored`, for a table that has no model."""
    return (
        sa.Column(STAMP_COLUMN, sa.LargeBinary(16)),
        sa.Column(REVISION_COLUMN, sa.BigInteger, nullable=False, server_default=sa.text(_NEXT_REVISION)),
        sa.Column(OVERFLOW_COLUMN, JSONB(none_as_null=True)),
    )
