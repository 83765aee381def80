//! Decimal fields through a real table: flushed, opened again, merged, suggested.

use quiver_model::DecimalScale;

use super::*;
use crate::SuggestOptions;

fn decimal_schema(fields: &[(&str, Option<u8>)]) -> Arc<StreamSchema> {
    let fields = fields
        .iter()
        .map(|(name, digits)| {
            let name = FieldName::new(name).unwrap();
            match digits.and_then(DecimalScale::new) {
                Some(scale) => StreamField::decimal(name, scale),
                None => StreamField::new(name, FieldType::Float64),
            }
        })
        .collect();
    Arc::new(StreamSchema::new(stream("readings"), SchemaId(1), fields).unwrap())
}

#[tokio::test]
async fn decimals_survive_a_flush_a_reopen_and_a_merge() {
    let directory = tempfile::tempdir().unwrap();
    let schema = decimal_schema(&[("speed", Some(1))]);
    let first = archive(directory.path());
    // Halves: one digit after the point.
    let mut expected = Vec::new();
    for part in 0..3 {
        let batches = vec![batch_of(&schema, &rows(1 + part * 3_000, 3_000, 9, 1))];
        expected.extend(to_rows(&batches));
        let barrier = (part + 1).cast_unsigned() * 3_000;
        first.flush(input(&schema, barrier, batches)).await.unwrap();
    }
    let expected = sorted(expected);

    let reopened = archive(directory.path());
    let opened = reopened.open().await.unwrap();
    assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
    assert_eq!(opened.tables[0].fields.as_ref(), schema.fields());
    assert_eq!(all(&reopened, &opened.tables[0]).await, expected);
    let merged = reopened
        .compact(schema.stream(), &CompactOptions::default())
        .await
        .unwrap();
    assert_eq!((merged.removed, merged.added, merged.rows), (3, 1, 9_000));
    assert_eq!(all(&reopened, &merged.snapshot).await, expected);
    let report = reopened.check(schema.stream()).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    // In the table's log, the field is a decimal.
    let log = directory.path().join("readings/_delta_log");
    let commit = fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    assert!(commit.contains("decimal(18,1)"), "{commit}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_never_rounded() {
    let directory = tempfile::tempdir().unwrap();
    let schema = decimal_schema(&[("speed", Some(0))]);
    let archive = archive(directory.path());
    let batches = vec![batch_of(&schema, &rows(1, 10, 2, 1))];
    let error = archive
        .flush(input(&schema, 10, batches))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, FlushError::Invalid { problem, .. } if problem.contains("speed")),
        "{error}"
    );
    assert!(archive.open().await.unwrap().tables.is_empty());
}

#[tokio::test]
async fn the_least_exact_scale_of_each_field_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let schema = decimal_schema(&[("halves", None), ("declared", Some(1)), ("noise", None)]);
    let archive = archive(directory.path());
    for part in 0..4_i64 {
        let plain = batch_of(&schema, &rows(1 + part * 5_000, 5_000, 9, 1));
        let noise = (0..5_000_u64).map(|at| {
            f64::from_bits(0x3ff0_0000_0000_0000 | at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12)
        });
        let mut columns = plain.columns().to_vec();
        columns[6] = Arc::new(Float64Array::from_iter_values(noise));
        let batch = RecordBatch::try_new(plain.schema(), columns).unwrap();
        let barrier = (part + 1).cast_unsigned() * 5_000;
        archive
            .flush(input(&schema, barrier, vec![batch]))
            .await
            .unwrap();
    }
    let options = SuggestOptions { files: 3 };
    let found = archive.suggest(schema.stream(), &options).await.unwrap();
    assert_eq!((found.rows, found.rows_seen), (20_000, 15_000));
    let scale = DecimalScale::new(1);
    let scales: Vec<_> = found
        .fields
        .iter()
        .map(|field| (field.declared, field.scale))
        .collect();
    assert_eq!(scales, [(None, scale), (scale, scale), (None, None)]);
    let halves = &found.fields[0];
    assert!(
        halves.bytes_declared.unwrap() < halves.bytes_now / 2.0,
        "{halves:?}"
    );
    assert!(halves.saves(found.rows) > 19_000, "{halves:?}");
    assert!(halves.distinct > 0.99 && halves.values < 15_000);
    let noise = &found.fields[2];
    assert_eq!((noise.bytes_declared, noise.saves(found.rows)), (None, 0));
    assert!(noise.bytes_now > 6.0, "{noise:?}");
    assert!(archive.suggest(&stream("nothing"), &options).await.is_err());
}
