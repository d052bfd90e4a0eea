//! The life of a TLS layer, as a table.
//!
//! The layer stands between a stream transport and a protocol. It tells the table what happened and does what the table
//! says; the table knows neither bytes nor OpenSSL.
//!
//! | phase | bytes from the peer are for | the program may write | leaves it by |
//! |---|---|---|---|
//! | `Fresh` | nobody yet | no | `Start` |
//! | `Handshaking` | the handshake | kept for later | `Shaken` |
//! | `Wrapped` | the program | yes | `Close`, or the end of the peer's stream |
//! | `Flushing` | the program | no | `Flushed` |
//! | `Shutting` | the exchange of close_notify | no | `End` |
//! | `Ended` | nobody | no | |

/// Where a TLS layer stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsPhase {
    /// The transport below is not known yet.
    #[default]
    Fresh,
    /// The handshake is under way.
    Handshaking,
    /// Data goes both ways.
    Wrapped,
    /// Closing: what has been received and written already goes first.
    Flushing,
    /// Closing: close_notify is sent, the peer's is waited for.
    Shutting,
    /// No TLS any more: shut down, given up, or never begun.
    Ended,
}

/// What happened to a TLS layer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TlsHappening {
    /// The transport below is connected.
    Start,
    /// Bytes have come in, or the program reads again after a pause.
    Received,
    /// The handshake is done.
    Shaken,
    /// `close()`, or the peer's close_notify.
    Close,
    /// The transport below has come to the end of the peer's stream.
    PeerEnded,
    /// What was received and written before the end has gone its way.
    Flushed,
    /// `abort()`, a fatal error, or the transport below is lost.
    End,
}

/// What to do about it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "the table only says what to do"]
pub enum TlsAction {
    /// Nothing.
    Nothing,
    /// Begin the handshake, against the clock.
    Begin,
    /// Go on with the handshake.
    Shake,
    /// The handshake has failed: the peer went away.
    Reset,
    /// Hand what has come in to the program.
    Read,
    /// Hand over and send what is there, then say `Flushed`; `timed`: from now on the end must come in time.
    Flush {
        /// Whether the shutdown begins now, so that its clock has to be started.
        timed: bool,
    },
    /// As `Flush`, but the peer sends no more: there is only to send.
    Drain,
    /// Go on with the exchange of close_notify.
    Shut,
    /// Give up the transport below.
    Abort,
}

impl TlsPhase {
    /// The next phase and what to do. `paused`: whether the program has stopped reading.
    pub const fn on(self, happening: TlsHappening, paused: bool) -> (Self, TlsAction) {
        use TlsAction as A;
        use TlsHappening as H;
        use TlsPhase as P;
        match (self, happening) {
            (P::Fresh, H::Start) => (P::Handshaking, A::Begin),
            (P::Fresh, H::Close) | (_, H::End) => (P::Ended, A::Nothing),
            (P::Handshaking, H::Received) => (self, A::Shake),
            (P::Handshaking, H::Shaken) => (P::Wrapped, A::Nothing),
            (P::Handshaking, H::Close) | (P::Ended, H::Start) => (P::Ended, A::Abort),
            (P::Handshaking, H::PeerEnded) => (self, A::Reset),
            (P::Wrapped, H::Received) => (self, A::Read),
            (P::Wrapped, H::Close) => (P::Flushing, A::Flush { timed: true }),
            (P::Wrapped, H::PeerEnded) if paused => (P::Flushing, A::Nothing),
            (P::Wrapped, H::PeerEnded) => (P::Flushing, A::Flush { timed: false }),
            (P::Flushing, H::Received) => (self, A::Flush { timed: false }),
            (P::Flushing, H::PeerEnded) => (self, A::Drain),
            (P::Flushing, H::Flushed) => (P::Shutting, A::Shut),
            (P::Shutting, H::Received | H::PeerEnded) => (self, A::Shut),
            (
                P::Fresh | P::Handshaking | P::Wrapped | P::Flushing | P::Shutting | P::Ended,
                H::Start | H::Received | H::Shaken | H::Close | H::PeerEnded | H::Flushed,
            ) => (self, A::Nothing),
        }
    }

