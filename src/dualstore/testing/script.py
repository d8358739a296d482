"""A history of steps as a short script of PynamoDB calls, each checked to send the very request of its step.

What PynamoDB cannot say (an attribute that the model does not declare, a value of another type) is said with
boto3's client. The script's values were generated, so they may be shown.
"""

import contextlib
import datetime as dt
import pprint
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pynamodb.attributes import Attribute, DiscriminatorAttribute, MapAttribute
from pynamodb.connection import Connection
from pynamodb.expressions.condition import Condition, size
from pynamodb.expressions.operand import Path, Value
from pynamodb.expressions.update import (
    Action,
    AddAction,
    DeleteAction,
    RemoveAction,
)
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite

from dualstore.bind import routing
from dualstore.items import AttributeValue, Item
from dualstore.operations import Request, Response
from dualstore.testing import steps
from dualstore.testing.answers import Page
from dualstore.testing.values import is_raw

_WIDTH = 110
_OPERATORS: Mapping[str, str] = {"=": "==", "<>": "!="}
_METHODS: Mapping[str, str] = {
    "BETWEEN": "between",
    "IN": "is_in",
    "attribute_exists": "exists",
    "attribute_not_exists": "does_not_exist",
    "attribute_type": "is_type",
    "begins_with": "startswith",
    "contains": "contains",
}
_CLIENT_METHODS: Mapping[str, str] = {
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "GetItem": "get_item",
    "Query": "query",
    "Scan": "scan",
    "BatchGetItem": "batch_get_item",
    "BatchWriteItem": "batch_write_item",
    "TransactGetItems": "transact_get_items",
    "TransactWriteItems": "transact_write_items",
}


_LISTING = ("list({0})", "print([each.serialize(null_check=False) for each in {0}])")
_FORMS: Mapping[type, tuple[str, str]] = {
    steps.Get: ("{0}", "print({0}.serialize(null_check=False))"),
    steps.QueryOf: _LISTING,
    steps.ScanOf: _LISTING,
    steps.BatchGet: _LISTING,
    steps.BatchWrite: ("{0}", "{0}"),
    steps.TransactGet: ("{0}", "{0}\nprint([each.get() for each in found])"),
    steps.TransactWrite: ("{0}", "{0}"),
}
"""How a call is written, and how its answer is shown; `print(...)` where nothing is said here."""


class Unsayable(Exception):  # noqa: N818 - no fault: boto3 says it instead
    """PynamoDB has no words for this."""


@dataclass(frozen=True)
class Done:
    """A step that was carried out, and the calls and answers it made on one store."""

    step: steps.Step
    pages: Sequence[Page] = field(repr=False)


def script_of(model: type[Model], history: Sequence[Done]) -> str:
    """The script of a history.

    Args:
        model: the model, which the script imports from its module.
        history: what was done; the answer of the last is printed.
    """
    language = _Language(model)
    lines = [language.said(done, last=done is history[-1]) for done in history]
    body = "\n".join(lines)
    return "\n".join((*_imports(model, body), "", body, ""))


def _imports(model: type[Model], body: str) -> Iterator[str]:
    if "datetime." in body:
        yield "import datetime"
        yield ""
    if "client." in body:
        yield "import boto3"
    if "Connection(" in body:
        yield "from pynamodb.connection import Connection"
    if re.search(r"\bsize\(", body):
        yield "from pynamodb.expressions.condition import size"
    if "Path(" in body:
        yield "from pynamodb.expressions.operand import Path"
    transactions = [name for name in ("TransactGet", "TransactWrite") if f"{name}(" in body]
    if transactions:
        yield f"from pynamodb.transactions import {', '.join(transactions)}"
    if model.__qualname__ == model.__name__:
        yield f"from {model.__module__} import {model.__name__}"
    else:
        yield f"# {model.__name__} is {model.__qualname__} in {model.__module__}, which cannot be imported"
    if "client." in body:
        yield ""
        yield f'client = boto3.client("dynamodb", region_name={_region(model)!r})'


def _region(model: type[Model]) -> str:
    return str(getattr(model.Meta, "region", None) or "us-east-1")


