//! How often which duration came up: a histogram with buckets of a sixteenth of their octave, from nanoseconds to
//! hours.
//!
//! Written by the loop for its metrics. Recording is an addition to one bucket; quantiles are exact to three in a
//! hundred, the largest value is exact.

/// Buckets in each octave.
const PARTS: usize = 16;
const PART_BITS: u32 = PARTS.ilog2();
/// Enough for every `u64`.
const BUCKETS: usize = (64 - PART_BITS as usize + 1) * PARTS;

/// Durations in nanoseconds, counted.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Nothing has been recorded.
    pub fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, sum: 0, max: 0 }
    }

    /// Counts `value`, `times` times.
    #[inline]
    pub fn record(&mut self, value: u64, times: u64) {
        if let Some(bucket) = self.buckets.get_mut(place(value)) {
            *bucket += times;
        }
        self.count += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.max = self.max.max(value);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 if there are none.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// The value that so many of a million values don't exceed.
    pub fn quantile(&self, of_a_million: u64) -> u64 {
        let wanted = u64::try_from((u128::from(self.count) * u128::from(of_a_million)).div_ceil(1_000_000))
            .unwrap_or(self.count);
        let mut seen = 0;
        for (place, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return upper(place).min(self.max);
            }
        }
        self.max
    }

    /// How many values don't exceed `limit`, to the precision of the buckets.
    pub fn up_to(&self, limit: u64) -> u64 {
        self.buckets.iter().enumerate().take_while(|(place, _)| upper(*place) <= limit).map(|(_, n)| n).sum()
    }

    /// The buckets that are not empty, from the smallest: the largest value that one takes, and how many it has.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counts = self.buckets.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(place, count)| (upper(place), count))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a value.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "below 32 after the shift")]
fn place(value: u64) -> usize {
    let octave = (value | (PARTS as u64 - 1)).ilog2() - (PART_BITS - 1);
    let shift = octave.saturating_sub(1);
    (value >> shift) as usize + shift as usize * PARTS
}

/// The largest value in a bucket.
fn upper(place: usize) -> u64 {
    if place < 2 * PARTS {
        return place as u64;
    }
    let shift = place / PARTS - 1;
    let part = (place - shift * PARTS) as u64;
    // Written so that the last bucket does not overflow.
    (part << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_what_they_say() {
        let mut last = 0;
        for exponent in 0..64 {
            for step in [0_u64, 1, 3] {
                let value = (1_u64 << exponent) + step * (1 << exponent >> 2);
                let place = place(value);
                assert!(place >= last && place < BUCKETS, "{value}");
                assert!(value <= upper(place), "{value} {}", upper(place));
                assert!(upper(place) - value <= value / 16, "{value} {}", upper(place));
                last = place;
            }
        }
        assert_eq!(upper(place(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        for value in 1..=1000 {
            histogram.record(value * 1000, 1);
        }
        assert_eq!((histogram.count(), histogram.max(), histogram.mean()), (1000, 1_000_000, 500_500));
        for (million, exact) in [(500_000, 500_000_u64), (990_000, 990_000), (999_000, 999_000)] {
            let found = histogram.quantile(million);
            assert!(found.abs_diff(exact) <= exact / 16, "{million}: {found}");
        }
        assert_eq!(histogram.quantile(1_000_000), 1_000_000);
        assert_eq!(histogram.up_to(u64::MAX), 1000);
        assert_eq!(histogram.up_to(10), 0);
    }

    #[test]
    fn many_at_once_count_each() {
        let mut histogram = Histogram::new();
        histogram.record(5, 99);
        histogram.record(7000, 1);
        assert_eq!((histogram.quantile(500_000), histogram.quantile(1_000_000)), (5, 7000));
        assert_eq!(Histogram::new().quantile(500_000), 0);
    }

    #[test]
    fn what_is_filled_adds_up() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.filled().count(), 0);
        for value in [3, 3, 1_000, 1_010, 5_000_000_000] {
            histogram.record(value, 2);
        }
        let filled: Vec<_> = histogram.filled().collect();
        assert_eq!(filled.iter().map(|(_, count)| count).sum::<u64>(), histogram.count());
        assert_eq!(filled[0], (3, 4));
        assert!(filled.is_sorted() && filled.last().is_some_and(|(limit, _)| *limit >= 5_000_000_000));
    }
}
