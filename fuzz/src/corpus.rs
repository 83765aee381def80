//! Inputs for running targets without a fuzzer: the committed corpus, and changes of it that a
//! seed decides.

use std::{fs, io, path::Path};

/// The committed inputs of `target`, by file name.
///
/// # Errors
/// When `corpus/<target>` cannot be read.
pub fn inputs(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        inputs.push((name, fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// `input` with one to four changes that `seed` decides: a byte, a little-endian number, a run cut
/// out, doubled, or zeroed, or the end cut off.
pub fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    /// Numbers that lengths and offsets are forged with.
    const NUMBERS: [i64; 8] = [
        0,
        -1,
        1,
        i64::MAX,
        i64::MIN,
        i32::MAX as i64,
        1 << 46,
        65_537,
    ];
    let mut random = SplitMix(seed);
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        let length = random.below(32).min(bytes.len() - at);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let width = [2, 4, 8][random.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let run = bytes[at..at + length].to_vec();
                bytes.splice(at..at, run);
            }
            4 => bytes[at..at + length].fill(0),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

struct SplitMix(u64);

impl SplitMix {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
