"""Setting flags through LaunchDarkly's REST API."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, Unpack
from urllib.parse import quote

from pydantic import SecretStr

from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.flags.conventions import FLAGS, Wishes, checked
from dualstore.flags.evaluation import SERVICE, Identity
from dualstore.stages import Stage

if TYPE_CHECKING:
    from urllib3 import PoolManager

LAUNCHDARKLY = "https://app.launchdarkly.com"
TOKEN_VARIABLE = "LAUNCHDARKLY_API_TOKEN"  # noqa: S105 - the name of it

_SEMANTIC_PATCH = "application/json; domain-model=launchdarkly.semanticpatch"
_COMMENT = "dualstore dial"
_WHOLE = 100_000
"""All contexts, in LaunchDarkly's weights: thousandths of a percent."""
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 15.0
_TARGETING = ("rules", "targets", "contextTargets", "prerequisites")
_OK = 200

FlagRep: TypeAlias = Mapping[str, Any]
"""A flag as the REST API answers it."""


class LaunchDarklyApi:
    """Sets the flags of tables in one environment, by semantic patches.

    What is set is the default rule (of a migration flag, the default cohort): one value for everybody. A
    number that the flag has no variation for becomes one. Flags with rules, targets or prerequisites of
    somebody's are left alone: whether a change would reach dualstore is not told by the default rule.

    Source: Update feature flag, LaunchDarkly's API documentation.

    Args:
        token: an access token that may update flags of the environment. Sent in a header, shown nowhere.
        project: the project's key.
        environment: the environment's key.
        base_uri: where the API is.
        identity: as whom dualstore evaluates; a migration flag must ramp by a kind that it has.
    """

    def __init__(
        self,
        token: SecretStr,
        *,
        project: str,
        environment: str,
        base_uri: str = LAUNCHDARKLY,
        identity: Identity = SERVICE,
    ) -> None:
        self._token = token
        self._project = project
        self._environment = environment
        self._base_uri = base_uri.rstrip("/")
        self._kinds = {identity.kind, "user"}
        self._http: PoolManager | None = None

    def set(self, table: str, **wishes: Unpack[Wishes]) -> Callable[[], None]:
        """Ask for something else; what is not named stays.

        Every flag is looked at before the first is changed, and where one cannot be changed those before it
        are put back.

        Args:
            table: the table's logical name.
            wishes: any of `stage`, `postgres_read_percent`, `mirror_percent`, `shadow_percent`.

        Returns:
            What serves again what was served before, when called. Variations that were added stay.

        Raises:
            ConfigurationError: a value is none, the token may not do this, or a flag is not there, is
                boolean, has targeting of somebody's, or needs an approval.
            Unavailable: LaunchDarkly does not answer, asks to wait, or another change was under way.
        """
        values = checked(table, wishes)
        if None in values.values():
            raise ConfigurationError(
                "a request is taken back in LaunchDarkly itself: turn the flag off there"
            )
        asked = [(flag.key(table), values[flag.field]) for flag in FLAGS if flag.field in values]
        found = [(key, value, self._fit(key, self._get(key), value)) for key, value in asked]
        with ExitStack() as undo:
            for key, value, flag in found:
                self._serve(key, flag, value)
                undo.callback(self._patch, key, _put_back(flag, flag["environments"][self._environment]))
            return undo.pop_all().close
        raise AssertionError  # an ExitStack swallows nothing here

    def _serve(self, key: str, flag: FlagRep, value: Stage | float) -> None:
        """Serve one value to everybody."""
        if _variation_of(flag, value) is None:
            number = {"kind": "addVariation", "value": _written(value), "name": f"{value:g} %"}
            flag = self._patch(key, [number])
        chosen = _variation_of(flag, value)
        if chosen is None:
            raise ConfigurationError(f"flag {key} has no variation {value}, and none could be added")
        environment = flag["environments"][self._environment]
        on = [] if environment.get("on") else [{"kind": "turnFlagOn"}]
        self._patch(key, [*on, {"kind": "updateFallthroughVariationOrRollout", **_everybody(flag, chosen)}])

    def _fit(self, key: str, flag: FlagRep, value: Stage | float) -> FlagRep:
        """The flag, if it can be made to serve the value.

        Raises:
            ConfigurationError: it cannot; the message says why and what to do.
        """
        environment = flag.get("environments", {}).get(self._environment)
        if environment is None:
            raise ConfigurationError(
                f"flag {key} has no environment {self._environment}; correct flags.environment"
            )
        busy = [
            part for part in _TARGETING if any(each.get("values", True) for each in environment.get(part, ()))
        ]
        if busy:
            raise ConfigurationError(
                f"flag {key} has {', '.join(busy)} in {self._environment}, so its default rule does not "
                "decide; take them away, or set the flag in LaunchDarkly"
            )
        if flag.get("kind") == "boolean":
            raise ConfigurationError(
                f"flag {key} is boolean: move its percentage rollout in LaunchDarkly, "
                "or make it a number flag"
            )
        if _variation_of(flag, value) is None and isinstance(value, Stage):
            raise ConfigurationError(
                f"flag {key} has no variation {value}; a migration flag needs six stages, "
                "a string flag a variation for each"
            )
        ramped_by = _migration_kind(flag)
        if ramped_by is not None and ramped_by not in self._kinds:
            raise ConfigurationError(
                f"migration flag {key} ramps by contexts of kind {ramped_by}, which dualstore's have not; "
                f'set flags.context_kind = "{ramped_by}"'
            )
        return flag

    def _get(self, key: str) -> FlagRep:
        return self._request("GET", key, query=f"?env={quote(self._environment, safe='')}")

    def _patch(self, key: str, instructions: Sequence[Mapping[str, Any]]) -> FlagRep:
        patch = {"environmentKey": self._environment, "comment": _COMMENT, "instructions": instructions}
        return self._request("PATCH", key, body=json.dumps(patch).encode())

    def _request(self, method: str, key: str, *, query: str = "", body: bytes | None = None) -> FlagRep:
        from urllib3 import PoolManager, Timeout  # noqa: PLC0415 - as rarely needed as it is slow to import
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if self._http is None:
            # No redirects: the token goes where it was meant to, or nowhere.
            timeout = Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
            self._http = PoolManager(timeout=timeout, retries=False)
        path = f"/api/v2/flags/{quote(self._project, safe='')}/{quote(key, safe='')}"
        headers = {"Authorization": self._token.get_secret_value(), "Content-Type": _SEMANTIC_PATCH}
        try:
            answer = self._http.request(method, self._base_uri + path + query, body=body, headers=headers)
        except HTTPError as error:
            raise Unavailable(
                f"LaunchDarkly's API at {self._base_uri} does not answer ({type(error).__name__}); try again"
            ) from None
        if answer.status != _OK:
            _refuse(key, answer.status, answer.data, answer.headers)
        try:
            flag: FlagRep = json.loads(answer.data)
        except ValueError:
            raise Unavailable(f"what answers at {self._base_uri} is not LaunchDarkly's API") from None
        return flag


