//! Who rows are of: the column `device` of gateways and operators, and its name in a device's own
//! rows. Names are looked at once for each that is there, not once for each row.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, StringArray, UInt32Array, cast::AsArray,
    types::Int32Type,
};
use arrow_cast::cast;
use arrow_schema::DataType;

use crate::{BatchRefusal, DeviceId, RejectCode, normalise::malformed, recurring::Recurring};

/// How many rows of a device's own batch name another one.
pub(crate) fn count_mismatches(column: &ArrayRef, identity: &str) -> u32 {
    let Ok(text) = cast(column, &DataType::Utf8) else {
        return column.len() as u32;
    };
    let text: &StringArray = text.as_string();
    text.iter()
        .filter(|value| value.is_some_and(|value| value != identity))
        .count() as u32
}

fn text(column: &ArrayRef) -> Result<StringArray, BatchRefusal> {
    let text = cast(column, &DataType::Utf8)
        .map_err(|error| BatchRefusal::new(RejectCode::MalformedBatch, error.to_string()))?;
    Ok(text.as_string::<i32>().clone())
}

/// The devices that rows name, of which `kept` passed the judgement (`None` for all of them).
///
/// # Errors
/// If one of those rows names none, or what cannot be a device: the judgement was another batch's.
pub(crate) fn named_devices(
    column: &ArrayRef,
    kept: Option<&UInt32Array>,
) -> Result<DictionaryArray<Int32Type>, BatchRefusal> {
    let mut wrong = None;
    let is_kept =
        |row: usize| kept.is_none_or(|kept| kept.values().binary_search(&(row as u32)).is_ok());
    let devices = judge_devices(column, &|_| true, |row| {
        if wrong.is_none() && is_kept(row) {
            wrong = Some(row);
        }
    })?;
    match wrong {
        Some(row) => Err(malformed(format!("row {row} names no device"))),
        None => Ok(devices),
    }
}

/// The devices that rows name, one dictionary entry for each, in order of appearance; `refuse` is
/// told each row that names none (it gets the first), what cannot be a device, or one that the
/// sender may not speak for.
pub(crate) fn judge_devices(
    column: &ArrayRef,
    may_speak_for: &dyn Fn(&str) -> bool,
    mut refuse: impl FnMut(usize),
) -> Result<DictionaryArray<Int32Type>, BatchRefusal> {
    let devices = text(column)?;
    let mut names = Recurring::default();
    // By number of the name.
    let mut is_allowed: Vec<bool> = Vec::new();
    let mut keys: Vec<i32> = Vec::with_capacity(devices.len());
    for row in 0..devices.len() {
        if devices.is_null(row) {
            refuse(row);
            keys.push(0);
            continue;
        }
        let device = devices.value(row);
        let number = names.number(device);
        if number == is_allowed.len() {
            is_allowed.push(DeviceId::is_well_formed(device) && may_speak_for(device));
        }
        if !is_allowed[number] {
            refuse(row);
        }
        // There are no more names than rows, and rows are counted in 32 bits.
        keys.push(number as i32);
    }
    // Where no row names any, the key of all needs something to point at; without rows there is
    // nobody, and no shard to tell.
    let names = match names.names() {
        [] if !keys.is_empty() => &[""],
        names => names,
    };
    let names = StringArray::from_iter_values(names);
    DictionaryArray::try_new(Int32Array::from(keys), Arc::new(names))
        .map_err(|error| malformed(error.to_string()))
}

/// The sender's own rows.
pub(crate) fn constant_device(
    device: &DeviceId,
    rows: usize,
) -> Result<DictionaryArray<Int32Type>, BatchRefusal> {
    DictionaryArray::try_new(
        Int32Array::from(vec![0; rows]),
        Arc::new(StringArray::from(vec![device.as_str()])),
    )
    .map_err(|error| malformed(error.to_string()))
}
