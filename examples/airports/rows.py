"""The SQL table that the airports move to, as the team would have designed it without DynamoDB."""

from decimal import Decimal

from sqlalchemy import ARRAY, BigInteger, Double, Index, Numeric, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore.mapping import Mirrored

TEXT_BY_BYTES = Text(collation="C")
"""Ordered as DynamoDB orders strings. Needed for what is a key in DynamoDB, of the table or an index."""


class Base(DeclarativeBase):
    """The team's own tables."""


class AirportRow(Mirrored, Base):
    """One airport.

    `note` has no column, on purpose: what SQL has no use for stays in the overflow column.
    """

    __tablename__ = "airports"

    icao: Mapped[str] = mapped_column(TEXT_BY_BYTES, primary_key=True)
    iata: Mapped[str | None] = mapped_column(TEXT_BY_BYTES)
    lid: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    city: Mapped[str | None] = mapped_column(TEXT_BY_BYTES)
    subd: Mapped[str | None] = mapped_column(Text)
    country: Mapped[str | None] = mapped_column(TEXT_BY_BYTES)
    elevation: Mapped[Decimal | None] = mapped_column(Numeric)
    lat: Mapped[float | None] = mapped_column(Double)
    lon: Mapped[float | None] = mapped_column(Double)
    tz: Mapped[str | None] = mapped_column(Text)
    visits: Mapped[int | None] = mapped_column(BigInteger)
    visitors: Mapped[list[str] | None] = mapped_column(ARRAY(Text))

    __table_args__ = (
        Index("airports_by_country", country, city, icao),
        Index("airports_by_iata", iata),
    )
