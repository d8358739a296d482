"""A team's models and SQL tables, of every attribute and every column type, for the equivalence kit."""

import enum

import sqlalchemy as sa
from pynamodb.attributes import (
    BinaryAttribute,
    BinarySetAttribute,
    BooleanAttribute,
    DiscriminatorAttribute,
    JSONAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    NumberSetAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
    UTCDateTimeAttribute,
    VersionAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection, LocalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from dualstore.mapping import Mirrored


class Base(DeclarativeBase):
    pass


class Address(MapAttribute):
    street = UnicodeAttribute()
    number = NumberAttribute(null=True, attr_name="n")


class ByStatus(GlobalSecondaryIndex):
    class Meta:
        index_name = "by-status"
        projection = AllProjection()

    status = UnicodeAttribute(hash_key=True)
    total = NumberAttribute(range_key=True)


class Order(Model):
    class Meta:
        table_name = "orders"
        region = "us-east-1"

    customer = UnicodeAttribute(hash_key=True)
    line = UnicodeAttribute(range_key=True)
    status = UnicodeAttribute(null=True)
    total = NumberAttribute(null=True)
    note = UnicodeAttribute(null=True, attr_name="remark")
    paid = BooleanAttribute(null=True)
    tags = UnicodeSetAttribute(null=True)
    sizes = NumberSetAttribute(null=True)
    parts = ListAttribute(null=True)
    address = Address(null=True)
    extra = MapAttribute(null=True)
    ordered = UTCDateTimeAttribute(null=True)
    by_status = ByStatus()


class OrderRow(Mirrored, Base):
    __tablename__ = "orders"

    customer = mapped_column(sa.Text(collation="C"), primary_key=True)
    line = mapped_column(sa.Text(collation="C"), primary_key=True)
    status = mapped_column(sa.Text(collation="C"), nullable=True, index=True)
    total = mapped_column(sa.Numeric, nullable=True)
    note = mapped_column(sa.Text, nullable=True)
    paid = mapped_column(sa.Boolean, nullable=True)
    tags = mapped_column(ARRAY(sa.Text), nullable=True)
    address = mapped_column(JSONB, nullable=True)
    ordered = mapped_column(sa.DateTime(timezone=True), nullable=True)


class Priority(enum.Enum):
    a = "a"
    b = "b"


class ByOwner(LocalSecondaryIndex):
    class Meta:
        index_name = "by-owner"
        projection = KeysOnlyProjection()

    number = NumberAttribute(hash_key=True)
    owner = UnicodeAttribute(range_key=True)


class Job(Model):
    class Meta:
        table_name = "jobs"
        region = "us-east-1"

    number = NumberAttribute(hash_key=True)
    digest = BinaryAttribute(range_key=True, legacy_encoding=False)
    kind = DiscriminatorAttribute()
    owner = UnicodeAttribute(null=True)
    version = VersionAttribute()
    expires = TTLAttribute(null=True)
    payload = BinaryAttribute(null=True, legacy_encoding=True)
    blobs = BinarySetAttribute(null=True, legacy_encoding=False)
    result = JSONAttribute(null=True)
    priority = UnicodeAttribute(null=True)
    attempts = NumberAttribute(null=True)
    by_owner = ByOwner()


class Import(Job, discriminator="import"):
    source = UnicodeAttribute(null=True)


class JobRow(Mirrored, Base):
    __tablename__ = "jobs"

    number = mapped_column(sa.Numeric, primary_key=True)
    digest = mapped_column(sa.LargeBinary, primary_key=True)
    kind = mapped_column(sa.String(20), nullable=True)
    owner = mapped_column(sa.String(40, collation="C"), nullable=True)
    version = mapped_column(sa.BigInteger, nullable=True)
    expires = mapped_column(sa.DateTime(timezone=True), nullable=True)
    payload = mapped_column(sa.LargeBinary, nullable=True)
    result = mapped_column(sa.Text, nullable=True)
    priority = mapped_column(sa.Enum(Priority), nullable=True)
    attempts = mapped_column(sa.SmallInteger, nullable=True)
