"""What PynamoDB offers beyond plain items: a bound model does as an unbound one, exceptions included."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import (
    BinaryAttribute,
    BinarySetAttribute,
    DiscriminatorAttribute,
    DynamicMapAttribute,
    JSONAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.connection import Connection
from pynamodb.exceptions import PynamoDBException
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite
from sqlalchemy.orm import DeclarativeBase

from dualstore import DualStore
from dualstore.flags import StaticFlags
from dualstore.mapping import Mirrored
from integration.deployment import REGION, WHOLE_MIGRATION, Deployment, bring_to

AT = datetime(2026, 5, 17, 12, 30, 15, 250_000, tzinfo=UTC)


class Part(MapAttribute):  # type: ignore[type-arg]
    colour = UnicodeAttribute()
    size = NumberAttribute(null=True, attr_name="s")


class Loose(DynamicMapAttribute):
    known = UnicodeAttribute(null=True)


def thing_model(table: str, host: str) -> Any:
    class Thing(Model):
        class Meta:
            table_name = table
            region = REGION
            aws_access_key_id = "dualstore"
            aws_secret_access_key = "dualstore"

        pk = UnicodeAttribute(hash_key=True)
        digest = BinaryAttribute(range_key=True, legacy_encoding=True)
        kind = DiscriminatorAttribute()
        modern = BinaryAttribute(null=True, legacy_encoding=False)
        legacy = BinarySetAttribute(null=True, legacy_encoding=True)
        data = JSONAttribute(null=True)
        expires = TTLAttribute(null=True)
        at = UTCDateTimeAttribute(null=True)
        part = Part(null=True)
        parts = ListAttribute(of=Part, null=True)
        loose = Loose(null=True)
        raw = MapAttribute(null=True)
        n = NumberAttribute(null=True)

    class Car(Thing, discriminator="car"):
        wheels = NumberAttribute(default=4)

    class Truck(Car, discriminator="truck"):
        load = NumberAttribute(null=True)

    Thing.Meta.host = host
    Thing.Car, Thing.Truck = Car, Truck
    return Thing


def thing_row(name: str) -> Any:
    class Base(DeclarativeBase):
        pass

    class ThingRow(Mirrored, Base):
        __tablename__ = name

        pk = sa.Column(sa.Text(collation="C"), primary_key=True)
        digest = sa.Column(sa.LargeBinary, primary_key=True)
        kind = sa.Column(sa.Text, nullable=True)
        data = sa.Column(sa.Text, nullable=True)
        expires = sa.Column(sa.DateTime(timezone=True), nullable=True)
        at = sa.Column(sa.DateTime(timezone=True), nullable=True)
        n = sa.Column(sa.Numeric, nullable=True)

    return ThingRow


def created(deployment: Deployment) -> tuple[Any, Any]:
    name = f"things-{uuid.uuid4().hex[:8]}"
    model, row = thing_model(name, deployment.endpoint_url), thing_row(name.replace("-", "_"))
    model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
    deployment.created.append(name)
    row.__table__.create(deployment.engine)
    return model, row


@pytest.fixture(scope="module")
def models(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """The model on a table that dualstore does not know, and bound where each side answers."""
    found = {"unbound": created(deployment)[0]}
    with deployment.store(StaticFlags()) as store:
        for stage in ("off", "shadow"):
            found[stage] = bound(store, deployment, stage)
        yield found


def bound(store: DualStore, deployment: Deployment, stage: str) -> Any:
    model, row = created(deployment)
    store.bind(model, row, name=stage)
    bring_to(store, stage, WHOLE_MIGRATION[stage])
    return model


def whole(model: Any, p: str, digest: bytes = b"\x80") -> Any:
    return model.Truck(
        p,
        digest,
        modern=b"\x00\xff",
        legacy={b"a", b"\xff"},
        data={"a": [1, None, {"b": "\u20ac"}]},
        expires=AT + timedelta(days=9_999),
        at=AT,
        part={"colour": "red", "size": 3},
        parts=[Part(colour="blue"), Part(colour="red", size=1)],
        loose=Loose(known="k", other=[1, {"deep": True}]),
        raw={"list": [1, "two", None], "map": {"n": 1.5}},
        load=2,
    )


def comparable(value: Any) -> Any:
    """The attribute values of a model, with sets in an order: they have none of their own."""
    match value:
        case Model():
            return comparable(value.to_dynamodb_dict())
        case dict():
            return {
                name: sorted(each) if name in {"SS", "NS", "BS"} else comparable(each)
                for name, each in value.items()
            }
        case list():
            return [comparable(each) for each in value]
    return value


# Each takes a model and a partition of its own, and gives what its caller sees.


def all_attributes_come_back(model: Any, p: str) -> Any:
    whole(model, p).save()
    found = model.get(p, b"\x80")
    return type(found).__name__, comparable(found), found.part.colour, found.parts[1].size, found.at


def a_discriminator_chooses_the_class_and_filters(model: Any, p: str) -> Any:
    for number, kind in enumerate((model.Car, model.Truck, model.Car)):
        kind(p, bytes([number])).save()
    of_trucks = [type(each).__name__ for each in model.Truck.query(p)]
    scanned = sorted(type(each).__name__ for each in model.Car.scan(model.Car.pk == p))
    return [type(each).__name__ for each in model.query(p)], of_trucks, scanned


def legacy_keys_sort_by_their_base64(model: Any, p: str) -> Any:
    for digest in (b"\x00", b"\x68", b"\xd0", b"\xff"):
        model.Car(p, digest).save()
    upper = [each.digest for each in model.query(p, model.digest > b"\x68")]
    return [each.digest for each in model.query(p)], upper


def maps_are_changed_in_place(model: Any, p: str) -> Any:
    truck = whole(model, p)
    truck.save()
    truck.update(
        actions=[
            model.part.colour.set("green"),
            model.raw["map"]["n"].set(2),
            model.parts[0].set(Part(colour="white")),
            model.data.set({"b": 1}),
            model.legacy.delete({b"a"}),
            model.at.set(AT + timedelta(microseconds=1)),
        ],
        condition=(model.part.size == 3) & model.loose["other"][1]["deep"].exists(),
    )
    return comparable(truck), comparable(model.get(p, b"\x80"))


def pages_are_walked_by_hand(model: Any, p: str) -> Any:
    for number in range(7):
        model.Car(p, bytes([number]), n=number).save()
    results = model.query(p, filter_condition=model.n != 3, page_size=2, limit=5)
    first = next(results).n
    middle = results.last_evaluated_key
    again = [each.n for each in model.query(p, last_evaluated_key=middle, page_size=3)]
    return first, middle, again, [each.n for each in results], results.total_count, model.count(p)


SCENARIOS = (
    all_attributes_come_back,
    a_discriminator_chooses_the_class_and_filters,
    legacy_keys_sort_by_their_base64,
    maps_are_changed_in_place,
    pages_are_walked_by_hand,
)


@pytest.mark.parametrize("stage", ["off", "shadow"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_bound_model_does_the_same_as_an_unbound_one(
    models: dict[str, Any], scenario: Callable[[Any, str], Any], stage: str
) -> None:
    p = uuid.uuid4().hex
    assert scenario(models[stage], p) == scenario(models["unbound"], p)


def _transaction(model: Any, p: str) -> None:
    with TransactWrite(connection=Connection(region=REGION, host=model.Meta.host)) as transaction:
        transaction.save(model.Car(p, b"a"), condition=model.pk.exists())


def _transacted_read(model: Any, _: str) -> None:
    with TransactGet(connection=Connection(region=REGION, host=model.Meta.host)) as transaction:
        transaction.get(model, "", b"a")


# The exception, DynamoDB's code in `cause_response_code`, and what raises it.
REFUSALS: dict[str, tuple[str, str | None, Callable[[Any, str], Any]]] = {
    "get": ("GetError", "ValidationException", lambda m, _: m.get("", b"a")),
    "get nothing": ("DoesNotExist", None, lambda m, p: m.get(p, b"none")),
    "save": (
        "PutError",
        "ConditionalCheckFailedException",
        lambda m, p: m.Car(p, b"a").save(m.pk.exists()),
    ),
    "save too much": (
        "PutError",
        "ValidationException",
        lambda m, p: m.Car(p, b"a", raw={"x": "x" * 410_000}).save(),
    ),
    "update": (
        "UpdateError",
        "ValidationException",
        lambda m, p: m.Car(p, b"a").update([m.n.set(m.n + 1)]),
    ),
    "delete": (
        "DeleteError",
        "ConditionalCheckFailedException",
        lambda m, p: m.Car(p, b"a").delete(m.pk.exists()),
    ),
    "query": (
        "QueryError",
        "ValidationException",
        lambda m, p: list(m.query(p, filter_condition=m.digest == b"a")),
    ),
    "scan": ("ScanError", "ValidationException", lambda m, _: list(m.scan(segment=5, total_segments=2))),
    "batch get": ("GetError", "ValidationException", lambda m, _: list(m.batch_get([("", b"a")]))),
    "transact write": ("TransactWriteError", "TransactionCanceledException", _transaction),
    "transact get": ("TransactGetError", "TransactionCanceledException", _transacted_read),
}


@pytest.mark.parametrize("stage", ["unbound", "off", "shadow"])
@pytest.mark.parametrize("refused", REFUSALS)
def test_every_exception_has_its_class_and_its_code(models: dict[str, Any], refused: str, stage: str) -> None:
    name, code, call = REFUSALS[refused]
    with pytest.raises(PynamoDBException) as caught:
        call(models[stage], uuid.uuid4().hex)
    assert (type(caught.value).__name__, caught.value.cause_response_code) == (name, code)
