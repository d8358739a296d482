"""What becomes of an item that cannot be loaded: kept as it came, encrypted, or not kept at all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from dualstore.errors import ConfigurationError
from dualstore.items import Key


class Form(StrEnum):
    """How quarantine keeps items."""

    PLAIN = "plain"
    ENCRYPTED = "encrypted"
    REDACTED = "redacted"


@dataclass(frozen=True)
class Seal:
    """Makes of an item what quarantine keeps of it.

    Attributes:
        form: what that is called.
        apply: the item's line to what is stored; None for nothing.
    """

    form: Form
    apply: Callable[[bytes], bytes | None] = field(repr=False)


def seal_of(form: Form, key: str | None = None) -> Seal:
    """The seal of a form.

    Args:
        form: how items are kept.
        key: for `ENCRYPTED`, a key of Fernet (https://cryptography.io/en/latest/fernet/).

    Raises:
        ConfigurationError: encryption is asked for, and the key or the package is missing or wrong.
    """
    match form:
        case Form.PLAIN:
            return Seal(form, bytes)
        case Form.REDACTED:
            return Seal(form, lambda _: None)
        case Form.ENCRYPTED:
            return Seal(form, _encrypting(key))


def _encrypting(key: str | None) -> Callable[[bytes], bytes]:
    try:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - optional, and only here
    except ImportError:
        raise ConfigurationError(
            'backfill.quarantine is "encrypted", which needs a package: install `dualstore[encryption]`'
        ) from None
    if key is None:
        raise ConfigurationError(
            'backfill.quarantine is "encrypted", but there is no key: set DUALSTORE_BACKFILL__QUARANTINE_KEY '
            "to what Fernet.generate_key() of the package `cryptography` gives, and keep it"
        )
    try:
        return Fernet(key).encrypt
    except ValueError:
        raise ConfigurationError(
            "DUALSTORE_BACKFILL__QUARANTINE_KEY is no key of Fernet: 32 bytes in URL-safe base64"
        ) from None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item that was put aside.

    Attributes:
        id: names the entry.
        key_hash: the hash of its key, or of the item where it has none.
        key: its key; None where that could not be read.
        reason: the class of the reason.
        detail: more of it, for a person; holds no value.
        run_id: the run that last met it.
        piece: the piece of that run.
        first_seen: when it was first put aside.
        last_seen: when it last was.
    """

    id: int
    key_hash: str
    key: Key | None = field(repr=False)
    reason: str
    detail: str
    run_id: UUID
    piece: int
    first_seen: datetime
    last_seen: datetime
