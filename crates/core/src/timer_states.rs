//! What is so of each slot of the timers, in bits: of a hundred thousand, these are in the cache.

/// Two bits for each slot: whether its payload waits, and whether it has that of a tombstone, 64 slots by 64.
#[derive(Debug)]
pub(crate) struct States(Vec<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    waiting: u64,
    abandoned: u64,
}

impl States {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    pub(crate) fn waits(&self, at: usize) -> bool {
        self.0[at / 64].waiting >> (at % 64) & 1 != 0
    }

    /// What is there waits from now on.
    #[inline]
    pub(crate) fn wait(&mut self, at: usize) {
        if at / 64 >= self.0.len() {
            self.reach(at);
        }
        self.0[at / 64].waiting |= 1 << (at % 64);
    }

    #[cold]
    fn reach(&mut self, at: usize) {
        self.0.resize(at / 64 + 1, State::default());
    }

    #[inline]
    pub(crate) fn leave(&mut self, at: usize) {
        self.0[at / 64].waiting &= !(1 << (at % 64));
    }

    pub(crate) fn none_waits(&mut self) {
        self.0.iter_mut().for_each(|state| state.waiting = 0);
    }

    /// What waits there, if it does (there need be no such place), is abandoned.
    #[inline]
    pub(crate) fn abandon(&mut self, at: usize) -> bool {
        let Some(state) = self.0.get_mut(at / 64) else { return false };
        let bit = state.waiting & 1 << (at % 64);
        state.waiting ^= bit;
        state.abandoned |= bit;
        bit != 0
    }

    /// Whether what is there was abandoned; it is to be taken out then.
    #[inline]
    pub(crate) fn bring_out(&mut self, at: usize) -> bool {
        let state = &mut self.0[at / 64];
        let bit = state.abandoned & 1 << (at % 64);
        state.abandoned ^= bit;
        bit != 0
    }

    /// Where there was something abandoned: all is to be taken out.
    pub(crate) fn bring_out_all(&mut self) -> impl Iterator<Item = usize> {
        self.0.iter_mut().enumerate().flat_map(|(at, state)| {
            let mut bits = std::mem::take(&mut state.abandoned);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(64 * at + bit)
            })
        })
    }

    /// One more than the last place where something waits.
    pub(crate) fn end(&self) -> usize {
        let last = self.0.iter().rposition(|state| state.waiting != 0);
        last.map_or(0, |last| 64 * (last + 1) - self.0[last].waiting.leading_zeros() as usize)
    }

    /// Forgets the places from `end` on, where nothing is.
    #[inline]
    pub(crate) fn truncate(&mut self, end: usize) {
        if self.0.len() > end.div_ceil(64) {
            self.0.truncate(end.div_ceil(64));
            self.0.shrink_to(end.div_ceil(64));
        }
    }
}
