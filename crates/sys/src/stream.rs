//! The calls by which bytes go through a connected stream socket. Called by the transports for every byte.
//!
//! Each is one system call on a non-blocking descriptor that the caller owns; `WouldBlock` and `Interrupted`
//! come back as errors, for the caller to try again when the poller says so. A broken pipe is an error, never
//! a signal.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::fd::with_raw;
use crate::traffic;

/// How many pieces one [`send_pieces`] takes at most: the kernel's limit.
pub const MOST_PIECES: usize = 1024;

/// Receives what is there, up to the length of `buffer`; 0 is the end of the stream.
#[inline]
pub fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    with_raw(fd, |fd| Ok(traffic::received(net::recv(fd, buffer, RecvFlags::empty())?.1)))
}

/// Receives into memory that nobody has written yet; the part that has been written.
#[inline]
pub fn recv_uninit(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    let written = with_raw(fd, |fd| Ok(net::recv(fd, buffer, RecvFlags::empty())?.0.0))?;
    traffic::received(written.len());
    Ok(written)
}

/// Sends as much of `bytes` as the socket takes now.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    with_raw(fd, |fd| Ok(traffic::sent(net::send(fd, bytes, SendFlags::NOSIGNAL)?)))
}

/// As [`send`], but small bytes wait in the kernel for those of the next call, to go in one packet; [`push`] or a fifth
/// of a second sends them all the same. (TCP; other sockets send at once.)
#[inline]
pub fn send_held(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
    with_raw(fd, |fd| Ok(traffic::sent(net::send(fd, bytes, flags)?)))
}

/// Sends what [`send_held`] has left waiting. A corked socket (`TCP_CORK`) is not any more: see [`is_corked`].
pub fn push(fd: RawFd) -> io::Result<()> {
    with_raw(fd, |fd| Ok(net::sockopt::set_tcp_cork(fd, false)?))
}

/// Whether the other side is on this machine, as far as addresses tell.
pub fn is_local(fd: RawFd) -> io::Result<bool> {
    let ip =
        |address| SocketAddr::try_from(address).ok().map(|address: SocketAddr| address.ip().to_canonical());
    with_raw(fd, |fd| {
        let (ours, theirs) = (ip(net::getsockname(fd)?), net::getpeername(fd)?.and_then(ip));
        Ok(theirs.is_some_and(|ip| ip.is_loopback() || Some(ip) == ours))
    })
}

/// Whether somebody has told the kernel to keep back whatever does not fill a packet.
pub fn is_corked(fd: RawFd) -> io::Result<bool> {
    with_raw(fd, |fd| Ok(net::sockopt::tcp_cork(fd)?))
}

/// Sends as much of `pieces`, in order, as the socket takes now.
pub fn send_pieces(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    gather(fd, pieces, SendFlags::NOSIGNAL)
}

/// As [`send_pieces`], but small bytes wait as those of [`send_held`].
pub fn send_pieces_held(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    gather(fd, pieces, SendFlags::NOSIGNAL | SendFlags::MORE)
}

fn gather(fd: RawFd, pieces: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
    let pieces = &pieces[..pieces.len().min(MOST_PIECES)];
    with_raw(fd, |fd| {
        Ok(traffic::sent(net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), flags)?))
    })
}

/// Whether something waits to be read or accepted.
pub fn is_readable(fd: RawFd) -> io::Result<bool> {
    with_raw(fd, |fd| {
        let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        Ok(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    })
}

/// Ends our direction of the stream.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    with_raw(fd, |fd| Ok(net::shutdown(fd, Shutdown::Write)?))
}

/// Sends small pieces at once instead of waiting for more (`TCP_NODELAY`). False: it is no TCP socket, and stays as
/// it is.
pub fn set_nodelay(fd: RawFd) -> io::Result<bool> {
    with_raw(fd, |fd| match net::sockopt::set_tcp_nodelay(fd, true) {
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT | Errno::INVAL | Errno::NOTSOCK) => Ok(false),
        result => Ok(result.map(|()| true)?),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_go_through_and_the_end_is_seen() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (us, them) = (ours.as_raw_fd(), theirs.as_raw_fd());
        let mut buffer = [0; 16];
        assert_eq!(recv(us, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!is_readable(us).unwrap());
        assert_eq!(send(them, b"abc").unwrap(), 3);
        assert!(is_readable(us).unwrap());
        assert_eq!(send_pieces(them, &[IoSlice::new(b"de"), IoSlice::new(b"f")]).unwrap(), 3);
        assert_eq!(recv(us, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"abcdef");
        shutdown_write(them).unwrap();
        assert_eq!(recv(us, &mut buffer).unwrap(), 0);
        assert!(!set_nodelay(us).unwrap());
        drop(theirs);
        assert_eq!(send(us, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(recv(-1, &mut buffer).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_full_socket_takes_a_part_and_then_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (us, data) = (ours.as_raw_fd(), vec![7; 4 * 1024 * 1024]);
        let sent = send(us, &data).unwrap();
        assert!(sent > 0 && sent < data.len());
        while send(us, &data).is_ok() {}
        assert_eq!(send(us, &data).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(recv(theirs.as_raw_fd(), &mut vec![0; sent]).unwrap() > 0);
    }

    #[test]
    fn held_bytes_wait_for_more_or_for_a_push() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        let (us, them, mut buffer) = (ours.as_raw_fd(), theirs.as_raw_fd(), [0; 16]);
        assert!(is_local(us).unwrap() && is_local(them).unwrap());
        assert!(set_nodelay(us).unwrap());
        assert_eq!(send_held(us, b"abc").unwrap(), 3);
        assert!(!is_readable(them).unwrap());
        assert_eq!(send(us, b"de").unwrap(), 2);
        assert_eq!(recv(them, &mut buffer).unwrap(), 5);
        assert_eq!(send_held(us, b"abc").unwrap(), 3);
        push(us).unwrap();
        assert_eq!(recv(them, &mut buffer).unwrap(), 3);
        assert!(!is_corked(us).unwrap());
        with_raw(us, |fd| Ok(net::sockopt::set_tcp_cork(fd, true)?)).unwrap();
        assert!(is_corked(us).unwrap());
    }
}
