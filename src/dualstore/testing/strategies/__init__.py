"""Hypothesis strategies of a PynamoDB model: its keys, items, conditions and actions, and steps made of them.

All strategies of one model draw their keys from the same few of an example (`pool_of`), so that histories
meet the same items again and again.
"""

from dualstore.testing.strategies.actions import actions_of
from dualstore.testing.strategies.conditions import conditions_of
from dualstore.testing.strategies.items import instance_of, instances_of, items_of
from dualstore.testing.strategies.ranges import starts_with
from dualstore.testing.strategies.steps import beginnings_of, steps_of
from dualstore.testing.strategies.subjects import UNDECLARED, Strategies, keys_of, pool_of

__all__ = [
    "UNDECLARED",
    "Strategies",
    "actions_of",
    "beginnings_of",
    "conditions_of",
    "instance_of",
    "instances_of",
    "items_of",
    "keys_of",
    "pool_of",
    "starts_with",
    "steps_of",
]
