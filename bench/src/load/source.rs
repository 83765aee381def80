//! A source of batches: makes them when they are due, and writes them to its QUIC stream.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, SendStream, VarInt};
use quiver_protocol::{AckLevel, BatchEncoder, CompactPacker, Encoding, OpenStream};
use rand::{Rng, rngs::SmallRng};
use tokio::{sync::Notify, time::timeout};

use super::{
    context::{Context, Phase, compression},
    lane::{Batch, Lane},
};
use crate::{
    record::record,
    scenario::Ack,
    values::{Generator, Order},
};

/// How long to wait for the reason why the server stopped reading a QUIC stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most rows that are collected into one batch.
const COLLECTED_ROWS_MAX: usize = 8_192;

/// One stream of one connection.
pub(crate) struct Source {
    pub lane: RefCell<Lane>,
    /// Which of its connection's streams it is.
    pub stream: usize,
    /// Rung when something is due, settled or changed.
    pub bell: Notify,
    pub generator: RefCell<Generator>,
    pub random: RefCell<SmallRng>,
    /// Batches that were made ahead, and the next of them.
    pub prebuilt: RefCell<Vec<Batch>>,
    pub next_prebuilt: Cell<usize>,
    /// Wall time of the last row, in microseconds.
    pub last_us: Cell<i64>,
}

/// A QUIC stream that was opened.
struct Opened {
    /// What it begins with.
    prelude: [Bytes; 2],
    generation: u64,
    /// What makes its messages, in the compact encoding.
    packer: Option<CompactPacker>,
}

/// Whether a batch can be made now.
enum Made {
    Yes,
    /// Not before this moment of the load.
    At(Duration),
    No,
}

impl Source {
    /// Makes the batches that are sent in rotation.
    pub(crate) fn prebuild(&self, context: &Context, end_us: i64) {
        for _ in 0..context.scenario.prebuilt {
            if let Some(batch) = self.encode(context, 1, end_us) {
                self.prebuilt.borrow_mut().push(batch);
            }
        }
    }

    /// Makes a batch for `arrivals` and encodes it; `None`, and counted, if it cannot be.
    fn encode(&self, context: &Context, arrivals: usize, end_us: i64) -> Option<Batch> {
        let rows = context.scenario.rows as usize * arrivals;
        let step_us = match context.scenario.row_interval_us() {
            // Flat out the rows fill the time since the last batch.
            0 => (end_us - self.last_us.get()).clamp(0, 1_000_000) / rows.max(1) as i64,
            step => step,
        };
        self.last_us.set(end_us);
        let order = Order {
            rows,
            end_us,
            step_us: step_us.max(1),
        };
        let made = self.generator.borrow_mut().make(order);
        let encoded = made
            .map_err(|error| error.to_string())
            .and_then(|made| Ok((self.bytes(context, &made)?, made)));
        match encoded {
            Ok((bytes, made)) => Some(Batch {
                bytes,
                rows: made.batch.num_rows() as u64,
                points: made.points,
                devices: made.devices,
                due: Vec::new(),
                rejected: false,
            }),
            Err(error) => {
                context.recorder.lock().counts.encode_failures += 1;
                context.note(format!("a batch cannot be encoded: {error}"));
                None
            }
        }
    }

    fn bytes(&self, context: &Context, made: &crate::values::Made) -> Result<Bytes, String> {
        self.with_encoder(context, |encoder, _| {
            encoder
                .encode(&made.batch)
                .map_err(|error| error.to_string())
        })
    }

    fn with_encoder<T>(
        &self,
        context: &Context,
        use_it: impl FnOnce(&mut BatchEncoder, &Bytes) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut encoders = context.encoders.borrow_mut();
        if encoders.len() <= self.stream {
            encoders.resize_with(self.stream + 1, || None);
        }
        let slot = encoders.get_mut(self.stream).ok_or("no such stream")?;
        if slot.is_none() {
            let codec = compression(context.scenario.compression);
            let encoder = BatchEncoder::new(self.generator.borrow().schema(), codec)
                .map_err(|error| error.to_string())?;
            let schema = encoder
                .schema_message()
                .map_err(|error| error.to_string())?;
            *slot = Some((encoder, schema));
        }
        match slot {
            Some((encoder, schema)) => use_it(encoder, schema),
            None => Err("no encoder".to_owned()),
        }
    }

    /// Makes the next batch, if one is due and the window has room.
    fn build(&self, context: &Context) -> Made {
        let phase = context.phase();
        let mut lane = self.lane.borrow_mut();
        let has_room = lane.unsettled() < context.scenario.window as usize;
        if lane.refused || !has_room || matches!(phase, Phase::Connecting | Phase::Stop) {
            return Made::No;
        }
        let now = context.now();
        let due: Vec<Duration> = if context.scenario.is_flat_out() {
            if phase != Phase::Load {
                return Made::No;
            }
            let mut recording = context.recorder.lock();
            recording.counts.offered += 1;
            recording.counts.offered_rows += u64::from(context.scenario.rows);
            vec![now]
        } else {
            let Some(first) = lane.queue.front().copied() else {
                return Made::No;
            };
            let at = first + context.scenario.coalesce.0;
            if at > now && phase == Phase::Load {
                return Made::At(at);
            }
            let most = if context.scenario.coalesce.is_zero() {
                1
            } else {
                (COLLECTED_ROWS_MAX / context.scenario.rows as usize).max(1)
            };
            let count = lane.queue.len().min(most);
            lane.queue.drain(..count).collect()
        };
        let batch = self.take_prebuilt().or_else(|| {
            let last = due.last().copied().unwrap_or(now);
            self.encode(context, due.len(), context.wall_us(last))
        });
        let Some(batch) = batch else { return Made::No };
        lane.push(Batch { due, ..batch });
        Made::Yes
    }

