"""Whether a request is signed by whom it says. Source: AWS, "Signature Version 4 for API requests"."""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from dualstore.serving.wire import WireError

_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} Credential=(?P<key>[^/,]+)/(?P<scope>(?P<day>\d{{8}})/[^/,]+/[^/,]+/aws4_request)"
    r",\s*SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_TIME = "%Y%m%dT%H%M%SZ"
_TOLERATED = timedelta(minutes=5)
"""How far the clocks of caller and server may be apart, as at AWS."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an `Authorization` header says, before its signature has been looked at."""

    scope: str
    headers: tuple[str, ...]
    signature: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may call.

    Attributes:
        access_key_id: names the caller.
        secret_access_key: signs the calls.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)

    def claim(
        self, headers: Mapping[str, str], *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> Claim:
        """What a request says of its signature, if it may be true; the body need not have been read for it.

        Args:
            headers: of the request, by their names in lower case.
            now: tells the time.

        Raises:
            WireError: it is not signed, by somebody else, or too long ago.
        """
        if "authorization" not in headers:
            raise WireError("MissingAuthenticationTokenException", "Request is missing Authentication Token")
        found = _AUTHORIZATION.fullmatch(headers["authorization"].strip())
        sent_at = _moment(headers.get("x-amz-date", ""))
        if found is None or sent_at is None:
            raise WireError(
                "IncompleteSignatureException", "The Authorization header or X-Amz-Date is malformed"
            )
        if not hmac.compare_digest(found["key"].encode(), self.access_key_id.encode()):
            raise WireError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        if abs(now() - sent_at) > _TOLERATED or found["day"] != headers["x-amz-date"][:8]:
            raise WireError(
                "InvalidSignatureException", "Signature expired: compare the clocks of both machines"
            )
        signed = tuple(found["headers"].split(";"))
        unsigned = {"host", *(name for name in headers if name.startswith("x-amz-"))} - set(signed)
        if unsigned:
            raise WireError("IncompleteSignatureException", f"Not signed: {', '.join(sorted(unsigned))}")
        return Claim(found["scope"], signed, found["signature"])

    def check(self, claim: Claim, headers: Mapping[str, str], body: bytes) -> None:
        """See that a `POST /` was signed with these credentials.

        Args:
            claim: from `claim`.
            headers: of the request, by their names in lower case.
            body: of the request.

        Raises:
            WireError: it was not.
        """
        if not hmac.compare_digest(self._signature(claim, headers, body), claim.signature):
            raise WireError(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method.",
            )

    def _signature(self, claim: Claim, headers: Mapping[str, str], body: bytes) -> str:
        canonical = "\n".join(
            [
                *("POST", "/", ""),
                *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in claim.headers),
                "",
                ";".join(claim.headers),
                hashlib.sha256(body).hexdigest(),
            ]
        )
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        text = "\n".join((_ALGORITHM, headers["x-amz-date"], claim.scope, digest))
        key = f"AWS4{self.secret_access_key}".encode()
        for part in (*claim.scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        return key.hex()


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
