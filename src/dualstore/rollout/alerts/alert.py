"""One alert, as every channel tells it; it holds figures and names, never an item's value or key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an alert tells."""

    OPENED = "opened"
    RECOVERED = "recovered"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Alert:
    """What is told.

    Attributes:
        key: names what it is about; the recovery has the key of the alert.
        kind: what it tells.
        table: the logical name.
        summary: one line.
        next_look: what to look at next.
        evidence: figures, as JSON.
    """

    key: str
    kind: Kind
    table: str
    summary: str
    next_look: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All of it for people, two lines."""
        told = f"dualstore, table {self.table}, {self.kind}: {self.summary}"
        return f"{told}\nLook at: {self.next_look}" if self.next_look else told

    def to_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {
            "key": self.key,
            "kind": self.kind.value,
            "table": self.table,
            "summary": self.summary,
            "next_look": self.next_look,
            "evidence": dict(self.evidence),
        }
