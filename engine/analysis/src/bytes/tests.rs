use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn what_is_written_is_read(whole: u64, signed: i64, bits: u64, byte: u8, small: u32, text: String) {
        let mut out = Vec::new();
        out.put_varint(whole);
        out.put_signed(signed);
        out.put_f64(f64::from_bits(bits));
        out.put_byte(byte);
        out.put_bytes(text.as_bytes());
        out.put_u32(small);
        out.put_i64(signed);
        let mut from = &*out;
        prop_assert_eq!(from.varint(), Ok(whole));
        prop_assert_eq!(from.signed(), Ok(signed));
        prop_assert_eq!(from.f64().map(f64::to_bits), Ok(bits));
        prop_assert_eq!(from.byte(), Ok(byte));
        prop_assert_eq!(from.text(), Ok(&*text));
        prop_assert_eq!(from.u32(), Ok(small));
        prop_assert_eq!(from.i64(), Ok(signed));
        prop_assert_eq!(from.end(), Ok(()));
    }

    #[test]
    fn a_number_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut from = &*bytes;
        if let Ok(value) = from.varint() {
            let mut again = Vec::new();
            again.put_varint(value);
            prop_assert_eq!(&bytes[..bytes.len() - from.len()], &*again);
        }
    }

    #[test]
    fn a_count_is_of_what_can_follow(bytes in prop::collection::vec(any::<u8>(), 0..40), each in 0_usize..9) {
        let mut from = &*bytes;
        if let Ok(count) = from.count(each) {
            prop_assert!(count * each.max(1) <= from.len());
        }
    }
}

#[test]
fn what_is_damaged_is_told() {
    assert_eq!((&[][..]).byte(), Err(SavedError::Short));
    assert_eq!((&[1, 2, 3][..]).u32(), Err(SavedError::Short));
    assert_eq!((&[0x80][..]).varint(), Err(SavedError::Short));
    assert_eq!((&[9, b'a'][..]).bytes(), Err(SavedError::Short));
    assert_eq!((&[0xff; 9][..]).count(usize::MAX), Err(SavedError::Short));
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!((&most[..]).varint(), Ok(u64::MAX));
    assert_eq!((&most[..]).count(1), Err(SavedError::Short));
    for too_long in [
        &[0x80, 0][..],
        &[0xff; 11],
        &[&[0xff; 9][..], &[2]].concat(),
    ] {
        let mut from = too_long;
        assert!(matches!(from.varint(), Err(SavedError::Invalid(_))));
    }
    assert!(matches!(
        (&[1, 0xff][..]).text(),
        Err(SavedError::Invalid(_))
    ));
    assert_eq!((&[7, 7][..]).end(), Err(SavedError::Trailing(2)));
}
