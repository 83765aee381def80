//! The dictionaries of one telemetry QUIC stream.
//!
//! A dictionary that cannot be read does not end the QUIC stream, since where the next message
//! begins is known: the batches that need it are refused until a good one replaces it.

use std::collections::BTreeMap;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use arrow_ipc::MessageHeader;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use quiver_model::BatchRefusal;

use super::{
    decode::{decode_body, shielded},
    decompress::Decompressor,
    guard::{malformed, open, too_large},
    schema::SchemaPlan,
};
use crate::limits::{
    DICTIONARIES_BYTES_MAX, DICTIONARY_BYTES_MAX, DICTIONARY_VALUES_MAX, DecodeLimits,
};

#[derive(Debug)]
struct Held {
    values: ArrayRef,
    /// What it keeps in memory: the message it came in, if its buffers still point there, and
    /// what was decoded.
    bytes: usize,
}

/// The dictionaries that batches may refer to, by id.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries {
    types: BTreeMap<i64, DataType>,
    held: BTreeMap<i64, Result<Held, BatchRefusal>>,
}

impl Dictionaries {
    /// No dictionaries yet, for the columns of `plan`.
    pub(crate) fn new(plan: &SchemaPlan) -> Result<Self, BatchRefusal> {
        let mut types = BTreeMap::new();
        for (field, id) in plan.schema.fields().iter().zip(&plan.dictionary_ids) {
            let (Some(id), DataType::Dictionary(_, value_type)) = (id, field.data_type()) else {
                continue;
            };
            let known = types.entry(*id).or_insert_with(|| (**value_type).clone());
            if *known != **value_type {
                return Err(malformed(format!(
                    "dictionary {id} is {known} for one column and {value_type} for another"
                )));
            }
        }
        Ok(Self {
            types,
            held: BTreeMap::new(),
        })
    }

    /// Bytes of memory that all of them take.
    pub(crate) fn bytes(&self) -> usize {
        self.held.values().flatten().map(|held| held.bytes).sum()
    }

    /// The values of dictionary `id`.
    pub(crate) fn values(&self, id: i64, column: &str) -> Result<&ArrayRef, BatchRefusal> {
        match self.held.get(&id) {
            Some(Ok(held)) => Ok(&held.values),
            Some(Err(refusal)) => Err(refusal.clone()),
            None => Err(malformed(format!(
                "dictionary {id} of column {column:?} was not sent before the batch"
            ))),
        }
    }

