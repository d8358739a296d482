"""A share of the keys is mirrored, and a fleet has to agree before the copy of the history counts."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dualstore import Stage
from dualstore.errors import IllegalTransition
from dualstore.flags import StaticFlags
from dualstore.stages import Side
from integration.deployment import Deployment, eventually, served_by
from integration.reading import reading
from integration.writing import NAME, item_of


def test_reads_come_back_after_a_lower_share_only_with_a_copy_that_every_process_has_confirmed(
    deployment: Deployment,
) -> None:
    model, row = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as store:
        store.bind(model, row, name=NAME)
        table, client = store.table(NAME), store.client()
        flags.set(NAME, stage=Stage.DUALWRITE)
        table.wait_until(lambda record: record.mirrors_every_key)
        client.put_item(TableName=table.physical, Item=item_of(1, 1))
        assert table.backfill(segments=1, workers=1).succeeded
        flags.set(NAME, postgres_read_percent=100.0)
        table.wait_until(lambda record: record.mirror_readable)
        with reading(deployment, table.physical) as other:
            eventually(lambda: Side.POSTGRES in other.since(0), seconds=60)

            flags.set(NAME, mirror_percent=50.0, postgres_read_percent=0.0)
            table.wait_until(lambda record: not record.mirrors_every_key)
            assert not table.view.record.loaded
            with pytest.raises(IllegalTransition, match="mirror-percent 100"):
                table.backfill(segments=1, workers=1)
            lowered, before = time.monotonic(), served_by(store, Side.POSTGRES)
            eventually(lambda: len(other.since(lowered)) > 20)
            assert set(other.since(lowered)) == {Side.DYNAMODB}

            other.process.send_signal(signal.SIGSTOP)  # it still leaves half of the keys out
            flags.set(NAME, mirror_percent=100.0)
            eventually(lambda: table.view.record.mirrors_every_key)
            flags.set(NAME, postgres_read_percent=100.0)
            eventually(lambda: "dualstore backfill" in (table.status().refusal or ""))
            with ThreadPoolExecutor(1) as thread:
                copying = thread.submit(table.backfill, segments=1, workers=1)
                time.sleep(2)
                assert not copying.done()
                other.process.send_signal(signal.SIGCONT)
                assert copying.result(30).succeeded

            table.wait_until(lambda record: record.mirror_readable)
            assert served_by(store, Side.POSTGRES) == before
            copied = time.monotonic()
            eventually(lambda: Side.POSTGRES in other.since(copied))
            assert other.errors == []
        store.unbind(model)
