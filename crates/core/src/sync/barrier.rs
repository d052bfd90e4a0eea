//! asyncio.Barrier: so many must come before any may go on.
//!
//! Driven by the `py` floor's Barrier, under its condition's lock. This is the count and the state; who waits
//! is the condition's list, and `notify` in an answer means: notify all of it.

/// Where a barrier stands. `str` names are those that `repr` shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BarrierState {
    /// Tasks arrive.
    Filling,
    /// All have come and are leaving; newcomers wait for the last to be gone.
    Draining,
    /// A reset throws those inside out; newcomers wait for the last to be gone.
    Resetting,
    /// Aborted.
    Broken,
}

impl BarrierState {
    /// The name in `repr`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filling => "filling",
            Self::Draining => "draining",
            Self::Resetting => "resetting",
            Self::Broken => "broken",
        }
    }
}

/// Whether a task may enter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is in, with this number. `last`: all have come; notify everybody and do not wait.
    In {
        /// Its place in the order of arrival.
        index: usize,
        /// Whether it completes the party.
        last: bool,
    },
    /// The previous party is still leaving: wait for a notification, then ask again.
    Wait,
    /// The barrier is broken.
    Broken,
}

/// What a notification means for a task inside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Pass,
    /// Nothing has been decided: wait again.
    Wait,
    /// The barrier was aborted or reset.
    Broken,
}

/// A barrier's count and state.
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    inside: usize,
    state: BarrierState,
}

impl Barrier {
    /// For `parties` tasks, at least one.
    pub const fn new(parties: usize) -> Self {
        Self { parties, inside: 0, state: BarrierState::Filling }
    }

    /// How many are inside: waiting or, once all have come, leaving.
    pub const fn inside(&self) -> usize {
        self.inside
    }

    /// How many must come.
    pub const fn parties(&self) -> usize {
        self.parties
    }

    /// How many have come and wait.
    pub const fn n_waiting(&self) -> usize {
        if matches!(self.state, BarrierState::Filling) { self.inside } else { 0 }
    }

    /// Where it stands.
    pub const fn state(&self) -> BarrierState {
        self.state
    }

    /// Enters, if the time is right. Whoever is in calls [`exit`](Self::exit) in the end, come what may.
    pub const fn enter(&mut self) -> Entry {
        match self.state {
            BarrierState::Draining | BarrierState::Resetting => Entry::Wait,
            BarrierState::Broken => Entry::Broken,
            BarrierState::Filling => {
                let index = self.inside;
                self.inside += 1;
                let last = self.inside == self.parties;
                if last {
                    self.state = BarrierState::Draining;
                }
                Entry::In { index, last }
            }
        }
    }

    /// What a task inside should do, after each notification.
    pub const fn outcome(&self) -> Outcome {
        match self.state {
            BarrierState::Filling => Outcome::Wait,
            BarrierState::Draining => Outcome::Pass,
            BarrierState::Resetting | BarrierState::Broken => Outcome::Broken,
        }
    }

    /// A task leaves. True: it was the last, notify everybody.
    #[must_use = "true means: notify all"]
    pub const fn exit(&mut self) -> bool {
        self.inside = self.inside.saturating_sub(1);
        if self.inside > 0 {
            return false;
        }
        if matches!(self.state, BarrierState::Resetting | BarrierState::Draining) {
            self.state = BarrierState::Filling;
        }
        true
    }

    /// Back to empty; those inside are thrown out. Notify everybody afterwards.
    pub const fn reset(&mut self) {
        self.state = if self.inside > 0 { BarrierState::Resetting } else { BarrierState::Filling };
    }

    /// Breaks the barrier. Notify everybody afterwards.
    pub const fn abort(&mut self) {
        self.state = BarrierState::Broken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn entered(index: usize, last: bool) -> Entry {
        Entry::In { index, last }
    }

    #[test]
    fn a_party_fills_drains_and_lets_the_next_in() {
        let mut barrier = Barrier::new(2);
        assert_eq!(barrier.enter(), entered(0, false));
        assert_eq!((barrier.outcome(), barrier.n_waiting()), (Outcome::Wait, 1));
        assert_eq!(barrier.enter(), entered(1, true));
        assert_eq!((barrier.outcome(), barrier.n_waiting()), (Outcome::Pass, 0));
        assert_eq!(barrier.enter(), Entry::Wait);
        assert!(!barrier.exit());
        assert_eq!(barrier.state().name(), "draining");
        assert!(barrier.exit());
        assert_eq!(barrier.enter(), entered(0, false));
    }

    #[test]
    fn a_reset_throws_out_and_an_abort_stays_broken() {
        let mut barrier = Barrier::new(3);
        barrier.reset();
        assert_eq!(barrier.state(), BarrierState::Filling);
        assert_eq!(barrier.enter(), entered(0, false));
        barrier.reset();
        assert_eq!((barrier.outcome(), barrier.enter()), (Outcome::Broken, Entry::Wait));
        assert!(barrier.exit());
        assert_eq!(barrier.enter(), entered(0, false));
        barrier.abort();
        assert_eq!((barrier.outcome(), barrier.enter()), (Outcome::Broken, Entry::Broken));
        assert!(barrier.exit());
        assert_eq!(barrier.state(), BarrierState::Broken);
        barrier.reset();
        assert_eq!(barrier.state(), BarrierState::Filling);
    }

    #[test]
    fn one_cancelled_inside_makes_room_for_another() {
        let mut barrier = Barrier::new(2);
        assert_eq!(barrier.enter(), entered(0, false));
        assert!(barrier.exit());
        assert_eq!(barrier.state(), BarrierState::Filling);
        assert_eq!(barrier.enter(), entered(0, false));
    }
}
