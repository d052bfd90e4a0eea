//! Answers in a rush: many jobs of one turn write, and between their writes somebody computes.
//!
//! Each packet that goes alone wakes the other side, which is through with it and asleep again before the next one
//! comes: with both on one machine, the loop pays more for that than for the packet. Small writes may therefore wait
//! for each other, for a moment. A loop keeps one [`Rush`], asks it at each write whether that may wait and says when it
//! does, asks between jobs whether what waits may go on waiting, and tells it when a turn is over; waiting, and where, is
//! the caller's affair.
//!
//! Nothing waits until a few turns were like that, nor longer than [`LONGEST`] and the job that runs then, and where jobs
//! are often so long, nothing waits for many turns. Quick answers do not wait, for the other side stays awake by itself;
//! neither do very slow ones, beside which a wake-up is nothing.

/// What waits goes after the job in which this time is over, in seconds.
const LONGEST: f64 = 2e-3;

/// Turns in which fewer jobs write say nothing about how it is when there are many.
const MANY: u32 = 4;

/// From one job's write to the next one's, in seconds and on average: at least so long for a rush to begin …
const SLOW: f64 = 15e-6;

/// … and to go on, as writes that wait are cheaper …
const STILL_SLOW: f64 = 10e-6;

/// … and at most so long.
const VERY_SLOW: f64 = 300e-6;

/// So many turns of many writes must have been slow, one after the other.
const TURNS: u8 = 3;

/// So many turns in a row that were not, or had few writes, are borne; one more ends it.
const UNLIKE: u8 = 8;

/// How many turns of many writes nobody looks at after quick ones, or after jobs that kept others waiting.
const PAUSE: u16 = 64;

/// A job that kept others waiting is forgotten in so many turns; before that, there may be no second one. (One alone may
/// be the machine's doing.)
const FORGOTTEN: u8 = 8;

