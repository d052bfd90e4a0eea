//! Who has taken a lock, or the permits of a semaphore: a record for reports, never a rule.
//!
//! Kept by the `py` floor's Lock and Semaphore. Anybody may release, not just who has acquired, so the record
//! is as good as the program is orderly; its size is bounded whatever the program does.

/// How many are known by name; the others are counted.
const MOST: usize = 32;

/// Those who hold something, the first to take it first.
#[derive(Debug)]
pub struct Holders<H> {
    known: Vec<H>,
    unknown: usize,
}

impl<H> Holders<H> {
    /// Nobody.
    pub const fn new() -> Self {
        Self { known: Vec::new(), unknown: 0 }
    }

    /// Somebody took it. Gives back what it doesn't keep.
    #[must_use = "dropping a holder may run foreign code: choose where"]
    pub fn took(&mut self, holder: Option<H>) -> Option<H> {
        match holder {
            Some(holder) if self.known.len() < MOST => {
                self.known.push(holder);
                None
            }
            other => {
                self.unknown += 1;
                other
            }
        }
    }

    /// It was released, by the one whom `is_mine` tells if there is one. Who releases without holding does it
    /// for somebody: for one whose name is not known, or else for the one who has held longest.
    #[must_use = "dropping a holder may run foreign code: choose where"]
    pub fn gave(&mut self, is_mine: impl Fn(&H) -> bool) -> Option<H> {
        if let Some(place) = self.known.iter().position(is_mine) {
            return Some(self.known.remove(place));
        }
        if self.unknown > 0 {
            self.unknown -= 1;
            return None;
        }
        (!self.known.is_empty()).then(|| self.known.remove(0))
    }

    /// Those who are known.
    pub fn known(&self) -> &[H] {
        &self.known
    }

    /// How many others there are.
    pub const fn unknown(&self) -> usize {
        self.unknown
    }

    /// Forgets all.
    #[must_use = "dropping holders may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<H> {
        self.unknown = 0;
        std::mem::take(&mut self.known)
    }
}

impl<H> Default for Holders<H> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_releases_is_taken_off_the_record() {
        let mut holders = Holders::new();
        for name in ['a', 'b', 'c'] {
            assert_eq!(holders.took(Some(name)), None);
        }
        assert_eq!(holders.gave(|name| *name == 'b'), Some('b'));
        assert_eq!(holders.gave(|name| *name == 'x'), Some('a'), "x released for the first");
        assert_eq!(holders.known(), ['c']);
        assert_eq!(holders.take_all(), ['c']);
        assert_eq!(holders.gave(|_| true), None);
    }

    #[test]
    fn the_record_is_bounded() {
        let mut holders = Holders::new();
        let refused: Vec<_> = (0..MOST + 2).filter_map(|number| holders.took(Some(number))).collect();
        assert_eq!(refused, [MOST, MOST + 1]);
        assert_eq!(holders.took(None), None);
        assert_eq!((holders.known().len(), holders.unknown()), (MOST, 3));
        for _ in 0..3 {
            assert_eq!(holders.gave(|number| *number == MOST), None);
        }
        assert_eq!(holders.gave(|number| *number == MOST), Some(0));
    }
}
