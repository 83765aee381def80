//! Accepts connections, as many and as fast as the engine can bear.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::Addr;
use quinn::Endpoint;

use super::{IngestContext, identify::identify};
use crate::{
    Spawner,
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

/// Accepts connections until the endpoint is closed. Each is identified on the I/O runtime and
/// then handed to the shard of its identity.
pub async fn accept_connections(
    endpoint: Endpoint,
    context: Arc<IngestContext>,
    shards: Vec<Addr<ShardActor>>,
    spawner: Arc<dyn Spawner>,
) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        context.metrics.handshakes.add(1);
        if endpoint.open_connections() > context.options.connections_max {
            context.metrics.connections_refused.add(1);
            incoming.refuse();
            continue;
        }
        if handshakes.load(Ordering::SeqCst) >= context.options.unproven_handshakes_max
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            // It may retry, as was just asked.
            let _ = incoming.retry();
            continue;
        }
        let held = Held::new(&handshakes);
        let (context, shards) = (context.clone(), shards.clone());
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
                    tracing::info!(%address, reason, "a connection was refused");
                }
            }
            drop(held);
        }));
    }
}
