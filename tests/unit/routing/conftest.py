"""Fixtures of the routing tests: one process whose mirror may be read, over a table with indexes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dualstore.control import ControlRecord
from dualstore.items import Index, KeyAttribute, KeySchema, TableShape
from dualstore.replication.served import ServedTable
from dualstore.router import Router
from dualstore.routing import BreakerLimits
from dualstore.stages import Dials, Side, Stage
from unit.replication.processes import TABLE, Link, Process, World

PARTITION, SORT = KeyAttribute("customer", "S"), KeyAttribute("number", "N")
SHAPE = TableShape(
    TABLE,
    KeySchema(PARTITION, SORT),
    {
        "by-email": Index("by-email", KeySchema(KeyAttribute("email", "S"))),
        "by-rank": Index("by-rank", KeySchema(KeyAttribute("city", "S"), KeyAttribute("rank", "N"))),
        "by-date": Index("by-date", KeySchema(PARTITION, KeyAttribute("date", "S")), is_global=False),
        "by-number": Index("by-number", KeySchema(SORT, PARTITION)),
    },
)
SERVED = ServedTable("orders", SHAPE)
LIMITS = BreakerLimits(least_bad=2)


def key(customer: str = "ann", number: int = 1) -> dict[str, Any]:
    return {"customer": {"S": customer}, "number": {"N": str(number)}}


def item(customer: str = "ann", number: int = 1, **more: Any) -> dict[str, Any]:
    return {**key(customer, number), "note": {"S": "n"}, **more}


@dataclass
class Routing:
    """A process with a router of its own, and what it was seen to do."""

    world: World
    process: Process
    router: Router

    def ask(self, name: str, **request: Any) -> dict[str, Any]:
        return self.router.execute(name, {"TableName": TABLE, **request})

    def get(self, customer: str = "ann", number: int = 1, **request: Any) -> Any:
        return self.ask("GetItem", Key=key(customer, number), **request).get("Item")

    def batch(self, *keys: dict[str, Any], **options: Any) -> dict[str, Any]:
        request = options.pop("request", {})
        return self.router.execute(
            "BatchGetItem", {"RequestItems": {TABLE: {"Keys": list(keys), **options}}, **request}
        )

    def put(self, customer: str = "ann", number: int = 1, **more: Any) -> None:
        self.ask("PutItem", Item=item(customer, number, **more))

    def query(self, customer: str = "ann", **request: Any) -> dict[str, Any]:
        return self.ask(
            "Query",
            KeyConditionExpression="customer = :c",
            ExpressionAttributeValues={":c": {"S": customer}},
            **request,
        )

    def of_index(self, index: str, name: str, value: str, **request: Any) -> dict[str, Any]:
        return self.ask(
            "Query",
            IndexName=index,
            KeyConditionExpression="#p = :p",
            ExpressionAttributeNames={"#p": name},
            ExpressionAttributeValues={":p": {"S": value}},
            **request,
        )

    def decide(self, percent: float = 100.0, **changes: Any) -> ControlRecord:
        decided = self.world.decide(**{"dials": Dials(postgres_read_percent=percent), **changes})
        self.process.agent.refresh()
        return decided

    def sides(self, act: Callable[[], object]) -> list[Side]:
        """Which sides answered what is read meanwhile."""
        self.process.observed.clear()
        act()
        return list(self.process.observed)

    def counted(self, metric: Any) -> dict[str, int]:
        """A counter, by its last label."""
        values = self.process.telemetry.values(metric)
        return {series.labels[-1]: int(value) for series, value in values.items()}


class Refusing:
    """Makes a link refuse some calls."""

    def __init__(self, link: Link, *names: str) -> None:
        self._link, self._names = link, names
        link.before = self

    def __call__(self, name: str, args: tuple[Any, ...]) -> None:
        if name in self._names:
            raise self._link.failure

    def stop(self) -> None:
        self._link.before = lambda *_: None


@pytest.fixture
def routing_of() -> Callable[..., Routing]:
    """Makes a process with a router of certain options, its mirror readable at 100 %."""

    def make(**options: Any) -> Routing:
        world = World({TABLE: SHAPE})
        process = world.process()
        router = Router(
            process.mirroring,
            process.mirror,
            {TABLE: SERVED},
            telemetry=process.telemetry,
            observe=lambda table, operation, side, answer: process.observed.append(side),
            **{"limits": LIMITS, **options},
        )
        routing = Routing(world, process, router)
        routing.decide(stage=Stage.DUALWRITE, loaded=True)
        return routing

    return make


@pytest.fixture
def routing(routing_of: Callable[..., Routing]) -> Routing:
    """A router without any options, its mirror readable at 100 %."""
    return routing_of()
