"""Fixtures of the replication tests: a world, and processes in it."""

import pytest

from unit.replication.processes import READABLE, Process, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def process(world: World) -> Process:
    """One process, at stage `off`."""
    return world.process()


@pytest.fixture
def two(world: World) -> tuple[Process, Process]:
    """Two processes; the mirror answers every read."""
    first, second = world.process(), world.process()
    world.decide(**READABLE)
    first.agent.refresh()
    second.agent.refresh()
    return first, second