class _Language:
    """How steps on one model are said."""

    def __init__(self, model: type[Model]) -> None:
        self._model = model
        self._name = model.__name__
        self._attributes = {each.attr_name: each for each in model.get_attributes().values()}
        self._paths = dict(_dotted(model, self._name, ()))
        self._words: Mapping[type, Any] = {
            steps.Put: self._put,
            steps.ChangeOf: self._change,
            steps.Delete: self._delete,
            steps.Get: self._get,
            steps.QueryOf: self._query,
            steps.ScanOf: self._scan,
            steps.BatchGet: self._batch_get,
            steps.BatchWrite: self._batch_write,
            steps.TransactGet: self._transact_get,
            steps.TransactWrite: self._transact_write,
        }

    def said(self, done: Done, *, last: bool) -> str:
        """One step; with `last`, its answer is printed."""
        plain, shown = _FORMS.get(type(done.step), ("{0}", "print({0})"))
        try:
            call: str = self._words[type(done.step)](done.step)
        except Unsayable:
            return self._boto3(done, last=last)
        if not self._sends(plain.format(call), done.pages):
            return self._boto3(done, last=last)
        return (shown if last else plain).format(call)

    def _sends(self, text: str, pages: Sequence[Page]) -> bool:
        """Whether some lines make exactly these calls; carried out on the answers that are known."""
        replay = _Replay(pages)
        words = {
            self._name: self._model,
            "Connection": Connection,
            "Path": Path,
            "size": size,
            "datetime": dt,
            "TransactGet": TransactGet,
            "TransactWrite": TransactWrite,
            "print": lambda *_: None,
        }
        # A refusal is raised, and so is an item that is not there; else the calls do not tally.
        with (
            contextlib.suppress(Exception),
            routing(replay, frozenset({self._model.Meta.table_name})),
        ):
            exec(compile(text, "<step>", "exec"), words)  # noqa: S102 - our own words
        return replay.matched

    # -- the steps -------------------------------------------------------------------------------

    def _put(self, step: steps.Put) -> str:
        if step.returns != "NONE":
            raise Unsayable
        for item, condition in self._as_saved(step.item, step.condition):
            said = self._instance(item)
            return f"{said}.save({self._optional(condition)})"
        raise Unsayable

    def _as_saved(self, item: Item, condition: Condition | None) -> Iterator[tuple[Item, Condition | None]]:
        """The item as it was before `save` counted its version up, and the condition without that."""
        version = next((n for n, a in self._attributes.items() if a.attr_type == "N" and _counts(a)), None)
        if version is None:
            yield item, condition
            return
        if item.get(version, {}).get("N") is None:
            return
        number = int(float(item[version]["N"]))
        before = {name: value for name, value in item.items() if name != version}
        if number > 1:
            before[version] = {"N": str(number - 1)}
        if condition is not None:
            yield before, None

    def _change(self, step: steps.ChangeOf) -> str:
        actions, owner, condition = list(step.actions), self._instance(step.key), step.condition
        version = next((n for n, a in self._attributes.items() if _counts(a)), None)
        if version is not None:
            condition = None
            counted = actions.pop()
            if isinstance(counted, AddAction) and step.condition is not None:
                owner = self._instance({**step.key, version: step.condition.values[1].value})
        said = ", ".join(map(self._action, actions))
        return f"{owner}.update(actions=[{said}]{self._also('condition', condition)})"

    def _delete(self, step: steps.Delete) -> str:
        if step.returns != "NONE":
            raise Unsayable
        free = ", add_version_condition=False" if any(map(_counts, self._attributes.values())) else ""
        said = f"{self._optional(step.condition)}{free}".removeprefix(", ")
        return f"{self._instance(step.key)}.delete({said})"

    def _get(self, step: steps.Get) -> str:
        paths = f", attributes_to_get={list(step.paths)!r}" if step.paths else ""
        return f"{self._name}.get({self._key(step.key)}, consistent_read=True{paths})"

    def _query(self, step: steps.QueryOf) -> str:
        name, value = step.partition
        owner = self._owner(step)
        options = (
            f"{self._also('range_key_condition', step.sort)}{self._listed(step)}"
            f", scan_index_forward={step.forward}"
        )
        return f"{owner}.query({self._value(value, self._attributes.get(name))}{options})"

    def _scan(self, step: steps.ScanOf) -> str:
        if step.segments not in (None, 1):
            raise Unsayable
        whole = ", segment=0, total_segments=1" if step.segments else ""
        return f"{self._owner(step)}.scan({f'{self._listed(step)}{whole}'.removeprefix(', ')})"

    def _owner(self, step: steps.Listing) -> str:
        """The model, or its index."""
        return self._name if step.index is None else f"{self._name}.{self._index(step.index)}"

    def _listed(self, step: steps.Listing) -> str:
        size_ = f", page_size={step.limit}" if step.limit is not None else ""
        return f"{self._also('filter_condition', step.filtered)}{size_}"

    def _batch_get(self, step: steps.BatchGet) -> str:
        keys = ", ".join(f"({self._key(key)})" if len(key) > 1 else self._key(key) for key in step.keys)
        return f"{self._name}.batch_get([{keys}], consistent_read=True)"

    def _batch_write(self, step: steps.BatchWrite) -> str:
        lines = [f"with {self._name}.batch_write() as batch:"]
        for each in step.writes:
            item, word = (each.item, "save") if isinstance(each, steps.Put) else (each.key, "delete")
            lines.append(f"    batch.{word}({self._instance(item)})")
        return "\n".join(lines)

    def _transact_get(self, step: steps.TransactGet) -> str:
        lines = [f"with TransactGet(connection=Connection(region={_region(self._model)!r})) as transaction:"]
        keys = [self._key(key) for key in step.keys]
        lines.append(
            "    found = [" + ", ".join(f"transaction.get({self._name}, {key})" for key in keys) + "]"
        )
        return "\n".join(lines)

    def _transact_write(self, step: steps.TransactWrite) -> str:
        if any(map(_counts, self._attributes.values())):
            raise Unsayable
        lines = [
            f"with TransactWrite(connection=Connection(region={_region(self._model)!r})) as transaction:"
        ]
        lines += [f"    transaction.{self._part(part)}" for part in step.parts]
        return "\n".join(lines)

    def _part(self, part: Any) -> str:
        condition = self._also("condition", part.condition)
        match part:
            case steps.Check():
                return f"condition_check({self._name}, {self._key(part.key)}{condition})"
            case steps.Delete():
                return f"delete({self._instance(part.key)}{condition})"
            case steps.Put():
                return f"save({self._instance(part.item)}{condition})"
            case _:
                actions = ", ".join(map(self._action, part.actions))
                return f"update({self._instance(part.key)}, actions=[{actions}]{condition})"

    def _boto3(self, done: Done, *, last: bool) -> str:
        method = _CLIENT_METHODS[done.step.name]
        calls = []
        for page in done.pages:
            said = pprint.pformat(dict(page.request), width=_WIDTH, sort_dicts=False, compact=True)
            call = f"client.{method}(**{said})"
            calls.append(f"print({call})" if last else call)
        return "\n".join(calls)

    # -- their parts -----------------------------------------------------------------------------

    def _key(self, key: Item) -> str:
        return ", ".join(self._exact(self._attributes[name], value) for name, value in key.items())

    def _exact(self, attribute: Attribute[Any], value: AttributeValue) -> str:
        """A value where PynamoDB takes no attribute value."""
        said = self._plainly(attribute, value)
        if said is None:
            raise Unsayable
        return said

    def _instance(self, item: Item) -> str:
        """An instance of the model."""
        if not set(item) <= set(self._attributes):
            raise Unsayable
        by_name = {attribute.attr_name: name for name, attribute in self._model.get_attributes().items()}
        given = [
            f"{by_name[name]}={self._exact(self._attributes[name], value)}"
            for name, value in item.items()
            if not isinstance(self._attributes[name], DiscriminatorAttribute)
        ]
        return f"{self._name}({', '.join(given)})"

    def _index(self, name: str) -> str:
        for python_name, member in vars(self._model).items():
            if getattr(getattr(member, "Meta", None), "index_name", None) == name:
                return python_name
        raise Unsayable

    def _optional(self, condition: Condition | None) -> str:
        return "" if condition is None else self._condition(condition)

    def _also(self, parameter: str, condition: Condition | None) -> str:
        return "" if condition is None else f", {parameter}={self._condition(condition)}"

    def _condition(self, condition: Condition) -> str:
        first, *others = condition.values
        if condition.operator == "NOT":
            return f"~({self._condition(first)})"
        if condition.operator in {"AND", "OR"}:
            joined = "&" if condition.operator == "AND" else "|"
            return f"({self._condition(first)}) {joined} ({self._condition(others[0])})"
        attribute = self._attribute_at(first)
        if condition.operator == "attribute_type":
            return f"Path({first.path!r}).is_type({others[0].value['S']!r})"
        if condition.operator in _METHODS:
            is_contained = condition.operator == "contains"
            said = [self._operand(other, None if is_contained else attribute) for other in others]
            owner = f"Path({first.path!r})" if is_contained else self._operand(first, None)
            return f"{owner}.{_METHODS[condition.operator]}({', '.join(said)})"
        operator = _OPERATORS.get(condition.operator, condition.operator)
        return f"{self._operand(first, None)} {operator} {self._operand(others[0], attribute)}"

    def _action(self, action: Action) -> str:
        path, *others = cast("Any", action.values)
        owner, attribute = self._operand(path, None), self._attribute_at(path)
        if isinstance(action, RemoveAction):
            return f"{owner}.remove()"
        if isinstance(action, AddAction | DeleteAction):
            word = "add" if isinstance(action, AddAction) else "delete"
            return f"Path({path.path!r}).{word}({others[0].value!r})"
        return f"{owner}.set({self._operand(others[0], attribute)})"

    def _operand(self, operand: Any, attribute: Attribute[Any] | None) -> str:
        if isinstance(operand, Path):
            return self._path(operand)
        if isinstance(operand, Value):
            return self._value(operand.value, attribute)
        words = {"_Size": "size({0})", "_Increment": "{0} + {1}", "_Decrement": "{0} - {1}",
                 "_ListAppend": "({0}).append({1})", "_IfNotExists": "{0} | {1}"}  # fmt: skip
        form = words.get(type(operand).__name__)
        if form is None:
            raise Unsayable
        return form.format(*(self._operand(each, None) for each in operand.values))

    def _path(self, path: Path) -> str:
        return self._paths.get(tuple(path.path)) or f"Path({path.path!r})"

    def _attribute_at(self, path: Any) -> Attribute[Any] | None:
        return self._attributes.get(path.path[0]) if isinstance(path, Path) and len(path.path) == 1 else None

    def _value(self, value: AttributeValue, attribute: Attribute[Any] | None) -> str:
        """A value where PynamoDB takes attribute values too."""
        said = None if attribute is None else self._plainly(attribute, value)
        return repr(value) if said is None else said

    def _plainly(self, attribute: Attribute[Any], value: AttributeValue) -> str | None:
        """The Python value that an attribute writes as this, or None where there is none."""
        if attribute.attr_type not in value:
            return None
        try:
            read = attribute.deserialize(attribute.get_value(value))
            if attribute.serialize(read) != value[attribute.attr_type]:
                return None
            said = repr(_plain(read))
            eval(said, {"datetime": dt})  # noqa: S307 - a repr of what was just read
        except Exception:  # noqa: BLE001 - whatever the attributes of a team raise: it cannot be said so
            return None
        return said


