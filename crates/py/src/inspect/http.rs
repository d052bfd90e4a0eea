//! As much of HTTP as web.rs needs: the head of a request read into its parts, an answer written. Knows no socket.

use std::fmt::Write;

/// A longer head is nobody's who asks for our page.
pub(super) const LONGEST: usize = 16 * 1024;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    query: &'a str,
    pub(super) host: &'a str,
}

impl<'a> Request<'a> {
    /// None if that is no request with a path and exactly one host.
    pub(super) fn parse(head: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut hosts = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim())
        });
        let host = hosts.next()?;
        hosts.next().is_none().then_some(Self { method, path, query, host })
    }

    /// Whether the query has that token; a wrong one takes as long as the right one.
    pub(super) fn has_token(&self, token: &str) -> bool {
        let given = self.query.split('&').find_map(|part| part.strip_prefix("token="));
        given.is_some_and(|given| {
            let differences = given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
            given.len() == token.len() && differences == 0
        })
    }
}

/// An answer: its status, the type of its content, the content.
pub(super) struct Answer<'a> {
    pub(super) status: &'a str,
    pub(super) content_type: &'a str,
    pub(super) content: &'a str,
}

impl<'a> Answer<'a> {
    /// An answer in words.
    pub(super) fn plain(status: &'a str, content: &'a str) -> Self {
        Self { status, content_type: "text/plain", content }
    }

    /// The whole text, after which the connection is closed. `policy` says what a page may load and run.
    pub(super) fn into_text(self, policy: &str) -> String {
        let mut text = String::with_capacity(self.content.len() + 600);
        let _ = write!(
            text,
            "HTTP/1.1 {}\r\n\
             Content-Type: {}; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Content-Security-Policy: {policy}\r\n\
             Cache-Control: no-store\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             X-Content-Type-Options: nosniff\r\n\
             X-Frame-Options: DENY\r\n\
             Connection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.content.len(),
            self.content,
        );
        text
    }
}