    fn take_prebuilt(&self) -> Option<Batch> {
        let prebuilt = self.prebuilt.borrow();
        let next = self.next_prebuilt.get();
        self.next_prebuilt.set((next + 1) % prebuilt.len().max(1));
        prebuilt.get(next).cloned()
    }

    /// Writes to one QUIC stream after the other until the connection is gone.
    pub(crate) async fn write(self: Rc<Self>, context: Rc<Context>, connection: Connection) {
        loop {
            self.wait_for_work(&context).await;
            let pause = std::mem::take(&mut self.lane.borrow_mut().pause);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let Ok(mut stream) = connection.open_uni().await else {
                return;
            };
            let Opened {
                mut prelude,
                generation,
                packer,
            } = match self.open(&context, &stream) {
                Ok(opened) => opened,
                Err(error) => {
                    context.note(error);
                    return;
                }
            };
            let left = match stream.write_all_chunks(&mut prelude).await {
                Ok(()) => self.fill(&context, &mut stream, generation, packer).await,
                Err(_) => Left::Stopped,
            };
            if connection.close_reason().is_some() {
                return;
            }
            // Fails only if it is closed already.
            let _ = stream.reset(VarInt::from_u32(0));
            if matches!(left, Left::Stopped) {
                self.wait_for_reason(generation).await;
            }
        }
    }

    async fn wait_for_work(&self, context: &Context) {
        loop {
            if self.lane.borrow().has_to_write() {
                return;
            }
            match context.make(|| self.build(context)).await {
                Made::Yes => return,
                Made::At(at) => {
                    let wait = at.saturating_sub(context.now());
                    let _ = timeout(wait, self.bell.notified()).await;
                }
                Made::No => self.bell.notified().await,
            }
        }
    }

    fn open(&self, context: &Context, stream: &SendStream) -> Result<Opened, String> {
        let schema = self.with_encoder(context, |_, schema| Ok(schema.clone()))?;
        let mut lane = self.lane.borrow_mut();
        lane.quic_stream = Some(u64::from(VarInt::from(stream.id())));
        let mut open = OpenStream::new(lane.stream.clone(), lane.producer, lane.open());
        open.ack_level = match context.scenario.ack {
            Ack::Durable => AckLevel::Durable,
            Ack::Received => AckLevel::Received,
        };
        open.encoding = Encoding::of_schema_message(&schema);
        // Batches are kept in a form that stands alone; on a QUIC stream they refer to each other.
        let packer = match open.encoding {
            Encoding::Compact => {
                Some(CompactPacker::new(&schema).map_err(|refusal| refusal.message)?)
            }
            Encoding::Arrow | Encoding::ArrowZstd => None,
        };
        Ok(Opened {
            prelude: [open.encode(), schema],
            generation: lane.generation(),
            packer,
        })
    }

    /// Writes what there is to the open stream until it must be left.
    async fn fill(
        &self,
        context: &Context,
        stream: &mut SendStream,
        generation: u64,
        mut packer: Option<CompactPacker>,
    ) -> Left {
        loop {
            if self.lane.borrow().generation() != generation {
                return Left::ForAnother;
            }
            let next = self.lane.borrow_mut().next_to_write();
            if let Some(next) = next {
                let packed = packer
                    .as_mut()
                    .and_then(|packer| packer.pack(&next.bytes).ok());
                let message = packed.unwrap_or(next.bytes);
                let bytes = message.len() as u64;
                if stream.write_chunk(message).await.is_err() {
                    return Left::Stopped;
                }
                let now = context.now();
                {
                    let mut recording = context.recorder.lock();
                    recording.counts.sent_bytes += bytes;
                    match next.first_due {
                        None => recording.counts.resent += 1,
                        Some(due) => {
                            recording.counts.sent += 1;
                            if context.is_measured(due) {
                                record(&mut recording.lag, now.saturating_sub(due));
                            }
                        }
                    }
                }
                self.maybe_repeat(context, next.first_due.is_some());
                continue;
            }
            match context.make(|| self.build(context)).await {
                Made::Yes => {}
                Made::At(at) => {
                    let wait = at.saturating_sub(context.now());
                    if let Ok(Left::Stopped) = timeout(wait, self.wait(stream)).await {
                        return Left::Stopped;
                    }
                }
                Made::No => {
                    if matches!(self.wait(stream).await, Left::Stopped) {
                        return Left::Stopped;
                    }
                }
            }
        }
    }

    /// Waits for the bell, or for the server to stop reading.
    async fn wait(&self, stream: &mut SendStream) -> Left {
        tokio::select! {
            biased;
            () = self.bell.notified() => Left::ForAnother,
            _ = stream.stopped() => Left::Stopped,
        }
    }

    fn maybe_repeat(&self, context: &Context, is_first_time: bool) {
        let share = context.scenario.duplicates.0 / Lane::repetition() as f64;
        if share > 0.0 && is_first_time && self.random.borrow_mut().random::<f64>() < share {
            self.lane.borrow_mut().repeat();
        }
    }

    /// The server stopped reading; `StreamClosed` says why, and changes the generation.
    async fn wait_for_reason(&self, generation: u64) {
        let changed = async {
            while self.lane.borrow().generation() == generation {
                self.bell.notified().await;
            }
        };
        if timeout(PATIENCE, changed).await.is_err() {
            self.lane.borrow_mut().reopen();
        }
    }
}

/// Why a QUIC stream is written no more.
enum Left {
    /// Another must take its place; or, while waiting, there may be more to do.
    ForAnother,
    /// The server stopped reading it, or the connection is gone.
    Stopped,
}
