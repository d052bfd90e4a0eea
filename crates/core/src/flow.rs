//! What a buffer asks of whoever fills it. Returned by `outbox` and `inflow`; acted on by transports and
//! streams.

/// A request to the side that produces bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "the producer must be told"]
pub enum Flow {
    /// Go on as before.
    Nothing,
    /// The buffer is too full: stop.
    Pause,
    /// The buffer has room again: go on.
    Resume,
}

/// asyncio's default high water mark.
pub const DEFAULT_HIGH_WATER: usize = 64 * 1024;

/// Limits that contradict each other; both as they were understood, for the message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LimitsError {
    /// The high mark.
    pub high: i64,
    /// The low mark.
    pub low: i64,
}

/// How full a buffer is, between two marks: above the high one its writer pauses, at the low one it resumes.
#[derive(Copy, Clone, Debug)]
pub struct Marks {
    size: usize,
    high: usize,
    low: usize,
    paused: bool,
}

impl Marks {
    /// Nothing in it, asyncio's default limits.
    pub const fn new() -> Self {
        Self { size: 0, high: DEFAULT_HIGH_WATER, low: DEFAULT_HIGH_WATER / 4, paused: false }
    }

    /// How much is in it.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether the writer has been told to pause and not yet to resume.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// The low and the high mark.
    pub const fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// That much came in.
    pub const fn add(&mut self, more: usize) -> Flow {
        self.size += more;
        self.pause_if_high()
    }

    /// That much went out (no more than there was). The writer is told by [`resume`](Self::resume).
    pub const fn remove(&mut self, less: usize) {
        self.size = self.size.saturating_sub(less);
    }

    /// Whether the writer resumes, after something went out.
    pub const fn resume(&mut self) -> Flow {
        if !self.paused || self.size > self.low {
            return Flow::Nothing;
        }
        self.paused = false;
        Flow::Resume
    }

    /// Everything is given up. The writer stays paused if it was: its connection is ending.
    pub const fn clear(&mut self) {
        self.size = 0;
    }

    /// Sets the marks as `set_write_buffer_limits` does: each has a default that follows the other.
    pub fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> Result<Flow, LimitsError> {
        let default = i64::try_from(DEFAULT_HIGH_WATER).unwrap_or(i64::MAX);
        let high = high.unwrap_or_else(|| low.map_or(default, |low| low.saturating_mul(4)));
        let low = low.unwrap_or_else(|| high.div_euclid(4));
        let (Ok(upper), Ok(lower)) = (usize::try_from(high), usize::try_from(low)) else {
            return Err(LimitsError { high, low });
        };
        if upper < lower {
            return Err(LimitsError { high, low });
        }
        (self.high, self.low) = (upper, lower);
        Ok(self.pause_if_high())
    }

    const fn pause_if_high(&mut self) -> Flow {
        if self.paused || self.size <= self.high {
            return Flow::Nothing;
        }
        self.paused = true;
        Flow::Pause
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}
