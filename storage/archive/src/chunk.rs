//! Column chunks of Parquet, made here for the columns that nearly all of a fleet's data is in:
//! 64-bit numbers, and the device.
//!
//! ```text
//! Values ─▶ dictionary? ─▶ pages of 20,480 rows: levels, values ─▶ ZSTD ─▶ Pages: headers, index ─▶ Chunk
//! ```
//!
//! The parquet crate's writer makes the same, for any type, value by value: it looks each one up in
//! a general hash table, packs it by itself, compares it for statistics that the archive needs a
//! second time, and copies pages five times. Here a column is a slice of 64-bit words from the
//! memtable's buffers to the compressed page. What readers see is the same: encodings that every
//! reader knows (`choose.rs`), data pages of version 1, statistics, column and offset index.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{BoundaryOrder, Compression, Encoding, EncodingMask, ZstdLevel},
    bloom_filter::Sbbf,
    column::{
        page::{CompressedPage, Page, PageWriter},
        writer::ColumnCloseResult,
    },
    errors::ParquetError,
    file::{
        metadata::{
            ColumnChunkMetaData, ColumnIndexBuilder, LevelHistogram, OffsetIndexBuilder,
            PageEncodingStats,
        },
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescriptor,
};

use crate::{
    bounds::{Bounds, are_finite},
    choose::{Choice, Kind},
    frames::{Frames, is_noise},
    gather::{Number, Values, plain_bytes},
    interner::Interner,
    packing::{deltas, hybrid, levels, split_bytes, width_of},
};

/// Rows of a page: what a reader that looks for a time has to decode at least.
const PAGE_ROWS: usize = 20_480;
/// A dictionary larger than this is given up: readers hold it in memory.
const DICTIONARY_BYTES_MAX: usize = 1 << 20;
/// Packed places of values are mostly noise: every so many pages it is found out.
const LOOK_EVERY: usize = 4;
/// Smaller pages are runs rather than packed places, and cost nothing to compress.
const NOISY_PAGE_MIN: usize = 2 << 10;
/// Compressing packed places must save this share of them, 1 of so many.
const GAIN: usize = 32;
/// Share of wrong answers of a bloom filter.
pub(crate) const BLOOM_FPP: f64 = 0.01;

/// A column chunk, to be appended to a row group.
pub(crate) struct Chunk {
    pub(crate) content: Bytes,
    pub(crate) close: ColumnCloseResult,
    pub(crate) facts: Facts,
}

/// What Delta's statistics say of a column.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) nulls: usize,
    pub(crate) bounds: Bounds,
    /// Whether the bounds say something about every value.
    pub(crate) are_bounded: bool,
}

impl Facts {
    /// Of no rows.
    pub(crate) const NONE: Self = Self {
        nulls: 0,
        bounds: Bounds::None,
        are_bounded: true,
    };

    /// Of these rows and others.
    pub(crate) fn add(&mut self, other: Self) {
        self.nulls += other.nulls;
        let bounds = std::mem::replace(&mut self.bounds, Bounds::None);
        self.bounds = bounds.and(other.bounds);
        self.are_bounded &= other.are_bounded;
    }
}

/// What a way to encode values takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) pages: u64,
    pub(crate) dictionary: u64,
    /// Distinct values, if there is a dictionary.
    pub(crate) distinct: u64,
}

/// Makes column chunks. Its memory is used again from column to column.
#[derive(Debug, Default)]
pub(crate) struct ChunkWriter {
    frames: Frames,
    interner: Interner,
    page: Vec<u8>,
    compressed: Vec<u8>,
}

