//! Pipes, character devices and whatever else is read and written without socket calls.
//!
//! Used by the pipe transports (`connect_read_pipe`, `connect_write_pipe`) and by subprocesses. Nothing here
//! waits, retries or closes.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::traffic;

/// What a descriptor is, as far as waiting for it goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A pipe or a FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A character device: a terminal, mostly.
    Character,
    /// Anything else, a regular file above all: it is always "ready", so it cannot be waited for.
    Other,
}

/// A new pipe: the end to read from and the end to write to, both non-blocking.
pub fn create() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// What the descriptor is.
pub fn kind(fd: impl AsFd) -> io::Result<FileKind> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::Character,
        _ => FileKind::Other,
    })
}

/// Whether an error number is what a terminal whose other side is gone answers to a read.
pub const fn is_hung_up_terminal(errno: i32) -> bool {
    errno == libc::EIO
}

/// Reads into a buffer. Zero: the other end is closed (or the buffer is empty).
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(traffic::received(rustix::io::read(fd, buffer)?))
}

/// Writes as much as the kernel takes. Python ignores SIGPIPE, so a closed other end is an error.
pub fn write(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    Ok(traffic::sent(rustix::io::write(fd, data)?))
}

/// Writes several pieces with one call.
pub fn write_vectored(fd: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let pieces = pieces.get(..crate::stream::MOST_PIECES).unwrap_or(pieces);
    Ok(traffic::sent(rustix::io::writev(fd, pieces)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_and_the_end_is_zero() {
        let (reader, writer) = create().unwrap();
        assert_eq!(read(&reader, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(write(&writer, b"ab").unwrap(), 2);
        assert_eq!(write_vectored(&writer, &[IoSlice::new(b"c"), IoSlice::new(b"d")]).unwrap(), 2);
        let mut buffer = [0; 8];
        assert_eq!(read(&reader, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"abcd");
        drop(writer);
        assert_eq!(read(&reader, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn kinds_are_told_apart() {
        let (reader, _writer) = create().unwrap();
        let (socket, _other) = crate::socket::pair().unwrap();
        let open = |path: &str| std::fs::File::open(path).unwrap();
        assert_eq!(kind(&reader).unwrap(), FileKind::Pipe);
        assert_eq!(kind(&socket).unwrap(), FileKind::Socket);
        assert_eq!(kind(open("/dev/null")).unwrap(), FileKind::Character);
        assert_eq!(kind(open("/proc/self/exe")).unwrap(), FileKind::Other);
    }
}
