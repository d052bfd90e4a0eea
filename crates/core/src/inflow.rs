//! What a StreamReader has received and nobody has read yet.
//!
//! The stream asks (`read`, `readexactly`, `readuntil`, `readline`), gets a [`Verdict`] about the front of
//! the buffer, copies those bytes into a Python object and then consumes them, so each byte is copied once. A
//! native transport may receive straight into [`spare`](Inflow::spare). Waiting, exceptions and the transport
//! are the stream's affair: this is the buffer, its limit and its end.

use crate::flow::Flow;

/// What to do about a request to read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict reads nothing by itself"]
pub enum Verdict {
    /// The first so many bytes are the answer: take [`Inflow::front`], then [`Inflow::consume`].
    Take(usize),
    /// Not yet: wait for more data, then ask again.
    Wait,
    /// The stream ended too early; what there is (so many bytes) belongs to the error and must be consumed.
    Incomplete(usize),
    /// The separator stands, but further away than the limit allows. Nothing is consumed.
    SeparatorTooFar(usize),
    /// No separator within the limit; so many bytes cannot be part of one. Nothing is consumed.
    NoSeparator(usize),
}

/// What to do about a request for a line.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict reads nothing by itself"]
pub enum Line {
    /// The first so many bytes are the line (without its end, if the stream ended first).
    Take(usize),
    /// Not yet.
    Wait,
    /// Too long and complete: consume so many bytes and raise.
    TooLong(usize),
    /// Too long and not even complete: consume so many bytes (all there are) and raise.
    Endless(usize),
}

/// How far a search has come, so that waiting does not start it over. One per `readuntil` call.
#[derive(Copy, Clone, Debug, Default)]
pub struct Search {
    /// No separator begins before this place.
    offset: usize,
}

/// Room made for one receive when nobody says how much.
const SPARE: usize = 64 * 1024;
/// An empty buffer keeps at most this much memory.
const KEPT: usize = 256 * 1024;

/// Received bytes.
#[derive(Debug)]
pub struct Inflow {
    /// Initialised throughout; the unread bytes are `start..end`.
    storage: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
    eof: bool,
    paused: bool,
}

impl Inflow {
    /// An empty buffer. More than twice `limit` unread bytes pause the transport.
    pub const fn new(limit: usize) -> Self {
        Self { storage: Vec::new(), start: 0, end: 0, limit, eof: false, paused: false }
    }

    /// Appends received bytes.
    pub fn feed(&mut self, data: &[u8]) -> Flow {
        self.reserve(data.len());
        self.storage[self.end..self.end + data.len()].copy_from_slice(data);
        self.filled(data.len())
    }

    /// Room for at least `room` bytes (a good deal, if `None`), to receive into; then say how many came.
    pub fn spare(&mut self, room: Option<usize>) -> &mut [u8] {
        self.reserve(room.unwrap_or(SPARE));
        &mut self.storage[self.end..]
    }

    /// So many bytes of [`spare`](Self::spare) have been received into.
    pub fn filled(&mut self, received: usize) -> Flow {
        self.end = (self.end + received).min(self.storage.len());
        if self.paused || self.len() <= self.limit.saturating_mul(2) {
            return Flow::Nothing;
        }
        self.paused = true;
        Flow::Pause
    }

    /// Nothing more will come.
    pub const fn feed_eof(&mut self) {
        self.eof = true;
    }

    /// The end is announced, or taken back by a program that knows better.
    pub const fn set_eof(&mut self, eof: bool) {
        self.eof = eof;
    }

    /// Whether the end has been announced.
    pub const fn has_eof(&self) -> bool {
        self.eof
    }

    /// Whether the end has been announced and everything read.
    pub const fn at_eof(&self) -> bool {
        self.eof && self.is_empty()
    }

