"""The statements of loading in bulk: what they leave to the order of the staging table."""

from bulk_sides import mapping_of
from dualstore.stores.postgres_staging import MIRROR, load_statements
from equivalence.entities import mapping as split_mapping


def test_rows_that_lie_in_key_order_are_merged_without_a_sort():
    (statements,) = load_statements(mapping_of("orders"), MIRROR)

    whole, in_order = (each.as_string(None) for each in (statements.insert, statements.insert_in_order))

    assert whole.replace(' ORDER BY "customer", "number"', "") == in_order != whole


def test_with_other_sql_tables_beside_they_are_sorted_anew_since_a_join_has_an_order_of_its_own():
    several = load_statements(split_mapping("things"), MIRROR)

    assert len(several) > 1
    for statements in several:
        assert " ORDER BY " in statements.insert_in_order.as_string(None)
