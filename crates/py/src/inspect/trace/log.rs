//! What a trace keeps in memory: the tracks (loops and tasks), and the record of what happened on them.
//!
//! No Python objects and no clock: steps.rs brings names, numbers and times in nanoseconds since the trace began.
//! Everything has its price, the most bytes that write.rs may need for it, so the file stays within its limit; a track
//! goes when its task has ended and nothing that is kept speaks of it any more. Its price is paid with its first event.

use std::collections::{HashMap, VecDeque};

use aioxide_core::Record;
use rustc_hash::FxHashMap;

use crate::locks::holders::Identity;

/// A track; none is number 0.
pub(super) type TrackId = u32;
/// A text that comes up again and again; the empty one is number 0.
pub(super) type Text = u32;

/// So many different texts are told apart.
const MOST_TEXTS: usize = 20_000;
/// A longer text is cut.
pub(super) const LONGEST: usize = 300;

/// What write.rs writes, in bytes, numbers and texts aside: a slice, what it has more if it is a last step, a wait or a
/// stall, the two ends of an arrow, and, with its numbers, the names of a track.
const SLICE: u32 = 74;
const LAST_STEP: u32 = 20;
const WAIT: u32 = 40;
const STALL: u32 = 36;
const ARROW: u32 = 150;
const ARROW_NUMBER: u32 = 24;
const TRACK: u32 = 250;

/// A moment on a track: from where an arrow starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) track: TrackId,
    pub(super) at: u64,
}

/// Where a task waits, and for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    pub(super) kind: Text,
    pub(super) place: Text,
    /// What it waits for, in words.
    pub(super) subject: Box<str>,
}

/// From when to when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Whose work was long: a track's, or that of a callback by its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Culprit {
    Task(TrackId),
    Call(Text),
}

/// Something that happened on a track.
#[derive(Debug)]
pub(super) enum Event {
    /// A task made a step; `how` it ended, if that was its last.
    Step { how: Text },
    /// A task that could run waited for its turn.
    Ready { by: Option<Origin> },
    /// A task waited.
    Wait { parked: Parked, is_open: bool },
    /// A loop ran something that is no task.
    Call { name: Text },
    /// A loop waited for something to do.
    Sleep,
    /// A loop did not come back for too long.
    Stall { culprit: Culprit },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) track: TrackId,
    pub(super) span: Span,
    pub(super) event: Event,
}

/// A loop, or a task.
#[derive(Debug)]
pub(super) struct Track {
    /// The loop's track; a loop's own.
    pub(super) event_loop: TrackId,
    /// Of a task; of a loop the name of its thread.
    pub(super) name: Box<str>,
    /// The function and the place of a task's coroutine.
    pub(super) function: Text,
    pub(super) place: Text,
    /// Of a loop: `threading.get_ident()` of its thread.
    pub(super) ident: u64,
    identity: Identity,
    entries: u32,
    cost: u32,
    is_over: bool,
    parked: Option<(u64, Parked)>,
    ready: Option<(u64, Option<Origin>)>,
}

/// What is known of a new track.
#[derive(Debug, Default)]
pub(super) struct About {
    pub(super) name: Box<str>,
    pub(super) function: Text,
    pub(super) place: Text,
    pub(super) ident: u64,
    pub(super) identity: Identity,
}

/// The texts, each once.
#[derive(Debug)]
pub(super) struct Texts {
    known: HashMap<Box<str>, Text>,
    all: Vec<(Box<str>, u32)>,
}

impl Texts {
    fn new() -> Self {
        let mut texts = Self { known: HashMap::new(), all: Vec::new() };
        let _ = (texts.number(""), texts.number("…"));
        texts
    }

    /// The number of a text; that of "…" if there are too many.
    #[allow(clippy::cast_possible_truncation, reason = "there are never that many, and each is short")]
    pub(super) fn number(&mut self, text: &str) -> Text {
        if let Some(&number) = self.known.get(text) {
            return number;
        }
        if self.all.len() >= MOST_TEXTS {
            return 1;
        }
        let number = self.all.len() as Text;
        let kept: Box<str> = cut(text).into();
        self.all.push((kept, written(cut(text))));
        self.known.insert(text.into(), number);
        number
    }

    pub(super) fn get(&self, number: Text) -> &str {
        self.all.get(number as usize).map_or("", |(text, _)| text)
    }

    fn cost(&self, number: Text) -> u32 {
        self.all.get(number as usize).map_or(0, |(_, cost)| *cost)
    }
}

