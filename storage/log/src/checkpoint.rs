//! Checkpoint files: the engine's state as of a position, opaque here. Two are kept, so that a
//! damaged one costs a longer replay and nothing else.
//!
//! File `checkpoint-<position, 20 digits>`:
//! ```text
//!  0  8 B  magic "QUIVCKPT"
//!  8  u8   version (1), then 7 zero bytes
//! 16  u64  position
//! 24  u64  payload length in bytes
//! 32  u32  CRC32C of bytes 0..32 and the payload
//! 36  payload
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quiver_model::Position;

use crate::vfs::{self, TEMPORARY_SUFFIX, Vfs, VfsFile};

const PREFIX: &str = "checkpoint-";
const DAMAGED_SUFFIX: &str = ".damaged";
const MAGIC: [u8; 8] = *b"QUIVCKPT";
const VERSION: u8 = 1;
const CRC_OFFSET: usize = 32;
const HEADER_BYTES: usize = 36;
/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// Largest file that is read: what a checkpoint may take in memory.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// A checkpoint that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state is as of this position, inclusive.
    pub position: Position,
    /// The state.
    pub payload: Vec<u8>,
    /// Newer checkpoints that are damaged and were passed over; their files were renamed to
    /// `….damaged`.
    pub passed_over: Vec<DamagedCheckpoint>,
}

/// A checkpoint file that fails its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCheckpoint {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: &'static str,
}

/// Why checkpoints cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A call to the file system failed.
    #[error("checkpoint store: {0}")]
    Io(#[from] io::Error),
    /// There are checkpoints, and all of them are damaged.
    #[error(
        "none of the {} checkpoints in {dir} is readable; restore one from a backup, or move them away to rebuild the state from the whole log",
        .damaged.len(),
        dir = .dir.display()
    )]
    AllDamaged {
        /// The store's directory.
        dir: PathBuf,
        /// The files.
        damaged: Vec<DamagedCheckpoint>,
    },
    /// A newer engine wrote the checkpoint.
    #[error(
        "checkpoint {path} has format version {version}, this engine reads version 1; start a newer engine on this data",
        path = .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
}

/// The checkpoints of a data directory.
#[derive(Debug)]
pub struct CheckpointStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// Ascending.
    positions: Vec<Position>,
}

/// Takes the payload of a checkpoint that is being written.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
    /// Bytes of the payload.
    length: u64,
    crc: u32,
}

