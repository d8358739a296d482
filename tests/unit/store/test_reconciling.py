"""Which changes of a lost PostgreSQL DynamoDB has, by the stamps that it shows."""

from types import SimpleNamespace
from typing import Any

import pytest

from dualstore.errors import IllegalTransition
from dualstore.items import PREDECESSOR, STAMP, Item, KeyAttribute, KeySchema, TableShape, key_bytes
from dualstore.store.reconciling import Reconciling, judge
from dualstore.stores.base import UNREADABLE, MirrorState, Revision
from dualstore.stores.memory import MemoryStore
from dualstore.stores.outbox import SECOND_LOOK
from dualstore.stores.postgres_lost_writes import Loss
from dualstore.stores.postgres_outbox import LeftOver

WRITTEN, DELETED, OVER, ARRIVED = Loss.WRITTEN, Loss.DELETED, Loss.WRITTEN_OVER, Loss.ARRIVED


def entry(number: int, stamp: bytes | None = None, reason: str | None = None) -> LeftOver:
    return LeftOver(number, {"id": {"S": "a"}}, reason, stamp, 0.0)


def item(stamp: bytes | None, predecessor: bytes | None = None, value: str = "v") -> Item:
    made: Item = {"id": {"S": "a"}, "v": {"S": value}}
    if stamp is not None:
        made[STAMP] = {"B": stamp}
    if predecessor is not None:
        made[PREDECESSOR] = {"B": predecessor}
    return made


ONE, TWO, THREE = entry(1, b"1"), entry(2, b"2"), entry(3, b"3")


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        pytest.param(item(b"3"), item(b"0"), [OVER, OVER, WRITTEN], id="DynamoDB holds what was before"),
        pytest.param(item(b"3"), None, [OVER, OVER, WRITTEN], id="DynamoDB holds nothing"),
        pytest.param(None, item(b"0"), [OVER, OVER, DELETED], id="the last one deleted it"),
        pytest.param(item(b"3"), item(b"1"), [ARRIVED, OVER, WRITTEN], id="the first had arrived"),
        pytest.param(item(b"3"), item(b"3"), [ARRIVED] * 3, id="all had arrived"),
        pytest.param(None, None, [ARRIVED] * 3, id="both hold nothing"),
        pytest.param(
            item(b"3"),
            item(b"9", b"2"),
            [ARRIVED, ARRIVED, WRITTEN],
            id="DynamoDB was updated onto it",
        ),
        pytest.param(item(b"3"), item(b"9"), [OVER, OVER, WRITTEN], id="DynamoDB was put anew"),
        pytest.param(item(b"3"), item(b"3", value="w"), [ARRIVED] * 3, id="a stranger kept the stamp"),
        pytest.param(item(b"8"), item(b"0"), [OVER] * 3, id="the row was changed without a trace"),
        pytest.param(item(None), item(None, value="w"), [OVER] * 3, id="nobody left a stamp"),
    ],
)
def test_what_became_of_three_changes_of_a_key(
    ours: Item | None, theirs: Item | None, found: list[Loss]
) -> None:
    assert [kind for _, kind in judge([ONE, TWO, THREE], ours=ours, theirs=theirs)] == found


def test_what_only_had_a_key_looked_at_is_no_change_beside_one() -> None:
    doubt = entry(2, reason="it was in doubt")
    assert judge([ONE, doubt], ours=item(b"1"), theirs=None) == [(ONE, WRITTEN)]


def test_a_key_that_was_only_looked_at_and_differs_is_named_once() -> None:
    doubts = [entry(number, reason="it was in doubt") for number in (1, 2)]
    assert judge(doubts, ours=item(b"1"), theirs=None) == [(doubts[1], WRITTEN)]


def test_a_second_look_is_no_loss() -> None:
    assert judge([entry(1, reason=SECOND_LOOK)], ours=item(b"1"), theirs=None) == []


def test_a_row_that_makes_no_item_is_not_lost_unseen() -> None:
    shape = TableShape("orders-prod", KeySchema(KeyAttribute("id", "S")))
    key = {"id": {"S": "a"}}
    state = MirrorState({**key, **UNREADABLE}, None, Revision(row=1, tombstone=None))
    kept: list[object] = []
    reconciling = Reconciling(
        shape,
        Any,
        engine=Any,
        agent=Any,
        dynamodb=MemoryStore({shape.name: shape}),
        postgres=SimpleNamespace(items_of=lambda *_: {key_bytes(shape.keys, key): state}),
        outbox=Any,
        lost=SimpleNamespace(keep=lambda *_, **__: kept.append(1), form=None),
    )
    with pytest.raises(IllegalTransition, match=r"makes no item \(key hash [0-9a-f]{16}\)"):
        reconciling._keep([ONE], 1)
    assert kept == []
