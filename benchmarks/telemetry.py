"""What the telemetry of one operation costs, with OpenTelemetry's SDK and without, beside naive instruments.

    python benchmarks/telemetry.py [--rounds 9] [--calls 10000] [--check]

An operation here is what the router does for one read: the span around it, and what a side answered. With
the SDK every trace is recorded, as its default sampler does; spans and metrics are kept in memory. Naive is a
histogram, a counter and a span at each call, on the same SDK. Blocks are interleaved; each figure is the
median of its blocks, in CPU time of the calling thread. `--check` exits with 1 where a goal is missed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from dualstore.stages import Side
from dualstore.telemetry import Role, Telemetry, export

GOALS_US = {"SDK off": 1.0, "SDK on": 5.0}
OPERATIONS_PER_TRACE = 10

Operation = Callable[[], None]


def ours(telemetry: Telemetry) -> Operation:
    spans = telemetry.spans

    def answer() -> None:
        telemetry.operation("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.0012)

    def operation() -> None:
        if not spans.on:
            answer()
            return
        with spans.around("orders", "GetItem"):
            answer()

    return operation


def naive(meters: MeterProvider, traces: TracerProvider) -> Operation:
    meter, tracer = meters.get_meter("naive"), traces.get_tracer("naive")
    duration = meter.create_histogram("db.client.operation.duration", unit="s")
    operations = meter.create_counter("operations")

    def operation() -> None:
        attributes = {
            "db.system.name": "aws.dynamodb",
            "db.operation.name": "GetItem",
            "db.collection.name": "orders",
            "dualstore.role": "authoritative",
        }
        with tracer.start_as_current_span("GetItem orders", kind=SpanKind.CLIENT, attributes=attributes):
            pass
        duration.record(0.0012, attributes)
        operations.add(1, attributes)

    return operation


def microseconds(operation: Operation, calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        operation()
    return (time.thread_time() - started) / calls * 1e6


def traced(traces: TracerProvider, operation: Operation, calls: int) -> float:
    """As `microseconds`, some operations to a traced request, whose own span does not count."""
    tracer, total = traces.get_tracer("service"), 0.0
    for _ in range(calls // OPERATIONS_PER_TRACE):
        with tracer.start_as_current_span("request"):
            total += microseconds(operation, OPERATIONS_PER_TRACE)
    return total / (calls // OPERATIONS_PER_TRACE)


def measure(*, rounds: int, calls: int) -> dict[str, float]:
    """Median microseconds of an operation by kind; the loop around it taken off."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    meters, traces = MeterProvider([reader]), TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    on = Telemetry(tracer=traces.get_tracer("dualstore"))
    export(on, meters.get_meter("dualstore"))
    every = Telemetry(tracer=traces.get_tracer("dualstore"), span_percent=100)
    operations = {
        "SDK off": ours(Telemetry()),
        "SDK on, no trace": ours(on),
        "SDK on": ours(on),
        "SDK on, every span": ours(every),
        "naive": naive(meters, traces),
    }
    untraced = {"SDK off", "SDK on, no trace"}
    taken: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(rounds + 1):
        for name, operation in operations.items():
            nothing = microseconds(lambda: None, calls)
            cost = microseconds(operation, calls) if name in untraced else traced(traces, operation, calls)
            taken[name].append(cost - nothing)
        exporter.clear()
        reader.get_metrics_data()
    traces.shutdown()
    meters.shutdown()
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    measured = measure(rounds=options.rounds, calls=options.calls)
    print(f"{'telemetry of one operation':28} {'µs':>7}  {'goal':>5}  {'of naive':>8}")
    for name, cost in measured.items():
        goal = f"{GOALS_US[name]:5.1f}" if name in GOALS_US else " " * 5
        print(f"{name:28} {cost:7.2f}  {goal}  {cost / measured['naive']:8.2f}")
    missed = [name for name, goal in GOALS_US.items() if measured[name] > goal]
    if options.check and missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