    /// Whether what comes in is for the program.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Wrapped | Self::Flushing)
    }

    /// Whether the program may write: now, or once the handshake is done.
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Handshaking | Self::Wrapped)
    }

    /// Whether the end of the connection is awaited.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::Flushing | Self::Shutting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [TlsPhase; 6] = [
        TlsPhase::Fresh,
        TlsPhase::Handshaking,
        TlsPhase::Wrapped,
        TlsPhase::Flushing,
        TlsPhase::Shutting,
        TlsPhase::Ended,
    ];
    const HAPPENINGS: [TlsHappening; 7] = [
        TlsHappening::Start,
        TlsHappening::Received,
        TlsHappening::Shaken,
        TlsHappening::Close,
        TlsHappening::PeerEnded,
        TlsHappening::Flushed,
        TlsHappening::End,
    ];

    fn live(steps: &[(TlsHappening, bool)]) -> (TlsPhase, Vec<TlsAction>) {
        let mut phase = TlsPhase::Fresh;
        let mut actions = Vec::new();
        for (happening, paused) in steps {
            let (next, action) = phase.on(*happening, *paused);
            phase = next;
            actions.push(action);
        }
        (phase, actions)
    }

    #[test]
    fn a_connection_is_shaken_used_and_shut() {
        let steps = [
            (TlsHappening::Start, false),
            (TlsHappening::Received, false),
            (TlsHappening::Shaken, false),
            (TlsHappening::Received, false),
            (TlsHappening::Close, false),
            (TlsHappening::Flushed, false),
            (TlsHappening::Received, false),
            (TlsHappening::End, false),
        ];
        let actions = vec![
            TlsAction::Begin,
            TlsAction::Shake,
            TlsAction::Nothing,
            TlsAction::Read,
            TlsAction::Flush { timed: true },
            TlsAction::Shut,
            TlsAction::Shut,
            TlsAction::Nothing,
        ];
        assert_eq!(live(&steps), (TlsPhase::Ended, actions));
    }

    #[test]
    fn a_paused_program_reads_the_rest_after_the_peers_end() {
        let steps = [
            (TlsHappening::Start, false),
            (TlsHappening::Shaken, false),
            (TlsHappening::PeerEnded, true),
            (TlsHappening::Received, false),
            (TlsHappening::Flushed, false),
        ];
        let actions = vec![
            TlsAction::Begin,
            TlsAction::Nothing,
            TlsAction::Nothing,
            TlsAction::Flush { timed: false },
            TlsAction::Shut,
        ];
        assert_eq!(live(&steps), (TlsPhase::Shutting, actions));
    }

    #[test]
    fn closed_before_it_began_it_never_begins() {
        let steps = [(TlsHappening::Close, false), (TlsHappening::Start, false)];
        assert_eq!(live(&steps), (TlsPhase::Ended, vec![TlsAction::Nothing, TlsAction::Abort]));
        let steps = [(TlsHappening::Start, false), (TlsHappening::Close, false)];
        assert_eq!(live(&steps), (TlsPhase::Ended, vec![TlsAction::Begin, TlsAction::Abort]));
    }

    /// From everywhere, whatever happens: forwards only; one handshake and one clock for the shutdown at most; and
    /// nothing is read or written after the end.
    #[test]
    fn life_goes_one_way() {
        for phase in PHASES {
            for happening in HAPPENINGS {
                for paused in [false, true] {
                    let (next, action) = phase.on(happening, paused);
                    assert!(next as u8 >= phase as u8, "{phase:?} {happening:?} -> {next:?}");
                    if action == TlsAction::Begin {
                        assert_eq!((phase, next), (TlsPhase::Fresh, TlsPhase::Handshaking));
                    }
                    if action == (TlsAction::Flush { timed: true }) {
                        assert_eq!((phase, next), (TlsPhase::Wrapped, TlsPhase::Flushing));
                    }
                    if phase == TlsPhase::Ended {
                        assert_eq!(next, TlsPhase::Ended);
                        assert!(matches!(action, TlsAction::Nothing | TlsAction::Abort));
                    }
                    assert!(!(next.may_write() && next.is_closing()));
                }
            }
        }
    }
}
