//! Accepts connections, as many and as fast as the engine can bear.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use quinn::Endpoint;

use super::{IngestContext, identify::identify};
use crate::{
    Spawner,
    device::TokenBucket,
    shard::{AdoptConnection, ShardActor},
};

/// Counts something for as long as it lives.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Lines a second that tell of refused connections: who is refused may come again and again, and
/// must not fill the log's disk.
const REFUSALS_TOLD: u64 = 10;

/// Tells of refused connections, some of them.
struct Refusals {
    told: Mutex<(TokenBucket, u64)>,
}

impl Refusals {
    fn new(now: Duration) -> Self {
        Self {
            told: Mutex::new((TokenBucket::new(REFUSALS_TOLD, now), 0)),
        }
    }

    fn tell(&self, address: SocketAddr, reason: &str, now: Duration) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, untold) = &mut *told;
        if bucket.take(1, now).is_err() {
            *untold += 1;
            return;
        }
        let untold = std::mem::take(untold);
        tracing::info!(%address, reason, untold, "a connection was refused");
    }
}

/// Accepts connections until the endpoint is closed. Each is identified on the I/O runtime and
/// then handed to the shard of its identity.
pub async fn accept_connections(
    endpoint: Endpoint,
    context: Arc<IngestContext>,
    shards: Vec<Addr<ShardActor>>,
    spawner: Arc<dyn Spawner>,
) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    let refusals = Arc::new(Refusals::new(context.clock.monotonic()));
    while let Some(incoming) = endpoint.accept().await {
        context.metrics.handshakes.add(1);
        let under_way = handshakes.load(Ordering::SeqCst);
        if endpoint.open_connections() > context.options.connections_max
            || under_way >= context.options.handshakes_max
        {
            context.metrics.connections_refused.add(1);
            incoming.refuse();
            continue;
        }
        if under_way >= context.options.unproven_handshakes_max
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            // It may retry, as was just asked.
            let _ = incoming.retry();
            continue;
        }
        let held = Held::new(&handshakes);
        let (context, shards, refusals) = (context.clone(), shards.clone(), refusals.clone());
        spawner.spawn_io(Box::pin(async move {
            let address = incoming.remote_address();
            match identify(incoming, &context).await {
                Ok(identified) => {
                    let shard = identified.sender.shard(context.options.shard_count);
                    let adopt = AdoptConnection(Box::new(identified));
                    // A full mailbox is waited for here, where only this connection waits.
                    if shards[usize::from(shard.get())].send(adopt).await.is_err() {
                        tracing::debug!(%address, "a connection came while the engine was stopping");
                    }
                }
                Err(reason) => {
                    context.metrics.connections_refused.add(1);
                    refusals.tell(address, &reason, context.clock.monotonic());
                }
            }
            drop(held);
        }));
    }
}
