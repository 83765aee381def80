//! What a query asks of the engine that commits and applies.

use futures::future::BoxFuture;
use quiver_model::Position;

/// How far the log is committed and the shards have applied it. Implemented by the runtime.
pub trait CommittedView: Send + Sync {
    /// The last committed position. A query that starts now sees everything up to it.
    fn committed(&self) -> Position;

    /// Resolves once every shard has applied everything up to `position`: to its memtables and to
    /// the last values. Never resolves if the engine stops before; the query's timeout ends the
    /// wait.
    fn wait_applied(&self, position: Position) -> BoxFuture<'_, ()>;
}
