//! QUIC streams that end where they should not.

use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, VarInt};
use quiver_model::{Producer, Sequence, StreamName};
use quiver_protocol::{BatchEncoder, ClientEvent, Compression, OpenStream};

use crate::{
    batches::batch,
    contents::read_now,
    device::sender_of,
    machine::{Kill, options},
    model::Kind,
    raw_client::RawClient,
    seeded::{EPOCH, Random},
    simulate::simulate,
    stage::Stage,
};

/// An encoded schema, and as many encoded batches.
fn encoded(count: i64) -> (Bytes, Vec<Bytes>) {
    let mut random = Random::new(1);
    let batches: Vec<_> = (0..count)
        .map(|id| batch(id, 30, Kind::Good, 0, EPOCH, &mut random))
        .collect();
    let mut encoder = BatchEncoder::new(batches[0].schema_ref(), Compression::None).unwrap();
    let schema = encoder.schema_message().unwrap();
    let batches = batches.iter().map(|batch| encoder.encode(batch).unwrap());
    (schema, batches.collect())
}

/// How a QUIC stream ends inside a batch.
#[derive(Clone, Copy, Debug)]
enum End {
    Finished,
    Reset,
    /// The whole connection goes away.
    Connection,
}

fn ack(event: Option<ClientEvent>) -> Sequence {
    match event {
        Some(ClientEvent::Ack { sequence, .. }) => sequence,
        other => panic!("an Ack was expected, not {other:?}"),
    }
}

#[test]
fn a_quic_stream_that_ends_inside_a_batch_did_not_send_it() {
    for end in [End::Finished, End::Reset, End::Connection] {
        simulate(async move {
            let mut stage = Stage::set(10, options(), 0).await;
            let stream = StreamName::new("readings").unwrap();
            let producer = Producer(5);
            let (schema, batches) = encoded(2);
            let (first, second) = (&batches[0], &batches[1]);

            let mut client = RawClient::connect(&stage.machine, &sender_of(0), 1).await;
            let mut quic_stream = client.connection.open_uni().await.unwrap();
            let open = OpenStream::new(stream.clone(), producer, Sequence(0)).encode();
            for bytes in [&open, &schema, first] {
                quic_stream.write_all(bytes).await.unwrap();
            }
            quic_stream
                .write_all(&second[..second.len() / 2])
                .await
                .unwrap();
            assert_eq!(
                ack(client.next_within(Duration::from_secs(5)).await),
                Sequence(0)
            );
            match end {
                End::Finished => quic_stream.finish().unwrap(),
                End::Reset => quic_stream.reset(VarInt::from_u32(0)).unwrap(),
                End::Connection => client.connection.close(VarInt::from_u32(0), b""),
            }
            let said = client.next_within(Duration::from_secs(3)).await;
            assert_eq!(said, None, "no reject, and nothing else");
            let contents = read_now(stage.machine.engine(), &stage.machine.archive).await;
            assert_eq!((contents.rows.len(), contents.rejects.len()), (30, 0));

            // The batch is still the next one, after a restart too.
            stage.machine.kill(Kill::Power).await;
            stage.machine.start().await;
            drop(client);
            let mut client = RawClient::connect(&stage.machine, &sender_of(0), 2).await;
            let mut quic_stream = client.connection.open_uni().await.unwrap();
            let open = OpenStream::new(stream.clone(), producer, Sequence(1)).encode();
            for bytes in [&open, &schema, second] {
                quic_stream.write_all(bytes).await.unwrap();
            }
            assert_eq!(
                ack(client.next_within(Duration::from_secs(5)).await),
                Sequence(1)
            );
            let contents = read_now(stage.machine.engine(), &stage.machine.archive).await;
            assert_eq!((contents.rows.len(), contents.rejects.len()), (60, 0));
        });
    }
}

/// Opens a QUIC stream from batch 0 on, and sends a batch on it.
async fn send_first(
    client: &RawClient,
    producer: u64,
    schema: &Bytes,
    batch: &Bytes,
) -> SendStream {
    let stream = StreamName::new("readings").unwrap();
    let mut quic_stream = client.connection.open_uni().await.unwrap();
    let open = OpenStream::new(stream, Producer(producer), Sequence(0)).encode();
    for bytes in [&open, schema, batch] {
        quic_stream.write_all(bytes).await.unwrap();
    }
    quic_stream
}

#[test]
fn a_batch_is_acknowledged_though_its_quic_stream_ended_before_it_was_durable() {
    simulate(async {
        let stage = Stage::set(11, options(), 0).await;
        let mut client = RawClient::connect(&stage.machine, &sender_of(0), 1).await;
        let (schema, batches) = encoded(8);
        for (producer, batch) in (0..).zip(&batches) {
            let mut quic_stream = send_first(&client, producer, &schema, batch).await;
            quic_stream.finish().unwrap();
            let answer = client.next_within(Duration::from_secs(5)).await;
            assert_eq!(ack(answer), Sequence(0));
        }
    });
}

#[test]
fn a_connection_that_takes_over_is_not_told_of_the_quic_streams_of_the_one_before() {
    simulate(async {
        let stage = Stage::set(12, options(), 0).await;
        let (schema, batches) = encoded(3);
        let mut before = RawClient::connect(&stage.machine, &sender_of(0), 1).await;
        let _carries_5 = send_first(&before, 5, &schema, &batches[0]).await;
        assert_eq!(
            ack(before.next_within(Duration::from_secs(5)).await),
            Sequence(0)
        );
        stage.machine.fabric.cut(RawClient::address(1));

        // On this connection another producer has the number that 5 had on the other.
        let mut after = RawClient::connect(&stage.machine, &sender_of(0), 2).await;
        let _carries_6 = send_first(&after, 6, &schema, &batches[1]).await;
        let _carries_5 = send_first(&after, 5, &schema, &batches[0]).await;
        for _ in 0..2 {
            assert_eq!(
                ack(after.next_within(Duration::from_secs(5)).await),
                Sequence(0)
            );
        }
        assert_eq!(after.next_within(Duration::from_secs(5)).await, None);
    });
}
