"""Comparing certain keys only."""

from datetime import timedelta

from dualstore.verify import Finding, Judge, KeyedVerify


def order(n: int, **attributes):
    return {"pk": {"S": "p"}, "sk": {"N": str(n)}} | attributes


def keyed(sides, keys, **options) -> KeyedVerify:
    judge = Judge(
        shape=sides.shape,
        dynamodb=sides.dynamodb,
        postgres=sides.postgres,
        pause=timedelta(0),
        **options,
    )
    return KeyedVerify(judge=judge, runs=sides.ledger, keys=keys, mode="keys")


def test_only_the_keys_asked_for_are_compared(sides):
    for n in range(10):
        sides.put(order(n), postgres=order(n, damaged={"BOOL": True}) if n in {3, 7} else order(n))
    sides.put(order(20), postgres=None)
    sides.mirror(order(21), order(21))

    verification = keyed(sides, [order(n) for n in (1, 3, 20, 21, 22, 3)]).run()

    assert {(each.finding, each.paths) for each in verification.differences} == {
        (Finding.VALUE, ("damaged",)),
        (Finding.MISSING_ON_POSTGRES, ()),
        (Finding.MISSING_ON_DYNAMODB, ()),
    }
    assert (verification.difference_count, verification.equal) == (3, 2)
    ((state, result),) = sides.ledger.ended.values()
    assert (str(state), result["mode"]) == ("finished with failures", "keys")


def test_keys_are_repaired_where_that_is_asked_for(sides):
    sides.put(order(1), postgres=None)

    assert keyed(sides, [order(1)], repair=True, settle=sides.settle_all).run().proven
    assert keyed(sides, [order(1)]).run().equal == 1
