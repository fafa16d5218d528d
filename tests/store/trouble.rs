//! A disk that is full, a process that ends.

use herald::store::StoreError;
use herald::store::notification::Filter;
use herald::store::sqlite::Sqlite;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::support::{APP, Fixture, Place, draft, sqlite, titles};

#[tokio::test]
async fn what_was_kept_is_there_when_the_file_is_opened_again() {
    let db = sqlite().await;
    db.create("t1", &["user_ann"], &draft("Hello"), 1).await;
    db.store.close().await;
    let again = Sqlite::open(&db.file(), APP).await.unwrap();
    let db = Fixture { store: std::sync::Arc::new(again), ..db };
    assert_eq!(titles(&db.list(&Filter::default(), 2).await), ["Hello"]);
    assert_eq!(db.events(2).await.len(), 1, "nobody was told yet");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("herald.db");
    std::fs::write(
        &path,
        "my diary, which is long enough to be looked at as the header of a database file, and is none\n".repeat(20),
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(Sqlite::open(&path, APP).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_nothing_is_half_done() {
    // The same file on a disk of a few pages: another process's limit would not count for this one, a file system's does.
    let Some(disk) = Disk::mount() else {
        eprintln!("not run: mounting a small file system needs root");
        return;
    };
    let path = disk.0.path().join("herald.db");
    let store = std::sync::Arc::new(Sqlite::open(&path, APP).await.unwrap());
    let db = Fixture::new(store, Place::File(tempfile::tempdir().unwrap()));
    let long = herald::store::notification::Draft { message: Some("x".repeat(9_000)), ..draft("Hello") };
    let mut kept = 0;
    let error = loop {
        match db.try_create(&format!("t{kept}"), "hash", &["user_ann"], &long, None, 1).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert_eq!(db.state(2).await.0, kept, "what was refused left nothing behind");
    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    db.create("after", &["user_ann"], &long, 3).await;
    assert_eq!(db.state(4).await.0, kept + 1);
    db.store.close().await;
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    let intact: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(intact, "ok");
    connection.close().await.unwrap();
}

/// A file system of three megabytes, one of them taken by a file that can go.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "herald-test"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(())?;
        std::fs::write(folder.path().join("ballast"), vec![0_u8; 1024 * 1024]).unwrap();
        Some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