    /// How many bytes are unread.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The limit given at the start.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the transport has been paused for this buffer's sake.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// The transport could not be paused, or was resumed by somebody else.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// All unread bytes.
    pub fn unread(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The first `count` unread bytes, or all if there are fewer.
    pub fn front(&self, count: usize) -> &[u8] {
        &self.unread()[..count.min(self.len())]
    }

    /// Another limit, from now on.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Other unread bytes in the place of those there are. Asks nothing of the transport.
    pub fn replace(&mut self, data: &[u8]) {
        (self.start, self.end) = (0, 0);
        self.reserve(data.len());
        self.storage[..data.len()].copy_from_slice(data);
        self.end = data.len();
    }

    /// Whether `whole`, a piece that the caller keeps apart while this buffer is empty, is one line within the limit.
    pub fn is_line(&self, whole: &[u8]) -> bool {
        find_byte(whole, b'\n').is_some_and(|place| place + 1 == whole.len() && place <= self.limit)
    }

    /// Removes the first `count` bytes. May let a paused transport go on.
    pub fn consume(&mut self, count: usize) -> Flow {
        self.start += count.min(self.len());
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if self.storage.len() > KEPT {
                self.storage = Vec::new();
            }
        }
        if !self.paused || self.len() > self.limit {
            return Flow::Nothing;
        }
        self.paused = false;
        Flow::Resume
    }

    /// A reader is about to wait: a paused transport would never bring what it waits for.
    pub const fn wait(&mut self) -> Flow {
        if !self.paused {
            return Flow::Nothing;
        }
        self.paused = false;
        Flow::Resume
    }

    /// Up to `most` bytes, at least one unless the stream has ended or `most` is zero.
    pub fn read(&self, most: usize) -> Verdict {
        if self.is_empty() && !self.eof && most > 0 {
            Verdict::Wait
        } else {
            Verdict::Take(most.min(self.len()))
        }
    }

    /// Exactly `count` bytes.
    pub fn readexactly(&self, count: usize) -> Verdict {
        if self.len() >= count {
            Verdict::Take(count)
        } else if self.eof {
            Verdict::Incomplete(self.len())
        } else {
            Verdict::Wait
        }
    }

    /// The shortest front that ends with one of `separators`, which are ordered by length and not empty.
    pub fn readuntil<S: AsRef<[u8]>>(&self, separators: &[S], search: &mut Search) -> Verdict {
        let length = |separator: Option<&S>| separator.map_or(1, |bytes| bytes.as_ref().len());
        let (shortest, longest) = (length(separators.first()), length(separators.last()));
        let unread = self.unread();
        if unread.len() >= search.offset.saturating_add(shortest) {
            let mut best: Option<(usize, usize)> = None;
            for separator in separators {
                let separator = separator.as_ref();
                let Some(place) = find(&unread[search.offset..], separator) else { continue };
                let begin = search.offset + place;
                if best.is_none_or(|(_, end)| begin + separator.len() < end) {
                    best = Some((begin, begin + separator.len()));
                }
            }
            if let Some((begin, end)) = best {
                return if begin > self.limit { Verdict::SeparatorTooFar(begin) } else { Verdict::Take(end) };
            }
            search.offset = (unread.len() + 1).saturating_sub(longest);
            if search.offset > self.limit {
                return Verdict::NoSeparator(search.offset);
            }
        }
        if self.eof { Verdict::Incomplete(unread.len()) } else { Verdict::Wait }
    }

    /// A line that ends with a line feed. An overlong one is thrown away as far as it has come.
    pub fn readline(&self, search: &mut Search) -> Line {
        match self.readuntil(&[b"\n"], search) {
            Verdict::Take(count) | Verdict::Incomplete(count) => Line::Take(count),
            Verdict::Wait => Line::Wait,
            Verdict::SeparatorTooFar(begin) => Line::TooLong(begin + 1),
            Verdict::NoSeparator(_) => Line::Endless(self.len()),
        }
    }

    /// Makes `room` behind the unread bytes: moves them to the front if that is enough, else grows.
    fn reserve(&mut self, room: usize) {
        if self.storage.len() - self.end >= room {
            return;
        }
        if self.start > 0 && self.start >= self.len() {
            // At most as many bytes move as have been consumed since the last move: O(1) a byte.
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.storage.len() - self.end < room {
            let wanted = (self.end + room).max(self.storage.len() * 2);
            self.storage.resize(wanted, 0);
        }
    }
}

/// Where `needle` (not empty) first begins in `hay`.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, rest) = needle.split_first()?;
    let mut from = 0;
    loop {
        from += find_byte(&hay[from..], first)?;
        let tail = &hay[from + 1..];
        if tail.len() < rest.len() {
            return None;
        }
        if tail.starts_with(rest) {
            return Some(from);
        }
        from += 1;
    }
}

