"""A read as LaunchDarkly's Migrator makes it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ldclient
from ldclient.integrations.test_data import TestData
from ldclient.migrations import ExecutionOrder, MigratorBuilder
from ldclient.migrations import Stage as MigratorStage

Read = Callable[[Any], object]


@contextlib.contextmanager
def migrated(read: Read, *, stage: str, parallel: bool = False) -> Iterator[Read]:
    """The same read of both sides, as the Migrator does it at a stage; its events are off.

    Args:
        read: reads either side.
        stage: a stage of the Migrator's.
        parallel: whether it reads both sides at a time, each in a thread.
    """
    flags = TestData.data_source()
    stages = [each.value for each in MigratorStage]
    flags.update(flags.flag("orders-stage").variations(*stages).variation_for_all(stages.index(stage)))
    client = ldclient.LDClient(ldclient.Config("benchmark", update_processor_class=flags, send_events=False))

    def adapted(payload: Any) -> ldclient.Result:
        return ldclient.Result.success(read(payload))

    builder = MigratorBuilder(client)
    builder.read(adapted, adapted, lambda old, new: old == new).write(adapted, adapted)
    builder.read_execution_order(ExecutionOrder.PARALLEL if parallel else ExecutionOrder.SERIAL)
    migrator = builder.build()
    context = ldclient.Context.create("orders")

    def read_migrated(payload: Any) -> object:
        result = migrator.read("orders-stage", context, MigratorStage.OFF, payload)
        if not result.is_success():
            raise RuntimeError("the Migrator did not read")
        return result.value

    try:
        yield read_migrated
    finally:
        client.close()
