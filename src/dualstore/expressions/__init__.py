"""DynamoDB's expressions: parsing them, and evaluating them on items as DynamoDB does."""

from dualstore.expressions.condition_binding import attributes_read, condition
from dualstore.expressions.conditions import Condition
from dualstore.expressions.evaluation import evaluate
from dualstore.expressions.key_conditions import (
    KeyCondition,
    SortCondition,
    SortOperator,
    key_condition,
    key_condition_of,
    key_predicate,
    matches,
)
from dualstore.expressions.legacy import EXPRESSION_PARAMETERS, LEGACY_PARAMETERS, with_expressions
from dualstore.expressions.paths import Path, check_placeholders, path_text, reject_unused, resolve
from dualstore.expressions.projections import project, projection
from dualstore.expressions.sql import SqlColumn, SqlCondition, compile_condition
from dualstore.expressions.tokens import MAX_EXPRESSION_SIZE_BYTES
from dualstore.expressions.update_application import apply_update
from dualstore.expressions.update_parser import update
from dualstore.expressions.update_sql import SqlNumber, SqlUpdate, compile_update
from dualstore.expressions.update_text import creates_item, with_set_actions
from dualstore.expressions.updates import Update, touched_paths, updated_key_attribute

__all__ = [
    "EXPRESSION_PARAMETERS",
    "LEGACY_PARAMETERS",
    "MAX_EXPRESSION_SIZE_BYTES",
    "Condition",
    "KeyCondition",
    "Path",
    "SortCondition",
    "SortOperator",
    "SqlColumn",
    "SqlCondition",
    "SqlNumber",
    "SqlUpdate",
    "Update",
    "apply_update",
    "attributes_read",
    "check_placeholders",
    "compile_condition",
    "compile_update",
    "condition",
    "creates_item",
    "evaluate",
    "key_condition",
    "key_condition_of",
    "key_predicate",
    "matches",
    "path_text",
    "project",
    "projection",
    "reject_unused",
    "resolve",
    "touched_paths",
    "update",
    "updated_key_attribute",
    "with_expressions",
    "with_set_actions",
]
