//! What keeps a malformed Parquet or Arrow file from ending the process: panics of their readers
//! are errors, and nothing is allocated for what an Arrow file only claims.
//!
//! The readers trust numbers of the file in two ways. Some checks are assertions, which
//! [`shielded`] turns into errors. And Arrow's allocates what a message announces before it looks
//! whether that is there; an allocation that fails cannot be caught, so [`check_arrow`] looks first.

use std::{
    any::Any,
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use arrow_ipc::{CompressionType, Footer, Message, MessageHeader, root_as_footer, root_as_message};

/// What every message begins with, but in files from before Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What an Arrow file, not a stream, begins and ends with.
const MAGIC: [u8; 6] = *b"ARROW1";
/// Most bytes that the buffers of one message may have together when they are decompressed.
const DECODED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Longest metadata of a message, and longest footer, in bytes.
const METADATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

thread_local! {
    /// Whether a panic of this thread is about to be caught.
    static IS_SHIELDED: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Runs `work`; a panic in it is an error, and is not printed.
pub(super) fn shielded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Once for the process: what other threads print is still printed.
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !IS_SHIELDED.with(Cell::get) {
                previous(info);
            }
        }));
    });
    let was_shielded = IS_SHIELDED.with(|shielded| shielded.replace(true));
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_SHIELDED.with(|shielded| shielded.set(was_shielded));
    result.map_err(|panic| format!("it cannot be decoded ({})", said(panic.as_ref())))
}

/// What a panic said, on one line.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for no reason given");
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Why an Arrow file is not read.
#[derive(Debug)]
pub(super) enum ArrowFault {
    /// The operating system does not let it be read.
    Io(io::Error),
    /// What it announces is not there, or too much.
    Malformed(String),
}

impl From<io::Error> for ArrowFault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            malformed("it ends in the middle of a message")
        } else {
            Self::Io(error)
        }
    }
}

fn malformed(reason: impl Into<String>) -> ArrowFault {
    ArrowFault::Malformed(reason.into())
}

/// Whether an Arrow file is one with a footer, not a stream.
pub(super) fn has_footer(input: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    input.seek(SeekFrom::Start(0))?;
    let is_file = match input.read_exact(&mut magic) {
        Ok(()) => magic == MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    input.seek(SeekFrom::Start(0))?;
    Ok(is_file)
}

/// Looks whether every length that an Arrow file announces is there. Reads only metadata.
pub(super) fn check_arrow(input: &mut (impl Read + Seek)) -> Result<(), ArrowFault> {
    let length = input.seek(SeekFrom::End(0))?;
    let mut file = Announced { input, length };
    if has_footer(&mut file.input)? {
        file.check_footer()
    } else {
        file.check_stream()
    }
}

struct Announced<'a, R> {
    input: &'a mut R,
    /// Bytes of the file.
    length: u64,
}

