//! The only clock of the project: monotonic seconds, the same number that Python's `time.monotonic()` gives.
//!
//! Read by the loop's turn and by `loop.time()`. Nothing below the loop reads time by itself.

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// Seconds since some fixed moment; never goes back.
#[inline]
pub fn monotonic() -> f64 {
    seconds(clock_gettime(ClockId::Monotonic))
}

/// What [`monotonic`] was when the kernel last looked: a few milliseconds ago, and a fraction of the price.
#[inline]
pub fn coarse() -> f64 {
    seconds(clock_gettime(ClockId::MonotonicCoarse))
}

/// How much [`coarse`] may be behind, in seconds.
pub fn coarse_resolution() -> f64 {
    seconds(clock_getres(ClockId::MonotonicCoarse))
}

/// Seconds of processor time that the calling thread has used.
pub fn thread_cpu() -> f64 {
    seconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// The smallest step of [`monotonic`], in seconds.
pub fn resolution() -> f64 {
    seconds(clock_getres(ClockId::Monotonic))
}

/// Whole nanoseconds divided once, as Python does: both clocks then round alike.
#[inline]
#[allow(clippy::cast_precision_loss, reason = "a double is what asyncio's time() is")]
fn seconds(time: Timespec) -> f64 {
    (time.tv_sec * 1_000_000_000 + time.tv_nsec) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = monotonic();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let passed = monotonic() - before;
        assert!((0.002..2.0).contains(&passed), "{passed}");
        assert!(resolution() > 0.0 && resolution() < 0.1);
    }

    #[test]
    fn the_coarse_clock_is_a_little_behind() {
        assert!(coarse_resolution() > 0.0 && coarse_resolution() < 0.1);
        for _ in 0..1000 {
            let coarse = coarse();
            assert!((monotonic() - 1.0..=monotonic()).contains(&coarse)); // the kernel may look late
        }
    }
}