    /// Takes an encapsulated dictionary message: a new dictionary, one that replaces another, or
    /// values to append (a delta).
    pub(crate) fn handle(
        &mut self,
        message: &Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<(), BatchRefusal> {
        let (id, is_delta) = shielded(|| {
            let (message, _) = open(message, &DecodeLimits::DICTIONARY)?;
            let header = message
                .header_as_dictionary_batch()
                .ok_or_else(|| malformed("the dictionary message is empty"))?;
            Ok((header.id(), header.isDelta()))
        })?;
        let value_type = self
            .types
            .get(&id)
            .ok_or_else(|| malformed(format!("no column uses dictionary {id}")))?
            .clone();
        let previous = self.held.remove(&id);
        let outcome = self
            .read(message, &value_type, decompressor)
            .and_then(|read| match (is_delta, previous) {
                (false, _) => Ok(read),
                (true, Some(Ok(base))) => append(&base, &read),
                (true, Some(Err(refusal))) => Err(refusal),
                (true, None) => Err(malformed(format!(
                    "a delta for dictionary {id}, which was not sent before"
                ))),
            });
        let outcome = outcome.and_then(|read| {
            let others: usize = self.held.values().flatten().map(|held| held.bytes).sum();
            if others + read.bytes > DICTIONARIES_BYTES_MAX {
                return Err(too_large(
                    "bytes of all dictionaries",
                    others + read.bytes,
                    DICTIONARIES_BYTES_MAX,
                ));
            }
            Ok(read)
        });
        self.held.insert(id, outcome);
        Ok(())
    }

    fn read(
        &self,
        message: &Bytes,
        value_type: &DataType,
        decompressor: &mut Decompressor,
    ) -> Result<Held, BatchRefusal> {
        shielded(|| {
            let limits = &DecodeLimits::DICTIONARY;
            let message_bytes = message.len();
            let (message, body) = open(message, limits)?;
            if message.header_type() != MessageHeader::DictionaryBatch {
                return Err(malformed("a dictionary message was expected"));
            }
            let header = message
                .header_as_dictionary_batch()
                .and_then(|header| header.data())
                .ok_or_else(|| malformed("the dictionary message is empty"))?;
            let schema = Schema::new(vec![Field::new("dictionary", value_type.clone(), true)]);
            let plan = SchemaPlan {
                schema: schema.into(),
                dictionary_ids: vec![None],
            };
            let (batch, decoded_bytes) =
                decode_body(&plan, &Self::default(), header, body, limits, decompressor)?;
            Ok(Held {
                values: batch.column(0).clone(),
                bytes: message_bytes + decoded_bytes,
            })
        })
    }
}

fn append(base: &Held, delta: &Held) -> Result<Held, BatchRefusal> {
    let values = base.values.len() + delta.values.len();
    if values > DICTIONARY_VALUES_MAX {
        return Err(too_large(
            "values of a dictionary",
            values,
            DICTIONARY_VALUES_MAX,
        ));
    }
    let bytes = text_bytes(&base.values)
        + text_bytes(&delta.values)
        + 8 * (values + 1)
        + values.div_ceil(8);
    if bytes > DICTIONARY_BYTES_MAX {
        return Err(too_large(
            "bytes of a dictionary",
            bytes,
            DICTIONARY_BYTES_MAX,
        ));
    }
    let values = arrow_select::concat::concat(&[&*base.values, &*delta.values])
        .map_err(|error| malformed(error.to_string()))?;
    Ok(Held { values, bytes })
}

/// Bytes of text that an array of texts refers to.
fn text_bytes(values: &ArrayRef) -> usize {
    match values.data_type() {
        DataType::Utf8 => span(
            values
                .as_string::<i32>()
                .value_offsets()
                .iter()
                .map(|offset| i64::from(*offset)),
        ),
        DataType::LargeUtf8 => span(values.as_string::<i64>().value_offsets().iter().copied()),
        _ => 0,
    }
}

fn span(mut offsets: impl DoubleEndedIterator<Item = i64>) -> usize {
    let first = offsets.next().unwrap_or(0);
    usize::try_from(offsets.next_back().unwrap_or(first) - first).unwrap_or(0)
}

/// Bytes that the dictionary columns of a batch take once each row has its own text, which is how
/// they are stored.
pub fn expanded_dictionary_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .filter_map(|column| {
            let values = column.as_any_dictionary_opt()?.values();
            Some(expanded_bytes(column, values))
        })
        .fold(0, usize::saturating_add)
}

/// Bytes that a dictionary column takes once each row has its own text: a few keys may stand for
/// very much text, so it counts against the decoded size of the batch.
pub(crate) fn expanded_bytes(column: &ArrayRef, values: &ArrayRef) -> usize {
    let Some(column) = column.as_any_dictionary_opt() else {
        return 0;
    };
    if values.is_empty() {
        return 4 * column.len();
    }
    let lengths: Vec<usize> = match values.data_type() {
        DataType::Utf8 => values
            .as_string::<i32>()
            .value_offsets()
            .windows(2)
            .map(pair_length)
            .collect(),
        _ => values
            .as_string::<i64>()
            .value_offsets()
            .windows(2)
            .map(pair_length)
            .collect(),
    };
    let nulls = column.nulls();
    column
        .normalized_keys()
        .into_iter()
        .enumerate()
        .filter(|(row, _)| nulls.is_none_or(|nulls| nulls.is_valid(*row)))
        .map(|(_, key)| lengths.get(key).copied().unwrap_or(0) + 4)
        .fold(0, usize::saturating_add)
}

fn pair_length<T: Copy + Into<i64>>(pair: &[T]) -> usize {
    match pair {
        [start, end] => usize::try_from((*end).into() - (*start).into()).unwrap_or(0),
        _ => 0,
    }
}