class _Replay:
    """Answers calls as they were answered, and notices one that is another."""

    closed = False

    def __init__(self, pages: Sequence[Page]) -> None:
        self._waiting = list(pages)
        self._tallied = True

    @property
    def matched(self) -> bool:
        """Whether every call was made, and no other."""
        return self._tallied and not self._waiting

    def serves(self, tables: frozenset[str]) -> bool:  # noqa: ARG002 - whatever is asked of it
        """Every table: it is asked about one model only."""
        return True

    def execute(self, name: str, request: Request) -> Response:
        """Answer one call."""
        if not self._waiting or _meaning(name, request) != _meaning(
            self._waiting[0].name, self._waiting[0].request
        ):
            self._tallied = False
            raise Unsayable
        page = self._waiting.pop(0)
        if page.error is not None:
            raise page.error
        return dict(page.response or {})


_IGNORED = frozenset({"ExpressionAttributeNames", "ExpressionAttributeValues", "ReturnConsumedCapacity"})


def _meaning(name: str, request: Any) -> Any:
    """A request with names and values put into its expressions, and without what changes no answer."""
    return name, _spelled_out(request)


def _spelled_out(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_spelled_out(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    names, values = value.get("ExpressionAttributeNames", {}), value.get("ExpressionAttributeValues", {})
    found = {}
    for parameter, inner in value.items():
        if parameter in _IGNORED or (parameter == "ReturnValues" and inner == "NONE"):
            continue
        if parameter.endswith("Expression") and isinstance(inner, str):
            filled = re.sub(r"#\w+", lambda match: repr(names.get(match[0])), inner)
            found[parameter] = re.sub(r":\w+", lambda match: repr(values.get(match[0])), filled)
        else:
            found[parameter] = _spelled_out(inner)
    return found


def _dotted(owner: Any, said: str, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, attribute in owner.get_attributes().items():
        at = (*above, attribute.attr_name)
        yield at, f"{said}.{name}"
        if isinstance(attribute, MapAttribute) and not is_raw(attribute):
            yield from _dotted(type(attribute), f"{said}.{name}", at)


def _plain(value: Any) -> Any:
    """A value as Python writes it: maps as dictionaries."""
    if isinstance(value, MapAttribute):
        return {name: _plain(inner) for name, inner in value.attribute_values.items()}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _counts(attribute: Attribute[Any]) -> bool:
    return type(attribute).__name__ == "VersionAttribute"
