//! QUIC streams that end where they should not.

use std::time::Duration;

use quinn::VarInt;
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
            let mut random = Random::new(1);
            let mut next = |id| batch(id, 30, Kind::Good, 0, EPOCH, &mut random);
            let (first, second) = (next(0), next(1));
            let mut encoder = BatchEncoder::new(first.schema_ref(), Compression::None).unwrap();
            let schema = encoder.schema_message().unwrap();
            let (first, second) = (
                encoder.encode(&first).unwrap(),
                encoder.encode(&second).unwrap(),
            );

            let mut client = RawClient::connect(&stage.machine, &sender_of(0), 1).await;
            let mut quic_stream = client.connection.open_uni().await.unwrap();
            let open = OpenStream::new(stream.clone(), producer, Sequence(0)).encode();
            for bytes in [&open, &schema, &first] {
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
            for bytes in [&open, &schema, &second] {
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
