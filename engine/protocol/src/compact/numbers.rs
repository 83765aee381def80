//! Columns of numbers: from the bytes of a payload straight into the buffer of an array.

use super::{
    decode::Fault,
    format::{Kind, Mode, Predecessor, Reader, decimal, power, read_xor},
};

/// Reads as many numbers as fit into `out`.
pub(super) fn read_numbers(
    kind: Kind,
    mode: Mode,
    before: &mut Predecessor,
    reader: &mut Reader<'_>,
    out: &mut [u8],
) -> Result<(), Fault> {
    macro_rules! whole {
        ($type:ty) => {
            read_whole(mode, before, reader, out, |n| {
                <$type>::try_from(n).ok().map(<$type>::to_ne_bytes)
            })
        };
    }
    match kind {
        Kind::I8 => whole!(i8),
        Kind::I16 => whole!(i16),
        Kind::I32 => whole!(i32),
        Kind::U8 => whole!(u8),
        Kind::U16 | Kind::F16 => whole!(u16),
        Kind::U32 => whole!(u32),
        Kind::F32 => read_floats(
            mode,
            before,
            reader,
            out,
            |n, power| (decimal(n, power) as f32).to_ne_bytes(),
            |bits| (bits as u32).to_ne_bytes(),
        ),
        Kind::F64 => read_floats(
            mode,
            before,
            reader,
            out,
            |n, power| decimal(n, power).to_ne_bytes(),
            u64::to_ne_bytes,
        ),
        // 64 bits wide; unsigned ones by the same bits.
        _ => read_whole(mode, before, reader, out, |n| Some(n.to_ne_bytes())),
    }
}

fn read_whole<const N: usize>(
    mode: Mode,
    before: &mut Predecessor,
    reader: &mut Reader<'_>,
    out: &mut [u8],
    narrow: impl Fn(i64) -> Option<[u8; N]>,
) -> Result<(), Fault> {
    let (slots, _) = out.as_chunks_mut::<N>();
    let mut n = before.n();
    let mut local = *reader;
    match mode {
        Mode::DeltaOfDelta(exponent) => {
            let power = power(exponent);
            let mut delta = before.delta;
            let mut slots = slots.iter_mut();
            if !before.is_set
                && let Some(first) = slots.next()
            {
                n = local.signed().ok_or(Fault::Short)?;
                *first = narrow(n.wrapping_mul(power)).ok_or(Fault::Range)?;
                before.is_set = true;
            }
            for slot in slots {
                delta = delta.wrapping_add(local.signed().ok_or(Fault::Short)?);
                n = n.wrapping_add(delta);
                *slot = narrow(n.wrapping_mul(power)).ok_or(Fault::Range)?;
            }
            before.delta = delta;
        }
        Mode::Delta(exponent) | Mode::Decimal(exponent) => {
            let power = power(exponent);
            for slot in slots {
                n = n.wrapping_add(local.signed().ok_or(Fault::Short)?);
                *slot = narrow(n.wrapping_mul(power)).ok_or(Fault::Range)?;
            }
        }
        Mode::Xor => return Err(Fault::Range),
    }
    before.value = n.cast_unsigned();
    *reader = local;
    Ok(())
}

fn read_floats<const N: usize>(
    mode: Mode,
    before: &mut Predecessor,
    reader: &mut Reader<'_>,
    out: &mut [u8],
    of_decimal: impl Fn(i64, f64) -> [u8; N],
    of_bits: impl Fn(u64) -> [u8; N],
) -> Result<(), Fault> {
    let (slots, _) = out.as_chunks_mut::<N>();
    // A copy that need not be written back for each value.
    let mut local = *reader;
    match mode {
        Mode::Decimal(exponent) => {
            let power = power(exponent) as f64;
            let mut n = before.n();
            for slot in slots {
                n = n.wrapping_add(local.signed().ok_or(Fault::Short)?);
                *slot = of_decimal(n, power);
            }
            before.value = n.cast_unsigned();
        }
        Mode::Xor => {
            let mut bits = before.value;
            for slot in slots {
                bits ^= read_xor(&mut local, N).ok_or(Fault::Short)?;
                *slot = of_bits(bits);
            }
            before.value = bits;
        }
        Mode::Delta(_) | Mode::DeltaOfDelta(_) => return Err(Fault::Range),
    }
    *reader = local;
    Ok(())
}
