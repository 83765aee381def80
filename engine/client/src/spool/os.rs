//! The spool's directory on the machine's file system. The only file of this crate's device part
//! that touches `std::fs`.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::directory::{SegmentFile, SpoolDirectory};

const LOCK_FILE: &str = "LOCK";
const SUFFIX: &str = ".spool";

/// A directory of the machine. Segments are files `<16 hexadecimal digits>.spool`; `LOCK` keeps a
/// second process out.
#[derive(Debug)]
pub struct OsDirectory {
    path: PathBuf,
}

impl OsDirectory {
    /// The directory at `path`, made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            sync(parent)?;
        }
        Ok(Self { path })
    }

    fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}{SUFFIX}"))
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

impl SpoolDirectory for OsDirectory {
    fn blocks(&self) -> bool {
        true
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(segment) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
                segments.push(segment);
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(self.file(segment))?;
        Ok(Box::new(OsSegment(file)))
    }

    fn truncate(&self, segment: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn length(&self, segment: u64) -> io::Result<u64> {
        Ok(fs::metadata(self.file(segment))?.len())
    }

    fn read(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.file(segment))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync(&self.path)
    }
}

#[derive(Debug)]
struct OsSegment(File);

impl SegmentFile for OsSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
