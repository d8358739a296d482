"""BatchGetItem over both sides: taken apart by key, and its answers put together again."""

from collections.abc import Mapping, Sequence
from typing import Any

from dualstore.errors import RequestRejected
from dualstore.items import Item, Key, TableShape, key_bytes
from dualstore.operations import BatchGetItem, Response
from dualstore.replication.agent import Agent
from dualstore.replication.parts import together
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing.authorities import Authorities
from dualstore.routing.dialling import Dialling
from dualstore.routing.reads import Reads
from dualstore.stages import Side

# DynamoDB, "BatchGetItem": a longer one is refused whole, which its parts would not be.
_MOST_KEYS = 100

Keys = Mapping[str, Sequence[Key]]
"""Keys by the physical names of their tables."""


class BatchReads:
    """Carries out batches of reads, each key on the side that a GetItem of it would be dialled to.

    The mirror leaves keys in doubt unprocessed; the authority is asked for those, consistently, and for the
    keys that no dial covers. A batch promises nothing about its items together, so neither do its parts.

    Args:
        reads: asks mirror and authorities.
        authorities: give out what the mirror answered.
        dialling: says which keys the mirror is asked for.
        agent: knows what this process may act on.
        tables: the served tables by physical name; may grow.
    """

    def __init__(
        self,
        reads: Reads,
        authorities: Authorities,
        dialling: Dialling,
        *,
        agent: Agent,
        tables: Mapping[str, ServedTable],
    ) -> None:
        self._reads = reads
        self._authorities = authorities
        self._dialling = dialling
        self._agent = agent
        self._tables = tables

    def carry_out(self, table: ServedTable, operation: BatchGetItem) -> Response:
        """The answer to a batch.

        Args:
            table: by whose name the part of the authorities is counted.
            operation: a BatchGetItem of at least one served table.
        """
        views = self._agent.views()
        dialled = self._dialled(operation, views)
        response: Response = {}
        left: dict[str, Sequence[Key]] = {}
        for name, keys in dialled.items():
            answer = self._at_mirror(self._tables[name], _part(operation, {name: keys}), views[name])
            if answer is None:
                left[name] = keys
            else:
                unprocessed = answer.pop("UnprocessedKeys", None) or {}
                left.update({each: asked["Keys"] for each, asked in unprocessed.items()})
                response = together(response, answer)
        rest = _rest(operation, dialled, left)
        if rest is None:
            return {**response, "UnprocessedKeys": {}}
        answer = self._reads.of_several(table, rest)
        if not response:
            return answer
        shapes = {name: self._tables[name].shape for name in dialled}
        return _in_order(operation, together(response, answer), shapes)

    def _dialled(self, operation: BatchGetItem, views: Mapping[str, View]) -> Keys:
        """The keys that dial or cohort send to the mirror; none where the authority refuses the request."""
        try:
            requested: Mapping[str, Any] = operation.request["RequestItems"]
            if sum(len(asked["Keys"]) for asked in requested.values()) > _MOST_KEYS:
                return {}
            found = {
                name: list(self._dialling.covered_keys(self._tables[name], asked, views[name]))
                for name, asked in requested.items()
                if name in self._tables
            }
        except (RequestRejected, KeyError, TypeError, AttributeError):
            return {}
        return {name: keys for name, keys in found.items() if keys}

    def _at_mirror(self, table: ServedTable, part: BatchGetItem, view: View) -> Response | None:
        """The mirror's answer, or None where the authority must be asked for all of it."""
        admission = self._dialling.admit_covered(table, part, view)
        answer = self._reads.ask_mirror(table, part, view, admission) if admission else None
        if answer is None:
            return None
        # A copy: the comparison keeps what it is shown.
        return dict(self._authorities.given_out(table, part, Side.POSTGRES, answer))


def _part(operation: BatchGetItem, keys: Keys) -> BatchGetItem:
    requested = operation.request["RequestItems"]
    items = {name: {**requested[name], "Keys": list(mine)} for name, mine in keys.items()}
    return BatchGetItem({**operation.request, "RequestItems": items})


def _rest(operation: BatchGetItem, dialled: Keys, left: Keys) -> BatchGetItem | None:
    """What the authority is asked for, or None: the keys that are not dialled, and what the mirror left.

    A table of which the mirror left keys is read consistently: the mirror would have known every write.
    """
    asked_elsewhere = {id(key) for keys in dialled.values() for key in keys}
    items: dict[str, Any] = {}
    for name, asked in operation.request["RequestItems"].items():
        keys = [key for key in asked["Keys"] if id(key) not in asked_elsewhere]
        again = left.get(name, ())
        if keys or again:
            consistent = {"ConsistentRead": True} if again else {}
            items[name] = {**asked, **consistent, "Keys": [*keys, *again]}
    return BatchGetItem({**operation.request, "RequestItems": items}) if items else None


def _in_order(operation: BatchGetItem, response: Response, shapes: Mapping[str, TableShape]) -> Response:
    """The items of a response in the order of the keys asked for, where a projection has left them keys."""
    found = dict(response["Responses"])
    for name, shape in shapes.items():
        asked = operation.request["RequestItems"][name]["Keys"]
        places = {key_bytes(shape.keys, key): place for place, key in enumerate(asked)}
        items: list[Item] = found.get(name, [])
        if all(part in item for item in items for part in shape.keys.names):
            found[name] = sorted(items, key=lambda item: places[key_bytes(shape.keys, item)])
    return {**response, "Responses": found}
