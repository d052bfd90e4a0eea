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
