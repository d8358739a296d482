"""Faults planted in the PostgreSQL store, one at a time: how many examples does the equivalence kit need?

python -m equivalence.planted        writes docs/reference/planted-faults.md
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from dualstore.expressions import SortCondition
from dualstore.items import number_text
from dualstore.mapping import TableMapping
from dualstore.operations import PutItem
from dualstore.stores.postgres import pages, reads
from dualstore.stores.postgres.attributes import SqlAttribute
from dualstore.stores.postgres.pages import Walk
from dualstore.stores.semantics import WritePlan
from dualstore.testing import Difference, equivalence_machine, sides_of
from dualstore.testing.servers import DynamoDB, DynamoDBServer, PostgresServer
from equivalence.models import Order, OrderRow

MOST_EXAMPLES = 200

Changed = Callable[[str, Any], Any]


def _encoding(changed: Changed) -> Any:
    """A fault in how the attributes of an item are written; `changed` gives None for one that gets lost."""
    encode = TableMapping.encode

    def wrong(self: TableMapping, item: Any) -> Any:
        kept = {
            name: value if name in self.shape.keys.names else changed(name, value)
            for name, value in item.items()
        }
        return encode(self, {name: value for name, value in kept.items() if value is not None})

    return mock.patch.object(TableMapping, "encode", wrong)


def _statement(change: Callable[[Walk, str], str]) -> Any:
    """A fault in the SQL of Query and Scan."""
    statement = Walk._statement

    def wrong(self: Walk, after: Any, rows: int, weights: Any) -> Any:
        text, values = statement(self, after, rows, weights)
        return change(self, text), values

    return mock.patch.object(Walk, "_statement", wrong)


def _order(change: Callable[[str], str], kind: str) -> Any:
    """A fault in the order of rows by attributes of one type."""

    def wrong(walk: Walk, text: str) -> str:
        head, order = text.split("ORDER BY ", 1)
        for attribute in walk._order:
            if attribute.key.type == kind and attribute.plain:
                order = order.replace(attribute._column, change(attribute._column))
        return f"{head}ORDER BY {order}"

    return _statement(wrong)


def _as_float(_: str, value: Any) -> Any:
    if "N" not in value:
        return value
    read = Decimal(repr(float(value["N"])))
    with contextlib.suppress(Exception):
        return {"N": number_text(read)}
    return value


def _without_case() -> Any:
    encode_key = TableMapping.encode_key

    def wrong(self: TableMapping, key: Any) -> Any:
        return tuple(v.lower() if isinstance(v, str) else v for v in encode_key(self, key))

    return mock.patch.object(TableMapping, "encode_key", wrong)


def _condition_on_what_is_written() -> Any:
    decide = WritePlan.decide_unstamped

    def wrong(self: WritePlan, olds: Any) -> Any:
        first = self.writes[0]
        if len(self.writes) == 1 and isinstance(first, PutItem) and first.condition is not None:
            self.decide([first.item])
            request = {n: v for n, v in first.request.items() if not n.startswith("Condition")}
            return [replace(each) for each in _unconditional(self, request, olds)]
        return decide(self, olds)

    return mock.patch.object(WritePlan, "decide_unstamped", wrong)


def _unconditional(plan: WritePlan, request: Any, olds: Any) -> Any:
    del request
    with mock.patch.object(PutItem, "condition", None):
        return plan.decide(olds)


def _open_range() -> Any:
    in_range = pages._in_range

    def wrong(attribute: SqlAttribute, asked: SortCondition, values: Any) -> str:
        return in_range(attribute, asked, values).replace(" >= ", " > ").replace(" <= ", " < ")

    return mock.patch.object(pages, "_in_range", wrong)


def _other_items_of_a_batch() -> Any:
    items = reads._items

    def wrong(catalog: Any, gets: Any, found: Any) -> Any:
        return list(reversed(items(catalog, gets, found)))

    return mock.patch.object(reads, "_items", wrong)


def _all_in_the_index() -> Any:
    return mock.patch.object(SqlAttribute, "present", return_value="true")


PLANTED: Mapping[str, Callable[[], Any]] = {
    "text sorts without regard to case": lambda: _order(lambda column: f"lower({column})", "S"),
    "numbers sort as text": lambda: _order(lambda column: f'{column}::text COLLATE "C"', "N"),
    "numbers go through float": lambda: _encoding(_as_float),
    "a NULL is dropped": lambda: _encoding(lambda _, value: None if "NULL" in value else value),
    "an empty string is dropped": lambda: _encoding(lambda _, value: None if value == {"S": ""} else value),
    "text is cut after 255 characters": lambda: _encoding(
        lambda _, value: {"S": value["S"][:255]} if "S" in value else value
    ),
    "text ends at a NUL": lambda: _encoding(
        lambda _, value: {"S": value["S"].split("\0")[0]} if "S" in value else value
    ),
    "a set loses its last member": lambda: _encoding(
        lambda _, value: {"SS": value["SS"][:-1]} if len(value.get("SS", ())) > 1 else value
    ),
    "keys are found without regard to case": _without_case,
    "a page begins with the last item of the one before": lambda: _statement(
        lambda _, text: re.sub(r"\) ([<>]) \(", r") \1= (", text)
    ),
    "ScanIndexForward is passed over": lambda: _statement(lambda _, text: text.replace(" DESC", "")),
    "a condition is evaluated on the item after the write": _condition_on_what_is_written,
    "the bounds of a range are left out": _open_range,
    "a transaction reads its items in another order": _other_items_of_a_batch,
    "an index lists items that lack its key": _all_in_the_index,
}
"""What is wrong, and how it is planted."""


def examples_until_caught(
    fault: str, *, engine: sa.Engine, dynamodb: DynamoDB | None, start: int
) -> tuple[int, Difference] | None:
    """How many examples are tried until a planted fault is caught, and the failure; None: it was not.

    Args:
        fault: one of `PLANTED`.
        engine: a PostgreSQL database.
        dynamodb: what plays DynamoDB, or None: memory alone is compared with.
        start: Hypothesis's seed.
    """
    with sides_of(Order, OrderRow, engine=engine, dynamodb=dynamodb) as sides, PLANTED[fault]():
        tried = 0
        empty = sides.empty

        def counted() -> None:
            nonlocal tried
            tried += 1
            empty()

        sides.empty = counted
        caught: list[int] = []

        class Counting(equivalence_machine(Order, sides=sides)):  # type: ignore[misc]  # made by a function
            def take(self, step: Any) -> None:
                try:
                    super().take(step)
                except Difference:
                    caught.append(tried)
                    raise

        chosen = settings(
            max_examples=MOST_EXAMPLES,
            stateful_step_count=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(seed(start)(Counting), settings=chosen)
        except Difference as difference:
            return caught[0], difference
        return None


@contextlib.contextmanager
def _databases() -> Iterator[tuple[sa.Engine, DynamoDB]]:
    with PostgresServer(settings={"fsync": "off"}) as postgres, DynamoDBServer() as dynamodb:
        engine = sa.create_engine(postgres.create_database())
        yield engine, dynamodb
        engine.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="histories from so many seeds (default: 5)")
    parser.add_argument("--page", type=Path, default=Path("docs/reference/planted-faults.md"))
    parser.add_argument("--fault", action="append", choices=PLANTED, help="only this one; no page is written")
    options = parser.parse_args()
    lines, missed = [], 0
    with _databases() as (engine, dynamodb):
        for fault in options.fault or PLANTED:
            found = [
                examples_until_caught(fault, engine=engine, dynamodb=dynamodb, start=start)
                for start in range(options.seeds)
            ]
            missed += found.count(None)
            shown = ", ".join("not within 200" if each is None else str(each[0]) for each in found)
            lines.append(f"| {fault} | {shown} |")
            print(lines[-1], flush=True)  # noqa: T201 - a program
    if options.fault is None:
        options.page.write_text(_PAGE.format(seeds=options.seeds, rows="\n".join(lines)))
    return 1 if missed else 0


_PAGE = """# Planted faults

Each line is one fault in the PostgreSQL store, and after how many examples the equivalence kit caught
it, from {seeds} seeds. It looks at 200 that Hypothesis keeps; those that it throws away are counted, too.
The model is `Order` of `tests/equivalence/models.py`. `nox -s planted` plants the faults and writes this
page.

| Fault | Examples until it was caught |
|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
