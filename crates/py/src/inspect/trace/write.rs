//! A trace as a file: the trace event format that Chrome's about:tracing, Perfetto and speedscope read.
//!
//! A loop is a process of the format, with a thread for the loop itself and one for each task. `X` events are slices, of
//! the categories "step", "ready", "wait", "callback", "asleep" and "stall"; `s` and `f` events are the arrows from
//! whoever woke a task to the step that followed. What is beside `traceEvents` says what the file holds.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use pyo3::PyResult;

use super::log::{Culprit, Entry, Event, Log, Span, Track, TrackId};
use crate::errors::os_error;
use crate::inspect::chain::Link;
use crate::inspect::json::Json;
use crate::inspect::watchdog::Stall;

/// The thread of a loop, among its tasks; and that of its stalls.
const LOOP: TrackId = 0;
const STALLS: TrackId = 1;

/// Of a limit, the part that is for stacks of stalls, and bytes for what every file has.
const STACKS: u64 = 10;
const HEAD: u64 = 2_000;

/// So many lines of a stack are written, the innermost.
const LINES: usize = 40;

/// How much of a file of `limit` bytes the log may fill.
pub(super) fn room(limit: u64) -> u64 {
    (limit - limit / STACKS).saturating_sub(HEAD)
}

/// What is written beside the log.
pub(super) struct Facts<'a> {
    /// A JSON object about the program.
    pub(super) program: &'a str,
    /// The length of the trace, in nanoseconds, and its beginning by the monotonic clock.
    pub(super) end: u64,
    pub(super) began: f64,
    pub(super) stalls: &'a [Stall],
}

/// Writes the file.
pub(super) fn file(path: &Path, log: &Log, facts: &Facts<'_>) -> PyResult<()> {
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        all(&mut out, log, facts)?;
        out.flush()
    };
    write().map_err(|error| os_error(&error))
}

fn all(out: &mut impl Write, log: &Log, facts: &Facts<'_>) -> std::io::Result<()> {
    let entries = log.entries();
    let mut head = Json::new();
    head.object(|json| {
        json.key("seconds").seconds(seconds(facts.end));
        json.key("stall_seconds").seconds(seconds(log.stall));
        json.key("events").count(entries.len());
        json.key("dropped_events").number(entries.dropped());
        json.key("dropped_until_seconds").seconds(seconds(log.dropped_until));
        json.key("program").raw(facts.program);
    });
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\n\"traceEvents\":[\n", head.into_text())?;
    let mut writer = Writer { out, follows: false, arrow: 0 };
    for (id, track) in log.tracks() {
        writer.track(log, id, track)?;
    }
    if entries.dropped() > 0 {
        writer.dropped(log)?;
    }
    for entry in entries.iter() {
        writer.entry(log, entry)?;
    }
    writer.stalls(log, facts)?;
    writeln!(out, "\n]}}")
}

#[allow(clippy::cast_precision_loss, reason = "a length of time, for people")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Microseconds, as the format wants them.
fn micro(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
}

struct Writer<'a, W> {
    out: &'a mut W,
    follows: bool,
    arrow: u64,
}

