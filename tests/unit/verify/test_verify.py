"""A whole verification, on two sides in memory."""

import itertools

import pytest

from dualstore.errors import ConfigurationError, MirrorUnavailable
from dualstore.items import key_hash
from dualstore.operations import BatchGetItem, PutItem
from dualstore.stores.postgres_runs import RunState
from dualstore.telemetry import DiscrepancyLog
from dualstore.verify import Finding

TABLE = "orders-prod"


def item(n, **attributes):
    return {"pk": {"S": f"customer-{n % 7}"}, "sk": {"N": str(n)}, "total": {"N": "10"}} | attributes


def found(verification):
    return {(each.key["sk"]["N"], each.finding, each.paths) for each in verification.differences}


class Changing:
    """A store that does something with each key before it answers a BatchGetItem."""

    def __init__(self, store, act):
        self._store = store
        self._act = act

    def execute(self, operation):
        if isinstance(operation, BatchGetItem):
            for key in operation.request["RequestItems"][TABLE]["Keys"]:
                self._act(key)
        return self._store.execute(operation)


def test_two_equal_sides_are_proven_equal(sides):
    for n in range(1200):
        sides.put(item(n), postgres=item(n))

    verification = sides.verify().run()

    assert verification.proven
    assert (verification.items_dynamodb, verification.rows_postgres, verification.equal) == (1200, 1200, 1200)


def test_exactly_the_planted_differences_are_found(sides):
    for n in range(100):
        sides.put(item(n), postgres=item(n))
    sides.put(item(1), postgres=None)
    sides.mirror(item(1000), item(1000))
    sides.put(item(2, tags={"SS": ["a", "b"]}), postgres=item(2, tags={"SS": ["b", "a"]}))
    sides.put(item(3, note={"NULL": True}), postgres=item(3))
    sides.put(item(4, name={"S": "four"}), postgres=item(4, name={"S": "five"}))
    sides.put(item(5, name={"S": "five"}), postgres=item(5, name={"S": "four"}))

    verification = sides.verify().run()

    assert found(verification) == {
        ("1", Finding.MISSING_ON_POSTGRES, ()),
        ("1000", Finding.MISSING_ON_DYNAMODB, ()),
        ("3", Finding.VALUE, ("note",)),
        ("4", Finding.VALUE, ("name",)),
        ("5", Finding.VALUE, ("name",)),
    }
    assert (verification.difference_count, verification.moving, verification.equal) == (5, 0, 96)
    assert not verification.proven
    assert {each.key_hash for each in verification.differences} == {
        key_hash(sides.shape.keys, each.key) for each in verification.differences
    }


def test_more_differences_than_are_kept_are_all_counted(sides):
    for n in range(2500):
        sides.put(item(n), postgres=None)

    verification = sides.verify(differences_kept=10).run()

    assert (len(verification.differences), verification.difference_count) == (10, 2500)


def test_a_key_that_differs_otherwise_at_each_look_is_counted_as_moving(sides):
    sides.put(item(1), postgres=item(1))
    sides.put(item(2), postgres=item(2, total={"N": "11"}))
    totals = itertools.count(100)

    def change(key):
        if key["sk"]["N"] == "2":
            changed = item(2, total={"N": str(next(totals))})
            sides.dynamodb.execute(PutItem({"TableName": TABLE, "Item": changed}))

    verification = sides.verify(dynamodb=Changing(sides.dynamodb, change)).run()

    assert (verification.equal, verification.moving, verification.difference_count) == (1, 1, 0)
    assert not verification.proven


def test_other_stamps_on_equal_content_are_counted_apart(sides):
    sides.put(item(1, _dsv={"B": b"1" * 16}), postgres=item(1, _dsv={"B": b"2" * 16}))

    verification = sides.verify().run()

    assert verification.proven
    assert (verification.equal, verification.stamps_only) == (1, 1)


def test_repair_settles_what_differs_and_looks_again(sides):
    for n in range(50):
        sides.put(item(n), postgres=item(n))
    sides.put(item(1), postgres=None)
    sides.mirror(item(1000), item(1000))
    sides.put(item(2), postgres=item(2, total={"N": "11"}))

    repairing = sides.verify(repair=True, settle=sides.settle_all).run()

    assert (repairing.difference_count, repairing.repaired) == (3, 3)
    assert repairing.proven
    assert sides.verify().run().difference_count == 0


