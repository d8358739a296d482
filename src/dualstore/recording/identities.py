"""Who a key is without saying it: hashes under a salt that no recording holds."""

from hashlib import blake2b
from secrets import token_bytes

_IDENTITY_SIZE_BYTES = 8
_NAME_SIZE_BYTES = 4


class Identities:
    """Hashes keys under one salt.

    Without the salt nobody can find a key by trying: with a plain hash, addresses or account numbers are
    soon tried through.

    Args:
        secret: the salt is made of it, so that processes with the same secret know the same keys; None draws
            a salt that ends with the process.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._salt = token_bytes(32) if secret is None else blake2b(secret.encode(), digest_size=32).digest()
        self.name = self._hash(b"", person=b"name", size_bytes=_NAME_SIZE_BYTES)
        """Names the salt without telling it: identities under the same name may be compared."""

    def partition(self, content: bytes) -> str:
        """The identity of a partition, by `items.partition_bytes` of its key."""
        return self._hash(content, person=b"partition")

    def item(self, content: bytes) -> str:
        """The identity of an item, by `items.key_bytes` of its key; tells nothing of other partitions."""
        return self._hash(content, person=b"item")

    def _hash(self, content: bytes, *, person: bytes, size_bytes: int = _IDENTITY_SIZE_BYTES) -> str:
        return blake2b(content, key=self._salt, person=person, digest_size=size_bytes).hexdigest()


def place_hash(place: str) -> str:
    """A place such as a table's ARN, as a recording keeps it: to be recognised, not to be read."""
    return blake2b(place.encode(), person=b"place", digest_size=16).hexdigest()
