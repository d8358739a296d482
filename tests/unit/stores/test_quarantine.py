"""What quarantine keeps of an item."""

import pytest
from cryptography.fernet import Fernet

from dualstore.errors import ConfigurationError
from dualstore.stores.quarantine import Form, seal_of

LINE = b'{"Item":{"pk":{"S":"a secret"}}}'


def test_a_plain_seal_keeps_the_item_as_it_came_and_a_redacting_one_keeps_nothing():
    assert seal_of(Form.PLAIN).apply(LINE) == LINE
    assert seal_of(Form.REDACTED).apply(LINE) is None


def test_what_is_encrypted_holds_no_value_and_can_be_read_with_the_key():
    key = Fernet.generate_key().decode()

    kept = seal_of(Form.ENCRYPTED, key).apply(LINE)

    assert kept is not None
    assert b"secret" not in kept
    assert Fernet(key).decrypt(kept) == LINE


@pytest.mark.parametrize("key", [None, "short"])
def test_encryption_without_a_key_is_refused_before_anything_is_kept(key):
    with pytest.raises(ConfigurationError, match="QUARANTINE_KEY") as refused:
        seal_of(Form.ENCRYPTED, key)
    assert "short" not in str(refused.value)