impl PayloadWriter<'_> {
    /// Appends to the payload.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.length += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.put(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.put(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file
            .write_at(bytes, self.written)
            .map_err(|error| vfs::at_path("write", self.path, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

enum Parsed {
    Sound(Vec<u8>),
    Damaged(&'static str),
    Newer(u8),
}

impl CheckpointStore {
    /// Opens the store in `dir`, creating the directory if it is missing, and removes what an
    /// interrupted [`CheckpointStore::save`] left.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, CheckpointError> {
        vfs::make_dir_durable(&*vfs, dir)?;
        let mut positions = Vec::new();
        for name in vfs
            .list(dir)
            .map_err(|error| vfs::at_path("list", dir, error))?
        {
            let path = dir.join(&name);
            if name.ends_with(TEMPORARY_SUFFIX) {
                vfs.unlink(&path)
                    .map_err(|error| vfs::at_path("remove", &path, error))?;
            } else if let Some(position) = parse_name(&name) {
                positions.push(position);
            }
        }
        positions.sort_unstable();
        Ok(Self {
            vfs,
            dir: dir.to_path_buf(),
            positions,
        })
    }

    /// Positions of the checkpoints, oldest first. The log must keep what the oldest one needs.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    fn path(&self, position: Position) -> PathBuf {
        self.dir.join(format!("{PREFIX}{:020}", position.get()))
    }

    /// [`CheckpointStore::save_with`] of a payload that is there as a whole.
    pub fn save(&mut self, position: Position, payload: &[u8]) -> Result<(), CheckpointError> {
        self.save_with(position, &mut |writer| writer.write(payload))
    }

    /// Writes the state as of `position`, durably, and removes all but the two newest. The payload
    /// is what `fill` writes: it need not be in memory at once. If `fill` fails, there is no new
    /// checkpoint.
    pub fn save_with(
        &mut self,
        position: Position,
        fill: &mut dyn FnMut(&mut PayloadWriter<'_>) -> io::Result<()>,
    ) -> Result<(), CheckpointError> {
        vfs::replace_file_with(&*self.vfs, &self.path(position), &mut |file, path| {
            let failed = |error| vfs::at_path("write", path, error);
            let mut writer = PayloadWriter {
                file,
                path,
                buffer: vec![0; HEADER_BYTES],
                written: 0,
                length: 0,
                crc: 0,
            };
            fill(&mut writer)?;
            writer.flush()?;
            let mut header = Vec::with_capacity(HEADER_BYTES);
            header.extend_from_slice(&MAGIC);
            header.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
            header.extend_from_slice(&position.get().to_le_bytes());
            header.extend_from_slice(&writer.length.to_le_bytes());
            let length = usize::try_from(writer.length).map_err(io::Error::other)?;
            let crc = crc32c::crc32c_combine(crc32c::crc32c(&header), writer.crc, length);
            header.extend_from_slice(&crc.to_le_bytes());
            file.write_at(&header, 0).map_err(failed)
        })?;
        if let Err(place) = self.positions.binary_search(&position) {
            self.positions.insert(place, position);
        }
        self.remove_surplus()?;
        Ok(())
    }

    fn remove_surplus(&mut self) -> io::Result<()> {
        let surplus = self.positions.len().saturating_sub(KEPT);
        for position in self.positions.drain(..surplus).collect::<Vec<_>>() {
            let path = self.path(position);
            self.vfs
                .unlink(&path)
                .map_err(|error| vfs::at_path("remove", &path, error))?;
        }
        let names = self
            .vfs
            .list(&self.dir)
            .map_err(|error| vfs::at_path("list", &self.dir, error))?;
        let damaged: Vec<_> = names
            .iter()
            .filter(|name| name.ends_with(DAMAGED_SUFFIX))
            .collect();
        for name in damaged.iter().take(damaged.len().saturating_sub(KEPT)) {
            let path = self.dir.join(name);
            self.vfs
                .unlink(&path)
                .map_err(|error| vfs::at_path("remove", &path, error))?;
        }
        Ok(())
    }

    /// Reads the newest checkpoint that is sound; `None` if there has never been one. Damaged
    /// newer ones are set aside and named in [`Checkpoint::passed_over`].
    ///
    /// # Errors
    /// [`CheckpointError::AllDamaged`] if there are checkpoints and none is sound.
    pub fn load_newest(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut passed_over = Vec::new();
        for position in self.positions.iter().rev().copied() {
            let path = self.path(position);
            match self.read(&path, position)? {
                Parsed::Sound(payload) => {
                    self.set_aside(&passed_over)?;
                    return Ok(Some(Checkpoint {
                        position,
                        payload,
                        passed_over,
                    }));
                }
                Parsed::Damaged(reason) => passed_over.push(DamagedCheckpoint { path, reason }),
                Parsed::Newer(version) => {
                    return Err(CheckpointError::NewerFormat { path, version });
                }
            }
        }
        if passed_over.is_empty() {
            return Ok(None);
        }
        Err(CheckpointError::AllDamaged {
            dir: self.dir.clone(),
            damaged: passed_over,
        })
    }

    /// So that a damaged file is not one of the two that count.
    fn set_aside(&mut self, damaged: &[DamagedCheckpoint]) -> io::Result<()> {
        for DamagedCheckpoint { path, .. } in damaged {
            let mut aside = path.clone().into_os_string();
            aside.push(DAMAGED_SUFFIX);
            self.vfs
                .rename(path, Path::new(&aside))
                .map_err(|error| vfs::at_path("set aside", path, error))?;
            self.positions.pop();
        }
        if !damaged.is_empty() {
            self.vfs
                .sync_dir(&self.dir)
                .map_err(|error| vfs::at_path("sync directory", &self.dir, error))?;
        }
        Ok(())
    }

    fn read(&self, path: &Path, position: Position) -> io::Result<Parsed> {
        let mut content = match vfs::read_small_file(&*self.vfs, path, FILE_BYTES_MAX) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Parsed::Damaged("it is larger than a checkpoint can be"));
            }
            Err(error) => return Err(vfs::at_path("read", path, error)),
        };
        let Some((header, payload)) = content.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Parsed::Damaged("it is shorter than its header"));
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_OFFSET]), payload);
        if header[..8] != MAGIC || header[CRC_OFFSET..] != crc.to_le_bytes() {
            return Ok(Parsed::Damaged("its CRC32C does not match"));
        }
        if header[8] != VERSION {
            return Ok(Parsed::Newer(header[8]));
        }
        if header[16..24] != position.get().to_le_bytes()
            || header[24..32] != (payload.len() as u64).to_le_bytes()
        {
            return Ok(Parsed::Damaged("its header does not fit its name and size"));
        }
        content.drain(..HEADER_BYTES);
        Ok(Parsed::Sound(content))
    }
}

fn parse_name(name: &str) -> Option<Position> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    digits.parse().ok().map(Position)
}
