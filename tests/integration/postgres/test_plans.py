"""The record of plans on a real PostgreSQL: one holder at a time, and what replaces him."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.stores.postgres_plans import PlanHalted, PlanTaken, PostgresPlans
from dualstore.stores.postgres_runs import PostgresRuns, RunState
from integration.deployment import eventually


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres_url)
    schema.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def plans(engine: sa.Engine) -> PostgresPlans:
    plans = PostgresPlans(engine)
    plans.keep("p", "digest", {"plan": "p"})
    return plans


def test_a_plan_is_kept_once_and_replaced_only_when_asked(plans: PostgresPlans) -> None:
    assert plans.keep("p", "other", {"plan": "q"}).digest == "digest"
    assert plans.keep("p", "other", {"plan": "q"}, replaces=True).content == {"plan": "q"}
    assert plans.find("nothing") is None


def test_events_are_kept_in_their_order_with_all_they_say(plans: PostgresPlans) -> None:
    plans.append("p", "started", by="Ada", step="a", attempt=2)
    plans.append("p", "finished", by="Ada", step="a", seconds=1.5, reason="why", evidence={"n": [1]})
    first, second = plans.events("p")
    assert (first.kind, first.by, first.step, first.attempt) == ("started", "Ada", "a", 2)
    assert (second.seconds, second.reason, second.evidence) == (1.5, "why", {"n": [1]})
    assert first.number < second.number
    assert first.at <= second.at
    with pytest.raises(ConfigurationError, match="no plan is called q"):
        plans.append("q", "approved", by="Ada")


def test_two_operators_cannot_hold_a_plan_at_once(plans: PostgresPlans) -> None:
    with (
        plans.holding("p", ["t"], who="Ada"),
        pytest.raises(PlanTaken, match="is carried out by Ada"),
        plans.holding("p", ["t"], who="Eve"),
    ):
        pass
    with plans.holding("p", ["t"], who="Eve") as hold:
        hold.check()
    kept = plans.find("p")
    assert kept is not None
    assert kept.holder is None


def test_two_plans_cannot_move_one_table_at_once(plans: PostgresPlans) -> None:
    plans.keep("q", "digest", {})
    with (
        plans.holding("p", ["t", "u"], who="Ada"),
        pytest.raises(PlanTaken, match="another plan moves a table"),
        plans.holding("q", ["u", "v"], who="Eve"),
    ):
        pass


def test_the_row_holds_where_a_pooler_shares_the_session(plans: PostgresPlans, engine: sa.Engine) -> None:
    """Without advisory locks, as behind a pooler: the holder's session lives, and so does its heartbeat."""
    with plans.holding("p", [], who="Ada"), engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND"
                " pid <> pg_backend_pid()"
            )
        )
        connection.execute(
            sa.text(
                "UPDATE dualstore.plans SET (holder_pid, holder_began_at) ="
                " (SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
            )
        )
        connection.commit()
        with pytest.raises(PlanTaken, match="Ada"), plans.holding("p", [], who="Eve"):
            pass
        connection.execute(
            sa.text("UPDATE dualstore.plans SET heartbeat_at = clock_timestamp() - interval '16 seconds'")
        )
        connection.commit()
        with plans.holding("p", [], who="Eve"):
            pass


def test_a_holder_whose_session_is_gone_is_replaced_at_once(plans: PostgresPlans, engine: sa.Engine) -> None:
    with plans.holding("p", ["t"], who="Ada") as hold:
        with engine.begin() as connection:
            connection.execute(
                sa.text("SELECT pg_terminate_backend(holder_pid) FROM dualstore.plans WHERE name = 'p'")
            )
        with (
            plans.holding("p", ["t"], who="Eve", patience=timedelta(seconds=5)),
            pytest.raises(PlanTaken, match="taken over"),
        ):
            plans.append("p", "finished", by="Ada", step="a", holder=hold.id)
        with pytest.raises(Unavailable, match="session that holds its lock is lost"):
            hold.check()


def test_whoever_was_replaced_by_force_records_nothing_more(plans: PostgresPlans) -> None:
    with plans.holding("p", ["t"], who="Ada") as first:
        with plans.holding("p", ["t"], who="monitor", force=True) as second:
            with pytest.raises(PlanTaken):
                plans.append("p", "finished", by="Ada", step="a", holder=first.id)
            plans.append("p", "rolled back", by="monitor", step="a", holder=second.id)
            eventually(lambda: _is_lost(first))
        with pytest.raises(PlanTaken):
            first.pause(timedelta(seconds=5))
    assert [event.kind for event in plans.events("p")] == ["rolled back"]


def _is_lost(hold: object) -> bool:
    try:
        hold.check()  # type: ignore[attr-defined]
    except DualStoreError:
        return True
    return False


def test_a_halt_wakes_the_holder_and_a_resumption_lets_the_next_one_go_on(plans: PostgresPlans) -> None:
    with plans.holding("p", ["t"], who="Ada") as hold:
        plans.append("p", "halted", by="monitor", reason="too slow")
        with pytest.raises(PlanHalted, match="was halted"):
            hold.pause(timedelta(seconds=10))
    with plans.holding("p", ["t"], who="monitor", obeys_halts=False) as hold:
        hold.check()
    plans.append("p", "resumed", by="Ada")
    with plans.holding("p", ["t"], who="Ada") as hold:
        hold.check()


@pytest.mark.parametrize(
    ("result", "proofs"),
    [
        ({"difference_count": 0, "repaired": 0, "moving": 0}, 1),
        ({"difference_count": 2, "repaired": 2, "moving": 0}, 1),
        ({"difference_count": 2, "repaired": 1, "moving": 0}, 0),
        ({"difference_count": 0, "repaired": 0, "moving": 1}, 0),
    ],
)
def test_only_a_verification_that_left_nothing_proves(
    plans: PostgresPlans, engine: sa.Engine, result: dict[str, int], proofs: int
) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.insert(schema.runs).values(
                id=uuid4(),
                kind="verify",
                table_name="t",
                state="finished",
                result=result,
                finished_at=sa.func.clock_timestamp(),
            )
        )
    assert (plans.proven_at("t") is not None) == proofs
    assert plans.proven_at("another") is None


def finished_verification(engine: sa.Engine, **parameters: object) -> datetime | None:
    """The proof that a verification without a difference leaves behind."""
    runs, table = PostgresRuns(engine), f"orders-{uuid4().hex[:8]}"
    run = runs.start("verify", table, parameters)
    runs.finish(run, RunState.FINISHED, {"difference_count": 0, "repaired": 0, "moving": 0})
    return PostgresPlans(engine).proven_at(table)


@pytest.mark.parametrize("parameters", [{}, {"source": {"kind": "scan"}}], ids=str)
def test_a_verification_of_all_items_is_a_proof_since_it_began(
    engine: sa.Engine, parameters: dict[str, object]
) -> None:
    assert finished_verification(engine, **parameters) is not None


@pytest.mark.parametrize(
    "parameters", [{"mode": "keys"}, {"mode": "sample"}, {"source": {"kind": "export"}}], ids=str
)
def test_a_verification_of_some_keys_or_of_what_was_is_no_proof(
    engine: sa.Engine, parameters: dict[str, object]
) -> None:
    assert finished_verification(engine, **parameters) is None
