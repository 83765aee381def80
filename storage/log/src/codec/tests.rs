use proptest::prelude::*;
use quiver_model::RejectCode;

use super::*;
use crate::record::ControlKind;

fn record_strategy() -> impl Strategy<Value = Record> {
    let sender = proptest::option::of((0..3_u8, "[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}"));
    let stream = proptest::option::of("[a-z][a-z0-9_]{0,62}");
    let refused = proptest::collection::vec((any::<u32>(), 0..RejectCode::ALL.len()), 0..20);
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<i64>(),
    );
    let counts = (any::<u32>(), any::<u32>(), any::<u32>());
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (
        any::<(u8, u8, bool)>(),
        sender,
        stream,
        refused,
        numbers,
        counts,
        payload,
    )
        .prop_map(
            |((kind, encoding, skipping), sender, stream, refused, numbers, counts, payload)| {
                Record {
                    kind: RecordKind::from_number(kind),
                    encoding: Encoding::from_number(encoding),
                    wire_schema: SchemaId(numbers.0),
                    schema: SchemaId(numbers.1),
                    producer_kind: if skipping {
                        ProducerKind::Skipping
                    } else {
                        ProducerKind::Dense
                    },
                    sender: sender.map(|(kind, id)| SenderId {
                        kind: [
                            SenderKind::Device,
                            SenderKind::Gateway,
                            SenderKind::Operator,
                        ][usize::from(kind)],
                        id: DeviceId::new(&id).unwrap(),
                    }),
                    producer: Producer(numbers.2),
                    stream: stream.map(|name| StreamName::new(&name).unwrap()),
                    sequence: Sequence(numbers.3),
                    session: SessionId(numbers.4),
                    time: Timestamp(numbers.5),
                    rows: counts.0,
                    verdict: Verdict {
                        refused: refused
                            .into_iter()
                            .map(|(row, code)| RefusedRow {
                                row,
                                code: RejectCode::ALL[code],
                            })
                            .collect(),
                        counts: VerdictCounts {
                            device_mismatch: counts.1,
                            truncated_timestamps: counts.2,
                        },
                    },
                    payload: Bytes::from(payload),
                }
            },
        )
}

proptest! {
    #[test]
    fn a_record_decodes_to_itself_within_its_announced_bound(record in record_strategy()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        prop_assert!(bytes.len() <= encoded_bytes_bound(&record));
        prop_assert!(bytes.len() >= RECORD_BYTES_MIN);
        let (decoded, taken) = decode(&Bytes::from(bytes.clone())).unwrap();
        prop_assert_eq!(taken, bytes.len());
        prop_assert_eq!(decoded, record);
    }

    #[test]
    fn no_prefix_of_a_record_decodes(record in record_strategy()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        for length in 0..bytes.len() {
            prop_assert!(decode(&Bytes::copy_from_slice(&bytes[..length])).is_err());
        }
    }

    #[test]
    fn a_flipped_header_bit_is_noticed(record in record_strategy(), place in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let header_bytes = decode_head(&bytes).unwrap().header_bytes;
        let bit = place.index(header_bytes * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&Bytes::from(bytes)).is_err());
    }

    #[test]
    fn arbitrary_bytes_with_a_matching_checksum_never_panic(
        mut header in proptest::collection::vec(any::<u8>(), RECORD_BYTES_MIN..400),
        version_one in any::<bool>(),
    ) {
        let length = header.len() as u32;
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..8].copy_from_slice(&length.to_le_bytes());
        if version_one {
            header[12] = RECORD_VERSION;
        }
        let crc = header_crc(&header);
        header[8..12].copy_from_slice(&crc.to_le_bytes());
        let _ = decode(&Bytes::from(header));
    }
}

#[test]
fn kinds_and_encodings_keep_their_numbers() {
    let kinds: Vec<u8> = (0..=255_u8)
        .filter(|number| !matches!(RecordKind::from_number(*number), RecordKind::Unknown(_)))
        .collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 32, 33, 34, 35, 36, 37, 38, 39]);
    assert!((0..=255).all(|number| RecordKind::from_number(number).number() == number));
    assert!((0..=255).all(|number| Encoding::from_number(number).number() == number));
    assert_eq!(
        RecordKind::from_number(33),
        RecordKind::Control(ControlKind::ClockStepped)
    );
}

#[test]
fn a_record_of_a_later_version_says_so() {
    let mut bytes = Vec::new();
    encode(
        &Record::control(RecordKind::Control(ControlKind::Tick), Timestamp(1)),
        &mut bytes,
    );
    bytes[12] = 2;
    let header_bytes = bytes.len();
    let crc = header_crc(&bytes[..header_bytes]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(
        decode(&Bytes::from(bytes)).unwrap_err(),
        RecordError::Version(2)
    );
}

#[test]
fn a_header_may_have_bytes_that_this_version_does_not_know() {
    let record = Record::control(RecordKind::Control(ControlKind::Tick), Timestamp(1));
    let mut bytes = Vec::new();
    encode(&record, &mut bytes);
    bytes.extend_from_slice(b"later");
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    let crc = header_crc(&bytes);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode(&Bytes::from(bytes)).unwrap().0, record);
}
