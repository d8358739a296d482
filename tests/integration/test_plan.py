"""A whole migration by its plan, on real databases, under traffic: killed, resumed, refused, rolled back."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dualstore.rollout import EventKind, load_plan
from dualstore.stages import Stage
from dualstore.stores.postgres_plans import PlanHalted, PostgresPlans
from dualstore.testing.servers import Postgres
from integration.deployment import Deployment, eventually
from integration.migrating import NAME, Migrating, migrating

KILLED_EVERYWHERE = os.environ.get("DUALSTORE_PLAN_KILLS") == "all"
KILLS = ("after:marked:gradual_traffic_increase/10", "before:finished:flip_authority")


@pytest.fixture
def service(deployment: Deployment, postgres_server: Postgres, tmp_path: Path) -> Iterator[Migrating]:
    scratch = postgres_server.create_database()
    try:
        with migrating(deployment, tmp_path, scratch.replace("+psycopg", "")) as service:
            yield service
    finally:
        postgres_server.drop_database(scratch)


@pytest.mark.timeout(1_800 if KILLED_EVERYWHERE else 600)  # 30 processes, one after the other
def test_a_plan_is_carried_out_under_traffic_killed_and_resumed_on_the_way(service: Migrating) -> None:
    plan = str(service.plan)
    steps = [step.id for step in load_plan(plan).steps]
    assert "NO:" not in service.said("plan", "run", plan, "--dry-run")
    kills = _everywhere(steps) if KILLED_EVERYWHERE else KILLS
    approved = False
    for kill in kills:
        if steps.index(kill.rpartition(":")[2]) >= steps.index("flip_authority") and not approved:
            _approve(service)
            approved = True
        service.killed("plan", "run", plan, at=kill)
    service.said("plan", "run", plan, "--until", "rampdown")
    if not KILLED_EVERYWHERE:
        assert [event.step for event in service.of(EventKind.FINISHED)][-1] == "rampdown"
    service.said("plan", "run", plan)

    done = [event.step for event in service.of(EventKind.FINISHED)]
    assert done == steps, "every step once, in order"
    assert {event.by for event in service.of(EventKind.APPROVED)} == {"Ada", "Grace"}
    assert all(event.evidence for event in service.of(EventKind.FINISHED))
    assert service.store.table(NAME).stage is Stage.COMPLETE
    service.traffic.__exit__()
    assert service.traffic.errors == []
    assert service.rows() == service.traffic.written, "no acknowledged write is lost"
    assert "every step is done" in service.said("plan", "run", plan), "and again is harmless"
    assert f"[x] {len(steps)}. backup_verification" in service.said("plan", "show", plan, "--record")


def _everywhere(steps: list[str]) -> list[str]:
    return [f"{moment}:{step}" for step in steps for moment in ("after:started", "before:finished")]


def _approve(service: Migrating) -> None:
    service.said("plan", "approve", str(service.plan), "flip_authority", "--as", "Ada")
    service.said("plan", "approve", str(service.plan), "stop_dual_writing", "--as", "Grace")


@pytest.mark.skipif(not KILLED_EVERYWHERE, reason="takes a minute: nox -s rollout")
@pytest.mark.timeout(300)
def test_a_plan_waits_halts_and_goes_back_as_people_say(service: Migrating) -> None:
    plan = str(service.plan)
    waiting = service.said("plan", "run", plan, "--no-wait", "--as", "Ada", code=1)
    assert "waiting: flip_authority: waits to be approved" in waiting
    with ThreadPoolExecutor() as threads:
        runner = threads.submit(service.carried_out_by, "Ada")
        eventually(lambda: runner.done() or _held(service), seconds=60)
        second = service.said("plan", "run", plan, "--as", "Eve", code=1)
        assert f"plan {service.name} is carried out by Ada" in second, "two operators cannot run it at once"
        service.said("plan", "approve", plan, "flip_authority", "--as", "Ada")
        eventually(lambda: service.store.table(NAME).stage is Stage.LIVE, seconds=60)
        back = service.said("plan", "rollback", plan, "--yes", "--as", "Eve", "--reason", "too slow")
        assert "flip_authority: taken back in" in back
        assert service.store.table(NAME).stage is Stage.SHADOW
        with pytest.raises(PlanHalted, match="was halted"):
            runner.result(timeout=60)
    refused = service.said("plan", "run", plan, code=1)
    assert "halted by Eve" in refused
    assert "too slow" in refused

    rehearsed = service.said("plan", "rehearse", plan, "--as", "Ada")
    assert "gradual_traffic_increase/100: back in" in rehearsed
    assert "forward again in" in rehearsed
    service.said("plan", "rollback", plan, "--all", "--yes")
    assert service.store.table(NAME).stage is Stage.OFF
    again = service.said("plan", "resume", plan, "--as", "Ada", "--no-wait", code=1)
    assert "waiting: flip_authority" in again, "what was rolled back is done again, and approved again"
    service.traffic.__exit__()
    assert service.traffic.errors == []
    service.said("plan", "rollback", plan, "--yes")
    assert {event.by for event in service.of(EventKind.RESUMED)} == {"Ada"}


def _held(service: Migrating) -> bool:
    kept = PostgresPlans(service.deployment.engine).find(service.name)
    return kept is not None and kept.holder == "Ada"