/// How a chunk's values are written.
enum Body<'a> {
    Plain(&'a [u64]),
    Split(&'a [u64]),
    Deltas(&'a [u64]),
    Places { codes: &'a [u32], width: u32 },
}

impl<'a> Body<'a> {
    fn without_dictionary(kind: Kind, number: Number, bits: &'a [u64]) -> Self {
        match (kind, number) {
            (Kind::Plain, _) => Self::Plain(bits),
            // Values that were to have a dictionary, and have too many distinct ones, are noise.
            (Kind::ByteStreamSplit, _) | (Kind::Dictionary, Number::Float) => Self::Split(bits),
            (Kind::Delta, _) | (Kind::Dictionary, Number::Integer) => Self::Deltas(bits),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Plain(_) => Encoding::PLAIN,
            Self::Split(_) => Encoding::BYTE_STREAM_SPLIT,
            Self::Deltas(_) => Encoding::DELTA_BINARY_PACKED,
            Self::Places { .. } => Encoding::RLE_DICTIONARY,
        }
    }

    /// Appends the values of a page; how many bytes of them, from the first one on, are noise.
    fn append(&self, values: std::ops::Range<usize>, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Plain(bits) => {
                out.extend_from_slice(plain_bytes(&bits[values]));
                0
            }
            Self::Deltas(bits) => {
                deltas(&bits[values], out);
                0
            }
            Self::Split(bits) => {
                let (start, count) = (out.len(), values.len());
                split_bytes(&bits[values], out);
                // The lowest bytes come first, and are noise if any are.
                let streams = out[start..].chunks_exact(count.max(1));
                count * streams.take_while(|stream| is_noise(stream)).count()
            }
            Self::Places { codes, width } => {
                out.push(*width as u8);
                hybrid(&codes[values], *width, out);
                0
            }
        }
    }
}

/// The order of values in a dictionary: as they compare, and floats of equal value by their bits.
fn order_of(number: Number) -> fn(u64) -> u64 {
    const SIGN: u64 = 1 << 63;
    match number {
        Number::Integer => |bits| bits ^ SIGN,
        Number::Float => |bits| if bits & SIGN == 0 { bits ^ SIGN } else { !bits },
    }
}

/// Most distinct values for which a dictionary is worth it.
fn distinct_max(values: usize) -> usize {
    (DICTIONARY_BYTES_MAX / size_of::<u64>()).min(values / 2 + 1)
}

impl ChunkWriter {
    /// A chunk of numbers.
    ///
    /// # Errors
    /// If ZSTD or Parquet refuse it.
    pub(crate) fn numbers(
        &mut self,
        column: &Arc<ColumnDescriptor>,
        number: Number,
        values: &Values,
        Choice { kind, level }: Choice,
    ) -> Result<Chunk, ParquetError> {
        let bits = values.bits();
        let mut pages = Pages::new(column, level)?;
        let interned = match kind {
            Kind::Dictionary => {
                let most = distinct_max(bits.len());
                self.interner.intern(bits, most, order_of(number))
            }
            _ => None,
        };
        let body = match (kind, interned) {
            (Kind::Dictionary, Some(interned)) => {
                self.frames.compress(
                    plain_bytes(interned.distinct),
                    level,
                    &mut self.compressed,
                )?;
                pages.dictionary(
                    &self.compressed,
                    size_of_val(interned.distinct),
                    interned.distinct.len(),
                )?;
                Body::Places {
                    codes: interned.codes,
                    width: width_of((interned.distinct.len() as u64).saturating_sub(1)),
                }
            }
            (kind, _) => Body::without_dictionary(kind, number, bits),
        };
        let mut compressing = Compressing::default();
        for (present, rows, range) in values.pages(PAGE_ROWS) {
            self.page.clear();
            if column.max_def_level() > 0 {
                levels(present, rows, &mut self.page);
            }
            let before = self.page.len();
            let noise = body.append(range.clone(), &mut self.page);
            compressing.page(
                &mut self.frames,
                (&self.page, before, noise),
                &body,
                level,
                &mut self.compressed,
            )?;
            let bounds = Bounds::of(number, bits.get(range.clone()).unwrap_or(&[]));
            pages.data(Data {
                compressed: &self.compressed,
                uncompressed: self.page.len(),
                encoding: body.encoding(),
                rows,
                nulls: rows - range.len(),
                bounds,
                text: None,
            })?;
        }
        let are_bounded = number == Number::Integer || are_finite(bits);
        pages.close(None, are_bounded)
    }

    /// The chunk of the device column: the devices in order, and how many rows each has. `None` if
    /// its dictionary would be too large.
    ///
    /// # Errors
    /// If ZSTD or Parquet refuse it.
    pub(crate) fn devices(
        &mut self,
        column: &Arc<ColumnDescriptor>,
        devices: &[(&str, usize)],
        level: i32,
    ) -> Result<Option<Chunk>, ParquetError> {
        let bytes: usize = devices.iter().map(|(name, _)| name.len() + 4).sum();
        if bytes > DICTIONARY_BYTES_MAX {
            return Ok(None);
        }
        let mut bloom = Sbbf::new_with_ndv_fpp(devices.len() as u64, BLOOM_FPP)?;
        self.page.clear();
        for (name, _) in devices {
            let length = u32::try_from(name.len()).unwrap_or(0);
            self.page.extend_from_slice(&length.to_le_bytes());
            self.page.extend_from_slice(name.as_bytes());
            bloom.insert(*name);
        }
        bloom.fold_to_target_fpp(BLOOM_FPP);
        let mut pages = Pages::new(column, level)?;
        self.frames
            .compress(&self.page, level, &mut self.compressed)?;
        pages.dictionary(&self.compressed, self.page.len(), devices.len())?;
        let codes: Vec<u32> = (0..)
            .zip(devices)
            .flat_map(|(code, (_, rows))| std::iter::repeat_n(code, *rows))
            .collect();
        let body = Body::Places {
            codes: &codes,
            width: width_of((devices.len() as u64).saturating_sub(1)),
        };
        let name = |code: &u32| devices.get(*code as usize).map_or("", |(name, _)| *name);
        for start in (0..codes.len()).step_by(PAGE_ROWS) {
            let range = start..codes.len().min(start + PAGE_ROWS);
            let rows = range.len();
            let codes = &codes[range.clone()];
            self.page.clear();
            if column.max_def_level() > 0 {
                levels(&[], rows, &mut self.page);
            }
            body.append(range, &mut self.page);
            self.frames
                .compress(&self.page, level, &mut self.compressed)?;
            let bound = |code: Option<&u32>| code.map_or("", name).to_owned();
            pages.data(Data {
                compressed: &self.compressed,
                uncompressed: self.page.len(),
                encoding: body.encoding(),
                rows,
                nulls: 0,
                bounds: Bounds::Texts(bound(codes.first()), bound(codes.last())),
                text: Some(codes.iter().map(|code| name(code).len()).sum()),
            })?;
        }
        pages.close(Some(bloom), true).map(Some)
    }

    /// What values would take in this way; `None` if there is no such way for them.
    ///
    /// # Errors
    /// If ZSTD refuses them.
    pub(crate) fn trial(
        &mut self,
        number: Number,
        bits: &[u64],
        Choice { kind, level }: Choice,
    ) -> Result<Option<Trial>, ParquetError> {
        let mut dictionary = 0;
        let mut distinct = 0;
        let interned = match kind {
            Kind::Dictionary => {
                let order = order_of(number);
                match self.interner.intern(bits, usize::MAX, order) {
                    Some(interned) => Some(interned),
                    None => return Ok(None),
                }
            }
            _ => None,
        };
        let body = match (kind, interned) {
            (Kind::Dictionary, Some(interned)) => {
                let values = plain_bytes(interned.distinct);
                self.frames.compress(values, level, &mut self.compressed)?;
                dictionary = self.compressed.len() as u64;
                distinct = interned.distinct.len() as u64;
                Body::Places {
                    codes: interned.codes,
                    width: width_of(distinct.saturating_sub(1)),
                }
            }
            (kind, _) => Body::without_dictionary(kind, number, bits),
        };
        let mut pages = 0;
        let mut compressing = Compressing::default();
        for start in (0..bits.len()).step_by(PAGE_ROWS) {
            self.page.clear();
            let range = start..bits.len().min(start + PAGE_ROWS);
            let noise = body.append(range, &mut self.page);
            compressing.page(
                &mut self.frames,
                (&self.page, 0, noise),
                &body,
                level,
                &mut self.compressed,
            )?;
            pages += self.compressed.len() as u64;
        }
        Ok(Some(Trial {
            pages,
            dictionary,
            distinct,
        }))
    }
}

/// Whether compressing a chunk's packed places is worth it.
#[derive(Debug, Default)]
struct Compressing {
    pages: usize,
    is_useless: bool,
}

impl Compressing {
    /// Compresses a page, of whose content `before` bytes are levels, and the next `noise` are
    /// noise.
    fn page(
        &mut self,
        frames: &mut Frames,
        (page, before, noise): (&[u8], usize, usize),
        body: &Body<'_>,
        level: i32,
        out: &mut Vec<u8>,
    ) -> Result<(), ParquetError> {
        let number = self.pages;
        self.pages += 1;
        if noise > 0 {
            // The few bytes of levels go with it.
            return Ok(frames.compress_behind(page, before + noise, level, out)?);
        }
        let Body::Places { .. } = body else {
            return Ok(frames.compress(page, level, out)?);
        };
        let is_large = page.len() >= NOISY_PAGE_MIN;
        if self.is_useless && is_large && !number.is_multiple_of(LOOK_EVERY) {
            return Ok(frames.compress_behind(page, page.len(), level, out)?);
        }
        frames.compress(page, level, out)?;
        if is_large {
            self.is_useless = out.len() + page.len() / GAIN > page.len();
        }
        Ok(())
    }
}

/// A data page.
struct Data<'a> {
    compressed: &'a [u8],
    uncompressed: usize,
    encoding: Encoding,
    rows: usize,
    nulls: usize,
    bounds: Bounds,
    /// Bytes of its texts.
    text: Option<usize>,
}

/// The pages of a chunk, and what is said about them.
struct Pages<'a> {
    column: &'a Arc<ColumnDescriptor>,
    compression: Compression,
    sink: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    encodings: Vec<PageEncodingStats>,
    dictionary_offset: Option<i64>,
    data_offset: Option<i64>,
    index: ColumnIndexBuilder,
    offsets: OffsetIndexBuilder,
    /// Whether page bounds have only risen so far, and only fallen.
    ascend: bool,
    descend: bool,
    last: Bounds,
    rows: usize,
    text: Option<usize>,
    facts: Facts,
}