impl<W: Write> Writer<'_, W> {
    fn event(&mut self, content: impl FnOnce(&mut Json)) -> std::io::Result<usize> {
        let mut json = Json::new();
        json.object(content);
        let text = json.into_text();
        let between: &[u8] = if self.follows { b",\n" } else { b"" };
        self.out.write_all(between)?;
        self.follows = true;
        self.out.write_all(text.as_bytes())?;
        Ok(text.len() + 2)
    }

    /// Names a track.
    fn track(&mut self, log: &Log, id: TrackId, track: &Track) -> std::io::Result<()> {
        if id == track.event_loop {
            let thread = if track.name.is_empty() { "an unknown thread" } else { &*track.name };
            self.name("process_name", id, LOOP, &format!("event loop in {thread}"), |_| {})?;
            return self.name("thread_name", id, LOOP, "event loop", |_| {});
        }
        self.name("thread_name", track.event_loop, id + STALLS, &track.name, |json| {
            json.key("coroutine").string(log.texts.get(track.function));
            json.key("place").string(log.texts.get(track.place));
        })?;
        self.event(|json| {
            json.key("ph").string("M");
            json.key("pid").number(track.event_loop);
            json.key("tid").number(id + STALLS);
            json.key("name").string("thread_sort_index");
            json.key("args").object(|json| json.key("sort_index").number(id + STALLS));
        })
        .map(drop)
    }

    fn name(
        &mut self,
        what: &str,
        process: TrackId,
        thread: TrackId,
        name: &str,
        more: impl FnOnce(&mut Json),
    ) -> std::io::Result<()> {
        self.event(|json| {
            json.key("ph").string("M");
            json.key("pid").number(process);
            json.key("tid").number(thread);
            json.key("name").string(what);
            json.key("args").object(|json| {
                json.key("name").string(name);
                more(json);
            });
        })
        .map(drop)
    }

    /// Says that there was more before.
    fn dropped(&mut self, log: &Log) -> std::io::Result<()> {
        self.event(|json| {
            json.key("ph").string("i");
            json.key("s").string("g");
            json.key("pid").number(log.tracks().first().map_or(0, |(_, track)| track.event_loop));
            json.key("tid").number(LOOP);
            json.key("ts").raw(&micro(log.dropped_until));
            let text =
                format!("{} older events were dropped to stay within the limit", log.entries().dropped());
            json.key("name").string(&text);
        })
        .map(drop)
    }

    fn entry(&mut self, log: &Log, entry: &Entry) -> std::io::Result<()> {
        let Some(track) = log.track(entry.track) else { return Ok(()) };
        let own = thread_of(entry.track, track);
        match &entry.event {
            Event::Step { how } => {
                self.slice("step", track.event_loop, own, entry.span, log.texts.get(track.function), |json| {
                    if *how != 0 {
                        json.key("end").string(log.texts.get(*how));
                    }
                })
            }
            Event::Ready { by } => {
                let by = by.and_then(|by| Some((by, log.shown(by.track)?)));
                if let Some((origin, waker)) = by {
                    self.arrow += 1;
                    let (from, to) = (thread_of(origin.track, waker), entry.span.end);
                    self.arrow_end("s", waker.event_loop, from, origin.at)?;
                    self.arrow_end("f", track.event_loop, own, to)?;
                }
                self.slice("ready", track.event_loop, own, entry.span, "ready", |_| {})
            }
            Event::Wait { parked, is_open } => {
                let kind = log.texts.get(parked.kind);
                self.slice("wait", track.event_loop, own, entry.span, kind, |json| {
                    json.key("for").string(&parked.subject);
                    json.key("at").string(log.texts.get(parked.place));
                    if *is_open {
                        json.key("open").raw("true");
                    }
                })
            }
            Event::Call { name } => {
                self.slice("callback", track.event_loop, own, entry.span, log.texts.get(*name), |_| {})
            }
            Event::Sleep => self.slice("asleep", track.event_loop, own, entry.span, "asleep", |_| {}),
            Event::Stall { .. } => Ok(()), // with the stacks
        }
    }

    fn slice(
        &mut self,
        category: &str,
        process: TrackId,
        thread: TrackId,
        span: Span,
        name: &str,
        arguments: impl FnOnce(&mut Json),
    ) -> std::io::Result<()> {
        self.event(|json| {
            json.key("ph").string("X");
            json.key("cat").string(category);
            json.key("pid").number(process);
            json.key("tid").number(thread);
            json.key("ts").raw(&micro(span.start));
            json.key("dur").raw(&micro((span.end.saturating_sub(span.start)).max(1)));
            json.key("name").string(name);
            let mut more = Json::new();
            more.object(arguments);
            let more = more.into_text();
            if more != "{}" {
                json.key("args").raw(&more);
            }
        })
        .map(drop)
    }

    /// One end of an arrow.
    fn arrow_end(&mut self, phase: &str, process: TrackId, thread: TrackId, at: u64) -> std::io::Result<()> {
        let arrow = self.arrow;
        self.event(|json| {
            json.key("ph").string(phase);
            json.key("cat").string("wake");
            json.key("id").number(arrow);
            json.key("pid").number(process);
            json.key("tid").number(thread);
            json.key("ts").raw(&micro(at));
            json.key("name").string("wakes");
            if phase == "f" {
                json.key("bp").string("e");
            }
        })
        .map(drop)
    }

    /// The stalls, with the stacks that the watchdog has seen meanwhile; and those of several jobs together, of which
    /// only the watchdog knows.
    fn stalls(&mut self, log: &Log, facts: &Facts<'_>) -> std::io::Result<()> {
        let mut seen: Vec<Seen<'_>> = facts.stalls.iter().flat_map(|stall| Seen::of(stall, facts)).collect();
        let mut budget = usize::try_from(log.limit() / (STACKS - 1)).unwrap_or(usize::MAX);
        let mut named = Vec::new();
        for entry in log.entries().iter() {
            let Event::Stall { culprit } = entry.event else { continue };
            let Some(track) = log.track(entry.track) else { continue };
            let (task, name) = match culprit {
                Culprit::Task(task) => match log.track(task) {
                    Some(known) => (Some(&*known.name), log.texts.get(known.function)),
                    None => (None, "a task"),
                },
                Culprit::Call(name) => (None, log.texts.get(name)),
            };
            if !named.contains(&track.event_loop) {
                named.push(track.event_loop);
                self.name("thread_name", track.event_loop, STALLS, "stalls", |_| {})?;
            }
            let (mine, others): (Vec<_>, Vec<_>) =
                seen.into_iter().partition(|seen| seen.ident == track.ident && seen.is_within(entry.span));
            seen = others;
            self.stall(track.event_loop, entry.span, task, name, &mine, &mut budget)?;
        }
        for stall in facts.stalls {
            let (mine, others): (Vec<_>, Vec<_>) =
                seen.into_iter().partition(|seen| std::ptr::eq(seen.stall, stall));
            seen = others;
            let Some(look) = mine.last().filter(|_| nanoseconds(stall.seconds) >= log.stall) else {
                continue;
            };
            let Some((id, _)) =
                log.tracks().into_iter().find(|(id, t)| *id == t.event_loop && t.ident == stall.ident)
            else {
                continue;
            };
            let start = Seen::time(stall.since, facts);
            let span = Span { start, end: Seen::time(stall.since + stall.seconds, facts).min(facts.end) };
            let name = look.stack.first().map_or("several callbacks", |link| &*link.function);
            self.stall(id, span, look.task, name, &mine, &mut budget)?;
        }
        Ok(())
    }

    fn stall(
        &mut self,
        event_loop: TrackId,
        span: Span,
        task: Option<&str>,
        name: &str,
        looks: &[Seen<'_>],
        budget: &mut usize,
    ) -> std::io::Result<()> {
        let mut stacks = Json::new();
        stacks.array(|json| {
            for look in looks {
                json.object(|json| {
                    json.key("after").seconds(seconds(look.at.saturating_sub(span.start)));
                    json.key("stack").array(|json| {
                        let most = look.stack.len().saturating_sub(LINES);
                        look.stack.iter().skip(most).for_each(|link| link.write(json));
                    });
                });
            }
        });
        let mut stacks = stacks.into_text();
        if stacks.len() > *budget {
            stacks = String::from("[]");
        }
        *budget -= stacks.len();
        self.slice("stall", event_loop, STALLS, span, name, |json| {
            json.key("task").maybe(task, Json::string);
            json.key("looks").raw(&stacks);
        })
    }
}

fn thread_of(id: TrackId, track: &Track) -> TrackId {
    if id == track.event_loop { LOOP } else { id + STALLS }
}

/// A look of the watchdog's.
struct Seen<'a> {
    stall: &'a Stall,
    ident: u64,
    at: u64,
    task: Option<&'a str>,
    stack: &'a [Link],
}

impl<'a> Seen<'a> {
    fn of(stall: &'a Stall, facts: &Facts<'_>) -> impl Iterator<Item = Self> {
        let began = facts.began;
        stall.looks.iter().map(move |look| Self {
            stall,
            ident: stall.ident,
            at: nanoseconds(stall.since + look.after - began),
            task: look.task.as_deref(),
            stack: &look.stack,
        })
    }

    fn time(at: f64, facts: &Facts<'_>) -> u64 {
        nanoseconds(at - facts.began)
    }

    fn is_within(&self, span: Span) -> bool {
        span.start <= self.at && self.at <= span.end
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and fits for centuries"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}