def test_a_difference_that_cannot_be_repaired_is_not_called_repaired(sides):
    sides.put(item(1), postgres=None)
    sides.put(item(2), postgres=None)

    def settle(keys):
        sides.settle_all(key for key in keys if key["sk"]["N"] != "1")
        raise MirrorUnavailable("an item breaks a rule of its SQL table")

    verification = sides.verify(repair=True, settle=settle).run()

    assert {(each.key["sk"]["N"], each.repaired) for each in verification.differences} == {
        ("1", False),
        ("2", True),
    }
    assert not verification.proven


def test_repair_without_settle_is_refused(sides):
    with pytest.raises(ConfigurationError, match="settle"):
        sides.verify(repair=True).run()


def test_the_ledger_holds_the_result_without_keys_or_values(sides):
    sides.put(item(1, name={"S": "secret-value"}), postgres=None)

    verification = sides.verify().run()

    state, result = sides.ledger.ended[verification.run_id]
    assert state is RunState.FINISHED
    assert result["difference_count"] == 1
    assert "secret" not in str(result)
    assert "customer-" not in str(result)


def test_an_interrupted_verification_is_recorded_as_abandoned(sides):
    sides.put(item(1), postgres=None)

    def fail(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sides.verify(progress=fail).run()

    assert [state for state, _ in sides.ledger.ended.values()] == [RunState.ABANDONED]


def test_progress_ends_with_everything_counted(sides):
    for n in range(30):
        sides.put(item(n), postgres=item(n))
    reports = []

    sides.verify(segments=3, progress=reports.append).run()

    last = reports[-1]
    assert (last.items, last.equal, last.segments_done, last.segments_total) == (30, 30, 3, 3)


def test_keys_that_dynamodb_leaves_unprocessed_are_asked_for_again(sides):
    for n in range(250):
        sides.put(item(n), postgres=None)
    asked = []

    class Throttled:
        def execute(self, operation):
            answer = sides.dynamodb.execute(operation)
            if isinstance(operation, BatchGetItem):
                keys = operation.request["RequestItems"][TABLE]["Keys"]
                asked.append(len(keys))
                if len(keys) > 60:
                    items = answer["Responses"][TABLE]
                    answer["Responses"][TABLE] = [each for each in items if each["sk"] != keys[-1]["sk"]]
                    answer["UnprocessedKeys"] = {TABLE: {"Keys": keys[-1:]}}
            return answer

    verification = sides.verify(dynamodb=Throttled(), segments=1).run()

    assert max(asked) == 100
    assert {each.finding for each in verification.differences} == {Finding.MISSING_ON_POSTGRES}
    assert verification.difference_count == 250


def test_differences_are_recorded_as_the_comparison_of_reads_records_them(sides):
    stamps = [{"B": bytes(15) + bytes([n])} for n in (1, 2)]
    sides.put(item(1), postgres=None)
    sides.put(item(2, v={"N": "1"}), postgres=item(2, v={"S": "1"}))
    sides.put(item(3, m={"M": {"canary": {"N": "1"}}}), postgres=item(3, m={"M": {}}))
    sides.put(item(4, v={"N": "1"}, _dsv=stamps[0]), postgres=item(4, v={"N": "2"}, _dsv=stamps[1]))
    log = DiscrepancyLog()

    verification = sides.verify(record=log).run()

    found = {each.key_hash: each for each in log.records()}
    kinds = {n: found[key_hash(sides.shape.keys, item(n))].kind for n in range(1, 5)}
    assert kinds == {1: "missing_on_postgres", 2: "type", 3: "value", 4: "stale"}
    assert {each.run_id for each in found.values()} == {verification.run_id}
    assert {(each.finder, each.operation, each.repaired) for each in found.values()} == {
        ("verify", "Verify", False)
    }
    assert found[key_hash(sides.shape.keys, item(3))].paths == ("m",), "names in a map may be data"


def test_what_a_verification_repairs_is_recorded_as_repaired(sides):
    sides.put(item(1), postgres=None)
    log = DiscrepancyLog()

    sides.verify(record=log, repair=True, settle=lambda keys: [sides.settle(key) for key in keys]).run()

    assert [each.repaired for each in log.records()] == [True]
