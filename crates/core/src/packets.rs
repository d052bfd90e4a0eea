//! The datagrams a transport still owes the kernel, with high and low water marks.
//!
//! Unlike the bytes of an [`Outbox`](crate::Outbox) they go one by one and whole, and an empty one counts too. Packets
//! are the transport's own type and are never dropped here: what leaves is handed back.

use std::collections::VecDeque;

use crate::flow::{Flow, LimitsError, Marks};

/// What each datagram counts for beside its bytes, as in asyncio.
pub const HEADER: usize = 8;

/// A queue of unsent datagrams.
#[derive(Debug)]
pub struct Packets<P> {
    queue: VecDeque<(usize, P)>,
    marks: Marks,
}

impl<P> Packets<P> {
    /// Nothing unsent, asyncio's default limits.
    pub const fn new() -> Self {
        Self { queue: VecDeque::new(), marks: Marks::new() }
    }

    /// Queues a datagram of that many bytes.
    pub fn push(&mut self, length: usize, packet: P) -> Flow {
        self.queue.push_back((length, packet));
        self.marks.add(length + HEADER)
    }

    /// The one to send next.
    pub fn first(&self) -> Option<&P> {
        self.queue.front().map(|(_, packet)| packet)
    }

    /// It went, or never will.
    #[must_use = "dropping a packet may run foreign code: choose where"]
    pub fn pop(&mut self) -> Option<P> {
        let (length, packet) = self.queue.pop_front()?;
        self.marks.remove(length + HEADER);
        Some(packet)
    }

    /// Whether the writer resumes, after some went.
    pub const fn resume(&mut self) -> Flow {
        self.marks.resume()
    }

    /// Whether nothing is unsent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How much they are, headers included.
    pub const fn size(&self) -> usize {
        self.marks.size()
    }

    /// The marks, to look at.
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Sets the marks as `set_write_buffer_limits` does.
    pub fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> Result<Flow, LimitsError> {
        self.marks.set_limits(high, low)
    }

    /// Gives up on everything unsent.
    #[must_use = "dropping packets may run foreign code: choose where"]
    pub fn take_all(&mut self) -> VecDeque<(usize, P)> {
        self.marks.clear();
        std::mem::take(&mut self.queue)
    }

    /// The packets in order.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        self.queue.iter().map(|(_, packet)| packet)
    }
}

impl<P> Default for Packets<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_datagrams_count_too() {
        let mut packets = Packets::new();
        assert_eq!(packets.set_limits(Some(20), Some(8)), Ok(Flow::Nothing));
        assert_eq!(packets.push(0, 'a'), Flow::Nothing);
        assert_eq!(packets.push(4, 'b'), Flow::Nothing);
        assert_eq!(packets.size(), 20);
        assert_eq!(packets.push(0, 'c'), Flow::Pause);
        assert_eq!(packets.first(), Some(&'a'));
        assert_eq!((packets.pop(), packets.resume()), (Some('a'), Flow::Nothing));
        assert_eq!((packets.pop(), packets.resume()), (Some('b'), Flow::Resume));
        assert_eq!((packets.pop(), packets.pop(), packets.size()), (Some('c'), None, 0));
    }

    #[test]
    fn what_is_given_up_is_handed_back() {
        let mut packets = Packets::new();
        assert_eq!(packets.set_limits(Some(0), None), Ok(Flow::Nothing));
        assert_eq!(packets.push(1, 'a'), Flow::Pause);
        assert_eq!(packets.take_all().len(), 1);
        assert!(packets.is_empty() && packets.marks().is_paused());
        assert_eq!(packets.size(), 0);
    }
}
