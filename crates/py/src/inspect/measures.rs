//! A loop's metrics as JSON: what it measures of itself, and what can be counted just now.

use aioxide_core::histogram::Histogram;
use aioxide_sys::traffic;
use pyo3::intern;
use pyo3::prelude::*;

use super::json::Json;
use crate::event_loop::{EventLoop, measure};
use crate::tasks;

/// Limits of Prometheus' buckets, in nanoseconds.
const LIMITS: [u64; 12] = [
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// `_metrics(event_loop)`: as JSON; the first call starts the measurements.
#[pyfunction]
pub(super) fn _metrics(event_loop: &Bound<'_, EventLoop>) -> String {
    let mut json = Json::new();
    write(event_loop, &mut json);
    json.into_text()
}

pub(super) fn write(event_loop: &Bound<'_, EventLoop>, json: &mut Json) {
    let (py, core) = (event_loop.py(), EventLoop::core(event_loop));
    let timers = core.scheduler().with(py, |s| s.timers_len());
    let descriptors = event_loop.get().count_sources(py);
    let transports = event_loop.get().transports.get();
    let counted = tasks::counted();
    let (received, sent) = traffic::so_far();
    let executor = executor_of(event_loop).unwrap_or_default();
    json.object(|json| {
        measure(event_loop, |metrics| {
            json.key("iterations").number(metrics.turns());
            json.key("callbacks").number(metrics.jobs());
            json.key("ready").count(metrics.ready().0);
            json.key("most_ready").count(metrics.ready().1);
            for (name, histogram) in
                [("lag", metrics.lag()), ("iteration", metrics.turn()), ("callback", metrics.callback())]
            {
                json.key(name);
                spread(histogram, json);
            }
        });
        json.key("timers").count(timers);
        json.key("descriptors").count(descriptors);
        json.key("transports").count(transports);
        json.key("bytes_received").number(received);
        json.key("bytes_sent").number(sent);
        json.key("executor_queue").count(executor.0);
        json.key("executor_threads").count(executor.1);
        json.key("tasks_made").number(counted.made);
        json.key("tasks_done").number(counted.done);
        json.key("tasks_cancelled").number(counted.cancelled);
    });
}

/// The figures of a loop that runs in that thread, and every bucket of its histograms: who looks twice can say what
/// has been between the two looks.
pub(super) fn write_whole(event_loop: &Bound<'_, EventLoop>, ident: u64, json: &mut Json) {
    json.object(|json| {
        json.key("loop").count(event_loop.as_ptr().addr());
        json.key("thread").number(ident);
        json.key("figures");
        write(event_loop, json);
        measure(event_loop, |metrics| {
            let all =
                [("lag", metrics.lag()), ("iteration", metrics.turn()), ("callback", metrics.callback())];
            for (name, histogram) in all {
                json.key(name).array(|json| {
                    for (limit, count) in histogram.filled() {
                        json.array(|json| {
                            json.number(limit);
                            json.number(count);
                        });
                    }
                });
            }
        });
    });
}

#[allow(clippy::cast_precision_loss, reason = "seconds for people")]
fn spread(histogram: &Histogram, json: &mut Json) {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    json.object(|json| {
        json.key("count").number(histogram.count());
        json.key("sum").seconds(seconds(histogram.sum()));
        json.key("p50").seconds(seconds(histogram.quantile(500_000)));
        json.key("p99").seconds(seconds(histogram.quantile(990_000)));
        json.key("max").seconds(seconds(histogram.max()));
        json.key("buckets").array(|json| {
            for limit in LIMITS {
                json.array(|json| {
                    json.seconds(seconds(limit));
                    json.number(histogram.up_to(limit));
                });
            }
        });
    });
}

/// Jobs that wait in the default executor, and its threads.
fn executor_of(event_loop: &Bound<'_, EventLoop>) -> PyResult<(usize, usize)> {
    let py = event_loop.py();
    let executor = event_loop.getattr(intern!(py, "_default_executor"))?;
    if executor.is_none() {
        return Ok((0, 0));
    }
    let queue = executor.getattr("_work_queue")?.call_method0("qsize")?.extract()?;
    Ok((queue, executor.getattr("_threads")?.len()?))
}
