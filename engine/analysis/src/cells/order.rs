//! Which of two values is less, and which of two sums is exact.

/// Adds to a sum whose lost digits are kept beside it (Neumaier's variant of Kahan's summation,
/// with Knuth's branch-free TwoSum).
#[inline]
pub(crate) fn add(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    let of_value = total - *sum;
    *lost += (*sum - (total - of_value)) + (value - of_value);
    *sum = total;
}

/// Adds columns of values to a sum each, as [`add`] does. They go abreast, for each sum has to wait
/// for itself only. Not inlined: beside what stores sum and loss together, the compiler would keep
/// both in one register, and take them apart for each value.
#[inline(never)]
#[expect(
    clippy::needless_range_loop,
    reason = "rows are taken of all columns at once"
)]
pub(crate) fn add_columns<const N: usize>(
    sums: &mut [f64; N],
    losses: &mut [f64; N],
    columns: [&[f64]; N],
) {
    let rows = columns.iter().map(|values| values.len()).min();
    let rows = rows.unwrap_or_default();
    let columns = columns.map(|values| &values[..rows]);
    let (mut held, mut lost) = (*sums, *losses);
    for row in 0..rows {
        for at in 0..N {
            add(&mut held[at], &mut lost[at], columns[at][row]);
        }
    }
    (*sums, *losses) = (held, lost);
}

/// The sum with what was lost. An infinite sum has lost everything that could be told.
#[inline]
pub(crate) fn total(sum: f64, lost: f64) -> f64 {
    let total = sum + lost;
    if total.is_nan() { sum } else { total }
}

/// Whether a float is less than another; NaN is above all numbers.
#[inline]
pub(crate) fn less(value: f64, than: f64) -> bool {
    value < than || (than.is_nan() && !value.is_nan())
}

/// Whether two floats are in the same place of that order.
#[inline]
pub(crate) fn same(value: f64, other: f64) -> bool {
    value == other || (value.is_nan() && other.is_nan())
}

/// A number as it is, and one that is none always with the same bits, as
/// [`WriteBytes::put_computed`](crate::bytes::WriteBytes::put_computed) has it.
#[inline]
pub(crate) fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}
