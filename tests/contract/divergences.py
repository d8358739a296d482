"""Where a store answers otherwise than AWS does. Such a test must fail there: if it passes, delete its line.

What AWS does is told by the Amazon DynamoDB API Reference and Developer Guide, and by Scylla's Alternator
suite (github.com/scylladb/scylladb, test/alternator), which its authors run against AWS.
"""

from collections.abc import Mapping
from typing import Any

_UPDATES = "test_an_update_changes_what_it_says"
_REFUSED_UPDATES = "test_an_update_that_cannot_be_changes_nothing"
_RETURNED = "test_return_values_of_an_update"
_REFUSED_CONDITIONS = "test_conditions_that_cannot_be_are_refused"
_REFUSED_KEY_CONDITIONS = "test_malformed_key_conditions_are_refused"
_START_KEYS = "test_a_start_key_that_cannot_be_is_refused"
_INDEX_START_KEYS = "test_a_start_key_that_an_index_cannot_have_is_refused"


def _cases(test: str, *cases: str) -> tuple[str, ...]:
    return tuple(f"{test}[{case}]" for case in cases)


def _meaning(*conditions: str) -> tuple[str, ...]:
    """The cases of one condition, as a condition and as a filter."""
    return _cases("test_a_condition_is_true_or_false", *conditions) + _cases(
        "test_a_filter_means_what_a_condition_means", *conditions
    )


