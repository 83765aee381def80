//! How much memory rows take.

use arrow_array::{Array, cast::AsArray};
use arrow_schema::DataType;

/// Bytes of memory that the rows of an array take, without what its buffers hold of other rows.
pub fn array_bytes(array: &dyn Array) -> usize {
    let rows = array.len();
    let validity = if array.nulls().is_some() {
        rows.div_ceil(8)
    } else {
        0
    };
    let values = match array.data_type() {
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 => {
            let text = array.as_string::<i32>();
            let offsets = text.value_offsets();
            let bytes = match (offsets.first(), offsets.last()) {
                (Some(first), Some(last)) => usize::try_from(last - first).unwrap_or(0),
                _ => 0,
            };
            bytes + (rows + 1) * size_of::<i32>()
        }
        DataType::Dictionary(_, _) => {
            let values = array
                .as_any_dictionary_opt()
                .map_or(0, |dictionary| array_bytes(dictionary.values().as_ref()));
            values + rows * size_of::<i32>()
        }
        other => other
            .primitive_width()
            .map_or_else(|| array.get_array_memory_size(), |width| width * rows),
    };
    validity + values
}
