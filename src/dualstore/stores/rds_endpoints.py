"""What the host name of a PostgreSQL at AWS tells: what kind of endpoint, its identifier, its region."""

import re
from dataclasses import dataclass
from enum import StrEnum

_ENDPOINT = re.compile(
    r"(?P<name>[a-z][a-z0-9-]*)(?P<additional>\.endpoint)?\.(?P<kind>cluster-ro-|cluster-custom-|cluster-|proxy-)?"
    r"[a-z0-9]+\.(?P<region>[a-z]{2}(-[a-z]+)+-\d+)\.rds\.amazonaws\.com(\.cn)?"
)


class Kind(StrEnum):
    """What answers at an endpoint."""

    WRITER = "Aurora, the writer"
    READERS = "Aurora, the readers"
    CUSTOM = "Aurora, instances of one's own choice"
    PROXY = "RDS Proxy"
    INSTANCE = "one RDS or Aurora instance"
    ELSEWHERE = "not of RDS, by its name"


_KINDS = {
    "cluster-": Kind.WRITER,
    "cluster-ro-": Kind.READERS,
    "cluster-custom-": Kind.CUSTOM,
    "proxy-": Kind.PROXY,
    None: Kind.INSTANCE,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, as its name tells.

    Attributes:
        kind: what answers there.
        identifier: of the cluster, instance or proxy; None where the name does not tell, as of an additional
            endpoint of a proxy.
        region: of AWS.
    """

    kind: Kind
    identifier: str | None = None
    region: str | None = None

    @property
    def is_rds(self) -> bool:
        """Whether AWS runs it."""
        return self.kind is not Kind.ELSEWHERE


def endpoint_of(host: str) -> Endpoint:
    """Read a host name (Amazon Aurora User Guide, "Aurora endpoint connections" and "RDS Proxy endpoints").

    Args:
        host: as a DSN has it.
    """
    found = _ENDPOINT.fullmatch(host.lower().rstrip("."))
    if found is None:
        return Endpoint(Kind.ELSEWHERE)
    kind = _KINDS[found["kind"]]
    named = not found["additional"] and kind is not Kind.CUSTOM
    return Endpoint(kind, found["name"] if named else None, found["region"])
