//! Who a log is: a public id that the archive's transactions name, and a seal that only the log's
//! own files know. Both are random, made with the log, and kept in the file `log-id`.
//!
//! ```text
//!  0  8 B  magic "QUIVLGID"
//!  8  u8   version (1), then 7 zero bytes
//! 16  u128 log id
//! 32  u64  seal
//! 40  u32  CRC32C of bytes 0..40
//! ```
//!
//! Every commit group repeats both, so a lost or damaged `log-id` is restored from the segments.

use std::{fmt, path::Path};

use quiver_model::Entropy;

use crate::vfs::{self, Vfs};

/// Name of the file.
pub(crate) const LOG_ID_FILE: &str = "log-id";
const MAGIC: [u8; 8] = *b"QUIVLGID";
const FILE_BYTES: usize = 44;
const VERSION: u8 = 1;

/// A log's random number, made with it. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub u128);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a commit group must carry to be this log's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogKey {
    pub id: LogId,
    /// The id is public (it names the archive's transactions), and payloads come from anyone: a
    /// payload that imitates a commit group would have to guess this number.
    pub seal: u64,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl LogKey {
    pub(crate) fn random(entropy: &dyn Entropy) -> Self {
        let id = u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64());
        Self {
            id: LogId(id),
            seal: entropy.next_u64(),
        }
    }

    /// Writes the file durably.
    pub(crate) fn save(&self, vfs: &dyn Vfs, dir: &Path) -> std::io::Result<()> {
        let mut content = Vec::with_capacity(FILE_BYTES);
        content.extend_from_slice(&MAGIC);
        content.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        content.extend_from_slice(&self.id.0.to_le_bytes());
        content.extend_from_slice(&self.seal.to_le_bytes());
        let crc = crc32c::crc32c(&content);
        content.extend_from_slice(&crc.to_le_bytes());
        vfs::replace_file(vfs, &dir.join(LOG_ID_FILE), &content)
    }

    /// Reads the file; `None` if it is missing or damaged.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> std::io::Result<Option<Self>> {
        match vfs::read_small_file(vfs, &dir.join(LOG_ID_FILE), 4096) {
            Ok(content) => Ok(Self::parse(&content)),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(vfs::at_path("read", &dir.join(LOG_ID_FILE), error)),
        }
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let content: &[u8; FILE_BYTES] = content.try_into().ok()?;
        let (head, crc) = content.split_at(FILE_BYTES - 4);
        let sound = head.starts_with(&MAGIC)
            && head[8] == VERSION
            && crc == crc32c::crc32c(head).to_le_bytes().as_slice();
        sound.then_some(())?;
        Some(Self {
            id: LogId(u128::from_le_bytes(head[16..32].try_into().ok()?)),
            seal: u64::from_le_bytes(head[32..40].try_into().ok()?),
        })
    }
}

/// The id of the log in `dir`, without opening it: an archive's transactions name it, and what the
/// archive holds must be known before the log is opened. `None` if there is no log, or its id file
/// must first be restored by opening it.
pub fn stored_id(vfs: &dyn Vfs, dir: &Path) -> std::io::Result<Option<LogId>> {
    Ok(LogKey::load(vfs, dir)?.map(|key| key.id))
}
