"""The JSON schema of a migration plan, put together from the common keys and each action's own."""

from collections.abc import Mapping
from typing import Any

from dualstore.rollout.durations import PATTERN

_DURATION = {
    "type": "string",
    "pattern": PATTERN,
    "description": "a duration; write 90s, 15m, 24h or 2d",
}
_NAME = {
    "type": "string",
    "pattern": "^[A-Za-z0-9][A-Za-z0-9_./-]*$",
    "description": "a name; write letters, digits, - and _",
}
_PERCENT = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_LIMIT = {"type": ["number", "null"], "minimum": 0}
_COUNT = {"type": ["integer", "null"], "minimum": 0}
_AGE = {
    "type": ["string", "null"],
    "pattern": PATTERN,
    "description": "a duration or null; write 90s, 15m, 24h or 2d",
}

DEFINITIONS: Mapping[str, Any] = {
    "name": _NAME,
    "duration": _DURATION,
    "window": {
        "type": "object",
        "description": "When steps may begin; every step waits for it.",
        "required": ["timezone"],
        "properties": {
            "days": {"type": "string", "description": "days such as mon-fri or mon,wed"},
            "hours": {
                "type": "string",
                "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$",
                "description": "hours; write 09:00-17:00",
            },
            "timezone": {"type": "string", "description": "a time zone such as Europe/Berlin"},
            "closed": {
                "type": "array",
                "items": {"description": "a date such as 2026-12-24"},
                "description": "days without any step, such as [2026-12-24]",
            },
        },
        "additionalProperties": False,
    },
    "windowOrAny": {
        "if": {"type": "string"},
        "then": {"enum": ["any"]},
        "else": {"$ref": "#/$defs/window"},
    },
    "gates": {
        "type": "object",
        "description": "What the evidence must say before a step counts as done; null does not ask.",
        "properties": {
            "verified_within": _AGE,
            "mismatch_percent": _LIMIT,
            "error_percent": _LIMIT,
            "latency_increase_percent": _LIMIT,
            "p95_ms": _LIMIT,
            "p99_ms": _LIMIT,
            "comparisons": _COUNT,
            "dirty_keys": _COUNT,
            "journal_keys": _COUNT,
            "outbox_age": _AGE,
        },
        "additionalProperties": False,
    },
}

COMMON: Mapping[str, Any] = {
    "id": {"$ref": "#/$defs/name"},
    "approval": {"enum": ["required", "four-eyes"]},
    "window": {"$ref": "#/$defs/windowOrAny"},
    "patience": {"$ref": "#/$defs/duration"},
    "on_refusal": {"enum": ["halt", "roll_back"]},
    "skip": {"type": "string", "minLength": 3, "description": "the reason why it is left out"},
}
"""Keys that every step may have."""

SOAKING: Mapping[str, Any] = {
    "soak": {"$ref": "#/$defs/duration"},
    "gates": {"$ref": "#/$defs/gates"},
}
"""Keys of steps that watch what they have done."""


def plan_schema(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The schema of a plan.

    Args:
        options: by action, the schemas of its own keys; a key `required` lists those that it needs.
    """
    names = list(options)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A dualstore migration plan",
        "type": "object",
        "required": ["plan", "tables", "stages"],
        "properties": {
            "plan": {"$ref": "#/$defs/name"},
            "environment": {"enum": ["production", "staging"]},
            "tables": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {"$ref": "#/$defs/name"},
            },
            "window": {"$ref": "#/$defs/windowOrAny"},
            "gates": {"$ref": "#/$defs/gates"},
            "patience": {"$ref": "#/$defs/duration"},
            "on_refusal": COMMON["on_refusal"],
            "stages": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/stage"}},
        },
        "additionalProperties": False,
        "$defs": {
            **DEFINITIONS,
            "stage": {
                "type": "object",
                "required": ["stage", "steps"],
                "properties": {
                    "stage": {"$ref": "#/$defs/name"},
                    "window": {"$ref": "#/$defs/windowOrAny"},
                    "steps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}},
                },
                "additionalProperties": False,
            },
            "step": {
                "if": {"type": "string"},
                "then": {"enum": names},
                "else": {
                    "type": "object",
                    "description": "a step; write its name, or a mapping with the key `step`",
                    "required": ["step"],
                    "properties": {"step": {"enum": names}},
                    "allOf": [
                        {
                            "if": {
                                "type": "object",
                                "properties": {"step": {"const": name}},
                                "required": ["step"],
                            },
                            "then": _step(name, own),
                        }
                        for name, own in options.items()
                    ],
                },
            },
        },
    }


def _step(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    properties = {key: schema for key, schema in own.items() if key != "required"}
    return {
        "properties": {"step": {"const": name}, **COMMON, **properties},
        **({"required": list(own["required"])} if "required" in own else {}),
        "additionalProperties": False,
    }
