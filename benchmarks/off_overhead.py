"""What a bound model costs at stage `off`, as a ratio to the same model unbound.

    python benchmarks/off_overhead.py [--rounds 15] [--calls 200]

Both talk to the same DynamoDB stand-in; blocks of calls are interleaved, bound and unbound in turn, and the
ratio is the median of the ratios of neighbouring blocks, so that a machine that speeds up or slows down does
not count. At `off` PostgreSQL is not touched: none is started.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import sqlalchemy
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from dualstore import DualStore
from dualstore.flags import StaticFlags
from dualstore.replication.control import BOOKKEEPING_TABLE
from dualstore.stores.dynamo import dynamo_clients
from dualstore.testing.servers import DynamoDBServer

ACCOUNT = {"access_key_id": "benchmark", "secret_access_key": "benchmark"}


def seconds_per_call(call: Callable[[int], object], calls: int) -> float:
    started = time.perf_counter()
    for number in range(calls):
        call(number)
    return (time.perf_counter() - started) / calls


def compare(
    store: DualStore, model: type[Model], call: Callable[[int], object], *, rounds: int, calls: int
) -> tuple[float, float, list[float]]:
    """Median seconds unbound and bound, and the ratio of each pair of neighbouring blocks."""
    seconds_per_call(call, calls)  # warm-up
    unbound, bound, ratios = [], [], []
    for number in range(rounds):
        pair = {}
        for is_bound in (False, True) if number % 2 else (True, False):
            if is_bound:
                with store.bound(model):
                    pair[True] = seconds_per_call(call, calls)
            else:
                pair[False] = seconds_per_call(call, calls)
        unbound.append(pair[False])
        bound.append(pair[True])
        ratios.append(pair[True] / pair[False])
    return statistics.median(unbound), statistics.median(bound), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()

    with DynamoDBServer() as server:
        endpoint, region = server.endpoint_url, "us-east-1"

        class Order(Model):
            class Meta:
                table_name = "orders"
                host = endpoint
                region = "us-east-1"
                aws_access_key_id = "benchmark"
                aws_secret_access_key = "benchmark"

            customer = UnicodeAttribute(hash_key=True)
            number = NumberAttribute(range_key=True)
            note = UnicodeAttribute()
            total = NumberAttribute()

        clients = dynamo_clients(endpoint_url=endpoint, region=region, **ACCOUNT)
        clients.reads.create_table(TableName="dualstore", **BOOKKEEPING_TABLE)
        Order.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        order = Order("customer-1", 1, note="n" * 200, total=12.5)
        order.save()
        engine = sqlalchemy.create_engine("postgresql+psycopg://unused@127.0.0.1:1/unused")
        with clients, DualStore(engine=engine, dynamodb=clients, flags=StaticFlags({})) as store:
            print(
                f"stand-in {server.engine} {server.version}, {options.rounds} rounds of {options.calls} calls"
            )
            print(f"{'operation':10} {'unbound µs':>11} {'bound µs':>11} {'ratio':>7}  [min-max]")
            for name, call in {
                "get": lambda _: Order.get("customer-1", 1),
                "save": lambda _: order.save(),
            }.items():
                before, after, ratios = compare(
                    store, Order, call, rounds=options.rounds, calls=options.calls
                )
                print(
                    f"{name:10} {before * 1e6:11.0f} {after * 1e6:11.0f} {statistics.median(ratios):7.3f}"
                    f"  [{min(ratios):.3f}-{max(ratios):.3f}]"
                )


if __name__ == "__main__":
    main()
