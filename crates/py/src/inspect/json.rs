//! JSON as text, for what leaves the process and for the thin Python side. Writes only; knows no Python.

use std::fmt::Write;

/// A text that grows by objects, arrays and values; the caller opens and closes in the right order.
#[derive(Debug, Default)]
pub(crate) struct Json {
    text: String,
    /// A comma comes before the next value.
    follows: bool,
}

impl Json {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn separate(&mut self) {
        if self.follows {
            self.text.push(',');
        }
        self.follows = true;
    }

    fn within(&mut self, open: char, close: char, content: impl FnOnce(&mut Self)) {
        self.separate();
        self.text.push(open);
        self.follows = false;
        content(self);
        self.text.push(close);
        self.follows = true;
    }

    pub(crate) fn object(&mut self, content: impl FnOnce(&mut Self)) {
        self.within('{', '}', content);
    }

    pub(crate) fn array(&mut self, content: impl FnOnce(&mut Self)) {
        self.within('[', ']', content);
    }

    /// The name of the next value, in an object.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.text.push(':');
        self.follows = false;
        self
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.separate();
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                c if c < ' ' || c == '\u{7f}' => {
                    let _ = write!(self.text, "\\u{:04x}", c as u32);
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    /// A whole number.
    pub(crate) fn number(&mut self, value: impl Into<i128>) {
        self.separate();
        let _ = write!(self.text, "{}", value.into());
    }

    /// A number of bytes, jobs, addresses.
    pub(crate) fn count(&mut self, value: usize) {
        self.number(value as i128);
    }

    /// Seconds, and whatever else has a fraction; null if it is no number.
    pub(crate) fn seconds(&mut self, value: f64) {
        if !value.is_finite() {
            return self.null();
        }
        self.separate();
        let _ = write!(self.text, "{value:.9}");
    }

    pub(crate) fn null(&mut self) {
        self.separate();
        self.text.push_str("null");
    }

    /// Text that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) {
        self.separate();
        self.text.push_str(json);
    }

    /// `value` by `write`, or null.
    pub(crate) fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    pub(crate) fn counts(&mut self, values: &[usize]) {
        self.array(|json| values.iter().for_each(|&value| json.count(value)));
    }
}
