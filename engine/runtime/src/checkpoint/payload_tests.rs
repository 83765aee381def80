use std::{collections::BTreeMap, sync::Arc};

use quiver_hot::{LastValues, MemoryBudget, MemoryLimits, Tables};
use quiver_model::{
    DeviceId, ManualClock, Producer, ProducerKind, SenderId, Sequence, ShardId, StreamName,
};

use super::*;
use crate::{
    Ledger, Metrics, Progress,
    commit::AppendQueue,
    shard::{ShardImage, ShardParts},
};

fn shards(count: u16) -> Vec<Shard> {
    let limits = MemoryLimits {
        device: 1 << 20,
        derived: 1 << 20,
    };
    let (queue, _) = AppendQueue::new();
    let parts = ShardParts {
        tables: Arc::new(Tables::new(count)),
        last_values: Arc::new(LastValues::new(count)),
        budget: MemoryBudget::new(limits),
        metrics: Arc::new(Metrics::default()),
        progress: Arc::new(Progress::new(count, Position(0))),
        clock: Arc::new(ManualClock::new(Timestamp(0))),
        queue,
    };
    (0..count)
        .map(|id| {
            Shard::new(
                ShardId(id),
                parts.clone(),
                Position(0),
                ShardImage::default(),
            )
        })
        .collect()
}

fn device(index: u64) -> SenderId {
    SenderId::device(DeviceId::new(&format!("truck_{index}")).unwrap())
}

fn state(shards: &[Shard]) -> CheckpointState {
    let registry = Registry::default();
    for index in 0..20 {
        let entry = RegistryEntry::new(&device(index), Timestamp(3));
        registry.apply(&RegistryChange::Put { entry });
    }
    CheckpointState {
        position: Position(7),
        catalog: None,
        registry: registry.freeze(),
        damage: DamageImage::default(),
        images: shards.iter().map(Shard::image).collect(),
        replay_from: Position(3),
        record_time: Timestamp(9),
    }
}

