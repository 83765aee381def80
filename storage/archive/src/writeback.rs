//! Writing large files to a disk that others wait for.
//!
//! A file written at once and then synced is a burst: tens of megabytes stand before whatever the
//! log writes in that moment, and every acknowledgement waits for them (measured: 20 to 50 ms, where
//! a group alone takes a third of one). So the kernel is told to write each piece as soon as it is there,
//! and the next but one waits until that is done:
//!
//! ```text
//! piece 1: copied ─▶ being written ─────▶ done
//! piece 2:           copied ─▶ being written ─▶ done
//! piece 3:                     waits ────▶ copied ─▶ …             then fsync, with little left to do
//! ```
//!
//! Nothing here makes anything durable: that is the sync's part, before and after.

use std::{
    fs::File,
    io::{self, Write},
};

/// Bytes that are handed to the disk at a time.
const PIECE: usize = 512 << 10;

/// Writes to a file from its beginning, at most two pieces ahead of the disk.
pub(crate) struct PacedFile<'a> {
    file: &'a mut File,
    /// Bytes copied, and those of them that the disk was told to write.
    copied: u64,
    begun: u64,
    /// Where the piece before begins.
    previous: u64,
}

impl<'a> PacedFile<'a> {
    /// Over an empty file.
    pub(crate) fn new(file: &'a mut File) -> Self {
        Self {
            file,
            copied: 0,
            begun: 0,
            previous: 0,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the file system says, and the disk of pieces that it was given.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.file.write_all(piece)?;
            self.copied += piece.len() as u64;
            if self.copied - self.begun >= PIECE as u64 {
                start_writing(self.file, self.begun, self.copied - self.begun)?;
                wait_until_written(self.file, self.previous, self.begun - self.previous)?;
                self.previous = self.begun;
                self.begun = self.copied;
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn start_writing(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    sync_file_range(file, from, bytes, libc::SYNC_FILE_RANGE_WRITE)
}

#[cfg(target_os = "linux")]
fn wait_until_written(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    // A length of 0 would mean all of the file.
    if bytes == 0 {
        return Ok(());
    }
    sync_file_range(file, from, bytes, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

/// An error of the disk is told once for each open file, and the wait takes it: a later sync would
/// succeed. So it is an error here.
#[cfg(target_os = "linux")]
fn sync_file_range(file: &File, from: u64, bytes: u64, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let (Ok(from), Ok(bytes)) = (i64::try_from(from), i64::try_from(bytes)) else {
        return Ok(());
    };
    #[expect(
        unsafe_code,
        reason = "none of the libraries at hand has a safe binding of it"
    )]
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call touches no memory
    // of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), from, bytes, flags) };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Some sandboxes and file systems have no such call; then the burst is the sync's.
        error
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)
            ) =>
        {
            Ok(())
        }
        error => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn start_writing(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn wait_until_written(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..(7 * PIECE + 12_345))
            .map(|at| (at % 251) as u8)
            .collect();
        let mut file = File::create_new(&path).unwrap();
        let mut paced = PacedFile::new(&mut file);
        let (small, large) = content.split_at(1_000);
        paced.write_all(small).unwrap();
        let (large, end) = large.split_at(5 * PIECE + 1);
        paced.write_all(large).unwrap();
        paced.write_all(end).unwrap();
        paced.write_all(&[]).unwrap();
        file.sync_all().unwrap();
        assert!(std::fs::read(&path).unwrap() == content);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_error_of_the_call_is_not_lost() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let error = start_writing(&pipe, 0, 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESPIPE));
        assert!(wait_until_written(&pipe, 0, 1).is_err());
    }
}