/// The text, or its beginning if it is too long.
pub(super) fn cut(text: &str) -> &str {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// How many digits a number has, and a point between them.
#[inline]
fn digits(number: u64) -> u32 {
    number.checked_ilog10().map_or(5, |digits| digits.max(3) + 2)
}

/// How many bytes a text takes in JSON.
#[allow(clippy::cast_possible_truncation, reason = "texts are cut before")]
fn written(text: &str) -> u32 {
    text.chars()
        .map(|c| match c {
            '"' | '\\' | '\n' => 2,
            c if c < ' ' || c == '\u{7f}' => 6,
            c => c.len_utf8() as u32,
        })
        .sum()
}

/// One trace.
#[derive(Debug)]
pub(super) struct Log {
    entries: Record<Entry>,
    tracks: FxHashMap<TrackId, Track>,
    /// Tasks by their addresses.
    live: FxHashMap<usize, TrackId>,
    /// Callbacks that are about to run because of a task that is done, by the loop's count of jobs.
    causes: FxHashMap<TrackId, VecDeque<(u64, Origin)>>,
    limit: u64,
    pub(super) texts: Texts,
    last_track: TrackId,
    pub(super) stall: u64,
    /// When the last event that had to go was over.
    pub(super) dropped_until: u64,
}

impl Log {
    pub(super) fn new(limit: u64, stall: u64) -> Self {
        Self {
            entries: Record::new(limit),
            tracks: FxHashMap::default(),
            live: FxHashMap::default(),
            causes: FxHashMap::default(),
            limit,
            texts: Texts::new(),
            last_track: 0,
            stall,
            dropped_until: 0,
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn entries(&self) -> &Record<Entry> {
        &self.entries
    }

    pub(super) fn track(&self, track: TrackId) -> Option<&Track> {
        self.tracks.get(&track)
    }

    /// The track, if anything that is kept speaks of it.
    pub(super) fn shown(&self, track: TrackId) -> Option<&Track> {
        self.tracks.get(&track).filter(|known| known.entries > 0)
    }

    /// The tracks that something is known of, and the loops, in the order in which they were first seen.
    pub(super) fn tracks(&self) -> Vec<(TrackId, &Track)> {
        let is_written = |id: TrackId, track: &Track| track.entries > 0 || track.event_loop == id;
        let mut all: Vec<_> = self
            .tracks
            .iter()
            .map(|(id, track)| (*id, track))
            .filter(|(id, track)| is_written(*id, track))
            .collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// A new track: a loop's own if `event_loop` is 0.
    pub(super) fn add(&mut self, event_loop: TrackId, about: About) -> TrackId {
        self.last_track += 1;
        let track = self.last_track;
        let cost =
            TRACK + written(&about.name) + self.texts.cost(about.function) + self.texts.cost(about.place);
        if event_loop != 0
            && let Some(before) = self.live.insert(about.identity.0, track)
        {
            self.end(before);
        }
        let event_loop = if event_loop == 0 { track } else { event_loop };
        self.tracks.insert(
            track,
            Track {
                event_loop,
                name: about.name,
                function: about.function,
                place: about.place,
                ident: about.ident,
                identity: about.identity,
                entries: 0,
                cost,
                is_over: false,
                parked: None,
                ready: None,
            },
        );
        track
    }

    /// The track of a task.
    #[inline]
    pub(super) fn find(&self, identity: Identity) -> Option<TrackId> {
        let track = *self.live.get(&identity.0)?;
        self.tracks.get(&track).filter(|known| known.identity == identity).map(|_| track)
    }

    /// The track of whichever task is at that address, and its name.
    pub(super) fn at(&self, address: usize) -> Option<(TrackId, &str)> {
        let track = self.live.get(&address)?;
        self.tracks.get(track).map(|known| (*track, &*known.name))
    }

    pub(super) fn rename(&mut self, track: TrackId, name: &str) {
        if let Some(known) = self.tracks.get_mut(&track)
            && *known.name != *name
        {
            let cost = known.cost - written(&known.name) + written(name);
            if known.entries > 0 {
                self.entries.refund(known.cost);
                self.entries.charge(cost);
            }
            known.cost = cost;
            known.name = name.into();
        }
    }

    /// Nothing more will happen on the track.
    pub(super) fn end(&mut self, track: TrackId) {
        let Some(known) = self.tracks.get_mut(&track) else { return };
        known.is_over = true;
        if self.live.get(&known.identity.0) == Some(&track) {
            self.live.remove(&known.identity.0);
        }
        self.tidy(track);
    }

    /// A loop runs (again), or has stopped.
    pub(super) fn set_over(&mut self, track: TrackId, is_over: bool) {
        if let Some(known) = self.tracks.get_mut(&track) {
            known.is_over = is_over;
        }
        if is_over {
            self.causes.remove(&track);
        }
    }

    fn tidy(&mut self, track: TrackId) {
        if self.tracks.get(&track).is_some_and(|known| known.is_over && known.entries == 0) {
            self.tracks.remove(&track);
        }
    }

    /// Records an event.
    pub(super) fn push(&mut self, track: TrackId, span: Span, event: Event) {
        let Some(known) = self.tracks.get_mut(&track) else { return };
        if known.entries == 0 {
            self.entries.charge(known.cost);
        }
        known.entries += 1;
        let (function, event_loop) = (known.function, known.event_loop);
        let name = |track: TrackId| self.tracks.get(&track).map_or(0, |known| written(&known.name));
        let own = digits(event_loop.into()) + digits(u64::from(track) + 1);
        let numbers = own + digits(span.start) + digits(span.end.saturating_sub(span.start));
        let more = match &event {
            Event::Step { how: 0 } => self.texts.cost(function),
            Event::Step { how } => LAST_STEP + self.texts.cost(function) + self.texts.cost(*how),
            Event::Ready { by: Some(by) } => {
                // Both ends: their tracks, their times and the number of the arrow.
                ARROW + 2 * own + digits(by.track.into()) + 2 * digits(span.end) + ARROW_NUMBER
            }
            Event::Ready { by: None } | Event::Sleep => 0,
            Event::Wait { parked, .. } => {
                let texts = self.texts.cost(parked.kind) + self.texts.cost(parked.place);
                WAIT + texts + written(&parked.subject)
            }
            Event::Call { name: text } | Event::Stall { culprit: Culprit::Call(text) } => {
                self.texts.cost(*text)
            }
            Event::Stall { culprit: Culprit::Task(task) } => {
                STALL + name(*task) + self.tracks.get(task).map_or(0, |known| self.texts.cost(known.function))
            }
        };
        self.entries.push(Entry { track, span, event }, SLICE + numbers + more);
        while let Some(gone) = self.entries.surplus() {
            self.dropped_until = self.dropped_until.max(gone.span.end);
            if let Some(known) = self.tracks.get_mut(&gone.track) {
                known.entries -= 1;
                if known.entries == 0 {
                    self.entries.refund(known.cost);
                }
            }
            self.tidy(gone.track);
        }
    }

    /// A task waits from now on, unless it can run already.
    pub(super) fn park(&mut self, track: TrackId, now: u64, parked: Parked) {
        if let Some(known) = self.tracks.get_mut(&track)
            && known.ready.is_none()
        {
            known.parked = Some((now, parked));
        }
    }

    /// A task can run from now on.
    pub(super) fn wake(&mut self, track: TrackId, now: u64, by: Option<Origin>) {
        self.unpark(track, now, false);
        if let Some(known) = self.tracks.get_mut(&track)
            && known.ready.is_none()
        {
            known.ready = Some((now, by));
        }
    }

    /// The wait of a task is over, or the trace is.
    pub(super) fn unpark(&mut self, track: TrackId, now: u64, is_open: bool) {
        let Some(known) = self.tracks.get_mut(&track) else { return };
        if let Some((start, parked)) = known.parked.take() {
            self.push(track, Span { start, end: now }, Event::Wait { parked, is_open });
        }
    }

    /// A task begins a step.
    pub(super) fn begin(&mut self, track: TrackId, now: u64) {
        self.unpark(track, now, false);
        if let Some((start, by)) = self.tracks.get_mut(&track).and_then(|known| known.ready.take()) {
            self.push(track, Span { start, end: now }, Event::Ready { by });
        }
    }

    /// The `number`-th job of a loop will run because of `origin`.
    pub(super) fn expect(&mut self, event_loop: TrackId, number: u64, origin: Origin) {
        self.causes.entry(event_loop).or_default().push_back((number, origin));
    }

    /// Because of what the `number`-th job of a loop runs.
    pub(super) fn cause(&mut self, event_loop: TrackId, number: u64) -> Option<Origin> {
        let causes = self.causes.get_mut(&event_loop)?;
        while let Some(&(first, origin)) = causes.front()
            && first <= number
        {
            causes.pop_front();
            if first == number {
                return Some(origin);
            }
        }
        None
    }

    /// The trace is over: who waits still does, as far as it goes.
    pub(super) fn finish(&mut self, now: u64) {
        let tracks: Vec<_> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.unpark(track, now, true);
            self.begin(track, now);
        }
    }
}