fn written(state: &CheckpointState) -> Vec<u8> {
    let mut payload = Vec::new();
    state
        .write(&mut |bytes| {
            payload.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    payload
}

fn ledgers(shards: &[Shard]) -> BTreeMap<SenderId, Ledger> {
    crate::engine::merge_ledgers(shards.iter().map(Shard::ledgers))
}

#[test]
fn a_payload_is_read_as_it_was_written_and_a_cut_one_is_refused() {
    let mut before = shards(2);
    for index in 0..20 {
        let sender = device(index);
        let shard = &mut before[usize::from(sender.shard(2).get())];
        let key = (StreamName::new("readings").unwrap(), Producer(index));
        let next = Sequence(index + 1);
        shard
            .sender(&sender)
            .settle(&key, ProducerKind::Dense, next, None, Timestamp(1), 0);
    }
    let payload = written(&state(&before));
    let mut read = StoredCheckpoint::decode(Position(7), payload.clone()).unwrap();
    assert_eq!(
        (read.replay_from, read.record_time),
        (Position(3), Timestamp(9))
    );
    let registry = Registry::default();
    read.restore_registry(&registry).unwrap();
    assert_eq!(registry.len(), 20);
    for count in [1, 2, 3] {
        let mut after = shards(count);
        let mut read = StoredCheckpoint::decode(Position(7), payload.clone()).unwrap();
        read.restore_identities(&mut after).unwrap();
        for index in 0..20 {
            let sender = device(index);
            let shard = &mut after[usize::from(sender.shard(count).get())];
            let state = shard.sender(&sender);
            let durable: Vec<_> = state.pairs.values().map(|pair| pair.durable).collect();
            assert_eq!(durable, [Sequence(index + 1)]);
        }
    }
    for cut in 0..payload.len() {
        assert!(
            StoredCheckpoint::decode(Position(7), payload[..cut].to_vec()).is_err(),
            "{cut}"
        );
    }
    let longer = [&payload[..], &[0]].concat();
    assert!(StoredCheckpoint::decode(Position(7), longer).is_err());
    let later = [&[3], &payload[1..]].concat();
    let error = StoredCheckpoint::decode(Position(7), later).err().unwrap();
    assert!(error.to_string().contains("later program"), "{error}");
}

/// As version 1 was written.
fn old_payload() -> Vec<u8> {
    let header = serde_json::json!({
        "replay_from": 3, "record_time_us": 9, "catalog": null,
        "registry": [
            { "id": "truck_1", "kind": "device", "state": "active", "enrolled_us": 5,
              "gateways": ["gw_1"], "fingerprint": "ab".repeat(32) },
            { "id": "gw_1", "kind": "gateway", "state": "revoked", "enrolled_us": 6 },
        ],
        "images": [
            { "senders": [], "ledger": [["urn:quiver:device:truck_2", {
                "stored": 4, "rejected": 1, "quarantined": 2, "batches_rejected": 0, "batches_lost": 3 }]] },
            { "senders": [{ "urn": "urn:quiver:device:truck_1", "last_session": 12, "pairs": [
                { "stream": "readings", "producer": 77, "skipping": false, "durable": 41,
                  "last_used_us": 8, "rejects_total": 2, "rejects": [[3, 103, "why"]],
                  "refused_rows": [[103, 5]] },
                { "stream": "events", "producer": 78, "skipping": true, "durable": 2,
                  "last_used_us": 9, "rejects_total": 0, "rejects": [] },
              ] }],
              "ledger": [["urn:quiver:device:truck_1", {
                "stored": 400, "rejected": 0, "quarantined": 0, "damaged": 6,
                "batches_rejected": 0, "batches_lost": 0, "batches_damaged": 1 }]] },
        ],
    });
    let header = serde_json::to_vec(&header).unwrap();
    let mut payload = vec![1];
    payload.extend((header.len() as u32).to_le_bytes());
    payload.extend(header);
    // Of each shard: no streams, behind magic and version, with their checksum.
    let mut none = b"QVLV\x01\0\0\0\0\0".to_vec();
    none.extend(crc32c_of(&none).to_le_bytes());
    for _ in 0..2 {
        payload.extend((none.len() as u32).to_le_bytes());
        payload.extend(&none);
    }
    payload
}

/// CRC32C (Castagnoli), bit by bit.
fn crc32c_of(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[test]
fn a_checkpoint_of_the_version_before_is_read() {
    let payload = old_payload();
    for cut in 0..payload.len() {
        assert!(
            StoredCheckpoint::decode(Position(7), payload[..cut].to_vec()).is_err(),
            "{cut}"
        );
    }
    let mut read = StoredCheckpoint::decode(Position(7), payload).unwrap();
    assert_eq!(read.replay_from, Position(3));
    let registry = Registry::default();
    read.restore_registry(&registry).unwrap();
    let entries = registry.all();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].fingerprint, Some("ab".repeat(32)));
    assert!(entries[0].gateways.contains("gw_1"));
    read.restore_last_values(&LastValues::new(2)).unwrap();
    let mut shards = shards(3);
    read.restore_identities(&mut shards).unwrap();
    let ledgers = ledgers(&shards);
    assert_eq!(ledgers[&device(1)].damaged, 6);
    assert_eq!(
        (ledgers[&device(2)].stored, ledgers[&device(2)].batches_lost),
        (4, 3)
    );
    let truck = device(1);
    let state = shards[usize::from(truck.shard(3).get())].sender(&truck);
    assert_eq!(state.last_session.get(), 12);
    let readings = &state.pairs[&(StreamName::new("readings").unwrap(), Producer(77))];
    assert_eq!(
        (readings.durable, readings.rejects_total),
        (Sequence(41), 2)
    );
    assert_eq!(
        (readings.rejects.len(), readings.refused_rows.total()),
        (1, 5)
    );
    let events = &state.pairs[&(StreamName::new("events").unwrap(), Producer(78))];
    assert_eq!(events.kind, ProducerKind::Skipping);
}
