//! A registry change between ingest and replay: the log carries the verdicts of ingest, and
//! recovery obeys them whatever the registry says by then.

use std::sync::Arc;

use arrow_array::{
    Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampSecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quiver_client::Settled;
use quiver_model::{DeviceId, SenderId, SenderKind, StreamName};
use quiver_runtime::{
    EngineOptions,
    registry::{RegistryChange, RegistryEntry},
};

use crate::{
    contents::read,
    device::{Device, sender_of},
    machine::{Kill, options},
    model::{Contents, device_name, seen_of},
    seeded::EPOCH,
    simulate::simulate,
    stage::Stage,
};

fn put(device: usize, gateways: &[&str]) -> RegistryChange {
    let mut entry = RegistryEntry::new(&sender_of(device), EPOCH);
    entry.gateways = gateways
        .iter()
        .map(|gateway| (*gateway).to_owned())
        .collect();
    RegistryChange::Put { entry }
}

/// A row of each of three devices.
fn rows_of_three() -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("ts", time, false),
        Field::new("device", DataType::Utf8, false),
        Field::new("batch", DataType::Int64, false),
        Field::new("row", DataType::Int64, false),
        Field::new("seen", DataType::Timestamp(TimeUnit::Second, None), true),
        Field::new("value", DataType::Float64, false),
    ]);
    let devices: Vec<String> = (0..3).map(device_name).collect();
    let times = TimestampMicrosecondArray::from(vec![EPOCH.as_micros(); 3]);
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(StringArray::from(devices)),
        Arc::new(Int64Array::from(vec![0; 3])),
        Arc::new(Int64Array::from_iter_values(0..3)),
        Arc::new(
            (0..3)
                .map(|row| seen_of(0, row))
                .collect::<TimestampSecondArray>(),
        ),
        Arc::new(Float64Array::from(vec![1.0; 3])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// Devices of the rows that are stored, and of those that are in `rejects`.
async fn stored_and_rejected(stage: &Stage) -> (Vec<String>, Vec<i64>) {
    let progress = stage.machine.engine().progress();
    let q = progress.committed();
    progress.wait_applied(q).await;
    let tables = stage.machine.engine().tables();
    let Contents { rows, rejects } = read(tables, &stage.machine.archive, q);
    let mut devices: Vec<String> = rows.into_iter().map(|row| row.device).collect();
    devices.sort();
    (
        devices,
        rejects.into_iter().map(|reject| reject.batch).collect(),
    )
}

#[test]
fn what_a_gateway_was_allowed_is_replayed_as_it_was_judged() {
    simulate(async {
        let options = EngineOptions {
            enroll_unknown: false,
            ..options()
        };
        let mut stage = Stage::set(3, options, 0).await;
        let gateway = SenderId {
            kind: SenderKind::Gateway,
            id: DeviceId::new("gw").unwrap(),
        };
        let engine = stage.machine.engine();
        let entry = RegistryEntry::new(&gateway, EPOCH);
        engine
            .change_registry(RegistryChange::Put { entry })
            .await
            .unwrap();
        // It may speak for the first two; the third is another gateway's.
        engine.change_registry(put(0, &["gw"])).await.unwrap();
        engine.change_registry(put(1, &["gw"])).await.unwrap();
        engine.change_registry(put(2, &["other"])).await.unwrap();

        let mut client = Device::with_identity(&stage.machine, &stage.world, 0, 3, &gateway);
        client.start().await;
        let readings = client.client().stream("readings").unwrap();
        let settled = readings
            .send(&rows_of_three())
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(settled, Settled::Stored);
        let before = stored_and_rejected(&stage).await;
        assert_eq!(before.0, [device_name(0), device_name(1)]);
        assert_eq!(before.1.len(), 1);

        // Now it is the other way round.
        let engine = stage.machine.engine();
        engine.change_registry(put(0, &["other"])).await.unwrap();
        let revoked = RegistryChange::Revoke {
            id: device_name(1),
            kind: "device".to_owned(),
        };
        engine.change_registry(revoked).await.unwrap();
        engine.change_registry(put(2, &["gw"])).await.unwrap();
        let ledgers = engine.ledgers().await;

        for kill in [Kill::Power, Kill::Process] {
            stage.machine.kill(kill).await;
            stage.machine.options.shard_count += 1;
            stage.machine.start().await;
            let table = stage
                .machine
                .engine()
                .tables()
                .table(&StreamName::rejects());
            assert!(table.is_some());
            assert_eq!(stored_and_rejected(&stage).await, before);
            assert_eq!(stage.machine.engine().ledgers().await, ledgers);
        }
        let registry = &stage.machine.engine().control().registry;
        assert!(registry.may_speak_for(&gateway, &device_name(2)));
        assert!(!registry.may_speak_for(&gateway, &device_name(1)));
    });
}
