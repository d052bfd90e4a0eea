//! Sending a file without reading it into a buffer. Used by `loop.sendfile` and `sock_sendfile`.
//!
//! Never blocks on the socket; reading the file itself may wait for the disk.

use std::io;
use std::os::fd::{AsFd, RawFd};

use crate::{fd, stream, traffic};

/// The most that [`copy`] sends.
const MOST_COPIED: usize = 1 << 20;

/// How much [`sendfile`] passes on at a time.
const PIECE: u64 = 64 * 1024;

/// The file system of huge pages, parts of which are not to be mapped.
const HUGE_PAGES: libc::c_long = libc::HUGETLBFS_MAGIC;

/// Sends up to `count` bytes of `file` from `offset` on; how many went. Zero: the file ends there.
///
/// EINVAL and ENOSYS mean that this kind of file cannot be sent so: read and send it instead.
pub fn sendfile(socket: impl AsFd, file: impl AsFd, offset: u64, count: usize) -> io::Result<usize> {
    let mut offset = offset;
    Ok(traffic::sent(rustix::fs::sendfile(socket, file, Some(&mut offset), count)?))
}

/// Whether [`copy`] is better than [`sendfile`] for so many bytes: towards a TCP peer on this machine, which [`sendfile`] wakes
/// for each piece.
pub fn is_better_copied(socket: RawFd, file: impl AsFd, count: u64) -> bool {
    count > PIECE
        && stream::is_local(socket).unwrap_or(false)
        && rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type != HUGE_PAGES)
}

/// As [`sendfile`], but the kernel copies from the file's pages instead of passing them on. Sends up to 1 MB.
///
/// "Unsupported" means: this file not so, take [`sendfile`].
pub fn copy(socket: impl AsFd, file: impl AsFd, offset: u64, count: usize) -> io::Result<usize> {
    let left = usize::try_from(size(&file)?.saturating_sub(offset)).unwrap_or(usize::MAX);
    let length = count.min(left).min(MOST_COPIED);
    if length == 0 {
        return Ok(0);
    }
    fd::send_mapped(socket.as_fd(), file.as_fd(), offset, length).map(traffic::sent)
}

/// How long a file is.
pub fn size(file: impl AsFd) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

/// Sets a file's position.
pub fn seek(file: impl AsFd, offset: u64) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::Start(offset))?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn ten_bytes(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("aioxide-{name}-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        path
    }

    #[test]
    fn a_part_of_a_file_arrives() {
        let path = ten_bytes("sendfile");
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (ours, theirs) = crate::socket::pair().unwrap();
        assert_eq!(sendfile(&ours, &file, 3, 4).unwrap(), 4);
        assert_eq!(sendfile(&ours, &file, 8, 100).unwrap(), 2);
        assert_eq!(sendfile(&ours, &file, 10, 100).unwrap(), 0);
        assert_eq!(copy(&ours, &file, 8, 100).unwrap(), 2);
        assert_eq!((size(&file).unwrap(), seek(&file, 7).unwrap()), (10, 7));
        let mut buffer = [0; 16];
        assert_eq!(stream::recv(theirs.as_raw_fd(), &mut buffer).unwrap(), 8);
        assert_eq!(&buffer[..8], b"34568989");
    }

    #[test]
    fn what_cannot_be_copied_says_so() {
        let path = ten_bytes("copy");
        let file = std::fs::File::open(&path).unwrap();
        let closed_to_us = std::fs::File::options().write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (ours, theirs) = crate::socket::pair().unwrap();
        let gone_meanwhile = fd::send_mapped(ours.as_fd(), file.as_fd(), 1 << 20, 1);
        for result in [copy(&ours, &closed_to_us, 0, 1), gone_meanwhile] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
        assert_eq!(copy(&ours, &file, 10, 1).unwrap(), 0);
        assert!(!stream::is_readable(theirs.as_raw_fd()).unwrap());
    }
}
