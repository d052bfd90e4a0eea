//! The bytes a transport still owes the kernel, with high and low water marks.
//!
//! Transports push what `send` did not take, offer [`pieces`](Outbox::pieces) to the next `sendmsg` and
//! report what went with [`advance`](Outbox::advance). Chunks are the transport's own type (a Python buffer,
//! a vector) and are never copied, joined or dropped here: spent ones are handed back.

use std::collections::VecDeque;

use crate::flow::{Flow, LimitsError, Marks};

/// A queue of unsent chunks.
#[derive(Debug)]
pub struct Outbox<B> {
    chunks: VecDeque<B>,
    /// How much of the first chunk has gone.
    sent_of_first: usize,
    marks: Marks,
}

impl<B: AsRef<[u8]>> Outbox<B> {
    /// Nothing unsent, asyncio's default limits.
    pub const fn new() -> Self {
        Self { chunks: VecDeque::new(), sent_of_first: 0, marks: Marks::new() }
    }

    /// Queues a chunk. An empty one comes straight back.
    pub fn push(&mut self, chunk: B) -> (Flow, Option<B>) {
        let more = chunk.as_ref().len();
        if more == 0 {
            return (Flow::Nothing, Some(chunk));
        }
        self.chunks.push_back(chunk);
        (self.marks.add(more), None)
    }

    /// Up to `most` unsent pieces in order, for one gathering write.
    pub fn pieces(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        let skip = self.sent_of_first;
        self.chunks.iter().take(most).enumerate().map(move |(place, chunk)| {
            let bytes = chunk.as_ref();
            if place == 0 { bytes.get(skip..).unwrap_or_default() } else { bytes }
        })
    }

    /// Takes `sent` bytes off the front. Chunks that are wholly gone are appended to `gone`.
    pub fn advance(&mut self, sent: usize, gone: &mut Vec<B>) -> Flow {
        let mut left = sent.min(self.marks.size());
        self.marks.remove(left);
        while let Some(first) = self.chunks.front() {
            let rest = first.as_ref().len().saturating_sub(self.sent_of_first);
            if left < rest {
                self.sent_of_first += left;
                break;
            }
            left -= rest;
            self.sent_of_first = 0;
            gone.extend(self.chunks.pop_front());
        }
        self.marks.resume()
    }

    /// How many bytes are unsent.
    pub const fn size(&self) -> usize {
        self.marks.size()
    }

    /// How many chunks they are in.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Whether nothing is unsent.
    pub const fn is_empty(&self) -> bool {
        self.marks.size() == 0
    }

    /// Whether the writer has been told to pause and not yet to resume.
    pub const fn is_paused(&self) -> bool {
        self.marks.is_paused()
    }

    /// The low and the high mark.
    pub const fn limits(&self) -> (usize, usize) {
        self.marks.limits()
    }

    /// Sets the marks as `set_write_buffer_limits` does: each has a default that follows the other.
    pub fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> Result<Flow, LimitsError> {
        self.marks.set_limits(high, low)
    }

    /// Gives up on everything unsent. The writer stays paused if it was: its connection is ending.
    #[must_use = "dropping chunks may run foreign code: choose where"]
    pub fn take_all(&mut self) -> VecDeque<B> {
        self.marks.clear();
        self.sent_of_first = 0;
        std::mem::take(&mut self.chunks)
    }

    /// The chunks, whole, the partly sent one included.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.chunks.iter()
    }
}

impl<B: AsRef<[u8]>> Default for Outbox<B> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unsent(outbox: &Outbox<Vec<u8>>) -> Vec<u8> {
        outbox.pieces(usize::MAX).flatten().copied().collect()
    }

    #[test]
    fn marks_pause_and_resume_once_each() {
        let mut outbox = Outbox::new();
        let mut spent = Vec::new();
        assert_eq!(outbox.set_limits(Some(10), Some(4)), Ok(Flow::Nothing));
        assert_eq!(outbox.push(vec![0; 10]).0, Flow::Nothing);
        assert_eq!(outbox.push(vec![0; 1]).0, Flow::Pause);
        assert_eq!(outbox.push(vec![0; 1]).0, Flow::Nothing);
        assert_eq!(outbox.advance(7, &mut spent), Flow::Nothing);
        assert_eq!(outbox.advance(1, &mut spent), Flow::Resume);
        assert_eq!(outbox.advance(4, &mut spent), Flow::Nothing);
        assert_eq!((outbox.size(), outbox.chunks(), spent.len()), (0, 0, 3));
    }

    #[test]
    fn limits_follow_each_other() {
        let mut outbox = Outbox::<Vec<u8>>::new();
        assert_eq!(outbox.limits(), (16 * 1024, 64 * 1024));
        let mut limits = |high, low| outbox.set_limits(high, low).map(|_| outbox.limits());
        assert_eq!(limits(None, Some(100)), Ok((100, 400)));
        assert_eq!(limits(Some(100), None), Ok((25, 100)));
        assert_eq!(limits(None, None), Ok((16 * 1024, 64 * 1024)));
        assert_eq!(limits(Some(0), None), Ok((0, 0)));
        assert_eq!(limits(Some(1), Some(2)), Err(LimitsError { high: 1, low: 2 }));
        assert_eq!(limits(Some(1), Some(-1)), Err(LimitsError { high: 1, low: -1 }));
        assert_eq!(limits(Some(-1), None), Err(LimitsError { high: -1, low: -1 }));
    }

    #[test]
    fn lowering_the_mark_pauses_what_is_now_too_much() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.push(vec![0; 100]), (Flow::Nothing, None));
        assert_eq!(outbox.push(Vec::new()), (Flow::Nothing, Some(Vec::new())));
        assert_eq!(outbox.set_limits(Some(50), None), Ok(Flow::Pause));
        assert_eq!(outbox.take_all().len(), 1);
        assert!(outbox.is_empty() && outbox.is_paused());
    }

    proptest! {
        /// Whatever is pushed and sent in whatever portions: the bytes leave in order, and pause and resume
        /// alternate.
        #[test]
        fn bytes_leave_in_order(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0_usize..60), 0..60),
        ) {
            let mut outbox = Outbox::new();
            prop_assert!(outbox.set_limits(Some(64), Some(16)).is_ok());
            let (mut model, mut spent, mut paused) = (Vec::new(), Vec::new(), false);
            for (chunk, sent) in steps {
                model.extend_from_slice(&chunk);
                let (flow, _) = outbox.push(chunk);
                prop_assert_eq!(flow == Flow::Pause, !paused && model.len() > 64);
                paused = outbox.is_paused();
                let sent = sent.min(model.len());
                let flow = outbox.advance(sent, &mut spent);
                model.drain(..sent);
                prop_assert_eq!(flow == Flow::Resume, paused && model.len() <= 16);
                paused = outbox.is_paused();
                prop_assert_eq!(unsent(&outbox), model.clone());
                prop_assert_eq!(outbox.size(), model.len());
            }
        }
    }
}
