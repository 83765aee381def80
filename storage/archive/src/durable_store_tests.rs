use std::{
    fs,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use quiver_model::{Clock, SystemClock};

use super::DurableStore;

fn create() -> PutOptions {
    PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    }
}

#[tokio::test]
async fn an_object_is_created_once_and_overwritten_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(&directory.path().join("not/yet/there")).unwrap();
    let path = Path::from("table/_delta_log/0.json");
    store
        .put_opts(&path, PutPayload::from_static(b"first"), create())
        .await
        .unwrap();
    let error = store
        .put_opts(&path, PutPayload::from_static(b"second"), create())
        .await
        .unwrap_err();
    assert!(
        matches!(error, object_store::Error::AlreadyExists { .. }),
        "{error}"
    );
    assert_eq!(
        &*store.get(&path).await.unwrap().bytes().await.unwrap(),
        b"first"
    );
    store
        .put(&path, PutPayload::from_static(b"third"))
        .await
        .unwrap();
    assert_eq!(
        &*store.get(&path).await.unwrap().bytes().await.unwrap(),
        b"third"
    );
}

#[tokio::test]
async fn no_staged_file_is_left_or_listed() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let path = Path::from("table/file.parquet");
    store
        .put_opts(&path, PutPayload::from_static(b"content"), create())
        .await
        .unwrap();
    store
        .put_opts(&path, PutPayload::from_static(b"content"), create())
        .await
        .unwrap_err();
    assert_eq!(
        fs::read_dir(directory.path().join("table"))
            .unwrap()
            .count(),
        1
    );

    // What a crash in the middle of a write leaves.
    fs::write(directory.path().join("table/other.parquet#17"), b"half").unwrap();
    let listed: Vec<_> = store
        .list(None)
        .map_ok(|object| object.location.to_string())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed, ["table/file.parquet"]);
    let wall = u64::try_from(SystemClock::new().wall().as_micros()).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(wall);
    let prefix = Path::from("table");
    assert_eq!(
        store
            .remove_staged(&prefix, now, Duration::from_secs(60))
            .await
            .unwrap(),
        0
    );
    let later = now + Duration::from_secs(120);
    assert_eq!(
        store
            .remove_staged(&prefix, later, Duration::from_secs(60))
            .await
            .unwrap(),
        1
    );
    assert!(directory.path().join("table/file.parquet").exists());
}

#[tokio::test]
async fn an_upload_in_parts_is_one_object() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let path = Path::from("a/b/c.parquet");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload
        .put_part(PutPayload::from_static(b"one "))
        .await
        .unwrap();
    upload
        .put_part(PutPayload::from_static(b"two"))
        .await
        .unwrap();
    assert!(
        store.head(&path).await.is_err(),
        "nothing is visible before it is complete"
    );
    upload.complete().await.unwrap();
    assert_eq!(
        &*store.get(&path).await.unwrap().bytes().await.unwrap(),
        b"one two"
    );
}

#[tokio::test]
async fn listings_are_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    for number in (0..50).rev() {
        let path = Path::from(format!("table/_delta_log/{:020}.json", number * 7_919 % 50));
        store
            .put(&path, PutPayload::from_static(b"{}"))
            .await
            .unwrap();
    }
    let names: Vec<_> = store
        .list(None)
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names.len(), 50);
    assert!(names.is_sorted(), "{names:?}");
}
