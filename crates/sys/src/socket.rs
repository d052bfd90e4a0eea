//! Non-blocking sockets, all but the bytes of a stream (those are in [`stream`](crate::stream)): making,
//! connecting, accepting, datagrams, options. One function a system call, errors unchanged.
//!
//! Used by the event loop's `create_*` methods, the transports and the `sock_*` methods. Descriptors come as
//! anything that lends one: an `OwnedFd` of ours, or [`Raw`](crate::fd::Raw) for a socket that a Python
//! object owns. `WouldBlock` and `Interrupted` are the caller's to handle; nothing here waits, retries or
//! closes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, sockopt};

use crate::addr::Address;
use crate::{fd, traffic};

/// What kind of socket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream of bytes.
    Stream,
    /// Datagrams.
    Datagram,
}

/// How far a connect has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Connected.
    Done,
    /// Under way: wait until it is writable, then look at [`take_error`].
    Pending,
}

/// What every socket of ours is.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Makes a socket of an address family (`AF_*`).
pub fn create(family: u16, kind: Kind) -> io::Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => net::SocketType::STREAM,
        Kind::Datagram => net::SocketType::DGRAM,
    };
    Ok(net::socket_with(AddressFamily::from_raw(family), kind, FLAGS, None)?)
}

/// Makes a connected pair of Unix stream sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(AddressFamily::UNIX, net::SocketType::STREAM, FLAGS, None)?)
}

/// Gives the socket its own address.
pub fn bind(fd: impl AsFd, address: &Address) -> io::Result<()> {
    Ok(net::bind(fd, &address.to_any()?)?)
}

/// Makes the socket accept connections.
pub fn listen(fd: impl AsFd, backlog: i32) -> io::Result<()> {
    Ok(net::listen(fd, backlog)?)
}

/// Takes the next connection, and the address it comes from if it has one.
pub fn accept(fd: impl AsFd) -> io::Result<(OwnedFd, Option<Address>)> {
    let (accepted, peer) = net::acceptfrom_with(fd, FLAGS)?;
    Ok((accepted, peer.map(Address::from_any)))
}

/// Starts to connect.
pub fn connect(fd: impl AsFd, address: &Address) -> io::Result<Connect> {
    match net::connect(fd, &address.to_any()?) {
        Ok(()) => Ok(Connect::Done),
        // An interrupted connect goes on by itself, like one that is in progress.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(Connect::Pending),
        // A Unix socket whose backlog is full says so: there is nothing to wait for.
        Err(error) => Err(error.into()),
    }
}

/// The error that a connect or an earlier operation left behind; asking clears it.
pub fn take_error(fd: impl AsFd) -> io::Result<Option<io::Error>> {
    Ok(sockopt::socket_error(fd)?.err().map(io::Error::from))
}

/// Receives a datagram: how many bytes of it fitted, and who sent it.
pub fn recvfrom(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    let (received, _, sender) = net::recvfrom(fd, &mut *buffer, RecvFlags::empty())?;
    Ok((traffic::received(received), sender.map(Address::from_any)))
}

/// The datagrams that one [`recv_datagrams`] got.
#[derive(Debug, Default)]
pub struct Datagrams(Vec<(usize, Option<Address>)>);

/// How much memory [`recv_datagrams`] wants: an eighth for each of up to eight datagrams, more than IP allows one to
/// have.
pub const DATAGRAMS_ROOM: usize = fd::MOST_DATAGRAMS * 64 * 1024;

impl Datagrams {
    /// Nothing received.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Each datagram that came, in the memory that the call was given, and who sent it.
    pub fn iter<'a>(&'a self, memory: &'a [u8]) -> impl Iterator<Item = (&'a [u8], Option<&'a Address>)> {
        let each = memory.len() / fd::MOST_DATAGRAMS;
        self.0.iter().enumerate().map(move |(number, (length, sender))| {
            let start = number * each;
            let bytes = memory.get(start..start + length).unwrap_or_default();
            (bytes, sender.as_ref())
        })
    }
}

/// Receives the datagrams that wait, up to eight.
pub fn recv_datagrams(fd: impl AsFd, memory: &mut [u8], got: &mut Datagrams) -> io::Result<()> {
    got.0.clear();
    match fd::receive_many(fd.as_fd(), memory, &mut got.0) {
        Ok(()) => {
            traffic::received(got.0.iter().map(|(length, _)| length).sum());
            Ok(())
        }
        // Filters of containers may know one datagram at a time only.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let each = memory.len() / fd::MOST_DATAGRAMS;
            let (length, _, sender) = net::recvfrom(fd, &mut memory[..each], RecvFlags::DONTWAIT)?;
            got.0.push((traffic::received(length), sender.map(Address::from_any)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Sends a datagram.
pub fn sendto(fd: impl AsFd, data: &[u8], to: &Address) -> io::Result<usize> {
    Ok(traffic::sent(net::sendto(fd, data, SendFlags::NOSIGNAL, &to.to_any()?)?))
}

/// The socket's own address.
pub fn local_addr(fd: impl AsFd) -> io::Result<Address> {
    Ok(Address::from_any(net::getsockname(fd)?))
}

/// The address at the other end.
pub fn peer_addr(fd: impl AsFd) -> io::Result<Option<Address>> {
    Ok(net::getpeername(fd)?.map(Address::from_any))
}

/// Lets the kernel find out by itself that a silent peer is gone.
pub fn set_keepalive(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(sockopt::set_socket_keepalive(fd, on)?)
}

/// Allows an address that an old connection still occupies.
pub fn set_reuse_address(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseaddr(fd, on)?)
}

/// Allows several sockets on the same address.
pub fn set_reuse_port(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseport(fd, on)?)
}

/// Keeps an IPv6 socket from taking IPv4 as well.
pub fn set_v6_only(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(sockopt::set_ipv6_v6only(fd, on)?)
}

/// Allows datagrams to everybody.
pub fn set_broadcast(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(sockopt::set_socket_broadcast(fd, on)?)
}

/// Whether calls on it never block. Anything the loop uses must be so.
pub fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// Makes calls on it block, or never block.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, on)?)
}

/// Whether it is a stream socket.
pub fn is_stream(fd: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_type(fd)? == net::SocketType::STREAM)
}

