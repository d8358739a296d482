"""What every store promises an application, as a pytest class that a store of your own can run."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.items import Item, KeyAttribute, KeySchema, TableShape, items_equal
from dualstore.operations import OPERATIONS, Response
from dualstore.testing.sides import Answers

TABLE = "contract"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))

MakeStore = Callable[[TableShape], Answers]


def _item(number: object, **attributes: Any) -> Item:
    return {"pk": {"S": "p"}, "sk": {"N": str(number)}, **attributes}


_ANYTHING: Item = {
    "empty": {"S": ""},
    "null": {"NULL": True},
    "nul": {"S": "a\0b"},
    "digits": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "-0.000000000000000000000000000000000000001"},
    "texts": {"SS": ["a", "A", "\U00010000"]},
    "numbers": {"NS": ["1", "10", "9"]},
    "bytes": {"BS": [b"\0", b"\xff"]},
    "nested": {"M": {"list": {"L": [{"M": {}}, {"L": []}, {"BOOL": False}]}}},
}


def store_contract(make_store: MakeStore) -> type:  # noqa: C901 - one class with its tests
    """Make a pytest class that tests a store.

    It is the short form of dualstore's own suite, which all its stores pass.

    Args:
        make_store: makes a store with one empty table of the shape that it is given. Answers carry no stamps.
    """

    class StoreContract:
        """What every store promises; made by `dualstore.testing.store_contract`."""

        @pytest.fixture(name="ask")
        def asking(self) -> Callable[..., Response]:
            store = make_store(SHAPE)

            def ask(name: str, **request: Any) -> Response:
                return store.execute(OPERATIONS[name]({"TableName": TABLE, **request}))

            return ask

        def test_an_item_comes_back_as_it_was_written(self, ask: Callable[..., Response]) -> None:
            ask("PutItem", Item=_item(1, **_ANYTHING))
            found = ask("GetItem", Key=_item(1), ConsistentRead=True)["Item"]
            assert items_equal(found, _item(1, **_ANYTHING))

        def test_an_absent_item_is_no_item(self, ask: Callable[..., Response]) -> None:
            assert "Item" not in ask("GetItem", Key=_item(1))

        def test_a_condition_is_about_the_item_before_the_write(self, ask: Callable[..., Response]) -> None:
            absent = {"ConditionExpression": "attribute_not_exists(pk)"}
            ask("PutItem", Item=_item(1, a={"S": "first"}), **absent)
            with pytest.raises(ClientError) as refused:
                ask("PutItem", Item=_item(1, a={"S": "second"}), **absent)
            assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
            assert ask("GetItem", Key=_item(1))["Item"]["a"] == {"S": "first"}

        def test_a_missing_attribute_differs_from_every_value(self, ask: Callable[..., Response]) -> None:
            ask("PutItem", Item=_item(1))
            ask(
                "DeleteItem",
                Key=_item(1),
                ConditionExpression="absent <> :v AND NOT absent < :v",
                ExpressionAttributeValues={":v": {"N": "1"}},
            )
            assert "Item" not in ask("GetItem", Key=_item(1))

        def test_a_key_that_is_a_number_is_its_value(self, ask: Callable[..., Response]) -> None:
            ask("PutItem", Item=_item("1.00"))
            assert ask("GetItem", Key=_item(1))["Item"]["sk"] == {"N": "1"}

        def test_an_update_adds_exactly(self, ask: Callable[..., Response]) -> None:
            values = {":n": {"N": "0.1"}}
            answer: Response = {}
            for _ in range(3):
                answer = ask(
                    "UpdateItem",
                    Key=_item(1),
                    UpdateExpression="ADD n :n",
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
            assert answer["Attributes"]["n"] == {"N": "0.3"}

        @pytest.mark.parametrize("forward", [True, False])
        def test_a_partition_is_read_in_pages_and_in_order(
            self, ask: Callable[..., Response], *, forward: bool
        ) -> None:
            for number in (10, 9, -1, 0.5):
                ask("PutItem", Item=_item(number))
            found: list[str] = []
            start: dict[str, Any] = {}
            while True:
                page = ask(
                    "Query",
                    KeyConditionExpression="pk = :p",
                    ExpressionAttributeValues={":p": {"S": "p"}},
                    ScanIndexForward=forward,
                    Limit=3,
                    **start,
                )
                found += [item["sk"]["N"] for item in page["Items"]]
                if "LastEvaluatedKey" not in page:
                    break
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
            in_order = ["-1", "0.5", "9", "10"]
            assert found == (in_order if forward else in_order[::-1])

    return StoreContract
