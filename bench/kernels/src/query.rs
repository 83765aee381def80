//! Queries over one consistent view of memory and archive, planning included.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use object_store::memory::InMemory;
use quiver_archive::{DeltaArchive, DeltaArchiveParts};
use quiver_hot::{Archive, FreezeOutcome, LastValues, Reservation, StreamTable, Tables};
use quiver_model::{ManualClock, OsEntropy, Position, ShardId};
use quiver_query::{
    ArchiveLocation, CommittedView, QueryEngine, QueryLimits, QuerySources, query_runtime,
};
use tokio::runtime::Runtime;

use crate::{
    Entry, Fault, Kernel,
    data::{self, FIELDS, stored_batches},
};

/// Devices.
const DEVICES: usize = 100;
/// Rows; one half of them is archived.
const ROWS: usize = 100_000;

const QUERIES: [(&str, &str, u64); 3] = [
    ("count", "SELECT count(*) FROM bench_readings", 1),
    (
        "last_cache",
        "SELECT device, ts, value_0 FROM last_cache('bench_readings')",
        DEVICES as u64,
    ),
    (
        "filtered_aggregate",
        "SELECT device, avg(value_0), max(value_1) FROM bench_readings \
         WHERE device < 'truck_00010' AND value_2 > -1e9 GROUP BY device",
        10,
    ),
];

pub(crate) fn entries() -> Vec<Entry> {
    QUERIES
        .map(|(name, sql, rows)| Entry::new("query", name, rows, move || Query::new(sql)))
        .into()
}

/// Everything is committed and applied.
struct Still(Position);

impl CommittedView for Still {
    fn committed(&self) -> Position {
        self.0
    }

    fn wait_applied(&self, _: Position) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Query {
    runtime: Runtime,
    engine: QueryEngine,
    sql: &'static str,
}

impl Query {
    fn new(sql: &'static str) -> Result<Self, Fault> {
        let runtime = query_runtime(2)?;
        let schema = data::stream_schema(FIELDS)?;
        let tables = Arc::new(Tables::new(1));
        let table = tables.get_or_create(&schema);
        let last_values = Arc::new(LastValues::new(1));
        let store = Arc::new(InMemory::new());
        let archive = DeltaArchive::new(DeltaArchiveParts {
            store: store.clone(),
            log_id: "0".repeat(32),
            clock: Arc::new(ManualClock::new(data::NOW)),
            entropy: Arc::new(OsEntropy),
        });
        let batches = stored_batches(&schema, DEVICES, ROWS, 100)?;
        for (number, batch) in batches.iter().enumerate() {
            last_values.update(ShardId(0), schema.stream(), batch)?;
            table.append(
                ShardId(0),
                batch.clone(),
                Reservation::none(),
                Duration::ZERO,
            )?;
            if number + 1 == batches.len() / 2 {
                let barrier = Position((ROWS / 2) as u64);
                runtime.block_on(archive_up_to(&archive, &table, barrier))?;
            }
        }
        let sources = QuerySources {
            tables,
            last_values,
            archive: ArchiveLocation {
                store,
                root: object_store::path::Path::default(),
            },
            view: Arc::new(Still(Position(ROWS as u64))),
        };
        let limits = QueryLimits {
            partitions: 2,
            ..QueryLimits::default()
        };
        Ok(Self {
            runtime,
            engine: QueryEngine::new(sources, limits)?,
            sql,
        })
    }
}

async fn archive_up_to(
    archive: &DeltaArchive,
    table: &StreamTable,
    barrier: Position,
) -> Result<(), Fault> {
    let FreezeOutcome::Complete(input) = table.freeze(ShardId(0), barrier)? else {
        return Err("the only shard was frozen, and the freeze is not complete".into());
    };
    let snapshot = archive.flush(input).await?;
    table.complete_flush(barrier, snapshot)?;
    Ok(())
}

impl Kernel for Query {
    fn run(&mut self) -> Result<u64, Fault> {
        self.runtime.block_on(async {
            let result = self.engine.query(self.sql).await?;
            let batches = result.collect().await?;
            Ok(batches.iter().map(|batch| batch.num_rows() as u64).sum())
        })
    }
}
