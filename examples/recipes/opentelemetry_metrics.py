"""The figures of an event loop as OpenTelemetry metrics.

python opentelemetry_metrics.py
"""

import asyncio

import aioxide
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

COUNTERS = ["iterations", "callbacks", "bytes_received", "bytes_sent", "tasks_made", "tasks_done", "tasks_cancelled"]
GAUGES = ["ready", "timers", "descriptors", "transports", "executor_queue", "executor_threads"]
SPREADS = ["lag", "iteration", "callback"]


def observe(meter, loop):
    """Let a meter read a loop, from whichever thread it likes."""
    loop.metrics()  # starts the measurements
    for name in COUNTERS:
        meter.create_observable_counter(
            f"aioxide.{name}", callbacks=[lambda _, name=name: [Observation(getattr(loop.metrics(), name))]]
        )
    for name in GAUGES:
        meter.create_observable_gauge(
            f"aioxide.{name}", callbacks=[lambda _, name=name: [Observation(getattr(loop.metrics(), name))]]
        )
    for name in SPREADS:

        def spread(_, name=name):
            found = getattr(loop.metrics(), name)
            return [Observation(getattr(found, of), {"of": of}) for of in ("p50", "p99", "max")]

        meter.create_observable_gauge(f"aioxide.{name}", callbacks=[spread], unit="s")


async def main():
    # In production: PeriodicExportingMetricReader(OTLPMetricExporter()).
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(provider.get_meter("aioxide"), asyncio.get_running_loop())
    await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(10)))
    data = await asyncio.to_thread(reader.get_metrics_data)
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            print(metric.name, *point.attributes.values(), f"{point.value:g}")
    provider.shutdown()


if __name__ == "__main__":
    with aioxide.install():
        aioxide.run(main())
