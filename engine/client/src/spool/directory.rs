//! What the spool asks of a disk, narrow enough to be simulated.

use std::{fmt, io};

/// A place for numbered, append-only segment files. [`OsDirectory`](super::OsDirectory) is a
/// directory of the machine, [`MemoryDirectory`](super::MemoryDirectory) a simulated one.
///
/// A file's content is durable after [`SegmentFile::sync`], its existence (or absence) after
/// [`sync_directory`](Self::sync_directory); anything else may or may not survive a crash.
pub trait SpoolDirectory: Send + Sync + fmt::Debug {
    /// Whether calls wait for a device and so belong on a thread that may block.
    fn blocks(&self) -> bool;
    /// Takes the directory for this process alone until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else has it.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// Numbers of the segments, ascending.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn segments(&self) -> io::Result<Vec<u64>>;
    /// Creates a segment, which must not exist.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>>;
    /// Cuts a segment to `length` bytes and makes all of it durable, whoever wrote it.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn truncate(&self, segment: u64, length: u64) -> io::Result<()>;
    /// Bytes of a segment.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn length(&self, segment: u64) -> io::Result<u64>;
    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the segment is shorter, or whatever the disk says.
    fn read(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Removes a segment.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn sync_directory(&self) -> io::Result<()>;
}

/// A segment that is being written.
pub trait SegmentFile: Send + fmt::Debug {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// Whatever the disk says; some of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended durable (fdatasync).
    ///
    /// # Errors
    /// Whatever the disk says; after that nothing written since the last success can be trusted,
    /// and trying again proves nothing.
    fn sync(&mut self) -> io::Result<()>;
}
