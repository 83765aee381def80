//! Times windows when it is told to, so that others can be timed in turns with it.
//!
//! ```text
//! quiver-bench-windows ORDER DEVICES ROWS FILE     rows are made, and written to FILE as Parquet
//!   <- ready
//!   -> engine CASE | hand CASE                     all rows go through
//!   <- SECONDS
//!   -> engine CASE FILE | hand CASE FILE           and what comes out is written
//!   <- written
//! ```

use std::{
    fs::File,
    io::{BufRead as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use quiver_bench_windows::{
    Batch, Case, Fault, Order, Results, Rows, Windows, by_hand, engine::OfEngine,
};

/// As the engine has it.
#[global_allocator]
static ALLOCATOR: quiver_allocator::MiMalloc = quiver_allocator::MiMalloc;

/// Results are given away when there are so many.
const RESULTS: u64 = 1_000;

fn main() -> ExitCode {
    quiver_allocator::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = match arguments.as_slice() {
        [order, devices, rows, file] => serve(order, devices, rows, Path::new(file)),
        _ => Err("usage: quiver-bench-windows ORDER DEVICES ROWS FILE".into()),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("quiver-bench-windows: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn serve(order: &str, devices: &str, rows: &str, file: &Path) -> Result<(), Fault> {
    let order = Order::ALL.into_iter().find(|it| it.name() == order);
    let source = Rows::new(order.ok_or("no such order")?, devices.parse()?);
    let batches: Vec<Batch> = (0..source.batch_count(rows.parse()?))
        .map(|number| source.batch(number))
        .collect();
    write(&batches, file)?;
    answer("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let (who, case, file) = match words.as_slice() {
            [who, case] => (*who, *case, None),
            [who, case, file] => (*who, *case, Some(Path::new(file))),
            _ => return Err(format!("cannot read {line:?}").into()),
        };
        let case = Case::ALL.into_iter().find(|it| it.name() == case);
        let case = case.ok_or("no such case")?;
        let windows: Box<dyn Windows> = match who {
            "engine" => Box::new(OfEngine::new(case)?),
            _ => by_hand::of(case),
        };
        match file {
            Some(file) => {
                results(windows, &batches)?.write(file)?;
                answer("written")?;
            }
            None => answer(&time(windows, &batches)?.to_string())?,
        }
    }
    Ok(())
}

fn answer(text: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn time(mut windows: Box<dyn Windows>, batches: &[Batch]) -> Result<f64, Fault> {
    let started = Instant::now();
    let mut pushed = 0;
    for batch in batches {
        windows.push(batch)?;
        pushed += batch.ts.len() as u64;
        if pushed >= RESULTS {
            pushed = 0;
            windows.discard();
        }
    }
    windows.close();
    windows.discard();
    Ok(started.elapsed().as_secs_f64())
}

fn results(mut windows: Box<dyn Windows>, batches: &[Batch]) -> Result<Results, Fault> {
    let mut results = Results::default();
    for batch in batches {
        windows.push(batch)?;
    }
    windows.close();
    results.append(windows.take());
    Ok(results)
}

/// Writes the rows in the order in which they are pushed.
fn write(batches: &[Batch], path: &Path) -> Result<(), Fault> {
    let mut writer: Option<ArrowWriter<File>> = None;
    for batch in batches {
        let names = batch.device.downcast_dict::<StringArray>();
        let names = names.ok_or("no names")?;
        let names: StringArray = names.into_iter().collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "ts".into(),
                Arc::new(TimestampMicrosecondArray::from(batch.ts.clone())),
            ),
            ("device".into(), Arc::new(names)),
        ];
        for (number, field) in batch.fields.iter().enumerate() {
            columns.push((format!("value_{number}"), Arc::clone(field)));
        }
        let batch = RecordBatch::try_from_iter(columns)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                    .build();
                let file = File::create(path)?;
                writer.insert(ArrowWriter::try_new(
                    file,
                    batch.schema(),
                    Some(properties),
                )?)
            }
        };
        writer.write(&batch)?;
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}
