"""The one table that decides who does what at each stage of a migration."""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """A database, physically. What it is *for* (authoritative, mirror) comes from the stage."""

    DYNAMODB = "dynamodb"
    POSTGRES = "postgres"

    @property
    def other(self) -> "Side":
        """The opposite side."""
        return Side.POSTGRES if self is Side.DYNAMODB else Side.DYNAMODB


class Stage(StrEnum):
    """The stages of a migration, by LaunchDarkly's names, so that its migration flags drive them natively.

    See LaunchDarkly's documentation, "Migration flags": a six-stage migration.
    """

    OFF = "off"
    DUALWRITE = "dualwrite"
    SHADOW = "shadow"
    LIVE = "live"
    RAMPDOWN = "rampdown"
    COMPLETE = "complete"

    @property
    def rule(self) -> "StageRule":
        """What holds at this stage."""
        return STAGES[self]

    def neighbours(self) -> frozenset["Stage"]:
        """The stages that may follow this one: itself, one step back, one step on."""
        order = list(Stage)
        here = order.index(self)
        return frozenset(order[max(0, here - 1) : here + 2])


@dataclass(frozen=True, slots=True)
class StageRule:
    """One row of the stage table.

    Attributes:
        authority: the side whose word is final for writes.
        mirrored: whether writes also go to the other side.
        read_side: which side serves reads where no dial says otherwise.
        shadow_reads: whether reads are by default also run on the other side and compared.
        read_dial: whether `postgres_read_percent` applies: DynamoDB is authoritative, PostgreSQL mirrored.
    """

    authority: Side
    mirrored: bool
    read_side: Side
    shadow_reads: bool
    read_dial: bool

    @property
    def mirror(self) -> Side | None:
        """The side that is written after the authority, or None."""
        return self.authority.other if self.mirrored else None


_D, _P = Side.DYNAMODB, Side.POSTGRES

STAGES: dict[Stage, StageRule] = {
    Stage.OFF: StageRule(_D, mirrored=False, read_side=_D, shadow_reads=False, read_dial=False),
    Stage.DUALWRITE: StageRule(_D, mirrored=True, read_side=_D, shadow_reads=False, read_dial=True),
    Stage.SHADOW: StageRule(_D, mirrored=True, read_side=_D, shadow_reads=True, read_dial=True),
    Stage.LIVE: StageRule(_P, mirrored=True, read_side=_P, shadow_reads=True, read_dial=False),
    Stage.RAMPDOWN: StageRule(_P, mirrored=True, read_side=_P, shadow_reads=False, read_dial=False),
    Stage.COMPLETE: StageRule(_P, mirrored=False, read_side=_P, shadow_reads=False, read_dial=False),
}


@dataclass(frozen=True, slots=True)
class Dials:
    """Three percentages that move inside a stage, without touching write authority.

    Attributes:
        postgres_read_percent: share of partition keys whose reads PostgreSQL serves while it is the mirror.
        mirror_percent: share of partition keys whose writes are mirrored.
        shadow_percent: share of reads that are also run on the other side and compared; None takes the
            stage's default, 100 where the stage shadows reads and 0 elsewhere.

    Raises:
        ValueError: a percentage is not between 0 and 100.
    """

    postgres_read_percent: float = 0.0
    mirror_percent: float = 100.0
    shadow_percent: float | None = None

    def __post_init__(self) -> None:
        for name in ("postgres_read_percent", "mirror_percent", "shadow_percent"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:  # noqa: PLR2004 - a percentage
                raise ValueError(f"{name} must be between 0 and 100")

    def effective_shadow_percent(self, stage: Stage) -> float:
        """The share of reads to shadow at this stage, in percent."""
        if self.shadow_percent is not None:
            return self.shadow_percent
        return 100.0 if stage.rule.shadow_reads else 0.0
