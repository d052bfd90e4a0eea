//! Socket addresses: parsing numeric ones, and showing them as Python does.
//!
//! Used by the `py` floor for `create_connection`, `create_server`, `getnameinfo` shortcuts and `sock_*`.
//! Names are not resolved here: what is not numeric is `None`, and the resolver's affair. An IPv6 zone
//! (`fe80::1%eth0`) is kept.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6, with flow label and zone.
    V6(SocketAddrV6),
    /// A Unix socket's path, or its abstract name behind a zero byte; empty if it has none.
    Unix(Vec<u8>),
    /// Any other family, by its number.
    Other(u16),
}

impl Address {
    /// From a numeric host (a zone is allowed) and a port. `None`: the host is a name.
    pub fn parse(host: &str, port: u16) -> Option<io::Result<Self>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Ok(Self::from_ip(ip, port)));
        }
        let (host, zone) = host.split_once('%')?;
        let host = host.parse::<Ipv6Addr>().ok()?;
        Some(zone_index(zone).map(|zone| Self::V6(SocketAddrV6::new(host, port, 0, zone))))
    }

    /// From an IP address without a zone.
    pub const fn from_ip(ip: IpAddr, port: u16) -> Self {
        match ip {
            IpAddr::V4(host) => Self::V4(SocketAddrV4::new(host, port)),
            IpAddr::V6(host) => Self::V6(SocketAddrV6::new(host, port, 0, 0)),
        }
    }

    /// The family's number, as in Python's `socket.AF_*`.
    pub fn family(&self) -> u16 {
        match self {
            Self::V4(_) => AddressFamily::INET.as_raw(),
            Self::V6(_) => AddressFamily::INET6.as_raw(),
            Self::Unix(_) => AddressFamily::UNIX.as_raw(),
            Self::Other(family) => *family,
        }
    }

    /// The host as Python's socket module writes it. The zone is not part of it: it is a number of its own
    /// there.
    pub fn host(&self) -> Option<String> {
        match self {
            Self::V4(address) => Some(address.ip().to_string()),
            Self::V6(address) => Some(host_v6(*address.ip())),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }

    /// The port of an IP address.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::V4(address) => Some(address.port()),
            Self::V6(address) => Some(address.port()),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }

    pub(crate) fn from_any(any: SocketAddrAny) -> Self {
        let family = any.address_family();
        let known = match family {
            AddressFamily::INET => SocketAddrV4::try_from(any).map(Self::V4),
            AddressFamily::INET6 => SocketAddrV6::try_from(any).map(Self::V6),
            AddressFamily::UNIX => SocketAddrUnix::try_from(any).map(|unix| Self::Unix(unix_name(&unix))),
            _ => return Self::Other(family.as_raw()),
        };
        known.unwrap_or(Self::Other(family.as_raw()))
    }

    pub(crate) fn to_any(&self) -> io::Result<SocketAddrAny> {
        match self {
            Self::V4(address) => Ok((*address).into()),
            Self::V6(address) => Ok((*address).into()),
            Self::Unix(name) => match name.split_first() {
                None => Ok(SocketAddrUnix::new_unnamed().into()),
                Some((0, name)) => Ok(SocketAddrUnix::new_abstract_name(name)?.into()),
                Some(_) => Ok(SocketAddrUnix::new(name.as_slice())?.into()),
            },
            Self::Other(_) => Err(rustix::io::Errno::AFNOSUPPORT.into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "{address}"),
            Self::Unix(name) => write!(f, "{}", String::from_utf8_lossy(name).replace('\0', "@")),
            Self::Other(family) => write!(f, "family {family}"),
        }
    }
}

/// An interface's number from its name or its digits.
fn zone_index(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(name_to_index(socket.as_fd(), zone)?)
}

/// As the C library writes it: unlike Rust, it shows `::1.2.3.4` with dots.
fn host_v6(host: Ipv6Addr) -> String {
    let [high @ .., upper, lower] = host.segments();
    if high == [0; 6] && upper != 0 {
        return format!("::{}", Ipv4Addr::from_bits(u32::from(upper) << 16 | u32::from(lower)));
    }
    host.to_string()
}

fn unix_name(unix: &SocketAddrUnix) -> Vec<u8> {
    if let Some(name) = unix.abstract_name().filter(|name| !name.is_empty()) {
        let mut marked = vec![0];
        marked.extend_from_slice(name);
        return marked;
    }
    unix.path_bytes().map_or_else(Vec::new, |path| path.strip_suffix(&[0]).unwrap_or(path).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(host: &str) -> Option<Address> {
        Address::parse(host, 80).map(|address| address.unwrap())
    }

    #[test]
    fn numeric_hosts_need_no_resolver() {
        assert_eq!(parsed("127.0.0.1"), Some(Address::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80))));
        assert_eq!(parsed("::1"), Some(Address::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0))));
        for name in ["localhost", "", "127.1", "0127.0.0.1", "1.2.3.4.5", "::1::", "1.2.3.4%lo", "%lo"] {
            assert_eq!(parsed(name), None, "{name}");
        }
    }

    #[test]
    fn a_zone_is_kept() {
        let address = parsed("fe80::1%7").unwrap();
        assert_eq!(address, Address::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 7)));
        assert_eq!(address.host().as_deref(), Some("fe80::1"));
        assert_eq!(parsed("fe80::1%lo"), parsed("fe80::1%1"), "the loopback interface is number one");
        assert!(Address::parse("fe80::1%no-such-zone", 80).unwrap().is_err());
    }

    #[test]
    fn hosts_read_as_the_c_library_writes_them() {
        for host in
            ["::1.2.3.4", "::ffff:1.2.3.4", "::1", "::", "1:0:0:2::", "2001:db8::1:0:0:1", "1:0:2:3:4:5:6:7"]
        {
            assert_eq!(parsed(host).unwrap().host().as_deref(), Some(host));
        }
    }

    #[test]
    fn every_kind_survives_the_kernels_form() {
        for address in [
            parsed("10.0.0.1").unwrap(),
            parsed("fe80::1%3").unwrap(),
            Address::Unix(b"/tmp/socket".to_vec()),
            Address::Unix(b"\0abstract".to_vec()),
            Address::Unix(Vec::new()),
        ] {
            assert_eq!(Address::from_any(address.to_any().unwrap()), address);
        }
        assert!(Address::Other(99).to_any().is_err());
        assert!(Address::Unix(vec![b'x'; 200]).to_any().is_err());
    }
}
