"""The JSON schema of a load profile."""

from collections.abc import Mapping
from typing import Any

from dualstore.operations import OPERATIONS

_PERCENT = {"type": "number", "minimum": 0, "maximum": 100, "description": "a percentage from 0 to 100"}
_SHARE = {"type": "number", "minimum": 0, "description": "a share, such as 12.5"}
_SOME = {"type": "number", "exclusiveMinimum": 0, "description": "a share above 0, such as 12.5"}


def _shares(what: str, *, minimum: int, maximum: int, alone: bool = True) -> dict[str, Any]:
    """Numbers with their shares; where `alone`, one number may stand for all."""
    number = {"type": "integer", "minimum": minimum, "maximum": maximum}
    pairs = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "prefixItems": [number, _SOME],
            "description": f"a pair of {what} and its share, such as [10, 62.5]",
        },
    }
    if not alone:
        return pairs
    return {
        "if": {"type": "array"},
        "then": pairs,
        "else": {**number, "description": f"{what}, or pairs of such and their shares"},
    }


_OPERATION = {
    "type": "object",
    "description": "One kind of operations.",
    "required": ["operation", "per_second"],
    "properties": {
        "operation": {"enum": list(OPERATIONS)},
        "per_second": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "how many come a second in production, more than 0",
        },
        "index": {"type": "string", "description": "the name of an index"},
        "consistent_percent": _PERCENT,
        "conditional_percent": _PERCENT,
        "ranged_percent": _PERCENT,
        "keys": _shares("a number of keys from 1 to 100", minimum=1, maximum=100),
        "limits": _shares("a Limit, 0 where there is none", minimum=0, maximum=1_000_000),
        "item_bytes": _shares("a size in bytes, up to 409600", minimum=1, maximum=409_600),
        "acts": {
            "type": "object",
            "description": "What is done to a key of a batch or transaction, with its share.",
            "properties": dict.fromkeys(("Put", "Update", "Delete", "ConditionCheck"), _SOME),
            "additionalProperties": False,
            "minProperties": 1,
        },
    },
    "additionalProperties": False,
}
_PARTITIONS = {
    "type": "object",
    "description": "Partitions that are asked for equally often.",
    "required": ["partitions", "percent"],
    "properties": {
        "partitions": {"type": "integer", "minimum": 1, "description": "how many, at least 1"},
        "percent": {
            "if": {"type": "object"},
            "then": {
                "properties": dict.fromkeys((*OPERATIONS, "every"), _SHARE),
                "additionalProperties": False,
                "minProperties": 1,
            },
            "else": {**_SHARE, "description": "a share, or shares by operation"},
        },
        "items": {"type": "integer", "minimum": 1, "description": "how many in a partition, at least 1"},
        "sorts": _shares("a number of sort keys", minimum=1, maximum=1_000_000_000, alone=False),
    },
    "additionalProperties": False,
}
_CLASSES = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/partitions"}}
_SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A load profile of dualstore",
    "type": "object",
    "required": ["profile", "tables"],
    "properties": {
        "profile": {"type": "string", "minLength": 1, "description": "a name for people"},
        "recorded": {
            "type": "object",
            "description": "What it was condensed from.",
            "required": ["seconds", "began", "operations", "lost", "salts"],
            "properties": {
                "seconds": {"type": "number", "minimum": 0},
                "began": {"type": "string"},
                "operations": {"type": "integer", "minimum": 0},
                "lost": {"type": "integer", "minimum": 0},
                "salts": {"type": "integer", "minimum": 0},
            },
            "additionalProperties": False,
        },
        "recorded_at": {
            "type": "object",
            "description": "By table, hashes of where it was recorded: it is not replayed there.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "tables": {
            "type": "object",
            "minProperties": 1,
            "description": "By logical name.",
            "additionalProperties": {
                "type": "object",
                "required": ["operations", "keys"],
                "properties": {
                    "operations": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/operation"}},
                    "keys": _CLASSES,
                    "indexes": {"type": "object", "additionalProperties": _CLASSES},
                    "item": {
                        "type": "object",
                        "description": 'Attributes of every written item, such as {status: {S: "open"}}.',
                        "additionalProperties": {"type": "object", "minProperties": 1, "maxProperties": 1},
                    },
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
    "$defs": {"operation": _OPERATION, "partitions": _PARTITIONS},
}


def schema_of_profiles() -> dict[str, Any]:
    """The JSON schema of a profile, draft 2020-12; it describes one to editors, too."""
    return dict(_SCHEMA)