# Engine, or store: why, and which tests: by function, or by function and case, `test_x[case]`.
DIVERGENCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "dynoxide": {
        "REMOVE uses the indexes that an earlier REMOVE of the same update has moved": (
            f"{_UPDATES}[REMOVE l[1], l[2]]",
        ),
        "SET past a list's end leaves the list as it was": (
            f"{_UPDATES}[SET l[99] = :s]",
            f"{_UPDATES}[SET l[20] = :2, l[10] = :1]",
        ),
        "members of number sets are compared as text": (
            f"{_UPDATES}[ADD ns :ns]",
            f"{_UPDATES}[DELETE ns :ns]",
        ),
        "REMOVE through an attribute that is missing is passed over": (f"{_REFUSED_UPDATES}[REMOVE a.b]",),
        "SET through a NULL makes a map of it": ("test_a_null_is_no_map_to_set_something_in",),
        "an update that only takes away creates the item": (
            "test_an_update_that_only_takes_away_creates_nothing",
            "test_an_update_creates_an_absent_item_unless_it_only_takes_away",
        ),
        "a legacy condition takes a name with a dot for a path": ("test_a_name_with_a_dot_is_one_attribute",),
        "a ConditionalOperator may join one condition": ("test_an_operator_that_joins_nothing_is_refused",),
        "UPDATED_OLD and UPDATED_NEW give whole lists": (
            f"{_RETURNED}[UPDATED_OLD SET l[1] = :s]",
            f"{_RETURNED}[UPDATED_NEW SET l[1] = :s]",
            f"{_RETURNED}[UPDATED_NEW SET m.l[1] = :1, m.x = :2]",
            f"{_RETURNED}[UPDATED_NEW SET l[99] = :1]",
            f"{_RETURNED}[UPDATED_NEW REMOVE l[1]]",
            f"{_RETURNED}[UPDATED_OLD REMOVE l[1], l[9]]",
        ),
        "ALL_OLD gives the key of an item that was not there": (
            "test_return_values_of_an_update_that_creates",
        ),
        "the types of operands are looked at only when the item is": (
            f"{_REFUSED_CONDITIONS}[n < :v [{{'BOOL': True}}]]",
            f"{_REFUSED_CONDITIONS}[attribute_type(n, :v) [{{'S': 'Q'}}]]",
            f"{_REFUSED_CONDITIONS}[n = n []]",
            f"{_REFUSED_KEY_CONDITIONS}[type of partition]",
            f"{_REFUSED_KEY_CONDITIONS}[type of sort]",
            f"{_REFUSED_KEY_CONDITIONS}[begins_with a number]",
            f"{_REFUSED_KEY_CONDITIONS}[empty partition]",
        ),
        "any ReturnValuesOnConditionCheckFailure is taken": (
            "test_other_values_on_condition_check_failure_are_refused",
        ),
        "paths that want a value to be both map and list are taken": (
            "test_malformed_projections_are_refused[a.b, a[0]]",
        ),
        "the first equality of a key condition is taken for that on the partition key": (
            "test_a_condition_on_the_sort_key_narrows_the_partition[sk = :5]",
            "test_a_condition_on_the_sort_key_narrows_the_partition[sk = :99]",
        ),
        "begins_with does not tell upper from lower case, nor find U+10FFFF": (
            "test_begins_with_finds_a_prefix_and_no_pattern[a]",
        ),
        "a negative Limit is taken": ("test_malformed_queries_are_refused[{'Limit': -1}]",),
        "a start key outside the query is taken": (
            f"{_START_KEYS}[other partition]",
            f"{_INDEX_START_KEYS}[other partition]",
            f"{_START_KEYS}[outside the range]",
            f"{_START_KEYS}[empty]",
        ),
        "ScannedCount counts the item at which the page ended twice": ("test_a_page_ends_after_a_megabyte",),
        "a segment ends where it is to be gone on with behind an item that is gone": (
            "test_a_segment_is_gone_on_with_behind_an_item_that_is_gone",
        ),
        "indexes give what they hold, whatever is asked": (
            "test_a_filter_on_what_an_index_lacks_is_refused",
            "test_a_projection_on_what_a_global_index_lacks_is_refused",
            "test_a_local_index_fetches_what_a_projection_names",
        ),
        "BatchGetItem reads a key twice": ("test_a_key_may_be_read_once",),
        "TransactGetItems adds the key to a projection": ("test_reads_answer_in_order",),
        "a transaction may change a key": ("test_an_update_of_a_key_cancels_all",),
        "TransactWriteItems tells of no item collection": _cases(
            "test_writes_of_several_items_tell_of_each_collection_once", "TransactWriteItems"
        ),
    },
    "ministack": {
        "two missing attributes are equal, and functions fail on types they do not take": _meaning(
            "absent <> another", "NOT absent = another", "NOT begins_with(n, :str)", "NOT size(n) < :ten"
        ),
        "members of number sets are compared as text": (
            *_meaning("contains(ns, :one)"),
            *_cases(_UPDATES, "ADD ns :ns", "DELETE ns :ns"),
        ),
        "keys that are numbers are compared as text": (
            "test_a_numeric_key_is_its_number",
            "test_a_numeric_partition_key_is_its_number",
            "test_an_item_may_be_touched_once",
            "test_a_batch_with_a_fault_writes_nothing[put and delete of one key]",
        ),
        "conditions are not checked before they are evaluated": _cases(
            _REFUSED_CONDITIONS,
            "n < :v [{'BOOL': True}]",
            "n BETWEEN :a AND :b [{'N': '1'}, {'S': '2'}]",
            "begins_with(n, :v) [{'N': '1'}]",
            "attribute_type(n, :v) [{'S': 'Q'}]",
            "n = n []",
            "nonsense(n) []",
            "n = :v [{'SS': []}]",
        ),
        "key conditions may be any condition": _cases(
            _REFUSED_KEY_CONDITIONS, "sort not equal", "or", "not", "exists"
        ),
        "filters may name the key": (
            "test_a_filter_may_not_name_the_key",
            "test_a_filter_may_name_the_tables_key_but_not_the_indexes",
        ),
        "start keys are not checked": (
            *_cases(_START_KEYS, "too much", "nothing"),
            *_cases(_INDEX_START_KEYS, "wrong type", "other partition"),
            "test_malformed_scans_are_refused[{'ExclusiveStartKey': {'pk': {'S': 'p'}, 'sk': {'S': '1'}}}]",
        ),
        "a segment is in no order": ("test_a_partition_lies_in_one_segment_and_in_order",),
        "indexes give what they hold, whatever is asked": (
            "test_a_filter_on_what_an_index_lacks_is_refused",
            "test_a_global_index_cannot_give_what_it_lacks",
            "test_a_projection_on_what_a_global_index_lacks_is_refused",
            "test_a_local_index_fetches_whole_items",
            "test_a_local_index_fetches_what_a_projection_names",
        ),
        "BatchGetItem reads a key twice": ("test_a_key_may_be_read_once",),
        "transactions are checked less than other writes": (
            "test_an_update_that_cannot_be_cancels_all",
            "test_a_malformed_key_cancels_all",
            "test_an_update_of_a_key_cancels_all",
            "test_a_check_needs_a_condition_and_an_update_an_expression",
        ),
        "REMOVE uses the indexes that an earlier REMOVE of the same update has moved": _cases(
            _UPDATES, "REMOVE l[1], l[2]"
        ),
        "elements set past a list's end are in the order of the text": _cases(
            _UPDATES, "SET l[20] = :2, l[10] = :1"
        ),
        "updates that cannot be are carried out in part, or passed over": _cases(
            _REFUSED_UPDATES,
            "SET n = s + :1",
            "SET n = n + :s",
            "SET l = list_append(l, :1)",
            "SET s[0] = :1",
            "ADD n :big",
            "REMOVE a.b",
            "SET m.x = :1, m = :m",
            "SET n = :1, n = :2",
            "SET l[0] = :1 REMOVE l[0]",
            "SET m.x = :1, m[0] = :2",
            "SET a = :1 SET s = :2",
            "SET a :1",
            "SET a = if_not_exists(:1, :2)",
            "SET a = :1 +",
        ),
        "legacy parameters know the commonest forms only, and little is refused": (
            "test_a_write_is_done_where_its_expectation_holds_and_refused_elsewhere",
            "test_an_update_changes_what_its_actions_say",
            "test_what_says_nothing_is_refused_and_does_nothing",
            "test_an_operator_that_joins_nothing_is_refused",
        ),
        "arithmetic has 28 digits": ("test_arithmetic_is_exact_to_38_digits",),
        "an update that only takes away creates the item": (
            "test_an_update_that_only_takes_away_creates_nothing",
            "test_an_update_creates_an_absent_item_unless_it_only_takes_away",
        ),
        "UPDATED_OLD and UPDATED_NEW give whole lists, and nothing as an empty map": _cases(
            _RETURNED,
            "UPDATED_OLD SET a = :1",
            "UPDATED_OLD SET m.fresh = :1",
            "UPDATED_OLD SET l[1] = :s",
            "UPDATED_NEW SET l[1] = :s",
            "UPDATED_NEW SET m.l[1] = :1, m.x = :2",
            "UPDATED_NEW SET l[99] = :1",
            "UPDATED_NEW REMOVE l[1]",
            "UPDATED_OLD REMOVE l[1], l[9]",
        ),
        "any ReturnValuesOnConditionCheckFailure is taken": (
            "test_other_values_on_condition_check_failure_are_refused",
        ),
        "malformed projections are taken": _cases(
            "test_malformed_projections_are_refused", "a.b, a[0]", "", "a,", "a b"
        ),
        "a unit of capacity is consumed whatever the size": (
            "test_consumed_capacity_is_told_when_asked_for",
        ),
        "a transaction does not tell apart what its indexes consume": (
            "test_a_transaction_consumes_twice_as_much_of_the_table_and_no_more_of_the_indexes",
        ),
        "writes of several items tell of no item collection": (
            "test_writes_of_several_items_tell_of_each_collection_once",
        ),
    },
}


def divergence(engine: str, node: Any) -> str | None:
    """Why this test is to fail on this engine, or None.

    Args:
        engine: of the DynamoDB server, or the store.
        node: the test.
    """
    store = node.callspec.params["subject"]
    case = node.callspec.id.removeprefix(f"{store}-").removesuffix(f"-{store}")
    tests = {node.originalname, f"{node.originalname}[{case}]"}
    reasons = DIVERGENCES.get(engine, {})
    return next((reason for reason, named in reasons.items() if not tests.isdisjoint(named)), None)
