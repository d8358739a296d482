"""The tables of the contract suite as a team has them: PynamoDB models with SQL models beside them.

The columns are of every type, and many items of the suite do not fit theirs: those go to the overflow.
"""

from functools import partial
from typing import Any

import sqlalchemy as sa
from pynamodb import attributes as pynamo
from pynamodb import indexes
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase

from contract.shapes import INCLUDED
from dualstore.mapping import (
    Entity,
    EntityTable,
    Mirrored,
    SplitMapping,
    TableMapping,
    map_table,
    split_table,
)

_BINARY = partial(pynamo.BinaryAttribute, legacy_encoding=False)
_ATTRIBUTES = {"S": pynamo.UnicodeAttribute, "N": pynamo.NumberAttribute, "B": _BINARY}
_COLUMNS = {"S": sa.Text(collation="C"), "N": sa.Numeric(), "B": sa.LargeBinary()}

_KEYS: dict[str, dict[str, str]] = {
    "things": {"pk": "S", "sk": "N"},
    "singles": {"pk": "S"},
    "numbered": {"pk": "N"},
    "texts": {"pk": "S", "sk": "S"},
    "binaries": {"pk": "B", "sk": "B"},
}

# Attribute: its PynamoDB type, and its column.
_OTHERS: dict[str, tuple[Any, Any]] = {
    "a": (pynamo.NumberAttribute, sa.Numeric),
    "n": (pynamo.NumberAttribute, sa.BigInteger),
    "s": (pynamo.UnicodeAttribute, sa.Text(collation="C")),
    "b": (_BINARY, sa.LargeBinary),
    "yes": (pynamo.BooleanAttribute, sa.Boolean),
    "ss": (pynamo.UnicodeSetAttribute, ARRAY(sa.Text)),
    "ns": (pynamo.NumberSetAttribute, ARRAY(sa.Numeric)),
    "l": (pynamo.ListAttribute, JSONB),
    "m": (pynamo.MapAttribute, JSONB),
    "note": (pynamo.UnicodeAttribute, sa.Text),
    "size": (pynamo.NumberAttribute, sa.Integer),
    "owner": (pynamo.UnicodeAttribute, sa.Text(collation="C")),
    "rank": (pynamo.NumberAttribute, sa.Numeric),
    "colour": (pynamo.UnicodeAttribute, sa.String(20, collation="C")),
    "label": (pynamo.UnicodeAttribute, sa.Text(collation="C")),
    "filler": (pynamo.UnicodeAttribute, sa.Text),
}


def _projection(projection: Any) -> Any:
    if projection == "ALL":
        return indexes.AllProjection()
    return (
        indexes.KeysOnlyProjection()
        if projection == "KEYS_ONLY"
        else indexes.IncludeProjection([*projection])
    )


def _index(name: str, projection: Any, *key: tuple[str, str], is_global: bool = True) -> Any:
    kind = indexes.GlobalSecondaryIndex if is_global else indexes.LocalSecondaryIndex
    meta = type("Meta", (), {"index_name": name, "projection": _projection(projection)})
    return type(f"Index_{name}", (kind,), {"Meta": meta, **_key(*key)})()


def _key(*key: tuple[str, str]) -> dict[str, Any]:
    roles = ({"hash_key": True}, {"range_key": True})
    return {name: _ATTRIBUTES[type_](**role) for (name, type_), role in zip(key, roles, strict=False)}


def _indexes() -> dict[str, Any]:
    owner, rank = ("owner", "S"), ("rank", "N")
    return {
        "by_owner": _index("by-owner", "KEYS_ONLY", owner),
        "by_rank": _index("by-rank", INCLUDED, owner, rank),
        "by_colour": _index("by-colour", "ALL", ("colour", "S"), ("sk", "N")),
        "by_label": _index("by-label", "KEYS_ONLY", ("pk", "S"), ("label", "S"), is_global=False),
    }


def mapping(kind: str, name: str) -> TableMapping:
    """One kind of table under a physical name, mapped to a SQL table of the same name."""
    return _mapping(kind, name, name, _OTHERS)


# Which items are whose, and which of the attributes have columns. Many items are of no entity, and many
# updates of the suite make an item another's.
_ENTITIES: tuple[tuple[Entity, frozenset[str]], ...] = (
    (Entity.by_attribute("n", 0, 5, 10), frozenset(_OTHERS)),
    (Entity.by_attribute("n", 1, 4, 6, 7), frozenset({"b", "rank", "owner", "s", "colour"})),
    (Entity(prefixes=(("pk", "q"),)), frozenset({"label", "n"})),
    (Entity.by_attribute("a", 1), frozenset({"a", "ss", "label"})),
)


def split(kind: str, name: str) -> SplitMapping:
    """One kind of table under a physical name, in three SQL tables and one for the rest."""
    entities = _ENTITIES if _KEYS[kind]["pk"] == "S" else (*_ENTITIES[:2], _ENTITIES[3])
    return split_table(
        name,
        [
            EntityTable(
                f"entity {number}",
                entity,
                _mapping(kind, name, f"{name}-{number}", {each: _OTHERS[each] for each in sorted(columns)}),
            )
            for number, (entity, columns) in enumerate(entities[:3])
        ],
    )


def _mapping(kind: str, name: str, sql_name: str, others: dict[str, tuple[Any, Any]]) -> TableMapping:
    keys = _KEYS[kind]
    model = type(
        "Thing",
        (Model,),
        {
            "Meta": type("Meta", (), {"table_name": name}),
            **_key(*keys.items()),
            **{attribute: type_(null=True) for attribute, (type_, _) in others.items()},
            **(_indexes() if kind == "things" else {}),
        },
    )
    base = type("Base", (DeclarativeBase,), {})
    row = type(
        "ThingRow",
        (Mirrored, base),
        {
            "__tablename__": sql_name,
            **{key: sa.Column(_COLUMNS[type_], primary_key=True) for key, type_ in keys.items()},
            **{attribute: sa.Column(type_, nullable=True) for attribute, (_, type_) in others.items()},
        },
    )
    return map_table(kind, model, row)
