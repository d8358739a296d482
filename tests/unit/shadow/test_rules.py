"""What is left out of an item before it is compared."""

import pytest

from dualstore.shadow import Rules
from dualstore.shadow.rules import NormaliserFailed

ITEM = {
    "id": {"S": "a"},
    "etag": {"S": "1"},
    "meta": {"M": {"etag": {"S": "2"}, "deep": {"M": {"etag": {"S": "3"}}}}},
    "lines": {"L": [{"M": {"etag": {"S": "4"}, "n": {"N": "1"}}}, {"S": "plain"}]},
}


def seen(*ignore, item=ITEM):
    return Rules(ignore=ignore).seen(item)


def test_an_item_without_rules_is_the_same_object_and_one_with_stamps_loses_them():
    assert Rules().seen(ITEM) is ITEM
    assert Rules().seen({**ITEM, "_dsv": {"B": b"1"}}) == ITEM


def test_a_name_is_ignored_where_it_stands_and_nowhere_else():
    assert seen("etag") == {name: value for name, value in ITEM.items() if name != "etag"}


def test_a_path_leads_through_maps():
    assert seen("meta.etag")["meta"] == {"M": {"deep": {"M": {"etag": {"S": "3"}}}}}
    assert seen("meta.deep.etag")["meta"] == {"M": {"etag": {"S": "2"}, "deep": {"M": {}}}}


def test_a_path_leads_through_every_element_of_a_list():
    assert seen("lines.etag")["lines"] == {"L": [{"M": {"n": {"N": "1"}}}, {"S": "plain"}]}


def test_a_path_that_leads_nowhere_changes_nothing():
    assert seen("etag.x", "nothing", "lines.n.x") == ITEM


def test_a_shorter_path_takes_all_below_it_with_it():
    for order in (("meta", "meta.etag"), ("meta.etag", "meta")):
        assert "meta" not in seen(*order)


def test_a_name_with_dots_is_meant_before_a_path():
    assert seen("meta.etag", item={"meta.etag": {"S": "1"}}) == {}


def test_the_item_itself_is_never_changed():
    before = repr(ITEM)
    seen("meta.etag", "lines.etag")

    def spoil(item):
        item["meta"]["M"].clear()
        return item

    assert Rules(normalise=spoil).seen(ITEM)["meta"] == {"M": {}}
    assert repr(ITEM) == before


def test_a_normaliser_is_applied_before_attributes_are_ignored():
    rules = Rules(normalise=lambda item: {**item, "etag": {"S": "x"}, "new": {"S": "y"}}, ignore=("etag",))
    assert rules.seen({"id": {"S": "a"}}) == {"id": {"S": "a"}, "new": {"S": "y"}}


@pytest.mark.parametrize("normalise", [lambda item: item["missing"], lambda _: None], ids=["raises", "none"])
def test_a_normaliser_that_fails_says_how_and_not_with_what(normalise):
    with pytest.raises(NormaliserFailed) as failed:
        Rules(normalise=normalise).seen({"id": {"S": "canary"}})
    assert "canary" not in str(failed.value)
    assert failed.value.__suppress_context__ or failed.value.__context__ is None
