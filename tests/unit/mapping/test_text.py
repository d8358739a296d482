"""The escape that lets PostgreSQL text hold U+0000."""

from hypothesis import given
from hypothesis import strategies as st

from dualstore.mapping import escape, quoted, unescape

# Few characters, so that runs of the escaped ones are common.
dense = st.text(st.sampled_from("\x00\x01\x02\x03a\uffff\U00010000"))
any_text = st.text(st.characters(exclude_categories=["Cs"])) | dense


@given(any_text)
def test_every_text_comes_back(text):
    assert unescape(escape(text)) == text


@given(any_text)
def test_no_escaped_text_holds_what_postgresql_refuses(text):
    assert "\x00" not in escape(text)


@given(any_text, any_text)
def test_escaping_keeps_the_order_of_the_bytes(a, b):
    assert (escape(a).encode() < escape(b).encode()) == (a.encode() < b.encode())


def test_an_ordinary_text_is_stored_as_it_is():
    text = "Zürich \x02 \n"
    assert escape(text) is text
    assert unescape(text) is text


def test_a_quote_in_a_name_is_doubled():
    assert quoted('odd "name"') == '"odd ""name"""'
