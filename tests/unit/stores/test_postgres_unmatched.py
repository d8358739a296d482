"""The lines of a batch that are read again."""

import pytest

from dualstore.stores.postgres_unmatched import lines_at

BLOCKS = [b"1\n2\n3\n", b"4\n", b"5\n6"]


@pytest.mark.parametrize(
    ("numbers", "lines"),
    [
        ([], []),
        ([1], [b"1"]),
        ([6, 3, 4], [b"3", b"4", b"6"]),
        ([1, 2, 3, 4, 5, 6], [b"1", b"2", b"3", b"4", b"5", b"6"]),
    ],
)
def test_lines_are_found_by_their_numbers_whatever_block_they_stand_in(
    numbers: list[int], lines: list[bytes]
) -> None:
    assert lines_at(BLOCKS, numbers, 6) == lines


@pytest.mark.parametrize("count", [5, 7])
def test_where_a_line_has_no_fingerprint_none_is_found_by_its_number(count: int) -> None:
    assert lines_at(BLOCKS, [1], count) is None
