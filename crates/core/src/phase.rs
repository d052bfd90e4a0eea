//! The life of a stream transport, as a table.
//!
//! Transports feed in what happened and do what comes out; they keep no flags of their own about closing. The
//! rules are asyncio's: closing flushes first, failing does not, `connection_lost` is called exactly once and
//! never from within the call that caused it.
//!
//! | phase | reads | writes | next |
//! |---|---|---|---|
//! | `Open` | yes | yes | |
//! | `EofQueued` | yes | no | `HalfClosed` once flushed |
//! | `HalfClosed` | yes | no | |
//! | `Draining` | no | no | `Ending` once flushed |
//! | `Ending` | no | no | `Closed` once `connection_lost` has run |
//! | `Closed` | no | no | |

/// Where a transport stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Both directions work.
    #[default]
    Open,
    /// `write_eof` was called while bytes were unsent.
    EofQueued,
    /// Our direction is shut, the peer's is not.
    HalfClosed,
    /// `close` was called while bytes were unsent.
    Draining,
    /// `connection_lost` is due.
    Ending,
    /// It has run, and the descriptor is closed.
    Closed,
}

/// What happened to a transport.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// `write_eof()`.
    WriteEof,
    /// `close()`, or the peer ended and the protocol does not want to go on.
    Close,
    /// `abort()`, or a fatal error.
    Fail,
    /// The last unsent byte went.
    Flushed,
    /// `connection_lost` is being called.
    Lost,
}

/// What to do about it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "the table only says what to do"]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Shut the sending direction of the socket.
    ShutWrite,
    /// Stop reading; the rest is sent first.
    StopReading,
    /// Stop reading and have `connection_lost(None)` called soon.
    End,
    /// Stop reading, throw the unsent bytes away and have `connection_lost(error)` called soon.
    Discard,
    /// The last byte went after `close`: `connection_lost(None)` now.
    EndNow,
    /// Close the descriptor and let go of everything.
    Release,
}

impl Phase {
    /// The next phase and what to do. `unsent`: whether bytes are still to be sent.
    pub const fn on(self, happening: Happening, unsent: bool) -> (Self, Action) {
        use Action as A;
        use Happening as H;
        use Phase as P;
        match (self, happening) {
            (P::Open, H::WriteEof) if unsent => (P::EofQueued, A::Nothing),
            (P::Open, H::WriteEof) | (P::EofQueued, H::Flushed) => (P::HalfClosed, A::ShutWrite),
            (P::Open | P::EofQueued | P::HalfClosed, H::Close) if unsent => (P::Draining, A::StopReading),
            (P::Open | P::EofQueued | P::HalfClosed, H::Close) => (P::Ending, A::End),
            (P::Open | P::EofQueued | P::HalfClosed | P::Draining, H::Fail) => (P::Ending, A::Discard),
            (P::Draining, H::Flushed) => (P::Ending, A::EndNow),
            (P::Ending, H::Lost) => (P::Closed, A::Release),
            (
                P::Open | P::EofQueued | P::HalfClosed | P::Draining | P::Ending | P::Closed,
                H::WriteEof | H::Close | H::Fail | H::Flushed | H::Lost,
            ) => (self, A::Nothing),
        }
    }

    /// `transport.is_closing()`.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::Draining | Self::Ending | Self::Closed)
    }

    /// Whether the transport may read.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Open | Self::EofQueued | Self::HalfClosed)
    }

    /// Whether `write_eof` was called: writing more is the program's error.
    pub const fn has_eof(self) -> bool {
        matches!(self, Self::EofQueued | Self::HalfClosed)
    }

    /// Whether the connection is lost: what is written now goes nowhere.
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Ending | Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] =
        [Phase::Open, Phase::EofQueued, Phase::HalfClosed, Phase::Draining, Phase::Ending, Phase::Closed];
    const HAPPENINGS: [Happening; 5] =
        [Happening::WriteEof, Happening::Close, Happening::Fail, Happening::Flushed, Happening::Lost];

    fn live(steps: &[(Happening, bool)]) -> (Phase, Vec<Action>) {
        let mut phase = Phase::Open;
        let mut actions = Vec::new();
        for (happening, unsent) in steps {
            let (next, action) = phase.on(*happening, *unsent);
            phase = next;
            actions.push(action);
        }
        (phase, actions)
    }

    #[test]
    fn closing_flushes_first() {
        let steps = [
            (Happening::Close, true),
            (Happening::Close, true),
            (Happening::Flushed, false),
            (Happening::Lost, false),
        ];
        let actions = vec![Action::StopReading, Action::Nothing, Action::EndNow, Action::Release];
        assert_eq!(live(&steps), (Phase::Closed, actions));
    }

    #[test]
    fn an_end_of_file_waits_for_its_turn() {
        let steps = [
            (Happening::WriteEof, true),
            (Happening::WriteEof, true),
            (Happening::Flushed, false),
            (Happening::Close, false),
        ];
        let actions = vec![Action::Nothing, Action::Nothing, Action::ShutWrite, Action::End];
        assert_eq!(live(&steps), (Phase::Ending, actions));
    }

    #[test]
    fn failing_while_draining_gives_up() {
        let steps = [
            (Happening::Close, true),
            (Happening::Fail, true),
            (Happening::Fail, false),
            (Happening::Flushed, false),
        ];
        let actions = vec![Action::StopReading, Action::Discard, Action::Nothing, Action::Nothing];
        assert_eq!(live(&steps), (Phase::Ending, actions));
    }

    /// From everywhere, whatever happens: no way back to reading or writing, and one report of the loss.
    #[test]
    fn life_goes_one_way_and_ends_once() {
        for phase in PHASES {
            for happening in HAPPENINGS {
                for unsent in [false, true] {
                    let (next, action) = phase.on(happening, unsent);
                    assert!(next as u8 >= phase as u8, "{phase:?} {happening:?} -> {next:?}");
                    let reports = matches!(action, Action::End | Action::EndNow | Action::Discard);
                    assert_eq!(reports, next.is_lost() && !phase.is_lost(), "{phase:?} {happening:?}");
                    assert!(!(next.may_read() && next.is_closing()));
                }
            }
        }
    }
}
