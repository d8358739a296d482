"""The control records in PostgreSQL as a fence: its epoch and role move with the record that decides."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from dualstore.control import ControlRecord, Gate, Phase, PostgresRole
from dualstore.errors import Unavailable
from dualstore.stages import Stage
from dualstore.stores.postgres_control import PostgresControl

TABLE = "tickets"


@pytest.fixture
def control(engine: sa.Engine) -> PostgresControl:
    return PostgresControl(engine)


def fence(engine: sa.Engine) -> tuple[int, str] | None:
    """The epoch and role that writes are held against."""
    with engine.connect() as connection:
        found = connection.execute(
            sa.text("SELECT epoch, role FROM dualstore.control WHERE table_name = :t"), {"t": TABLE}
        ).one_or_none()
    return None if found is None else (found.epoch, found.role)


def copy(**fields: object) -> ControlRecord:
    """A record of DynamoDB's, as it is copied here."""
    return replace(ControlRecord(TABLE, phase=Phase.MOVED), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "phase", "role"),
    [
        (Stage.OFF, Phase.MOVED, "none"),
        (Stage.DUALWRITE, Phase.MOVED, "mirror"),
        (Stage.SHADOW, Phase.MOVED, "mirror"),
        (Stage.LIVE, Phase.OPEN, "authority"),
        (Stage.LIVE, Phase.CLOSED, "paused"),
        (Stage.COMPLETE, Phase.OPEN, "authority"),
    ],
)
def test_a_record_that_is_installed_is_the_fence_of_its_stage(engine, control, stage, phase, role):
    control.install(copy(stage=stage, phase=phase, epoch=4))
    assert fence(engine) == (4, role)


def test_the_fence_moves_with_the_record_that_decides(engine, control):
    live = copy(stage=Stage.LIVE, phase=Phase.OPEN, epoch=4)
    control.install(live)
    closed = control.change(live, phase=Phase.CLOSED, target=Stage.SHADOW, epoch=5)
    assert fence(engine) == (5, "paused")
    reopened = control.change(closed, phase=Phase.OPEN, target=None, epoch=6)
    assert fence(engine) == (6, "authority")
    closed = control.change(reopened, phase=Phase.CLOSED, target=Stage.SHADOW, epoch=7)
    control.change(closed, phase=Phase.MOVED, stage=Stage.SHADOW, target=None, epoch=8)
    assert fence(engine) == (8, "mirror")


def test_a_change_that_is_not_made_leaves_the_fence(engine, control):
    live = copy(stage=Stage.LIVE, phase=Phase.OPEN, epoch=4)
    control.install(live)
    assert control.change(replace(live, generation=9), phase=Phase.CLOSED, epoch=5) is None
    assert fence(engine) == (4, "authority")


def test_a_fence_is_raised_before_any_record_has_come(engine, control):
    control.raise_fence(TABLE, epoch=2, role=PostgresRole.MIRROR)
    assert fence(engine) == (2, "mirror")
    placeholder = control.read_all()[TABLE]
    assert (placeholder.generation, placeholder.decides) == (-1, False)
    assert control.install(copy(stage=Stage.DUALWRITE, generation=0, epoch=2))


@pytest.mark.parametrize(("epoch", "role"), [(1, PostgresRole.NONE), (2, PostgresRole.AUTHORITY)])
def test_a_fence_is_not_raised_to_an_epoch_that_is_not_later(engine, control, epoch, role):
    control.raise_fence(TABLE, epoch=2, role=PostgresRole.MIRROR)
    control.raise_fence(TABLE, epoch=epoch, role=role)
    assert fence(engine) == (2, "mirror")


def test_a_raised_fence_leaves_the_copy_as_it_is(engine, control):
    known = copy(stage=Stage.SHADOW, generation=8, epoch=2, loaded=True)
    control.install(known)
    control.raise_fence(TABLE, epoch=3, role=PostgresRole.NONE)
    assert control.read_all()[TABLE] == replace(known, epoch=3)
    assert fence(engine) == (3, "none")


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.CLOSED])
def test_the_fence_of_a_record_that_decides_moves_only_with_it(engine, control, phase):
    control.install(copy(stage=Stage.LIVE, phase=phase, epoch=4))
    before = fence(engine)
    control.raise_fence(TABLE, epoch=9, role=PostgresRole.MIRROR)
    assert fence(engine) == before


def test_a_copy_of_an_earlier_epoch_does_not_take_the_fence_back(engine, control):
    control.raise_fence(TABLE, epoch=3, role=PostgresRole.NONE)
    late = copy(stage=Stage.DUALWRITE, generation=8, epoch=2)
    assert control.install(late)
    assert fence(engine) == (3, "none")
    assert control.read_all()[TABLE] == replace(late, epoch=3)


def test_a_change_decided_under_an_earlier_epoch_does_not_take_the_fence_back(engine, control):
    known = copy(stage=Stage.SHADOW, generation=8, epoch=2)
    control.install(known)
    control.raise_fence(TABLE, epoch=3, role=PostgresRole.NONE)
    assert control.change(known, loaded=True) is None
    assert fence(engine) == (3, "none")


def test_the_gate_of_a_copy_is_left_alone(control):
    known = copy(stage=Stage.SHADOW, generation=8)
    control.install(known)
    control.shut_gate(TABLE)
    assert control.read_all()[TABLE] == known


def test_a_gate_of_a_record_that_decides_is_shut(control):
    control.install(copy(stage=Stage.LIVE, phase=Phase.OPEN, generation=8))
    control.shut_gate(TABLE)
    assert control.read_all()[TABLE].gate is Gate.SHUT


def test_a_database_says_whether_it_can_have_kept_a_record(engine, control, postgres_url):
    assert control.is_prepared()
    empty = sa.create_engine(postgres_url)
    assert not PostgresControl(empty).is_prepared()
    empty.dispose()


def test_where_the_schema_is_missing_the_command_is_named(postgres_url):
    engine = sa.create_engine(postgres_url)
    with pytest.raises(Unavailable, match="dualstore schema upgrade"):
        PostgresControl(engine).read_all()
    engine.dispose()


def test_a_record_that_somebody_else_holds_is_not_waited_for_long(engine, control, monkeypatch):
    monkeypatch.setattr(control._sessions, "_timeout", timedelta(milliseconds=100))
    control.raise_fence(TABLE, epoch=2, role=PostgresRole.MIRROR)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM dualstore.control FOR UPDATE"))
        with pytest.raises(Unavailable, match="raising the fence of 'tickets'"):
            control.raise_fence(TABLE, epoch=3, role=PostgresRole.MIRROR)
    assert fence(engine) == (2, "mirror")
