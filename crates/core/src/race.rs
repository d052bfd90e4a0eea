//! Happy eyeballs (RFC 8305): in which order to try addresses, and when to start the next attempt.
//!
//! Driven by `create_connection`: it reports time and results, and is told which attempt to start. As in
//! asyncio, the next attempt starts when the latest one has failed or has had `delay` seconds, and without a
//! delay attempts go strictly one after the other. Never reads a clock and opens nothing.

/// What to do now.
#[derive(Copy, Clone, Debug, PartialEq)]
#[must_use = "the race starts nothing by itself"]
pub enum Next {
    /// Start the attempt with this number, then ask again.
    Start(usize),
    /// Wait for a result, at most until this time, then ask again.
    WaitUntil(f64),
    /// Wait for a result, then ask again.
    Wait,
    /// This attempt won: cancel all others that run.
    Won(usize),
    /// All attempts have failed.
    Lost,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Running,
    Failed,
}

/// A race between attempts.
#[derive(Debug)]
pub struct Race {
    total: usize,
    delay: Option<f64>,
    attempts: Vec<Attempt>,
    /// When the latest attempt was started.
    latest: f64,
    winner: Option<usize>,
}

impl Race {
    /// A race of `total` attempts. Without `delay` each waits for the failure of the one before.
    pub const fn new(total: usize, delay: Option<f64>) -> Self {
        Self { total, delay, attempts: Vec::new(), latest: 0.0, winner: None }
    }

    /// What to do at time `now`. An attempt that is to be started counts as started.
    pub fn next(&mut self, now: f64) -> Next {
        if let Some(winner) = self.winner {
            return Next::Won(winner);
        }
        let started = self.attempts.len();
        if started == self.total {
            let all_failed = self.attempts.iter().all(|attempt| *attempt == Attempt::Failed);
            return if all_failed { Next::Lost } else { Next::Wait };
        }
        if self.attempts.last() == Some(&Attempt::Running) {
            match self.delay {
                None => return Next::Wait,
                Some(delay) if now < self.latest + delay => return Next::WaitUntil(self.latest + delay),
                Some(_) => {}
            }
        }
        self.attempts.push(Attempt::Running);
        self.latest = now;
        Next::Start(started)
    }

    /// An attempt has failed.
    pub fn failed(&mut self, attempt: usize) {
        if let Some(state) = self.attempts.get_mut(attempt) {
            *state = Attempt::Failed;
        }
    }

    /// An attempt has succeeded; true if it is the first, else its connection is to be closed.
    #[must_use = "a second winner must be closed"]
    pub const fn succeeded(&mut self, attempt: usize) -> bool {
        if self.winner.is_some() {
            return false;
        }
        self.winner = Some(attempt);
        true
    }

    /// The attempts that run, to be cancelled when the race is over.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        let winner = self.winner;
        self.attempts
            .iter()
            .enumerate()
            .filter(move |(number, state)| **state == Attempt::Running && Some(*number) != winner)
            .map(|(number, _)| number)
    }
}

/// Alternates between address families, in the order in which they first appear. The first family gets
/// `first_count` addresses before the second has its turn.
pub fn interleave<T, F: PartialEq>(
    addresses: Vec<T>,
    first_count: usize,
    family: impl Fn(&T) -> F,
) -> Vec<T> {
    let mut families: Vec<(F, std::collections::VecDeque<T>)> = Vec::new();
    for address in addresses {
        let key = family(&address);
        match families.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push_back(address),
            None => families.push((key, std::collections::VecDeque::from([address]))),
        }
    }
    let mut ordered = Vec::new();
    if let Some((_, first)) = families.first_mut() {
        let head_start = first_count.saturating_sub(1).min(first.len());
        ordered.extend(first.drain(..head_start));
    }
    while families.iter().any(|(_, members)| !members.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(|(_, members)| members.pop_front()));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_delay_one_after_the_other() {
        let mut race = Race::new(2, None);
        assert_eq!(race.next(0.0), Next::Start(0));
        assert_eq!(race.next(100.0), Next::Wait);
        race.failed(0);
        assert_eq!(race.next(101.0), Next::Start(1));
        race.failed(1);
        assert_eq!(race.next(101.0), Next::Lost);
    }

    #[test]
    fn a_delay_staggers_and_a_failure_of_the_latest_hurries() {
        let mut race = Race::new(4, Some(0.25));
        assert_eq!(race.next(1.0), Next::Start(0));
        assert_eq!(race.next(1.0), Next::WaitUntil(1.25));
        assert_eq!(race.next(1.25), Next::Start(1));
        race.failed(0);
        assert_eq!(race.next(1.3), Next::WaitUntil(1.5), "an earlier attempt's failure changes nothing");
        race.failed(1);
        assert_eq!(race.next(1.3), Next::Start(2));
        assert_eq!(race.next(1.55), Next::Start(3));
        assert_eq!(race.next(9.0), Next::Wait);
        assert!(race.succeeded(2));
        assert!(!race.succeeded(3), "two may connect at the same moment");
        assert_eq!(race.next(9.0), Next::Won(2));
        assert_eq!(race.running().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn nothing_to_try_is_lost() {
        assert_eq!(Race::new(0, None).next(0.0), Next::Lost);
    }

    #[test]
    fn families_alternate_after_the_head_start() {
        let addresses = vec![(6, 'a'), (6, 'b'), (6, 'c'), (4, 'x'), (4, 'y')];
        let order = |first| {
            interleave(addresses.clone(), first, |(family, _)| *family)
                .iter()
                .map(|(_, name)| *name)
                .collect::<String>()
        };
        assert_eq!(order(1), "axbyc");
        assert_eq!(order(2), "abxcy");
        assert_eq!(order(9), "abcxy");
        assert_eq!(order(0), "axbyc");
    }
}
