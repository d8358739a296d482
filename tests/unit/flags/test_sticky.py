"""The routing hash: fixed, uniform, monotone."""

from itertools import pairwise

import pytest

from dualstore.flags import included, share

VECTORS = {
    ("orders", b"S\0\0\0\6cust-1"): 49.11123178032527,
    ("orders", b""): 61.75904640569413,
    ("café", b"N\0\0\0\x011"): 60.79988538165062,
    ("orders", b"B\0\0\0\2\xff\0"): 93.63185065784579,
}


@pytest.mark.parametrize(("salted", "expected"), VECTORS.items())
def test_a_key_keeps_its_share_for_ever(salted, expected):
    assert share(*salted) == expected


def test_a_greater_percentage_keeps_every_key_of_a_smaller_one():
    shares = [share("orders", b"%d" % n) for n in range(10_000)]
    covered = [
        {n for n, s in enumerate(shares) if included(s, percent)} for percent in (0, 1, 10, 20, 99.5, 100)
    ]
    assert all(smaller < greater for smaller, greater in pairwise(covered))
    assert not covered[0]
    assert len(covered[-1]) == len(shares)


def test_a_percentage_covers_about_that_share_of_the_keys():
    shares = [share("orders", b"cust-%d" % n) for n in range(20_000)]
    # Four standard deviations of a fair draw of 20,000 at 10 percent.
    assert sum(included(s, 10) for s in shares) == pytest.approx(2_000, abs=170)


def test_tables_do_not_share_their_first_ten_percent():
    keys = [b"cust-%d" % n for n in range(20_000)]
    both = sum(share("orders", key) < 10 and share("carts", key) < 10 for key in keys)
    assert both == pytest.approx(200, abs=57)
