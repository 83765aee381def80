use std::collections::BTreeSet;

use quiver_model::Position;

use super::*;

const LIMITS: MergeLimits = MergeLimits {
    span: i64::MAX,
    bytes: 64 << 20,
    rows: 4_000_000,
};
const FLUSH_US: i64 = 600 * 1_000_000;
const BYTES_A_ROW: u64 = 10;

fn file(day: i32, rows: u64, position: u64) -> Arc<ArchiveFile> {
    let start = i64::from(day) * DAY_US;
    Arc::new(ArchiveFile {
        path: format!("{day}/{position}"),
        day,
        bytes: 2_000 + rows * BYTES_A_ROW,
        rows,
        min_ts: Timestamp(start),
        max_ts: Timestamp(start + DAY_US - 1),
        min_position: Position(position),
        max_position: Position(position + rows - 1),
        min_device: "a".into(),
        max_device: "z".into(),
    })
}

/// A stream's table over time, without the bytes.
#[derive(Default)]
struct Simulated {
    files: Vec<Arc<ArchiveFile>>,
    next: u64,
    flushed: u64,
    rewritten: u64,
    merges: u64,
    most_in_a_day: usize,
}

impl Simulated {
    fn flush(&mut self, day: i32, rows: u64) {
        if rows > 0 {
            self.files.push(file(day, rows, self.next));
            self.next += rows;
            self.flushed += rows;
        }
    }

    fn tick(&mut self, now: Timestamp) {
        for merge in due(&self.files, now, LIMITS) {
            let paths: BTreeSet<&str> = merge.iter().map(|file| file.path.as_str()).collect();
            assert!(paths.len() >= 2, "a merge of one file");
            let rows: u64 = merge.iter().map(|file| file.rows).sum();
            let bytes: u64 = merge.iter().map(|file| file.bytes).sum();
            assert!(rows <= LIMITS.rows && bytes <= LIMITS.bytes);
            assert!(merge.iter().all(|file| file.day == merge[0].day));
            let merged = file(merge[0].day, rows, merge[0].min_position.get());
            let before = self.files.len();
            self.files
                .retain(|file| !paths.contains(file.path.as_str()));
            assert_eq!(
                self.files.len() + merge.len(),
                before,
                "a file that is not there"
            );
            self.files.push(merged);
            self.rewritten += rows;
            self.merges += 1;
        }
        let mut days: BTreeMap<i32, usize> = BTreeMap::new();
        for file in &self.files {
            *days.entry(file.day).or_default() += 1;
        }
        self.most_in_a_day = self
            .most_in_a_day
            .max(days.values().copied().max().unwrap_or(0));
    }

    /// Rows written to disk for each row that came, the flush included.
    fn amplification(&self) -> f64 {
        1.0 + self.rewritten as f64 / self.flushed as f64
    }
}

/// A month of a flush every ten minutes, of which `late` in a thousand rows are of the day before.
fn month(rows_a_flush: u64, late: u64) -> Simulated {
    let mut table = Simulated::default();
    let mut now = 20_000 * DAY_US;
    let end = now + 30 * DAY_US;
    while now < end {
        now += FLUSH_US;
        let day = Timestamp(now - 1).day();
        let of_yesterday = rows_a_flush * late / 1_000;
        table.flush(day, rows_a_flush - of_yesterday);
        table.flush(day - 1, of_yesterday);
        table.tick(Timestamp(now));
    }
    // What is left for two days on which nothing comes.
    for _ in 0..2 * 144 {
        now += FLUSH_US;
        table.tick(Timestamp(now));
    }
    assert_eq!(
        table.files.iter().map(|file| file.rows).sum::<u64>(),
        table.flushed
    );
    table
}

#[test]
fn a_month_of_steady_flushes_keeps_few_files_and_rewrites_little() {
    println!(
        "rows a flush, late in 1000: files at the end, most in a day, merges, rows written per row"
    );
    // (rows of a flush, late rows of a thousand, most files a day at the end, on a day, most written)
    for (rows, late, files_a_day, in_a_day, written) in [
        (20, 0, 2.0, 16, 4.0),
        (1_000, 0, 2.0, 16, 4.0),
        (1_000, 20, 3.0, 16, 4.0),
        (30_000, 0, 3.0, 16, 4.0),
        (30_000, 20, 5.0, 16, 4.0),
        (300_000, 20, 26.0, 40, 2.5),
        (2_000_000, 0, 144.0, 144, 1.01),
    ] {
        let table = month(rows, late);
        println!(
            "{rows:>9} {late:>3}: {:>5} {:>4} {:>5} {:.2}",
            table.files.len(),
            table.most_in_a_day,
            table.merges,
            table.amplification()
        );
        // 31 days have rows when some are late.
        assert!(
            table.files.len() as f64 <= files_a_day * 31.0,
            "{} files of {rows} rows",
            table.files.len()
        );
        assert!(
            table.most_in_a_day <= in_a_day,
            "{} files in a day",
            table.most_in_a_day
        );
        assert!(
            table.amplification() <= written,
            "{}",
            table.amplification()
        );
    }
}

#[test]
fn nothing_is_due_once_nothing_comes() {
    let mut table = month(1_000, 20);
    let (files, merges) = (table.files.len(), table.merges);
    table.tick(Timestamp(20_100 * DAY_US));
    assert_eq!((table.files.len(), table.merges), (files, merges));
}

#[test]
fn rows_of_many_past_days_at_once_do_not_stay_in_small_files() {
    // Somebody loads a year, in pieces that each hold rows of all days.
    let mut table = Simulated::default();
    let now = Timestamp(20_000 * DAY_US);
    for _ in 0..200 {
        for day in 19_000..19_365 {
            table.flush(day, 100);
        }
        table.tick(now);
    }
    assert!(table.most_in_a_day <= 12, "{}", table.most_in_a_day);
    assert!(table.amplification() < 9.0, "{}", table.amplification());
}

#[test]
fn large_files_are_left_alone() {
    let files: Vec<_> = (0..20)
        .map(|at| file(5, 2_000_000, 1 + at * 2_000_000))
        .collect();
    assert!(due(&files, Timestamp(5 * DAY_US), LIMITS).is_empty());
    assert!(due(&files, Timestamp(100 * DAY_US), LIMITS).is_empty());
    assert!(due(&[], Timestamp(0), LIMITS).is_empty());
}
