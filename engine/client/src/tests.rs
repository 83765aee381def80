//! Whole clients against a scripted server over real QUIC on loopback.

pub mod fake_server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quinn::Runtime;
use quiver_protocol::{ConnectionCloseCode, StreamCloseCode};

use crate::{
    Client, ClientEvent, ClientOptions, Compression, ConnectError, Connection, Disconnect,
    FlushError, Linger, MemoryDirectory, RenumberReason, SendError, Settled, SpoolOptions,
    Transport, WhenFull, Window,
};
use fake_server::FakeServer;

/// A batch whose first value says which one it is.
fn batch(value: u32) -> RecordBatch {
    let ts = Field::new(
        "ts",
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        false,
    );
    let schema = Schema::new(vec![ts, Field::new("value", DataType::Float64, true)]);
    let times =
        TimestampMicrosecondArray::from(vec![1_700_000_000_000_000; 3]).with_timezone("UTC");
    let values = Float64Array::from(vec![f64::from(value); 3]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times), Arc::new(values)]).unwrap()
}

/// The same with one field more.
fn wider_batch(value: u32) -> RecordBatch {
    let narrow = batch(value);
    let mut fields: Vec<_> = narrow.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("more", DataType::Int64, true)));
    let mut columns = narrow.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![1; 3])));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn sorted(mut values: Vec<f64>) -> Vec<u32> {
    values.sort_by(f64::total_cmp);
    values.into_iter().map(|value| value as u32).collect()
}

/// Options whose events are collected.
fn observed(mut options: ClientOptions) -> (ClientOptions, Arc<Mutex<Vec<ClientEvent>>>) {
    let events: Arc<Mutex<Vec<ClientEvent>>> = Arc::default();
    let sink = Arc::clone(&events);
    options.observer = Some(Arc::new(move |event: &ClientEvent| {
        sink.lock().unwrap().push(event.clone())
    }));
    (options, events)
}

