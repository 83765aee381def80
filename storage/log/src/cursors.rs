//! Named cursors of consumers: how far each has got in the log, kept in the file `cursors`.
//!
//! ```text
//!  0  8 B  magic "QUIVCURS"
//!  8  u8   version (1), then 3 zero bytes
//! 12  u32  number of cursors
//!     each: u8 + bytes name, u64 position, u64 positions missed
//!     u32  CRC32C of everything before
//! ```
//!
//! Trimming does not wait for a cursor beyond the log's retention: one that is overtaken is moved
//! to the oldest position, and what it missed is counted.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quiver_model::Position;

use crate::vfs::{self, Vfs};

const FILE: &str = "cursors";
const MAGIC: [u8; 8] = *b"QUIVCURS";
const VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 16;
/// Most cursors a log may have.
const CURSORS_MAX: usize = 1_000;
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 128;
/// No cursors file is larger.
const FILE_BYTES_MAX: u64 = (PREAMBLE_BYTES + CURSORS_MAX * (1 + NAME_BYTES_MAX + 16) + 4) as u64;

/// Where a consumer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next position it wants.
    pub position: Position,
    /// Positions that were trimmed before it got to them, in all.
    pub missed: u64,
}

/// A cursor that trimming has overtaken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// The consumer.
    pub name: String,
    /// Where it was.
    pub from: Position,
    /// Where it is now.
    pub to: Position,
}

/// Why cursors cannot be read, set or kept.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// A call to the file system failed.
    #[error("cursors: {0}")]
    Io(#[from] io::Error),
    /// The file fails its checks.
    #[error(
        "file {path} is damaged; move it away: consumers then begin at the oldest position of the log",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A newer engine wrote the file.
    #[error(
        "file {path} has format version {version}, this engine reads version 1; start a newer engine on this data",
        path = .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// The name is empty or too long.
    #[error("a cursor's name must have 1 to {NAME_BYTES_MAX} bytes, not {0}")]
    Name(usize),
    /// There are too many.
    #[error("a log has at most {CURSORS_MAX} cursors; remove one that is no longer used")]
    Full,
}

/// The cursors of a log.
#[derive(Debug)]
pub struct Cursors {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    cursors: BTreeMap<String, Cursor>,
    dirty: bool,
}

impl Cursors {
    /// Reads the cursors kept in the existing directory `dir`; none if there is no file.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, CursorError> {
        let path = dir.join(FILE);
        let cursors = match vfs::read_small_file(&*vfs, &path, FILE_BYTES_MAX) {
            Ok(content) => parse(&content, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(CursorError::Damaged { path });
            }
            Err(error) => return Err(vfs::at_path("read", &path, error).into()),
        };
        Ok(Self {
            vfs,
            path,
            cursors,
            dirty: false,
        })
    }

    /// The cursor called `name`.
    pub fn get(&self, name: &str) -> Option<Cursor> {
        self.cursors.get(name).copied()
    }

    /// All cursors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cursor)> {
        self.cursors
            .iter()
            .map(|(name, cursor)| (name.as_str(), *cursor))
    }

    /// The position that the furthest behind wants next.
    pub fn lowest(&self) -> Option<Position> {
        self.cursors.values().map(|cursor| cursor.position).min()
    }

    /// Creates or moves a cursor in memory. [`Cursors::save`] makes it durable: until then a
    /// restart sets the consumer back, so consuming must be idempotent.
    pub fn set(&mut self, name: &str, position: Position) -> Result<(), CursorError> {
        if let Some(cursor) = self.cursors.get_mut(name) {
            self.dirty |= cursor.position != position;
            cursor.position = position;
            return Ok(());
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(CursorError::Name(name.len()));
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(CursorError::Full);
        }
        self.cursors.insert(
            name.to_owned(),
            Cursor {
                position,
                missed: 0,
            },
        );
        self.dirty = true;
        Ok(())
    }

    /// Forgets a cursor, durably; whether there was one.
    pub fn remove(&mut self, name: &str) -> Result<bool, CursorError> {
        let existed = self.cursors.remove(name).is_some();
        self.dirty |= existed;
        self.save()?;
        Ok(existed)
    }

    /// Makes all cursors durable; does nothing if none has changed.
    pub fn save(&mut self) -> Result<(), CursorError> {
        if !self.dirty {
            return Ok(());
        }
        let mut content = Vec::new();
        content.extend_from_slice(&MAGIC);
        content.extend_from_slice(&[VERSION, 0, 0, 0]);
        content.extend_from_slice(&(self.cursors.len() as u32).to_le_bytes());
        for (name, cursor) in &self.cursors {
            content.push(name.len() as u8);
            content.extend_from_slice(name.as_bytes());
            content.extend_from_slice(&cursor.position.get().to_le_bytes());
            content.extend_from_slice(&cursor.missed.to_le_bytes());
        }
        let crc = crc32c::crc32c(&content);
        content.extend_from_slice(&crc.to_le_bytes());
        vfs::replace_file(&*self.vfs, &self.path, &content)?;
        self.dirty = false;
        Ok(())
    }

    /// Moves every cursor that is behind `oldest` there, counts what it missed, and makes that
    /// durable. To be called after [`Log::trim`](crate::Log::trim).
    pub fn overtake(&mut self, oldest: Position) -> Result<Vec<Overtaken>, CursorError> {
        let mut overtaken = Vec::new();
        for (name, cursor) in &mut self.cursors {
            if cursor.position < oldest {
                overtaken.push(Overtaken {
                    name: name.clone(),
                    from: cursor.position,
                    to: oldest,
                });
                // Positions begin at 1; a cursor at 0 has not missed position 0.
                let from = cursor.position.get().max(1);
                cursor.missed = cursor
                    .missed
                    .saturating_add(oldest.get().saturating_sub(from));
                cursor.position = oldest;
                self.dirty = true;
            }
        }
        self.save()?;
        Ok(overtaken)
    }
}

fn parse(content: &[u8], path: &Path) -> Result<BTreeMap<String, Cursor>, CursorError> {
    let damaged = || CursorError::Damaged {
        path: path.to_path_buf(),
    };
    let (body, crc) = content.split_last_chunk::<4>().ok_or_else(damaged)?;
    if !body.starts_with(&MAGIC) || crc32c::crc32c(body).to_le_bytes() != *crc {
        return Err(damaged());
    }
    let (preamble, mut rest) = body
        .split_first_chunk::<PREAMBLE_BYTES>()
        .ok_or_else(damaged)?;
    if preamble[8] != VERSION {
        return Err(CursorError::NewerFormat {
            path: path.to_path_buf(),
            version: preamble[8],
        });
    }
    let mut cursors = BTreeMap::new();
    while !rest.is_empty() {
        let (name, cursor, after) = parse_cursor(rest).ok_or_else(damaged)?;
        cursors.insert(name, cursor);
        rest = after;
    }
    let count = u32::from_le_bytes([preamble[12], preamble[13], preamble[14], preamble[15]]);
    if cursors.len() == count as usize {
        Ok(cursors)
    } else {
        Err(damaged())
    }
}

fn parse_cursor(bytes: &[u8]) -> Option<(String, Cursor, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let (missed, rest) = rest.split_first_chunk::<8>()?;
    let cursor = Cursor {
        position: Position(u64::from_le_bytes(*position)),
        missed: u64::from_le_bytes(*missed),
    };
    Some((String::from_utf8(name.to_vec()).ok()?, cursor, rest))
}