impl<R: Read + Seek> Announced<'_, R> {
    /// `length` bytes from `start`, which are no more than what metadata may have.
    fn metadata(&mut self, start: u64, length: u64) -> Result<Vec<u8>, ArrowFault> {
        self.check_range("metadata", start, length)?;
        if length > METADATA_BYTES_MAX {
            return Err(malformed(format!(
                "the metadata at byte {start} have {length} bytes, and may have {METADATA_BYTES_MAX}"
            )));
        }
        self.input.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn check_range(&self, what: &str, start: u64, length: u64) -> Result<(), ArrowFault> {
        match start.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(malformed(format!(
                "{what} of {length} bytes are announced at byte {start}, and the file has {}",
                self.length
            ))),
        }
    }

    /// A message's length of its metadata, behind the continuation marker, and where they begin.
    fn prefix(&mut self, start: u64) -> Result<(i32, u64), ArrowFault> {
        let mut word = [0; 4];
        self.input.seek(SeekFrom::Start(start))?;
        self.input.read_exact(&mut word)?;
        if word != CONTINUATION {
            return Ok((i32::from_le_bytes(word), start + 4));
        }
        self.input.read_exact(&mut word)?;
        Ok((i32::from_le_bytes(word), start + 8))
    }

    fn check_stream(&mut self) -> Result<(), ArrowFault> {
        let mut start = 0;
        // Fewer than four bytes are the end, too.
        while start + 4 <= self.length {
            let (metadata_length, metadata_start) = self.prefix(start)?;
            if metadata_length == 0 {
                break;
            }
            let metadata_length = unsigned("the length of metadata", metadata_length.into())?;
            let metadata = self.metadata(metadata_start, metadata_length)?;
            let message = message(&metadata)?;
            let body_start = metadata_start + metadata_length;
            start = body_start + self.check_body(&message, body_start)?;
        }
        Ok(())
    }

    fn check_footer(&mut self) -> Result<(), ArrowFault> {
        // The footer's length and the magic.
        let tail_length = 4 + MAGIC.len() as u64;
        let Some(footer_end) = self.length.checked_sub(tail_length) else {
            return Err(malformed("it ends before its footer"));
        };
        let mut tail = [0; 4];
        self.input.seek(SeekFrom::Start(footer_end))?;
        self.input.read_exact(&mut tail)?;
        let footer_length = unsigned("the footer's length", i32::from_le_bytes(tail).into())?;
        let Some(footer_start) = footer_end.checked_sub(footer_length) else {
            return Err(malformed(format!(
                "a footer of {footer_length} bytes is announced, and the file has {}",
                self.length
            )));
        };
        let bytes = self.metadata(footer_start, footer_length)?;
        let footer: Footer<'_> = root_as_footer(&bytes)
            .map_err(|error| malformed(format!("its footer is damaged: {}", one_line(&error))))?;
        let blocks = footer.dictionaries().into_iter().flatten();
        for block in blocks.chain(footer.recordBatches().into_iter().flatten()) {
            let start = unsigned("a message's place", block.offset())?;
            let metadata_length =
                unsigned("the length of metadata", block.metaDataLength().into())?;
            let body_length = unsigned("the length of a body", block.bodyLength())?;
            if metadata_length < 8 {
                return Err(malformed(format!(
                    "the message at byte {start} has no metadata"
                )));
            }
            self.check_range("metadata", start, metadata_length)?;
            let body_start = start + metadata_length;
            self.check_range("a body", body_start, body_length)?;
            let (_, metadata_start) = self.prefix(start)?;
            // The footer counts the prefix in.
            let metadata =
                self.metadata(metadata_start, metadata_length - (metadata_start - start))?;
            self.check_body(&message(&metadata)?, body_start)?;
        }
        Ok(())
    }

    /// Looks at the buffers of the body at `start`; returns its length.
    fn check_body(&mut self, message: &Message<'_>, start: u64) -> Result<u64, ArrowFault> {
        let length = unsigned("the length of a body", message.bodyLength())?;
        self.check_range("a body", start, length)?;
        let batch = match message.header_type() {
            MessageHeader::RecordBatch => message.header_as_record_batch(),
            MessageHeader::DictionaryBatch => message
                .header_as_dictionary_batch()
                .and_then(|dictionary| dictionary.data()),
            _ => None,
        };
        let Some(batch) = batch else {
            return Ok(length);
        };
        unsigned("the number of rows", batch.length())?;
        for node in batch.nodes().into_iter().flatten() {
            unsigned("the number of rows", node.length())?;
            unsigned("the number of nulls", node.null_count())?;
        }
        let is_compressed = batch.compression().is_some_and(|compression| {
            matches!(
                compression.codec(),
                CompressionType::LZ4_FRAME | CompressionType::ZSTD
            )
        });
        let mut decoded = 0_u64;
        for buffer in batch.buffers().into_iter().flatten() {
            let offset = unsigned("a buffer's place", buffer.offset())?;
            let buffer_length = unsigned("a buffer's length", buffer.length())?;
            if offset
                .checked_add(buffer_length)
                .is_none_or(|end| end > length)
            {
                return Err(malformed(format!(
                    "a buffer of {buffer_length} bytes at {offset} is announced in a body of {length}"
                )));
            }
            if !is_compressed || buffer_length == 0 {
                continue;
            }
            if buffer_length < 8 {
                return Err(malformed(format!(
                    "a compressed buffer has {buffer_length} bytes, which do not hold its length"
                )));
            }
            let mut announced = [0; 8];
            self.input.seek(SeekFrom::Start(start + offset))?;
            self.input.read_exact(&mut announced)?;
            // -1 is a buffer that is not compressed after all.
            let announced = match i64::from_le_bytes(announced) {
                -1 => 0,
                announced => unsigned("a buffer's decompressed length", announced)?,
            };
            decoded = decoded.saturating_add(announced);
            if decoded > DECODED_BYTES_MAX {
                return Err(malformed(format!(
                    "the message at byte {start} announces {decoded} bytes when decompressed, and may have {DECODED_BYTES_MAX}; write smaller record batches"
                )));
            }
        }
        Ok(length)
    }
}

fn message(metadata: &[u8]) -> Result<Message<'_>, ArrowFault> {
    root_as_message(metadata).map_err(|error| {
        malformed(format!(
            "a message's metadata are damaged: {}",
            one_line(&error)
        ))
    })
}

fn unsigned(what: &str, number: i64) -> Result<u64, ArrowFault> {
    u64::try_from(number).map_err(|_| malformed(format!("{what} is {number}")))
}

/// The verifier's errors go on with a trace of where it was.
fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_end_matches('.').to_owned()
}