def _written(value: Stage | float) -> str | int | float:
    """A value as people write it: 10, not 10.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _variation_of(flag: FlagRep, value: Stage | float) -> str | None:
    """The id of the variation that has a value; `true` is none of 1."""
    for variation in flag["variations"]:
        if not isinstance(variation["value"], bool) and variation["value"] == value:
            return str(variation["_id"])
    return None


def _migration_kind(flag: FlagRep) -> str | None:
    """The context kind that a migration flag ramps by; None for another flag."""
    settings = flag.get("migrationSettings")
    return None if settings is None else str(settings.get("contextKind") or "user")


def _everybody(flag: FlagRep, variation: str) -> Mapping[str, Any]:
    """A default rule that serves one variation; a migration flag's must be a rollout all the same."""
    kind = _migration_kind(flag)
    if kind is None:
        return {"variationId": variation}
    weights = {each["_id"]: _WHOLE if each["_id"] == variation else 0 for each in flag["variations"]}
    return {"rolloutContextKind": kind, "rolloutWeights": weights}


def _put_back(flag: FlagRep, environment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Instructions that make an environment's default rule what it was."""
    ids = [variation["_id"] for variation in flag["variations"]]
    served = environment["fallthrough"]
    if "rollout" in served:
        rollout = served["rollout"]
        weights = {ids[each["variation"]]: each["weight"] for each in rollout["variations"]}
        rule = {"rolloutContextKind": rollout.get("contextKind", "user"), "rolloutWeights": weights}
    else:
        rule = {"variationId": ids[served["variation"]]}
    off = [] if environment.get("on") else [{"kind": "turnFlagOff"}]
    return [{"kind": "updateFallthroughVariationOrRollout", **rule}, *off]


_REFUSALS: Mapping[int, tuple[type[DualStoreError], str]] = {
    400: (ConfigurationError, "look for scheduled changes and approval requests that this would cross"),
    401: (ConfigurationError, f"{TOKEN_VARIABLE} holds no valid access token"),
    403: (ConfigurationError, f"the role of the token in {TOKEN_VARIABLE} may not update this flag"),
    404: (ConfigurationError, "create the flag, or correct flags.project"),
    405: (ConfigurationError, "this environment requires approvals: ask for this change in LaunchDarkly"),
    409: (Unavailable, "somebody else changed the flag at the same time; look at it, and try again"),
    429: (Unavailable, "too many requests"),
}


def _refuse(key: str, status: int, body: bytes, headers: Mapping[str, str]) -> NoReturn:
    kind, remedy = _REFUSALS.get(status, (Unavailable, "try again"))
    wait = headers.get("Retry-After")
    again = f"; try again in {wait} seconds" if wait is not None else ""
    raise kind(f"LaunchDarkly refuses flag {key} with {status}{_reason(body)}: {remedy}{again}")


def _reason(body: bytes) -> str:
    """LaunchDarkly's own words, where it has any."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({message})"