impl<'a> Pages<'a> {
    fn new(column: &'a Arc<ColumnDescriptor>, level: i32) -> Result<Self, ParquetError> {
        Ok(Self {
            column,
            compression: Compression::ZSTD(ZstdLevel::try_new(level)?),
            sink: TrackedWrite::new(Vec::new()),
            uncompressed: 0,
            encodings: Vec::new(),
            dictionary_offset: None,
            data_offset: None,
            index: ColumnIndexBuilder::new(column.physical_type()),
            offsets: OffsetIndexBuilder::new(),
            ascend: true,
            descend: true,
            last: Bounds::None,
            rows: 0,
            text: None,
            facts: Facts::NONE,
        })
    }

    /// Writes a page; its offset and size with its header.
    fn write(&mut self, page: Page, uncompressed: usize) -> Result<(i64, i32), ParquetError> {
        let (page_type, encoding) = (page.page_type(), page.encoding());
        match self.encodings.last_mut() {
            Some(last) if last.page_type == page_type && last.encoding == encoding => {
                last.count += 1;
            }
            _ => self.encodings.push(PageEncodingStats {
                page_type,
                encoding,
                count: 1,
            }),
        }
        let page = CompressedPage::new(page, uncompressed);
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.uncompressed += written.uncompressed_size;
        let too_large = |_| ParquetError::General("a page has more than 2 GiB".to_owned());
        Ok((
            i64::try_from(written.offset).unwrap_or(i64::MAX),
            i32::try_from(written.compressed_size).map_err(too_large)?,
        ))
    }

