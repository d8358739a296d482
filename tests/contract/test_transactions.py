"""TransactGetItems and TransactWriteItems: all or none."""

import uuid

import pytest

from contract.tables import N, S, TableUnderTest, rejects

ABSENT = {"ConditionExpression": "attribute_not_exists(pk)"}
PRESENT = {"ConditionExpression": "attribute_exists(pk)"}
CANCELLED = "TransactionCanceledException"


def key(number) -> dict:
    return {"pk": S("p"), "sk": N(number)}


class Actions:
    """The actions of a transaction on one table."""

    def __init__(self, table: TableUnderTest) -> None:
        self.table = table

    def put(self, item, **rest):
        return {"Put": {"TableName": self.table.name, "Item": item, **rest}}

    def delete(self, number, **rest):
        return {"Delete": {"TableName": self.table.name, "Key": key(number), **rest}}

    def update(self, number, expression, **rest):
        return {
            "Update": {
                "TableName": self.table.name,
                "Key": key(number),
                "UpdateExpression": expression,
                **rest,
            }
        }

    def check(self, number, **rest):
        return {"ConditionCheck": {"TableName": self.table.name, "Key": key(number), **rest}}

    def get(self, wanted, **rest):
        return {"Get": {"TableName": self.table.name, "Key": wanted, **rest}}

    def write(self, *actions, **rest):
        return self.table.ask("TransactWriteItems", TransactItems=list(actions), **rest)

    def read(self, *actions):
        return self.table.ask("TransactGetItems", TransactItems=list(actions))


@pytest.fixture
def on(things: TableUnderTest) -> Actions:
    return Actions(things)


def reasons(caught) -> list[str]:
    return [reason["Code"] for reason in caught.value.response["CancellationReasons"]]


def test_every_action_is_carried_out(on: Actions):
    on.table.put(key(2))
    on.table.put({**key(3), "n": N(1)})
    on.table.put(key(4))
    actions = [
        on.put({**key(1), "a": N("1.0")}, **ABSENT),
        on.delete(2, **PRESENT),
        on.update(3, "ADD n :n", ExpressionAttributeValues={":n": N(1)}),
        on.check(4, **PRESENT),
    ]
    assert on.write(*actions) == {}
    assert [on.table.get(key(n)) for n in range(1, 5)] == [
        {**key(1), "a": N(1)},
        None,
        {**key(3), "n": N(2)},
        key(4),
    ]