fn spooled(options: ClientOptions, disk: &MemoryDirectory) -> ClientOptions {
    ClientOptions {
        spool: Some(SpoolOptions::with(Arc::new(disk.clone()))),
        ..options
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("in time")
}

#[tokio::test]
async fn batches_are_stored_in_order_and_each_handle_and_flush_say_so() {
    let server = FakeServer::start();
    let client = Client::connect(server.options()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    let mut handles = Vec::new();
    for value in 0..50 {
        handles.push(in_time(readings.send(&batch(value))).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        server.values("readings"),
        (0..50).map(f64::from).collect::<Vec<_>>()
    );
    for handle in handles {
        assert_eq!(in_time(handle).await.unwrap(), Settled::Stored);
    }
    let totals = client.status().totals;
    assert_eq!((totals.stored, totals.stored_rows), (50, 150));
    in_time(client.close()).await;
}

#[tokio::test]
async fn a_rejected_batch_is_reported_to_its_handle_and_the_observer_and_stops_nothing() {
    let server = FakeServer::start();
    server.with(|world| world.script.reject.insert(1));
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    let mut outcomes = Vec::new();
    for value in 0..3 {
        outcomes.push(readings.send(&batch(value)).await.unwrap());
    }
    let mut settled = Vec::new();
    for outcome in outcomes {
        settled.push(in_time(outcome).await.unwrap());
    }
    assert!(matches!(
        &settled[..],
        [
            Settled::Stored,
            Settled::Rejected { number: 3, .. },
            Settled::Stored
        ]
    ));
    assert!(
        events
            .lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, ClientEvent::Rejected { .. }))
    );
    assert_eq!(client.status().totals.rejected_rows, 3);
}

#[tokio::test]
async fn a_lost_connection_loses_and_doubles_nothing() {
    let server = FakeServer::start();
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..60 {
        if value % 20 == 7 {
            server.with(|world| {
                world.script.close_connection_after = Some((3, ConnectionCloseCode::Internal))
            });
        }
        drop(in_time(readings.send(&batch(value))).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        sorted(server.values("readings")),
        (0..60).collect::<Vec<_>>()
    );
    assert!(server.with(|world| world.script.sessions) >= 2);
    let lost = |event: &ClientEvent| {
        matches!(
            event,
            ClientEvent::Disconnected {
                reason: Disconnect::ByServer { .. },
                ..
            }
        )
    };
    assert!(events.lock().unwrap().iter().any(lost));
    assert_eq!(client.status().totals.stored, 60);
}

#[tokio::test]
async fn a_retryable_close_is_reopened_where_the_server_says() {
    let server = FakeServer::start();
    server.with(|world| {
        world.script.close_stream_after = Some((5, StreamCloseCode::StorageFull, 50))
    });
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..20 {
        drop(readings.send(&batch(value)).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        server.values("readings"),
        (0..20).map(f64::from).collect::<Vec<_>>()
    );
    assert_eq!(server.with(|world| world.script.sessions), 1);
    assert!(
        events
            .lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, ClientEvent::StreamPaused { .. }))
    );
}

#[tokio::test]
async fn a_server_that_lost_what_it_acknowledged_is_told_so_and_goes_on_behind() {
    let server = FakeServer::start();
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..5 {
        drop(readings.send(&batch(value)).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    // Restored from a backup.
    server.with(|world| {
        world
            .pairs
            .values_mut()
            .for_each(|stored| stored.batches.truncate(2))
    });
    server.with(|world| world.script.close_stream_after = Some((1, StreamCloseCode::Gap, 0)));
    server.stop();
    server.restart();
    server.with(|world| world.script.close_stream_after = None);
    drop(readings.send(&batch(5)).await.unwrap());
    in_time(client.flush()).await.unwrap();
    let lost = server.with(|world| world.pairs.values().next().unwrap().lost.clone());
    assert_eq!(lost, [(2, 5)]);
    assert!(
        events
            .lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, ClientEvent::LostByServer { .. }))
    );
}

#[tokio::test]
async fn a_producer_that_the_server_forgot_is_replaced_by_a_new_one() {
    let server = FakeServer::start();
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    drop(readings.send(&batch(0)).await.unwrap());
    in_time(client.flush()).await.unwrap();
    server.with(|world| world.pairs.clear());
    // The QUIC stream is closed for another reason; at the next one the server does not know it.
    server.with(|world| world.script.close_stream_after = Some((1, StreamCloseCode::Retry, 0)));
    drop(readings.send(&batch(1)).await.unwrap());
    server
        .wait_for(|world| {
            world
                .script
                .close_stream_after
                .is_none()
                .then(|| world.pairs.clear())
        })
        .await;
    drop(readings.send(&batch(2)).await.unwrap());
    in_time(client.flush()).await.unwrap();
    let renumbered = |event: &ClientEvent| {
        matches!(
            event,
            ClientEvent::Renumbered {
                reason: RenumberReason::UnknownToServer,
                ..
            }
        )
    };
    assert!(events.lock().unwrap().iter().any(renumbered));
    assert_eq!(sorted(server.values("readings")).last(), Some(&2));
}

#[tokio::test]
async fn what_was_spooled_without_a_server_is_sent_by_the_next_start_as_a_backlog() {
    let server = FakeServer::start();
    server.stop();
    let disk = MemoryDirectory::new();
    let client = Client::connect(spooled(server.options(), &disk))
        .await
        .unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..10 {
        drop(in_time(readings.send(&batch(value))).await.unwrap());
    }
    // Power failure: nothing but what was synced survives.
    let disk = disk.crash(|_| 0);
    drop(client);
    server.restart();
    let client = Client::connect(spooled(server.options(), &disk))
        .await
        .unwrap();
    in_time(client.connected()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    drop(readings.send(&batch(10)).await.unwrap());
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        sorted(server.values("readings")),
        (0..=10).collect::<Vec<_>>()
    );
    server.with(|world| {
        let counts: Vec<_> = world
            .pairs
            .values()
            .map(|stored| (stored.replayed, stored.batches.len()))
            .collect();
        assert!(
            counts.contains(&(true, 10)) && counts.contains(&(false, 1)),
            "{counts:?}"
        );
    });
    in_time(client.close()).await;
}

#[tokio::test]
async fn a_crash_after_sending_and_before_the_ack_doubles_nothing() {
    let server = FakeServer::start();
    server.with(|world| world.script.hold_acks = true);
    let disk = MemoryDirectory::new();
    let client = Client::connect(spooled(server.options(), &disk))
        .await
        .unwrap();
    in_time(client.connected()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..10 {
        drop(readings.send(&batch(value)).await.unwrap());
    }
    in_time(server.wait_for(|world| (world.script.received == 10).then_some(()))).await;
    let after_crash = disk.crash(|unsynced| unsynced / 2);
    drop(client);
    server.with(|world| world.script.hold_acks = false);
    let client = Client::connect(spooled(server.options(), &after_crash))
        .await
        .unwrap();
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        server.values("readings"),
        (0..10).map(f64::from).collect::<Vec<_>>()
    );
    assert_eq!(client.status().totals.stored, 10);
    assert_eq!(
        server.with(|world| (world.pairs.len(), world.script.instances.len())),
        (1, 1)
    );
}

#[tokio::test]
async fn a_spool_restored_from_an_older_copy_goes_on_under_a_new_producer() {
    let server = FakeServer::start();
    let disk = MemoryDirectory::new();
    let client = Client::connect(spooled(server.options(), &disk))
        .await
        .unwrap();
    in_time(client.connected()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    drop(readings.send(&batch(0)).await.unwrap());
    in_time(client.flush()).await.unwrap();
    let backup = disk.copy();
    for value in 1..5 {
        drop(readings.send(&batch(value)).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    in_time(client.close()).await;
    let (options, events) = observed(spooled(server.options(), &backup));
    let client = Client::connect(options).await.unwrap();
    in_time(client.connected()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 5..8 {
        drop(readings.send(&batch(value)).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        sorted(server.values("readings")),
        (0..8).collect::<Vec<_>>()
    );
    let renumbered = |event: &ClientEvent| {
        matches!(
            event,
            ClientEvent::Renumbered {
                reason: RenumberReason::ServerAhead,
                ..
            }
        )
    };
    assert!(events.lock().unwrap().iter().any(renumbered));
}

#[tokio::test]
async fn an_acknowledged_spool_is_trimmed_and_a_full_one_refuses_or_waits() {
    let server = FakeServer::start();
    server.with(|world| world.script.hold_acks = true);
    let disk = MemoryDirectory::new();
    let mut options = spooled(server.options(), &disk);
    options.spool.as_mut().unwrap().bytes_max = 1024 * 1024;
    options.compression = quiver_protocol::Compression::None;
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    let mut sent = 0;
    let refused = loop {
        match in_time(readings.send(&batch(sent))).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SendError::SpoolFull { .. }), "{refused}");
    assert!(client.status().spool_bytes <= 1024 * 1024);
    server.with(|world| world.script.hold_acks = false);
    in_time(client.flush()).await.unwrap();
    in_time(client.wait_for_status(|status| (status.spool_bytes < 256 * 1024).then_some(()))).await;
    in_time(client.close()).await;

    server.with(|world| world.script.hold_acks = true);
    let mut options = spooled(server.options(), &disk);
    let spool = options.spool.as_mut().unwrap();
    (spool.bytes_max, spool.when_full) = (1024 * 1024, WhenFull::Wait);
    options.compression = quiver_protocol::Compression::None;
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    let waits = async {
        for value in 0..sent + 100 {
            drop(readings.send(&batch(10_000 + value)).await.unwrap());
        }
    };
    tokio::pin!(waits);
    assert!(
        tokio::time::timeout(Duration::from_secs(3), &mut waits)
            .await
            .is_err(),
        "it waits"
    );
    server.with(|world| world.script.hold_acks = false);
    in_time(waits).await;
    in_time(client.flush()).await.unwrap();
    assert_eq!(server.values("readings").len() as u32, 2 * sent + 100);
}

#[tokio::test]
async fn without_a_spool_send_waits_while_the_window_is_full() {
    let server = FakeServer::start();
    server.with(|world| world.script.hold_acks = true);
    let options = ClientOptions {
        window: Window {
            bytes: 1 << 20,
            batches: 4,
        },
        ..server.options()
    };
    let client = Client::connect(options).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..4 {
        drop(in_time(readings.send(&batch(value))).await.unwrap());
    }
    let fifth = batch(4);
    let waits = readings.send(&fifth);
    tokio::pin!(waits);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut waits)
            .await
            .is_err()
    );
    assert_eq!(client.status().unsettled, 4);
    server.with(|world| world.script.hold_acks = false);
    drop(in_time(waits).await.unwrap());
    in_time(client.flush()).await.unwrap();
}

#[tokio::test]
async fn schemas_may_alternate_and_the_order_is_kept() {
    let server = FakeServer::start();
    let client = Client::connect(server.options()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..10 {
        let batch = if value % 3 == 2 {
            wider_batch(value)
        } else {
            batch(value)
        };
        drop(readings.send(&batch).await.unwrap());
    }
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        server.values("readings"),
        (0..10).map(f64::from).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn more_streams_than_the_server_allows_is_an_error_and_not_a_wait() {
    let server = FakeServer::start();
    server.with(|world| world.script.quic_streams = Some(2));
    let client = Client::connect(server.options()).await.unwrap();
    in_time(client.connected()).await.unwrap();
    for name in ["a", "b"] {
        drop(client.stream(name).unwrap().send(&batch(0)).await.unwrap());
    }
    let third = client.stream("c").unwrap().send(&batch(0)).await;
    assert!(matches!(
        third,
        Err(SendError::TooManyStreams { limit: 2, .. })
    ));
    in_time(client.flush()).await.unwrap();
}

#[tokio::test]
async fn a_refused_stream_fails_flush_and_a_refused_client_fails_connected() {
    let server = FakeServer::start();
    server.with(|world| world.script.refuse_streams = Some(StreamCloseCode::NotAllowed));
    let client = Client::connect(server.options()).await.unwrap();
    drop(
        client
            .stream("readings")
            .unwrap()
            .send(&batch(0))
            .await
            .unwrap(),
    );
    let refused = in_time(client.flush()).await;
    assert!(matches!(
        refused,
        Err(FlushError::StreamRefused { code: 6, .. })
    ));
    server.with(|world| world.script.refuse_streams = None);
    server.with(|world| {
        world.script.close_connection_after = Some((1, ConnectionCloseCode::Revoked))
    });
    drop(
        client
            .stream("other")
            .unwrap()
            .send(&batch(0))
            .await
            .unwrap(),
    );
    let refused = in_time(client.wait_for_status(|status| match &status.connection {
        Connection::Disconnected(reason) => Some(reason.clone()),
        _ => None,
    }));
    assert!(refused.await.is_refusal());
    let stranger = FakeServer::start();
    let options = ClientOptions {
        server: server.address.into(),
        ..stranger.options()
    };
    let stranger = Client::connect(options).await.unwrap();
    let refused = in_time(stranger.wait_for_status(|status| match &status.connection {
        Connection::Disconnected(reason) => Some(reason.clone()),
        _ => None,
    }));
    let refused = refused.await;
    assert!(
        matches!(refused, Disconnect::Tls { own: Some(_), .. }) && refused.is_refusal(),
        "a certificate of another CA: {refused}"
    );
}

#[tokio::test]
async fn a_closed_client_says_so_to_whoever_still_waits() {
    let server = FakeServer::start();
    server.with(|world| world.script.hold_acks = true);
    let client = Client::connect(server.options()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    let handle = readings.send(&batch(0)).await.unwrap();
    in_time(client.close()).await;
    assert!(matches!(
        readings.send(&batch(1)).await,
        Err(SendError::Closed)
    ));
    drop(readings);
    assert!(in_time(handle).await.is_err());
}

#[tokio::test]
async fn replaced_is_reported_as_such() {
    let server = FakeServer::start();
    server.with(|world| {
        world.script.close_connection_after = Some((1, ConnectionCloseCode::Replaced))
    });
    let (options, events) = observed(server.options());
    let client = Client::connect(options).await.unwrap();
    drop(
        client
            .stream("readings")
            .unwrap()
            .send(&batch(0))
            .await
            .unwrap(),
    );
    in_time(client.flush()).await.unwrap();
    let replaced = |event: &ClientEvent| {
        matches!(
            event,
            ClientEvent::Disconnected {
                reason: Disconnect::Replaced,
                ..
            }
        )
    };
    assert!(events.lock().unwrap().iter().any(replaced));
    let _: Result<(), ConnectError> = client.connected().await;
}

#[tokio::test]
async fn a_spool_whose_disk_fails_says_so_and_what_was_durable_is_still_sent() {
    let server = FakeServer::start();
    server.with(|world| world.script.hold_acks = true);
    let disk = MemoryDirectory::new();
    let client = Client::connect(spooled(server.options(), &disk))
        .await
        .unwrap();
    in_time(client.connected()).await.unwrap();
    let readings = client.stream("readings").unwrap();
    drop(readings.send(&batch(0)).await.unwrap());
    disk.fail_syncs(true);
    let failed = readings.send(&batch(1)).await;
    assert!(matches!(failed, Err(SendError::Spool(_))));
    assert!(client.status().spool_failure.is_some());
    server.with(|world| world.script.hold_acks = false);
    in_time(client.flush()).await.unwrap();
    assert_eq!(server.values("readings"), [0.0]);
}

#[tokio::test]
async fn a_client_speaks_through_the_socket_it_is_given() {
    let server = FakeServer::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let socket = quinn::TokioRuntime.wrap_udp_socket(socket).unwrap();
    let config = quinn::EndpointConfig::default();
    let options = ClientOptions {
        transport: Transport::Socket { socket, config },
        ..server.options()
    };
    let client = Client::connect(options).await.unwrap();
    in_time(client.connected()).await.unwrap();
    assert_eq!(server.with(|world| world.peer()), Some(address));
    drop(
        client
            .stream("readings")
            .unwrap()
            .send(&batch(0))
            .await
            .unwrap(),
    );
    in_time(client.flush()).await.unwrap();
}

#[tokio::test]
async fn rows_are_gathered_into_few_batches_and_each_handle_says_how_its_batch_ended() {
    for compression in [Compression::Lz4, Compression::Compact] {
        let server = FakeServer::start();
        let options = ClientOptions {
            compression,
            linger: Linger {
                time: Duration::from_millis(200),
                rows: 40,
            },
            ..server.options()
        };
        let client = Client::connect(options).await.unwrap();
        let readings = client.stream("readings").unwrap();
        let mut handles = Vec::new();
        for value in 0..100 {
            let row = batch(value).slice(0, 1);
            handles.push(in_time(readings.send_rows(&row)).await.unwrap());
        }
        // Another schema is another batch.
        handles.push(
            in_time(readings.send_rows(&wider_batch(100)))
                .await
                .unwrap(),
        );
        in_time(client.flush()).await.unwrap();
        for handle in handles {
            assert_eq!(in_time(handle).await.unwrap(), Settled::Stored);
        }
        let totals = client.status().totals;
        assert_eq!((totals.stored, totals.stored_rows), (4, 103));
        // The first value of each batch, in order.
        assert_eq!(server.values("readings"), [0.0, 40.0, 80.0, 100.0]);
        // Alone, a row waits for the linger and no longer.
        let handle = in_time(readings.send_rows(&batch(101))).await.unwrap();
        assert_eq!(in_time(handle).await.unwrap(), Settled::Stored);
        let empty = batch(0).slice(0, 0);
        assert!(matches!(
            readings.send_rows(&empty).await,
            Err(SendError::Empty)
        ));
        let late = in_time(readings.send_rows(&batch(102))).await.unwrap();
        in_time(client.close()).await;
        assert!(in_time(late).await.is_err());
    }
}

#[tokio::test]
async fn compact_batches_survive_lost_connections_and_a_restart_with_a_spool() {
    let disk = MemoryDirectory::default();
    let server = FakeServer::start();
    let compact = |options: ClientOptions| ClientOptions {
        compression: Compression::Compact,
        ..spooled(options, &disk)
    };
    let client = Client::connect(compact(server.options())).await.unwrap();
    let readings = client.stream("readings").unwrap();
    for value in 0..20 {
        let _later = in_time(readings.send(&batch(value))).await.unwrap();
        if value == 7 {
            server.stop();
            server.restart();
        }
    }
    in_time(client.flush()).await.unwrap();
    server.stop();
    for value in 20..30 {
        let _later = in_time(readings.send(&batch(value))).await.unwrap();
    }
    in_time(client.close()).await;
    server.restart();
    let client = Client::connect(compact(server.options())).await.unwrap();
    in_time(client.flush()).await.unwrap();
    assert_eq!(
        sorted(server.values("readings")),
        (0..30).collect::<Vec<_>>()
    );
    in_time(client.close()).await;
}