    fn dictionary(
        &mut self,
        compressed: &[u8],
        uncompressed: usize,
        values: usize,
    ) -> Result<(), ParquetError> {
        let page = Page::DictionaryPage {
            buf: Bytes::copy_from_slice(compressed),
            num_values: u32::try_from(values).unwrap_or(u32::MAX),
            encoding: Encoding::PLAIN,
            // It is, but readers need not be told to rely on it.
            is_sorted: false,
        };
        let (offset, _) = self.write(page, uncompressed)?;
        self.dictionary_offset = Some(offset);
        Ok(())
    }

    fn data(&mut self, data: Data<'_>) -> Result<(), ParquetError> {
        let page = Page::DataPage {
            buf: Bytes::copy_from_slice(data.compressed),
            num_values: u32::try_from(data.rows).unwrap_or(u32::MAX),
            encoding: data.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (offset, size) = self.write(page, data.uncompressed)?;
        self.data_offset.get_or_insert(offset);
        self.offsets.append_row_count(data.rows as i64);
        self.offsets.append_offset_and_size(offset, size);
        let text = data.text.map(|bytes| bytes as i64);
        self.offsets.append_unencoded_byte_array_data_bytes(text);
        self.text = data.text.map(|bytes| bytes + self.text.unwrap_or(0));
        let nulls = data.nulls as i64;
        if data.nulls == data.rows {
            self.index.append(true, Vec::new(), Vec::new(), nulls);
        } else if let Some((least, greatest)) = data.bounds.bytes() {
            self.index.append(false, least, greatest, nulls);
            if let Some((least, greatest)) = data.bounds.compare(&self.last) {
                self.ascend &= least.is_ge() && greatest.is_ge();
                self.descend &= least.is_le() && greatest.is_le();
            }
            self.last = data.bounds.clone();
        } else {
            // Values that cannot be compared: there is no index then.
            self.index.to_invalid();
        }
        let page_levels = self.levels(data.rows - data.nulls, data.nulls);
        self.index.append_histograms(&None, &page_levels);
        self.rows += data.rows;
        self.facts.add(Facts {
            nulls: data.nulls,
            bounds: data.bounds,
            are_bounded: true,
        });
        Ok(())
    }

    /// How often each definition level occurs, where there are any.
    fn levels(&self, present: usize, nulls: usize) -> Option<LevelHistogram> {
        let counts = || LevelHistogram::from(vec![nulls as i64, present as i64]);
        (self.column.max_def_level() == 1).then(counts)
    }

    fn close(mut self, bloom: Option<Sbbf>, are_bounded: bool) -> Result<Chunk, ParquetError> {
        let levels = self.levels(self.rows - self.facts.nulls, self.facts.nulls);
        let content = self.sink.into_inner()?;
        let bytes = content.len() as u64;
        // Levels are runs, also where there are none.
        let encodings = self.encodings.iter().map(|pages| &pages.encoding);
        let encodings = EncodingMask::new_from_encodings(encodings.chain([&Encoding::RLE]));
        let column_type = self.column.physical_type();
        let nulls = self.facts.nulls as u64;
        let metadata = ColumnChunkMetaData::builder(Arc::clone(self.column))
            .set_compression(self.compression)
            .set_encodings_mask(encodings)
            .set_page_encoding_stats(self.encodings)
            .set_total_compressed_size(bytes as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(self.data_offset.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_offset)
            .set_statistics(self.facts.bounds.statistics(column_type, nulls))
            .set_unencoded_byte_array_data_bytes(self.text.map(|bytes| bytes as i64))
            .set_definition_level_histogram(levels)
            .build()?;
        self.index
            .set_boundary_order(match (self.ascend, self.descend) {
                (true, _) => BoundaryOrder::ASCENDING,
                (false, true) => BoundaryOrder::DESCENDING,
                (false, false) => BoundaryOrder::UNORDERED,
            });
        let column_index = if self.index.valid() {
            Some(self.index.build()?)
        } else {
            None
        };
        let close = ColumnCloseResult {
            bytes_written: bytes,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: bloom,
            column_index,
            offset_index: Some(self.offsets.build()),
        };
        self.facts.are_bounded = are_bounded;
        Ok(Chunk {
            content: Bytes::from(content),
            close,
            facts: self.facts,
        })
    }
}