def test_one_failed_condition_cancels_all(on: Actions):
    on.table.put({**key(2), "old": N(1)})
    with rejects(CANCELLED) as caught:
        on.write(
            on.put(key(1)),
            on.put(key(2), **ABSENT, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
            on.check(3, **PRESENT),
        )
    assert reasons(caught) == ["None", "ConditionalCheckFailed", "ConditionalCheckFailed"]
    told = caught.value.response["CancellationReasons"]
    assert told[1]["Item"] == {**key(2), "old": N(1)}
    assert "Item" not in told[2]
    assert on.table.get(key(1)) is None


def test_an_update_that_cannot_be_cancels_all(on: Actions):
    on.table.put({**key(2), "s": S("x")})
    with rejects(CANCELLED) as caught:
        on.write(on.put(key(1)), on.update(2, "SET s = s + :n", ExpressionAttributeValues={":n": N(1)}))
    assert reasons(caught) == ["None", "ValidationError"]
    assert on.table.get(key(1)) is None


@pytest.mark.parametrize("bad", [{"pk": S("p")}, {"pk": S("p"), "sk": S("1")}], ids=["missing", "type"])
def test_a_malformed_key_cancels_all(on: Actions, bad):
    with rejects(CANCELLED) as caught:
        on.write(on.put(key(1)), on.put(bad))
    assert reasons(caught) == ["None", "ValidationError"]
    with rejects(CANCELLED) as caught:
        on.read(on.get(key(1)), on.get(bad))
    assert reasons(caught) == ["None", "ValidationError"]
    assert on.table.get(key(1)) is None


def test_an_empty_key_is_refused(on: Actions):
    with rejects():
        on.write(on.put(key(1)), on.put({"pk": S(""), "sk": N(1)}))


def test_an_update_of_a_key_cancels_all(on: Actions):
    with rejects(CANCELLED):
        on.write(on.update(1, "SET pk = :p", ExpressionAttributeValues={":p": S("q")}))
    assert on.table.scan(Select="COUNT")["Count"] == 0


@pytest.mark.parametrize("value", [N("x"), S("x" * 409_600)], ids=["no number", "too large"])
def test_an_invalid_value_is_refused(on: Actions, value):
    with rejects():
        on.write(on.put(key(1)), on.put({**key(2), "v": value}))
    assert on.table.get(key(1)) is None


def test_an_item_may_be_touched_once(on: Actions):
    with rejects():
        on.write(on.put(key(1)), on.delete("1.0"))
    with rejects():
        on.read(on.get(key(1)), on.get(key(1)))


@pytest.mark.parametrize("count", [0, 101])
def test_1_to_100_actions_are_allowed(on: Actions, count):
    with rejects():
        on.write(*(on.put(key(n)) for n in range(count)))
    with rejects():
        on.read(*(on.get(key(n)) for n in range(count)))


def test_100_actions_are_carried_out(on: Actions):
    on.write(*(on.put(key(n)) for n in range(100)))
    assert len(on.read(*(on.get(key(n)) for n in range(100)))["Responses"]) == 100


def test_a_check_needs_a_condition_and_an_update_an_expression(on: Actions):
    with rejects():
        on.write(on.check(1))
    with rejects():
        on.write({"Update": {"TableName": on.table.name, "Key": key(1)}})


def test_reads_answer_in_order(on: Actions):
    on.table.put({**key(1), "a": N(1), "b": N(2)})
    found = on.read(on.get(key(1)), on.get(key(2)), on.get(key(1) | {"sk": N(3)}))
    assert found == {"Responses": [{"Item": {**key(1), "a": N(1), "b": N(2)}}, {}, {}]}
    assert on.read(on.get(key(1), ProjectionExpression="b")) == {"Responses": [{"Item": {"b": N(2)}}]}


def test_a_transaction_spans_tables(table):
    one, other = table("things"), table("singles")
    on, there = Actions(one), Actions(other)
    with rejects(CANCELLED):
        on.write(on.put(key(1)), there.put({"pk": S("x")}, **PRESENT))
    assert one.get(key(1)) is None
    on.write(on.put(key(1)), there.put({"pk": S("x")}, **ABSENT))
    assert on.read(on.get(key(1)), there.get({"pk": S("x")})) == {
        "Responses": [{"Item": key(1)}, {"Item": {"pk": S("x")}}]
    }


def test_a_missing_table_is_not_found(on: Actions):
    with rejects("ResourceNotFoundException"):
        on.write({"Put": {"TableName": "no-such-table", "Item": key(1)}})


# --- ClientRequestToken ------------------------------------------------------------------------


def token() -> str:
    return uuid.uuid4().hex


def test_a_repeated_token_does_nothing_again(on: Actions):
    once = token()
    add = on.update(1, "ADD n :n", ExpressionAttributeValues={":n": N(1)})
    on.write(add, ClientRequestToken=once)
    on.write(add, ClientRequestToken=once)
    assert on.table.get(key(1)) == {**key(1), "n": N(1)}
    on.write(add, ClientRequestToken=token())
    assert on.table.get(key(1)) == {**key(1), "n": N(2)}


def test_a_repetition_consumes_what_reading_does(on: Actions):
    """AWS, API Reference, TransactWriteItems, ClientRequestToken."""
    once = token()
    put = on.put({**key(1), "filler": S("x" * 5_000)})
    told = [
        on.write(put, ClientRequestToken=once, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]
        for _ in range(2)
    ]
    consumed = {"TableName": on.table.name}
    assert told == [
        [{**consumed, "CapacityUnits": 10.0, "WriteCapacityUnits": 10.0}],
        [{**consumed, "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0}],
    ]


def test_a_token_repeated_for_other_actions_is_refused(on: Actions):
    once = token()
    on.write(on.put(key(1)), ClientRequestToken=once)
    with rejects("IdempotentParameterMismatchException"):
        on.write(on.put(key(2)), ClientRequestToken=once)
    assert on.table.get(key(2)) is None


def test_a_token_of_a_cancelled_transaction_may_be_used_again(on: Actions):
    once = token()
    with rejects(CANCELLED):
        on.write(on.put(key(1), **PRESENT), ClientRequestToken=once)
    on.table.put(key(1))
    on.write(on.put({**key(1), "a": N(1)}, **PRESENT), ClientRequestToken=token())
    assert on.table.get(key(1)) == {**key(1), "a": N(1)}


def test_a_token_has_36_characters_at_most(on: Actions):
    with rejects():
        on.write(on.put(key(1)), ClientRequestToken="x" * 37)