/// How a loop's programs write, and since when something waits.
#[derive(Clone, Debug)]
pub struct Rush {
    mood: Mood,
    /// How many jobs of this turn have written, and the last one of all.
    writes: u32,
    job: u32,
    /// When the first and the last of them did so first, where that is looked at.
    first: f64,
    last: f64,
    /// Since when the oldest of what waits does so, and when the loop was last between two jobs, if later.
    since: Option<f64>,
    seen: f64,
    /// In so many turns the last long job will be forgotten.
    strain: u8,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mood {
    /// Writes are only counted, for so many turns at least.
    Calm(u16),
    /// Writes are timed. So many turns in a row were slow.
    Trial(u8),
    /// Writes wait. So many turns in a row were unlike that.
    On(u8),
}

impl Default for Rush {
    fn default() -> Self {
        Self::new()
    }
}

impl Rush {
    /// Nothing known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            mood: Mood::Calm(0),
            writes: 0,
            job: 0,
            first: 0.0,
            last: 0.0,
            since: None,
            seen: 0.0,
            strain: 0,
        }
    }

    /// Something is written in a job of that number. Whether it may wait; if it does, [`Self::wait`] is to be called. The
    /// clock is looked at only where writes are timed.
    #[inline]
    pub fn write(&mut self, job: u32, now: impl FnOnce() -> f64) -> bool {
        if self.job != job {
            self.job = job;
            self.writes += 1;
            if !matches!(self.mood, Mood::Calm(_)) {
                self.last = now();
                if self.writes == 1 {
                    self.first = self.last;
                }
            }
        }
        matches!(self.mood, Mood::On(_))
    }

    /// So many descriptors are ready. Whether to receive from all of them before somebody computes: the calls of the
    /// system that a rush makes are cheaper together.
    #[inline]
    #[must_use]
    pub const fn reads_ahead(&self, ready: usize) -> bool {
        ready >= MANY as usize && matches!(self.mood, Mood::On(_))
    }

    /// What was just written waits.
    #[inline]
    pub fn wait(&mut self, now: impl FnOnce() -> f64) {
        if self.since.is_none() {
            self.seen = now();
            self.since = Some(self.seen);
        }
    }

    /// Between two jobs, and after the last one: whether what waits may go on waiting.
    pub fn goes_on(&mut self, now: impl FnOnce() -> f64) -> bool {
        let Some(since) = self.since else { return false };
        let now = now();
        if now - self.seen > LONGEST {
            if self.strain > 0 {
                self.mood = Mood::Calm(PAUSE);
            }
            self.strain = FORGOTTEN;
        }
        self.seen = now;
        if now - since > LONGEST {
            self.since = None;
        }
        self.since.is_some()
    }

    /// A turn is over; nothing waits any more.
    #[inline]
    pub fn over(&mut self) {
        if self.writes > 0 {
            self.learn();
        }
    }

    fn learn(&mut self) {
        let many = self.writes >= MANY;
        let pace = (self.last - self.first) / f64::from(self.writes - 1);
        self.mood = match self.mood {
            Mood::Calm(0) if many => Mood::Trial(0),
            Mood::Calm(left) if many => Mood::Calm(left - 1),
            Mood::Trial(turns) if many => match turns + 1 {
                _ if !(SLOW..VERY_SLOW).contains(&pace) => Mood::Calm(PAUSE),
                TURNS => Mood::On(0),
                turns => Mood::Trial(turns),
            },
            Mood::On(_) if many && (STILL_SLOW..VERY_SLOW).contains(&pace) => Mood::On(0),
            Mood::On(UNLIKE) => Mood::Calm(PAUSE),
            Mood::On(turns) => Mood::On(turns + 1),
            mood => mood,
        };
        self.strain = self.strain.saturating_sub(1);
        self.writes = 0;
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock, and the loop whose writes it times.
    #[derive(Default)]
    struct Program {
        rush: Rush,
        now: f64,
        job: u32,
    }

    impl Program {
        /// A turn of so many jobs that compute for so long each and then write. How many of the writes waited.
        fn turn(&mut self, jobs: u32, seconds: f64) -> u32 {
            let mut waited = 0;
            for _ in 0..jobs {
                self.rush.goes_on(|| self.now);
                self.now += seconds;
                waited += u32::from(self.write());
            }
            self.over();
            waited
        }

        /// A write of the next job.
        fn write(&mut self) -> bool {
            self.job += 2;
            let waits = self.rush.write(self.job, || self.now);
            if waits {
                self.rush.wait(|| self.now);
            }
            waits
        }

        /// The end of a turn.
        fn over(&mut self) {
            self.rush.goes_on(|| self.now);
            self.rush.over();
        }

        fn rushing(jobs: u32, seconds: f64) -> Self {
            let mut program = Self::default();
            let turns = (0..20).position(|_| program.turn(jobs, seconds) == jobs);
            assert_eq!(turns, Some(usize::from(TURNS) + 1));
            program
        }
    }

    #[test]
    fn slow_answers_to_many_wait_for_each_other() {
        let mut program = Program::rushing(10, 40e-6);
        for _ in 0..1000 {
            assert_eq!(program.turn(10, 40e-6), 10);
        }
    }

    #[test]
    fn quick_answers_never_wait_and_are_hardly_timed() {
        let mut rush = Rush::new();
        let (mut now, mut looks) = (0.0, 0);
        for turn in 0..1000 {
            for job in 1..=10 {
                now += 3e-6;
                assert!(!rush.write(100 * turn + job, || {
                    looks += 1;
                    now
                }));
            }
            rush.over();
        }
        assert!(looks < 200, "{looks}");
    }

    #[test]
    fn writes_of_few_jobs_never_wait_and_are_never_timed() {
        let mut rush = Rush::new();
        for turn in 0..1000 {
            for job in 1..MANY {
                for _ in 0..10 {
                    assert!(!rush.write(100 * turn + job, || panic!("no reason to ask")));
                }
            }
            rush.over();
        }
    }

    #[test]
    fn very_slow_answers_never_wait() {
        let mut program = Program::default();
        for _ in 0..1000 {
            assert_eq!(program.turn(10, 2.0 * LONGEST), 0);
        }
    }

    #[test]
    fn what_waits_goes_after_a_while() {
        let mut program = Program::rushing(64, 40e-6);
        assert!(program.write());
        let began = program.now;
        while program.rush.goes_on(|| program.now) {
            program.now += 40e-6;
        }
        let waited = program.now - began;
        assert!((LONGEST..LONGEST + 50e-6).contains(&waited), "{waited}");
        // The others begin anew.
        assert!(program.write());
        assert!(program.rush.goes_on(|| program.now + 40e-6));
    }

    /// One more turn, in which a job takes long after another one has written. Whether the next one's writes wait.
    fn disturbed(program: &mut Program) -> bool {
        assert_eq!(program.turn(9, 40e-6), 9);
        assert!(program.write());
        program.now += 2.0 * LONGEST;
        assert!(!program.rush.goes_on(|| program.now), "at once");
        let waits = program.write();
        program.over();
        waits
    }

    #[test]
    fn a_long_job_does_not_end_it_but_a_second_one_soon_does() {
        let mut program = Program::rushing(10, 40e-6);
        for _ in 0..100 {
            assert!(disturbed(&mut program));
            for _ in 1..FORGOTTEN {
                assert_eq!(program.turn(10, 40e-6), 10);
            }
        }
        assert!(disturbed(&mut program));
        assert!(!disturbed(&mut program));
        let turns = (0..1000).position(|_| program.turn(10, 40e-6) == 10);
        assert!(turns.is_some_and(|turns| turns > usize::from(PAUSE)), "{turns:?}");
    }

    #[test]
    fn answers_that_become_very_slow_end_it() {
        let mut program = Program::rushing(10, 40e-6);
        program.turn(10, 2.0 * LONGEST);
        for _ in 0..1000 {
            assert_eq!(program.turn(10, 2.0 * LONGEST), 0);
        }
    }

    #[test]
    fn long_jobs_at_the_end_of_turns_end_it() {
        let mut program = Program::rushing(10, 40e-6);
        let mut turn = || {
            let waited = (0..10).filter(|_| {
                program.now += 40e-6;
                program.write()
            });
            let waited = waited.count();
            program.now += 2.0 * LONGEST; // in the last one
            program.over();
            waited
        };
        assert_eq!([turn(), turn(), turn()], [10, 10, 0]);
    }

    #[test]
    fn a_long_turn_does_not() {
        let mut program = Program::rushing(100, 40e-6);
        for _ in 0..100 {
            assert_eq!(program.turn(100, 40e-6), 100);
        }
    }

    #[test]
    fn small_turns_between_large_ones_do_not_end_it_but_many_do() {
        let mut program = Program::rushing(10, 40e-6);
        for _ in 0..100 {
            for _ in 0..UNLIKE {
                assert_eq!(program.turn(1, 40e-6), 1);
            }
            assert_eq!(program.turn(10, 40e-6), 10);
        }
        for _ in 0..=UNLIKE {
            assert_eq!(program.turn(1, 40e-6), 1);
        }
        assert_eq!(program.turn(10, 40e-6), 0);
    }

    #[test]
    fn answers_that_become_quick_end_it() {
        let mut program = Program::rushing(10, 40e-6);
        for _ in 0..=UNLIKE {
            assert_eq!(program.turn(10, 12e-6), 10, "quicker, as they wait");
            assert_eq!(program.turn(10, 1e-6), 10);
            assert_eq!(program.turn(10, 12e-6), 10);
        }
        for _ in 0..=UNLIKE {
            assert_eq!(program.turn(10, 1e-6), 10);
        }
        assert_eq!(program.turn(10, 1e-6), 0);
    }

    #[test]
    fn turns_without_writes_say_nothing() {
        let mut program = Program::rushing(10, 40e-6);
        for _ in 0..1000 {
            program.rush.over();
        }
        assert_eq!(program.turn(10, 40e-6), 10);
    }
}
