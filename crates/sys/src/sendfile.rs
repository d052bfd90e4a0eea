//! Sending a file without bringing it into the process. Used by `loop.sendfile` and `sock_sendfile`.
//!
//! Never blocks on the socket; reading the file itself may wait for the disk.

use std::io;
use std::os::fd::AsFd;

use crate::traffic;

/// Sends up to `count` bytes of `file` from `offset` on; how many went. Zero: the file ends there.
///
/// EINVAL and ENOSYS mean that this kind of file cannot be sent so: read and send it instead.
pub fn sendfile(socket: impl AsFd, file: impl AsFd, offset: u64, count: usize) -> io::Result<usize> {
    let mut offset = offset;
    Ok(traffic::sent(rustix::fs::sendfile(socket, file, Some(&mut offset), count)?))
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

    #[test]
    fn a_part_of_a_file_arrives() {
        let path = std::env::temp_dir().join(format!("aioxide-sendfile-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (ours, theirs) = crate::socket::pair().unwrap();
        assert_eq!(sendfile(&ours, &file, 3, 4).unwrap(), 4);
        assert_eq!(sendfile(&ours, &file, 8, 100).unwrap(), 2);
        assert_eq!(sendfile(&ours, &file, 10, 100).unwrap(), 0);
        assert_eq!((size(&file).unwrap(), seek(&file, 7).unwrap()), (10, 7));
        let mut buffer = [0; 16];
        assert_eq!(crate::stream::recv(theirs.as_raw_fd(), &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"345689");
    }
}
