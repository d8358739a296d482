"""The relay behind a Lambda event source mapping."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dualstore import aws_lambda
from dualstore.aws_lambda import handler, relay_event
from dualstore.errors import ConfigurationError, MirrorUnavailable
from dualstore.items import Item
from dualstore.replication.stamps import new_stamp
from unit.replication.relays import StreamedRelay, StreamedWorld, records_of, stored

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/items-prod/stream/2026-01-01T00:00:00.000"


@pytest.fixture
def world() -> StreamedWorld:
    return StreamedWorld()


@pytest.fixture
def relay(world: StreamedWorld) -> StreamedRelay:
    return world.relay()


def event_of(world: StreamedWorld, *, arn: str = ARN) -> dict[str, Any]:
    """What Lambda hands over: through JSON, as it does."""
    records = [
        {
            "eventID": record.sequence,
            "eventName": record.change,
            "eventSource": "aws:dynamodb",
            "eventSourceARN": arn,
            "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
            if record.is_ttl_deletion
            else None,
            "dynamodb": {
                "ApproximateCreationDateTime": record.created_at.timestamp(),
                "Keys": in_json(record.key),
                **({"NewImage": in_json(record.new_image)} if record.new_image else {}),
                **({"OldImage": in_json(record.old_image)} if record.old_image else {}),
                "SequenceNumber": record.sequence,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }
        for record in records_of(world)
    ]
    parsed: dict[str, Any] = json.loads(json.dumps({"Records": records}))
    return parsed


def in_json(item: Item) -> Any:
    """Bytes in base64, at any depth."""
    if isinstance(item, dict):
        return {name: in_json(value) for name, value in item.items()}
    if isinstance(item, list):
        return [in_json(value) for value in item]
    return base64.b64encode(item).decode() if isinstance(item, bytes) else item


def test_what_an_event_tells_is_healed(world, relay):
    world.rogue_put("1")
    world.rogue_put("1", key="b")
    world.rogue_delete(key="b")
    assert relay_event(relay.relay, event_of(world)) == {"batchItemFailures": []}
    assert world.differing == []


def test_bytes_of_an_event_are_decoded_at_any_depth(world, relay):
    """Otherwise no stamp would be recognised, and every record be settled."""
    nested = {"L": [{"M": {"b": {"B": b"\x00\xff"}, "bs": {"BS": [b"\x01", b"\x02"]}}}]}
    stamp = new_stamp()
    item = {"id": {"S": "a"}, "nested": nested, "_dsv": {"B": stamp}}
    world.change("a", item)
    world.postgres.write_direct(
        "items-prod", {"id": {"S": "a"}}, item, stamp=stamp, predecessor=None, epoch=0
    )
    relay_event(relay.relay, event_of(world))
    assert world.verdicts == {"shown": 1}


def test_the_first_record_that_failed_is_reported_and_none_behind_it_passed(world, relay):
    for key in "abcb":
        world.rogue_put("1" if key != "b" else "2", key=key)
    failing = records_of(world)[1].sequence
    relay.postgres.before = lambda name, args: fail("b", name, args)
    assert relay_event(relay.relay, event_of(world)) == {"batchItemFailures": [{"itemIdentifier": failing}]}
    relay.postgres.before = lambda *_: None
    assert relay_event(relay.relay, event_of(world)) == {"batchItemFailures": []}
    assert world.differing == []


def fail(key: str, name: str, args: tuple[Any, ...]) -> None:
    if name == "write_settled" and args[1] == {"id": {"S": key}}:
        raise MirrorUnavailable("simulated")


def test_later_chunks_are_not_attempted_after_a_failure(world, relay):
    for number in range(250):
        world.rogue_put("1", key=f"{number:03}")
    records = records_of(world)
    relay.postgres.before = lambda name, args: fail("120", name, args)
    answer = relay_event(relay.relay, event_of(world))
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[120].sequence}]}
    assert stored(world.postgres, "249") is None


def test_an_expired_item_is_told_from_a_rogue_deletion(world, relay):
    world.write("1")
    world.write("1", key="b")
    world.rogue_delete(is_ttl_deletion=True)
    world.rogue_delete(key="b")
    relay_event(relay.relay, event_of(world))
    assert world.counted("dualstore.rogue.changes") == {"deleted": 1}
    assert world.differing == []


def test_a_table_that_is_not_served_is_a_clear_error(world, relay):
    world.rogue_put("1")
    with pytest.raises(ConfigurationError, match=r"table elsewhere .* known: items-prod"):
        relay_event(relay.relay, event_of(world, arn=ARN.replace("items-prod", "elsewhere")))


def test_an_empty_event_is_answered(relay):
    assert relay_event(relay.relay, {"Records": []}) == {"batchItemFailures": []}


def test_the_store_is_made_of_the_configuration_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    aws_lambda._made.cache_clear()
    monkeypatch.setenv("DUALSTORE_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: no such file"):
        handler({"Records": []}, None)


class Invoked:
    """The store of a container, as far as the handler asks of one."""

    def __init__(self, relay: Any, *, report: Exception | None = None) -> None:
        self._relay = relay
        self._report = report
        self.done: list[str] = []

    def refresh(self) -> None:
        self.done.append("refresh")

    def relay(self) -> Any:
        self.done.append("relay")
        return self._relay

    def report(self) -> None:
        self.done.append("report")
        if self._report is not None:
            raise self._report


def test_the_figures_of_an_invocation_are_reported_at_its_end(
    monkeypatch: pytest.MonkeyPatch, world: StreamedWorld, relay: StreamedRelay
) -> None:
    """No thread would: Lambda freezes the process until the next event."""
    store = Invoked(relay.relay)
    monkeypatch.setattr(aws_lambda, "_made", lambda: store)
    world.rogue_put("1")
    assert handler(event_of(world)) == {"batchItemFailures": []}
    with pytest.raises(ConfigurationError):
        handler(event_of(world, arn=ARN.replace("items-prod", "elsewhere")))
    assert store.done == ["refresh", "relay", "report"] * 2


def test_figures_that_cannot_be_reported_hold_no_record_up(
    monkeypatch: pytest.MonkeyPatch,
    world: StreamedWorld,
    relay: StreamedRelay,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(aws_lambda, "_made", lambda: Invoked(relay.relay, report=MirrorUnavailable("down")))
    world.rogue_put("1")
    assert handler(event_of(world)) == {"batchItemFailures": []}
    assert "were not reported: MirrorUnavailable" in caplog.text
