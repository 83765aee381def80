//! Some rows of a column of devices.

use std::sync::Arc;

use arrow_array::{
    Array, DictionaryArray, Int32Array, StringArray, UInt32Array, cast::AsArray, types::Int32Type,
};
use arrow_schema::ArrowError;

/// Rows `rows` of devices, none of which is null, with the names of these rows only: others would
/// take memory again in each part.
pub(crate) fn gather_names(
    devices: &DictionaryArray<Int32Type>,
    rows: &UInt32Array,
) -> Result<DictionaryArray<Int32Type>, ArrowError> {
    const NEW: i32 = -1;
    let (keys, names) = (devices.keys().values(), devices.values().as_string::<i32>());
    let mut renumbered = vec![NEW; names.len()];
    let mut kept: Vec<&str> = Vec::new();
    let gathered: Vec<i32> = rows
        .values()
        .iter()
        .map(|row| {
            let key = keys[*row as usize] as usize;
            if renumbered[key] == NEW {
                renumbered[key] = kept.len() as i32;
                kept.push(names.value(key));
            }
            renumbered[key]
        })
        .collect();
    let names = StringArray::from_iter_values(kept);
    DictionaryArray::try_new(Int32Array::from(gathered), Arc::new(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_the_rows_are_kept() {
        let names = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let devices =
            DictionaryArray::try_new(Int32Array::from(vec![0, 1, 2, 2, 1]), names).unwrap();
        let gathered = gather_names(&devices, &UInt32Array::from(vec![4, 2, 3, 1])).unwrap();
        assert_eq!(gathered.keys().values(), &[0, 1, 1, 0]);
        let names: Vec<&str> = gathered
            .values()
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect();
        assert_eq!(names, ["b", "c"]);
    }
}