/// Where `byte` first stands. Looks at 64 bytes at a time without leaving early, which compiles to vector
/// code.
fn find_byte(hay: &[u8], byte: u8) -> Option<usize> {
    let (blocks, _) = hay.as_chunks::<64>();
    let has = |block: &[u8; 64]| block.iter().fold(0, |found, &each| found | u8::from(each == byte)) != 0;
    let from = blocks.iter().position(has).unwrap_or(blocks.len()) * 64;
    hay[from..].iter().position(|&each| each == byte).map(|place| from + place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(data: &[u8], limit: usize) -> Inflow {
        let mut inflow = Inflow::new(limit);
        assert_ne!(inflow.feed(data), Flow::Resume);
        inflow
    }

    fn until(inflow: &Inflow, separators: &[&str]) -> Verdict {
        inflow.readuntil(separators, &mut Search::default())
    }

    #[test]
    fn read_takes_what_there_is() {
        let mut inflow = filled(b"hello", 100);
        assert_eq!(inflow.read(3), Verdict::Take(3));
        assert_eq!(inflow.front(3), b"hel");
        assert_eq!(inflow.consume(3), Flow::Nothing);
        assert_eq!(inflow.read(100), Verdict::Take(2));
        assert_eq!(inflow.consume(2), Flow::Nothing);
        assert_eq!((inflow.read(100), inflow.read(0)), (Verdict::Wait, Verdict::Take(0)));
        inflow.feed_eof();
        assert_eq!(inflow.read(100), Verdict::Take(0));
        assert!(inflow.at_eof());
    }

    #[test]
    fn readexactly_is_exact_or_incomplete() {
        let mut inflow = filled(b"abc", 100);
        assert_eq!((inflow.readexactly(3), inflow.readexactly(4)), (Verdict::Take(3), Verdict::Wait));
        inflow.feed_eof();
        assert_eq!(inflow.readexactly(4), Verdict::Incomplete(3));
    }

    #[test]
    fn the_shortest_answer_wins_among_separators() {
        let inflow = filled(b"a,b;;c", 100);
        assert_eq!(until(&inflow, &[";;"]), Verdict::Take(5));
        assert_eq!(until(&inflow, &[",", ";;"]), Verdict::Take(2));
        assert_eq!(until(&inflow, &[";", ";;"]), Verdict::Take(4));
        assert_eq!(until(&inflow, &["x", "yyyy"]), Verdict::Wait);
    }

    #[test]
    fn a_separator_that_arrives_in_two_parts_is_found() {
        let mut inflow = filled(b"some textSEPA", 100);
        let mut search = Search::default();
        assert_eq!(inflow.readuntil(&["SEPARATOR"], &mut search), Verdict::Wait);
        assert_eq!(inflow.feed(b"RATORrest"), Flow::Nothing);
        assert_eq!(inflow.readuntil(&["SEPARATOR"], &mut search), Verdict::Take(18));
    }

    #[test]
    fn limits_are_kept() {
        let mut inflow = filled(b"12345\n", 4);
        assert_eq!(until(&inflow, &["\n"]), Verdict::SeparatorTooFar(5));
        assert_eq!(inflow.readline(&mut Search::default()), Line::TooLong(6));
        assert_eq!(inflow.consume(6), Flow::Nothing);
        assert_eq!(inflow.feed(b"123456"), Flow::Nothing);
        assert_eq!(until(&inflow, &["\n"]), Verdict::NoSeparator(6));
        assert_eq!(until(&inflow, &["\r\n"]), Verdict::NoSeparator(5));
        assert_eq!(inflow.readline(&mut Search::default()), Line::Endless(6));
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        let mut inflow = filled(b"line\nlast", 100);
        assert_eq!(inflow.readline(&mut Search::default()), Line::Take(5));
        assert_eq!(inflow.consume(5), Flow::Nothing);
        assert_eq!(inflow.readline(&mut Search::default()), Line::Wait);
        inflow.feed_eof();
        assert_eq!(inflow.readline(&mut Search::default()), Line::Take(4));
        assert_eq!(until(&inflow, &["\n"]), Verdict::Incomplete(4));
    }

    #[test]
    fn twice_the_limit_pauses_and_the_limit_resumes() {
        let mut inflow = Inflow::new(4);
        assert_eq!(inflow.feed(&[0; 8]), Flow::Nothing);
        assert_eq!(inflow.feed(&[0; 1]), Flow::Pause);
        assert_eq!(inflow.consume(4), Flow::Nothing);
        assert_eq!(inflow.consume(1), Flow::Resume);
        assert_eq!(inflow.feed(&[0; 9]), Flow::Pause);
        assert_eq!((inflow.wait(), inflow.wait()), (Flow::Resume, Flow::Nothing));
    }

    #[test]
    fn receiving_straight_into_the_spare_room() {
        let mut inflow = filled(b"ab", 100);
        let spare = inflow.spare(Some(3));
        assert!(spare.len() >= 3);
        spare[..2].copy_from_slice(b"cd");
        assert_eq!(inflow.filled(2), Flow::Nothing);
        assert_eq!(inflow.unread(), b"abcd");
        assert!(inflow.spare(None).len() >= SPARE);
    }

    #[test]
    fn a_piece_kept_apart_is_a_line_or_not() {
        let inflow = Inflow::new(4);
        let answers =
            [&b"1234\n"[..], b"12345\n", b"12\n4\n", b"1234", b"", b"\n"].map(|piece| inflow.is_line(piece));
        assert_eq!(answers, [true, false, false, false, false, true]);
    }

    #[test]
    fn replaced_bytes_are_all_there_is() {
        let mut inflow = filled(b"abcdef", 2);
        assert!(inflow.is_paused());
        inflow.replace(b"xyz");
        assert_eq!((inflow.unread(), inflow.is_paused()), (&b"xyz"[..], true));
        inflow.set_limit(3);
        assert_eq!(inflow.consume(0), Flow::Resume);
    }

    #[test]
    fn a_large_buffer_is_given_back_when_empty() {
        let mut inflow = filled(&vec![7; 4 * KEPT], usize::MAX);
        assert_eq!(inflow.consume(4 * KEPT), Flow::Nothing);
        assert_eq!(inflow.storage.capacity(), 0);
    }

    proptest! {
        #[test]
        fn the_buffer_is_a_queue_of_bytes(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0_usize..200), 0..50),
        ) {
            let (mut inflow, mut model) = (Inflow::new(300), Vec::new());
            for (data, taken) in steps {
                let paused = inflow.is_paused();
                let flow = inflow.feed(&data);
                model.extend_from_slice(&data);
                prop_assert_eq!(flow == Flow::Pause, !paused && model.len() > 600);
                prop_assert_eq!(inflow.unread(), &model[..]);
                let taken = taken.min(model.len());
                prop_assert_eq!(inflow.front(taken), &model[..taken]);
                let paused = inflow.is_paused();
                model.drain(..taken);
                prop_assert_eq!(inflow.consume(taken) == Flow::Resume, paused && model.len() <= 300);
            }
        }

        #[test]
        fn find_agrees_with_windows(
            hay in prop::collection::vec(0_u8..3, 0..300),
            needle in prop::collection::vec(0_u8..3, 1..5),
        ) {
            let expected = hay.windows(needle.len()).position(|window| window == needle);
            prop_assert_eq!(find(&hay, &needle), expected);
        }

        /// Feeding byte by byte with one search ends where a single search over everything ends.
        #[test]
        fn waiting_does_not_change_the_answer(
            data in prop::collection::vec(0_u8..3, 1..80),
            first in prop::collection::vec(0_u8..3, 1..3),
            second in prop::collection::vec(0_u8..3, 3..5),
        ) {
            let separators = [first, second];
            let end = |s: &Vec<u8>| data.windows(s.len()).position(|window| window == s).map(|p| p + s.len());
            let expected = separators.iter().filter_map(end).min();
            let (mut inflow, mut search) = (Inflow::new(1000), Search::default());
            let mut found = None;
            for (count, byte) in data.iter().enumerate() {
                prop_assert_eq!(inflow.feed(&[*byte]), Flow::Nothing);
                if let Verdict::Take(end) = inflow.readuntil(&separators, &mut search) {
                    prop_assert_eq!(end, count + 1);
                    found = Some(end);
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
