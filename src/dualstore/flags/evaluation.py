"""What one flag says, evaluated by LaunchDarkly's SDK for contexts that stand for the whole fleet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dualstore.errors import ConfigurationError
from dualstore.flags.conventions import MAX_PERCENT, Flag
from dualstore.flags.source import ProblemKind
from dualstore.stages import Stage

if TYPE_CHECKING:
    from ldclient import Context, LDClient

PROBES = 64
"""Contexts that must get the same answer as the service's; they see a share of 5 % with 96 % certainty."""

BUCKETS = 1_000
"""Contexts among which a boolean rollout is counted out: 10 % comes out as 10 ± 1."""

_USER = "user"

Answer: TypeAlias = Stage | float | ProblemKind
"""A usable value, or why there is none."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom dualstore evaluates flags: the same context in every process, so that all get one answer.

    It is a multi-context of two kinds under one key: `kind`, and `user`. LaunchDarkly rolls out by `user`
    where nothing else is chosen, and a context that lacks the kind of a rollout gets the rollout's *first*
    variation, whatever its weight: a migration flag at 100 % `dualwrite` would read `off`.

    Attributes:
        kind: the context kind.
        key: the context's key.
    """

    kind: str = "service"
    key: str = "dualstore"

    def context(self) -> "Context":
        """The context of the service.

        Raises:
            ConfigurationError: LaunchDarkly allows no such kind or key.
        """
        return self._context(self.key, anonymous=False)

    def varied(self, role: str, count: int) -> "tuple[Context, ...]":
        """Contexts that differ from the service's in their keys only."""
        return tuple(self._context(f"{self.key}-{role}-{number}", anonymous=True) for number in range(count))

    def _context(self, key: str, *, anonymous: bool) -> "Context":
        # Imported late: the SDK takes most of a second, and only those who use it need it.
        from ldclient import Context  # noqa: PLC0415

        kinds = dict.fromkeys((self.kind, _USER))
        parts = [Context.builder(key).kind(kind).anonymous(anonymous).build() for kind in kinds]
        context = parts[0] if len(parts) == 1 else Context.create_multi(*parts)
        if not context.valid:
            raise ConfigurationError(
                f"flags.context_kind, flags.context_key: {context.error}; correct that one"
            )
        return context


SERVICE = Identity()


class Evaluator:
    """Evaluates flags with one SDK client.

    Write authority must not be split, and LaunchDarkly's page ramps a migration flag by giving a share of the
    contexts another stage. So besides the service's context many others are asked, and where an answer
    differs there is none.

    Args:
        client: asked for the service's context; what it tells LaunchDarkly shows the flag as in use.
        silent: asked for all others, which are no contexts of the customer's and need not be counted.
        identity: as whom.
        key_contexts: whether a percentage may be a boolean flag: then it is the share of `true` among
            `BUCKETS` contexts. Our own hash chooses the keys, so they stay sticky, monotone and the same in
            every process, at no cost to a read; the SDK keeps a rollout's buckets in place as it grows.
    """

    def __init__(
        self, client: "LDClient", *, silent: "LDClient", identity: Identity, key_contexts: bool
    ) -> None:
        self.client = client
        self.context = identity.context()
        self._silent = silent
        self._probes = identity.varied("probe", PROBES)
        self._buckets = identity.varied("bucket", BUCKETS) if key_contexts else ()

    def answer(self, flag: Flag, table: str) -> Answer:
        """What a flag of a table asks for, or why it asks for nothing."""
        key = flag.key(table)
        detail = self.client.variation_detail(key, self.context, None)
        if detail.reason.get("kind") == "ERROR":
            # The value is then a default of the client's, which nobody has set in LaunchDarkly.
            return _SDK_ERRORS.get(detail.reason.get("errorKind", ""), ProblemKind.MALFORMED)
        if detail.value is None and detail.reason.get("kind") == "OFF":
            return ProblemKind.OFF
        if self._buckets and isinstance(detail.value, bool) and flag.is_percent:
            return _share_of_true(list(self._others(key, self._buckets)))
        value = flag.read(detail.value)
        if value is None:
            return ProblemKind.MALFORMED
        agreed = all(other == detail.value for other in self._others(key, self._probes))
        return value if agreed else ProblemKind.SPLIT

    def _others(self, key: str, contexts: "Sequence[Context]") -> Iterator[Any]:
        return (self._silent.variation(key, context, None) for context in contexts)


def _share_of_true(answers: list[Any]) -> Answer:
    if not all(isinstance(answer, bool) for answer in answers):
        return ProblemKind.MALFORMED
    return float(MAX_PERCENT * answers.count(True) / len(answers))


_SDK_ERRORS = {
    "FLAG_NOT_FOUND": ProblemKind.MISSING,
    "CLIENT_NOT_READY": ProblemKind.UNREACHABLE,
    "EXCEPTION": ProblemKind.UNREACHABLE,  # a feature store of the team's that failed
    "WRONG_TYPE": ProblemKind.MALFORMED,
}
