//! Writes one lane's batches to its QUIC streams, one QUIC stream after the other, for as long as
//! the connection lasts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Connection, SendStream, VarInt};
use quiver_model::Sequence;
use quiver_protocol::{CompactPacker, Encoding, OpenStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    queue::{OpenPlan, OpenStep, Place, SendStep, Source},
    shared::Shared,
    spool::{self, SpoolDirectory},
};

/// How long to wait for `StreamClosed` after the server stopped reading a QUIC stream.
const CLOSED_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct LaneTask {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub connection: Connection,
    pub directory: Option<Arc<dyn SpoolDirectory>>,
}

/// Why a QUIC stream is written no more.
enum Stopped {
    /// The lane went on without it.
    Abandoned,
    /// It was finished in order.
    Finished,
    /// The server stops reading it, and says why on the control stream.
    ByServer,
    /// The connection is gone.
    Disconnected,
}

/// Sends the lane's batches until the connection is gone.
pub(crate) async fn run(task: LaneTask) {
    loop {
        let plan = task.next_plan().await;
        let Ok(mut stream) = task.connection.open_uni().await else {
            return;
        };
        if plan.replayed {
            // Fails only on a stream that is closed already.
            let _closed = stream.set_priority(-1);
        }
        let quic_stream = u64::from(VarInt::from(stream.id()));
        let opened = task
            .shared
            .update(|state| state.queue.on_opened(task.index, quic_stream, &plan));
        let Some(schema) = opened else {
            let _closed = stream.reset(VarInt::from_u32(0));
            continue;
        };
        match task.write(&mut stream, quic_stream, &plan, schema).await {
            Stopped::Disconnected => return,
            Stopped::Finished => {}
            Stopped::Abandoned => {
                let _closed = stream.reset(VarInt::from_u32(0));
            }
            Stopped::ByServer => {
                let _closed = stream.reset(VarInt::from_u32(0));
                let moved_on = task.shared.wait_for(|state| {
                    let link = &state.queue.lanes.get(task.index)?.link;
                    (link.quic_stream() != Some(quic_stream)).then_some(())
                });
                if timeout(CLOSED_PATIENCE, moved_on).await.is_err() {
                    task.shared.update(|state| {
                        state
                            .queue
                            .on_broken(task.index, quic_stream, Instant::now())
                    });
                }
            }
        }
    }
}

impl LaneTask {
    async fn next_plan(&self) -> OpenPlan {
        let mut bell = self.shared.bell();
        loop {
            let step = self
                .shared
                .lock()
                .queue
                .poll_open(self.index, Instant::now());
            match step {
                OpenStep::Open(plan) => return plan,
                OpenStep::Wait(Some(until)) => tokio::select! {
                    biased;
                    () = bell.changed() => {}
                    () = sleep_until(until) => {}
                },
                OpenStep::Wait(None) => {
                    bell.changed().await;
                }
            }
        }
    }

    async fn write(
        &self,
        stream: &mut SendStream,
        quic_stream: u64,
        plan: &OpenPlan,
        schema: Bytes,
    ) -> Stopped {
        let mut open = OpenStream::new(
            plan.stream.clone(),
            plan.producer,
            Sequence(plan.first_sequence),
        );
        open.lost_before = Sequence(plan.lost_before);
        open.replayed = plan.replayed;
        open.encoding = Encoding::of_schema_message(&schema);
        let end_of_stream = open.encoding.end_of_stream();
        // Queued and spooled messages stand alone; on a QUIC stream they refer to each other.
        let mut packer = match open.encoding {
            Encoding::Compact => CompactPacker::new(&schema).ok(),
            Encoding::Arrow | Encoding::ArrowZstd => None,
        };
        let mut prelude = [open.encode(), schema];
        if stream.write_all_chunks(&mut prelude).await.is_err() {
            return self.why();
        }
        let mut bell = self.shared.bell();
        loop {
            let step = self
                .shared
                .update_quietly(|state| state.queue.poll_send(self.index, quic_stream));
            match step {
                SendStep::Send {
                    sequence, bytes, ..
                } => {
                    let body = match bytes {
                        Source::Memory(body) => Some(body),
                        Source::Spool(place) => self.read(place).await,
                    };
                    let Some(body) = body else {
                        // The next one cannot follow on this QUIC stream: the hole is declared lost
                        // on the next.
                        self.shared.update(|state| {
                            state.queue.drop_damaged(self.index, sequence);
                            state
                                .queue
                                .on_broken(self.index, quic_stream, Instant::now());
                        });
                        return Stopped::Abandoned;
                    };
                    // What cannot be packed is sent as it is, which is allowed at any time.
                    let packed = packer.as_mut().and_then(|packer| packer.pack(&body).ok());
                    if stream.write_chunk(packed.unwrap_or(body)).await.is_err() {
                        return self.why();
                    }
                }
                SendStep::Finish => {
                    if stream.write_all(end_of_stream).await.is_err() || stream.finish().is_err() {
                        return self.why();
                    }
                    self.shared.ring();
                    return Stopped::Finished;
                }
                SendStep::Wait => tokio::select! {
                    biased;
                    stopped = stream.stopped() => return match stopped {
                        Ok(_) => Stopped::ByServer,
                        Err(_) => self.why(),
                    },
                    () = bell.changed() => {}
                },
                SendStep::Stop => return Stopped::Abandoned,
            }
        }
    }

    fn why(&self) -> Stopped {
        match self.connection.close_reason() {
            Some(_) => Stopped::Disconnected,
            None => Stopped::ByServer,
        }
    }

    async fn read(&self, place: Place) -> Option<Bytes> {
        let directory = Arc::clone(self.directory.as_ref()?);
        if !directory.blocks() {
            return spool::read_batch(&*directory, place);
        }
        tokio::task::spawn_blocking(move || spool::read_batch(&*directory, place))
            .await
            .ok()?
    }
}
