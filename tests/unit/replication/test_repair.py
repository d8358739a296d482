"""Repair: every recorded key comes up, whatever is wrong with others."""

import pytest

from dualstore.control import Gate
from dualstore.errors import MirrorRefused
from dualstore.replication import repair
from unit.replication.processes import TABLE, Process, World, stored


def refuse(process: Process, *refused: str, failure: Exception | None = None) -> None:
    """Let the mirror refuse the items of these keys, whoever settles them."""

    def check(name: str, args: tuple[object, ...]) -> None:
        if name in {"write_direct", "write_settled"} and args[1]["id"]["S"] in refused:  # type: ignore[index]
            raise failure or MirrorRefused("a constraint")

    process.mirror.before = check


@pytest.mark.parametrize("failure", [None, ValueError("unforeseen")])
def test_a_key_that_sql_refuses_does_not_keep_the_others_from_being_settled(
    world: World, two: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    process, _ = two
    monkeypatch.setattr(repair, "_DIRTY_KEYS_AT_ONCE", 3)
    poisoned = [f"poison {number}" for number in range(5)]
    refuse(process, *poisoned, "good", failure=failure)
    for key in (*poisoned, "good"):
        process.put("v", key=key)
    assert len(world.mirror.dirty_keys(TABLE)) == 6
    refuse(process, *poisoned, failure=failure)
    for _ in range(3):
        process.repair()
    assert stored(world.mirror, "good") is not None
    assert {entry.key["id"]["S"] for entry in world.mirror.dirty_keys(TABLE)} == set(poisoned)
    refuse(process)
    for _ in range(3):
        process.repair()
    assert not world.mirror.dirty_keys(TABLE)


def test_a_journalled_key_that_sql_refuses_is_handed_to_the_mirror_and_the_gate_opens(
    world: World, two: tuple[Process, Process]
) -> None:
    process, other = two
    process.mirror.down = True
    process.put("v", key="poison")
    process.put("v", key="good")
    process.mirror.down = False
    refuse(process, "poison")
    repaired = process.repair()
    assert (repaired.gate, process.journalled()) == (Gate.OPEN, 0)
    assert [entry.key["id"]["S"] for entry in world.mirror.dirty_keys(TABLE)] == ["poison"]
    other.agent.refresh()
    assert (other.get("poison"), other.get("good")) == ("v", "v")


def test_a_doubt_that_came_while_the_key_was_settled_is_not_cleared(
    world: World, two: tuple[Process, Process]
) -> None:
    process, _ = two
    refuse(process, "a")
    process.put("v")
    refuse(process)

    def again(name: str, args: tuple[object, ...]) -> None:
        if name == "clear_dirty":
            world.mirror.mark_dirty(TABLE, {"id": {"S": "a"}}, nonce="newer", reason="")

    process.mirror.before = again
    process.repair()
    assert [entry.nonce for entry in world.mirror.dirty_keys(TABLE)] == ["newer"]


def test_a_journal_entry_that_came_while_the_key_was_settled_is_not_cleared(
    world: World, two: tuple[Process, Process]
) -> None:
    process, other = two
    process.mirror.down = other.mirror.down = True
    process.put("first")
    process.mirror.down = False
    written: list[str] = []

    def again(name: str, args: tuple[object, ...]) -> None:
        if type(args[0]).__name__ == "DeleteItem" and not written:
            written.append("second")
            other.put("second")

    process.bookkeeping.before = again
    process.repair()
    assert written
    other.mirror.down = False
    other.repair()
    assert stored(world.mirror) == stored(world.authority)
    assert stored(world.mirror)["v"] == {"S": "second"}