/// Its address family (`AF_*`).
pub fn family(fd: impl AsFd) -> io::Result<u16> {
    Ok(sockopt::socket_domain(fd)?.as_raw())
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::poller::{Events, Interest};
    use crate::{Driver, Key, stream};

    fn wait_for(driver: &Driver<()>, key: Key) {
        let mut events = Events::new();
        while !events.iter().any(|event| event.key == key) {
            assert!(
                driver.poller().wait(&mut events, Some(Duration::from_secs(10))).unwrap() > 0,
                "nothing came"
            );
        }
    }

    #[test]
    fn a_connection_from_listen_to_end_of_file() {
        let here = Address::parse("127.0.0.1", 0).unwrap().unwrap();
        let listener = create(here.family(), Kind::Stream).unwrap();
        set_reuse_address(&listener, true).unwrap();
        bind(&listener, &here).unwrap();
        listen(&listener, 10).unwrap();
        assert_eq!(accept(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let address = local_addr(&listener).unwrap();

        let mut driver = Driver::new().unwrap();
        let listening = driver.register(listener.as_raw_fd(), Interest::READ, ()).unwrap();
        let client = create(address.family(), Kind::Stream).unwrap();
        assert!(is_nonblocking(&client).unwrap() && is_stream(&client).unwrap());
        let state = connect(&client, &address).unwrap();
        let connecting = driver.register(client.as_raw_fd(), Interest::WRITE, ()).unwrap();
        if state == Connect::Pending {
            wait_for(&driver, connecting);
        }
        assert!(take_error(&client).unwrap().is_none());
        wait_for(&driver, listening);
        let (server, peer) = accept(&listener).unwrap();
        assert_eq!(peer, Some(local_addr(&client).unwrap()));
        assert_eq!(peer_addr(&client).unwrap(), Some(address));
        assert!(is_nonblocking(&server).unwrap());

        stream::set_nodelay(client.as_raw_fd()).unwrap();
        assert_eq!(stream::send(client.as_raw_fd(), b"one two").unwrap(), 7);
        stream::shutdown_write(client.as_raw_fd()).unwrap();
        let serving = driver.register(server.as_raw_fd(), Interest::READ, ()).unwrap();
        wait_for(&driver, serving);
        let mut buffer = [MaybeUninit::uninit(); 32];
        assert_eq!(stream::recv_uninit(server.as_raw_fd(), &mut buffer).unwrap(), b"one two");
        wait_for(&driver, serving);
        assert_eq!(stream::recv(server.as_raw_fd(), &mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_refused_connection_is_an_error_in_the_end() {
        let here = Address::parse("127.0.0.1", 0).unwrap().unwrap();
        let unused = create(here.family(), Kind::Stream).unwrap();
        bind(&unused, &here).unwrap();
        let address = local_addr(&unused).unwrap();
        let client = create(address.family(), Kind::Stream).unwrap();
        let error = match connect(&client, &address) {
            Ok(_) => {
                let mut driver = Driver::new().unwrap();
                let connecting = driver.register(client.as_raw_fd(), Interest::WRITE, ()).unwrap();
                wait_for(&driver, connecting);
                take_error(&client).unwrap().unwrap()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn datagrams_say_who_sent_them() {
        let here = Address::parse("127.0.0.1", 0).unwrap().unwrap();
        let [one, two] = [(); 2].map(|()| create(here.family(), Kind::Datagram).unwrap());
        for socket in [&one, &two] {
            bind(socket, &here).unwrap();
        }
        assert_eq!(sendto(&one, b"hello", &local_addr(&two).unwrap()).unwrap(), 5);
        assert_eq!(sendto(&one, b"", &local_addr(&two).unwrap()).unwrap(), 0);
        let (mut memory, mut got) = (vec![0; DATAGRAMS_ROOM], Datagrams::new());
        recv_datagrams(&two, &mut memory, &mut got).unwrap();
        let from = local_addr(&one).unwrap();
        let all: Vec<_> = got.iter(&memory).collect();
        assert_eq!(all, [(&b"hello"[..], Some(&from)), (&b""[..], Some(&from))]);
        let error = recv_datagrams(&two, &mut memory, &mut got).unwrap_err();
        assert_eq!((error.kind(), got.iter(&memory).count()), (io::ErrorKind::WouldBlock, 0));
        assert_eq!(sendto(&one, b"hello", &local_addr(&two).unwrap()).unwrap(), 5);
        let mut buffer = [0; 16];
        let (length, sender) = recvfrom(&two, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], sender), (&b"hello"[..], Some(local_addr(&one).unwrap())));
    }
}
