//! Users' files.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::{Postgres, Tx, again, is_known, json, people, tasks};
use crate::store::StoreError;
use crate::store::files::{
    Destroy, File, FileChange, FileCursor, FileEvent, FileEventName, FileKey, FilePage, FileStatus, Files, Gone,
    NewFile, SERVICE, Source, settle,
};
use crate::store::people::Inbound;
use crate::store::tasks::{NewTask, TaskKind};
use crate::store::time::Timestamp;

const COLUMNS: &str =
    "id, user_id, service, service_file_id, asset_id, resource_type, delivery_type, version, filename, file_type,
    file_size, file_url, thumbnail_url, status, coalesce(metadata, '{}'::json) AS metadata, created_at, updated_at";

impl<'r> FromRow<'r, PgRow> for File {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let status: &str = row.try_get("status")?;
        let Json(metadata): Json<Value> = row.try_get("metadata")?;
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            service: row.try_get("service")?,
            service_file_id: row.try_get("service_file_id")?,
            asset_id: row.try_get("asset_id")?,
            resource_type: row.try_get("resource_type")?,
            delivery_type: row.try_get("delivery_type")?,
            version: row.try_get("version")?,
            filename: row.try_get("filename")?,
            file_type: row.try_get("file_type")?,
            file_size: row.try_get("file_size")?,
            file_url: row.try_get("file_url")?,
            thumbnail_url: row.try_get("thumbnail_url")?,
            status: FileStatus::parse(status).ok_or_else(|| sqlx::Error::Decode("an unknown status".into()))?,
            metadata,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

#[async_trait]
impl Files for Postgres {
    async fn apply_to_files(
        &self,
        app: &str,
        inbound: &Inbound<'_>,
        change: &FileChange,
        strangers: bool,
        now: Timestamp,
    ) -> Result<Vec<FileEvent>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !people::note(&mut tx, inbound, now).await? {
                return Ok(Vec::new());
            }
            let events = match change {
                FileChange::Uploaded(file) => {
                    if is_user(&mut tx, &file.user, strangers, now).await? {
                        put(&mut tx, app, file, Source::Service, now).await?.1
                    } else {
                        destroy_of_deleted(&mut tx, file, now).await?;
                        Vec::new()
                    }
                }
                FileChange::Renamed { from, to, owner } => {
                    rename(&mut tx, app, from, to, owner.as_deref(), now).await?
                }
                FileChange::Derived { file, thumbnail_url } => derive(&mut tx, app, file, thumbnail_url, now).await?,
                FileChange::Deleted(gone) => {
                    lock(&mut tx, app, gone.iter().map(|gone| &gone.key)).await?;
                    let mut events = Vec::new();
                    for gone in gone {
                        events.extend(forget(&mut tx, app, gone, now).await?);
                    }
                    events
                }
                FileChange::Nothing => Vec::new(),
            };
            tx.commit().await?;
            Ok(events)
        })
        .await
    }

    async fn report_file(
        &self,
        app: &str,
        file: &NewFile,
        now: Timestamp,
    ) -> Result<Option<(File, Option<FileEventName>)>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            if !is_known(&mut tx, &file.user, now).await? {
                return Ok(None);
            }
            let (row, events) = put(&mut tx, app, file, Source::Client, now).await?;
            tx.commit().await?;
            let own = row.filter(|row| row.user_id == file.user);
            Ok(own.map(|row| (row, events.first().map(|event| event.name))))
        })
        .await
    }

    async fn files(
        &self,
        app: &str,
        user: &str,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<FilePage, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let beyond = if after.is_some() { "AND (created_at, id) < ($4, $5)" } else { "" };
            let sql = format!(
                "SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND user_id = $2 AND status IN ('ready','rejected') {beyond}
                ORDER BY created_at DESC, id DESC LIMIT $3"
            );
            let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
            let mut query = tx.rows(&sql).bind(app).bind(user).bind(one_more);
            if let Some(after) = after {
                query = query.bind(after.created_at).bind(after.id);
            }
            let items = query.fetch_all(tx.on()).await?;
            tx.commit().await?;
            Ok(FilePage::of(items, limit))
        })
        .await
    }

    async fn delete_file(
        &self,
        app: &str,
        user: &str,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(File, bool)>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = format!(
                "SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND user_id = $2 AND id = $3 AND status <> 'deleted' FOR UPDATE"
            );
            let found = tx.rows(&sql).bind(app).bind(user).bind(id).fetch_optional(tx.on()).await?;
            let Some(mut file): Option<File> = found else { return Ok(None) };
            if file.status == FileStatus::Deleting {
                return Ok(Some((file, false)));
            }
            (file.status, file.updated_at) = (FileStatus::Deleting, now);
            write(&mut tx, app, &file).await?;
            destroy(&mut tx, &file.destroy(), &file.destroy_key(), now).await?;
            tx.commit().await?;
            Ok(Some((file, true)))
        })
        .await
    }

    async fn is_to_be_destroyed(&self, id: Uuid) -> Result<bool, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT EXISTS (SELECT 1 FROM user_files WHERE id = $1 AND status IN ('rejected', 'deleting'))";
            let is_so = tx.value(sql).bind(id).fetch_one(tx.on()).await?;
            tx.commit().await?;
            Ok(is_so)
        })
        .await
    }

    async fn destroyed(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "UPDATE user_files SET status = 'deleted', updated_at = $2 WHERE id = $1 AND status = 'deleting'";
            tx.query(sql).bind(id).bind(now).execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }
}

/// Whether the user is there to have a file: one of whom nothing is known becomes known, if strangers may.
async fn is_user(tx: &mut Tx, user: &str, strangers: bool, now: Timestamp) -> Result<bool, StoreError> {
    if strangers {
        return is_known(tx, user, now).await;
    }
    // Whoever is being deleted is waited for.
    let sql = "SELECT id FROM users WHERE id = $1 FOR KEY SHARE";
    let known: Option<String> = tx.value(sql).bind(user).fetch_optional(tx.on()).await?;
    Ok(known.is_some())
}

/// Keeps others from giving or taking these names until the transaction ends.
async fn lock(tx: &mut Tx, app: &str, keys: impl IntoIterator<Item = &FileKey>) -> Result<(), StoreError> {
    let mut names: Vec<String> = keys.into_iter().map(|key| format!("{app} {}", json(key))).collect();
    names.sort_unstable();
    for name in &names {
        let sql = "SELECT pg_advisory_xact_lock(hashtext(current_schema()), hashtext($1))";
        tx.query(sql).bind(name).execute(tx.on()).await?;
    }
    Ok(())
}

/// The file as it is afterwards, and what its owner is told; its owner before that too, if that was another one.
async fn put(
    tx: &mut Tx,
    app: &str,
    new: &NewFile,
    source: Source,
    now: Timestamp,
) -> Result<(Option<File>, Vec<FileEvent>), StoreError> {
    lock(tx, app, [&new.key]).await?;
    let of_name = find(tx, app, &new.key).await?;
    let of_asset = match &new.asset_id {
        Some(asset) if of_name.as_ref().is_none_or(|file| file.asset_id.as_deref() != Some(asset)) => {
            find_asset(tx, app, asset).await?
        }
        _ => None,
    };
    // The same file under another name: its renaming was missed. What had the name before is no more.
    let known = of_asset.as_ref().or(of_name.as_ref());
    let Some((status, name)) = settle(known, new, source) else {
        return Ok((known.cloned(), Vec::new()));
    };
    if let (Some(_), Some(replaced)) = (&of_asset, &of_name) {
        remove(tx, replaced.id).await?;
    }
    let row = new.row(known, status, now);
    write(tx, app, &row).await?;
    if status == FileStatus::Rejected {
        destroy(tx, &row.destroy(), &row.destroy_key(), now).await?;
    }
    let events = row.told(name, known);
    Ok((Some(row), events))
}

async fn rename(
    tx: &mut Tx,
    app: &str,
    from: &FileKey,
    to: &FileKey,
    owner: Option<&str>,
    now: Timestamp,
) -> Result<Vec<FileEvent>, StoreError> {
    lock(tx, app, [from, to]).await?;
    let Some(mut file) = find(tx, app, from).await?.filter(|_| from != to) else { return Ok(Vec::new()) };
    if let Some(replaced) = find(tx, app, to).await? {
        remove(tx, replaced.id).await?;
    }
    let name = file.rename(to, owner, now);
    write(tx, app, &file).await?;
    Ok(name.map(|name| FileEvent { name, file }).into_iter().collect())
}

async fn derive(
    tx: &mut Tx,
    app: &str,
    key: &FileKey,
    thumbnail_url: &str,
    now: Timestamp,
) -> Result<Vec<FileEvent>, StoreError> {
    let found = find(tx, app, key).await?;
    let is_news =
        |file: &File| file.thumbnail_url.as_deref() != Some(thumbnail_url) && file.status == FileStatus::Ready;
    let Some(mut file) = found.filter(is_news) else { return Ok(Vec::new()) };
    (file.thumbnail_url, file.updated_at) = (Some(thumbnail_url.to_owned()), now);
    write(tx, app, &file).await?;
    Ok(vec![FileEvent { name: FileEventName::Updated, file }])
}

async fn forget(tx: &mut Tx, app: &str, gone: &Gone, now: Timestamp) -> Result<Option<FileEvent>, StoreError> {
    let Some(mut file) = find(tx, app, &gone.key).await? else {
        if let Some(user) = &gone.owner
            && is_user(tx, user, false, now).await?
        {
            write(tx, app, &gone.row(user, now)).await?;
        }
        return Ok(None);
    };
    let is_told = file.status == FileStatus::Ready;
    if !file.forget(gone, now) {
        return Ok(None);
    }
    write(tx, app, &file).await?;
    Ok(is_told.then_some(FileEvent { name: FileEventName::Deleted, file }))
}

/// Notes a task for each of the user's files: the rows go with the user.
pub(super) async fn destroy_all(tx: &mut Tx, user: &str, now: Timestamp) -> Result<(), StoreError> {
    // Whoever is noting a file of this user just now is waited for; nobody begins to.
    tx.query("SELECT 1 FROM users WHERE id = $1 FOR UPDATE").bind(user).execute(tx.on()).await?;
    let sql = "SELECT id, resource_type, delivery_type, service_file_id FROM user_files
        WHERE user_id = $1 AND service = $2 AND status <> 'deleted'";
    let files: Vec<(Uuid, String, String, String)> = tx.rows(sql).bind(user).bind(SERVICE).fetch_all(tx.on()).await?;
    let (mut ids, mut keys, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
    for (id, resource_type, delivery_type, service_file_id) in files {
        ids.push(Uuid::now_v7());
        keys.push(format!("user:{id}"));
        let key = FileKey { resource_type, delivery_type, service_file_id };
        payloads.push(json(&Destroy { file: None, key }));
    }
    let sql = "INSERT INTO jobs (id, kind, dedupe_key, payload, available_at, created_at)
        SELECT i, $1, k, p, $2, $2 FROM unnest($3::uuid[], $4::text[], $5::text[]) AS t(i, k, p) ON CONFLICT DO NOTHING";
    let query = tx.query(sql).bind(TaskKind::Destroy.as_str()).bind(now).bind(&ids).bind(&keys).bind(&payloads);
    query.execute(tx.on()).await?;
    Ok(())
}

/// What was on its way when its user was deleted goes too.
async fn destroy_of_deleted(tx: &mut Tx, file: &NewFile, now: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1)";
    if tx.value(sql).bind(&file.user).fetch_one(tx.on()).await? {
        destroy(tx, &Destroy { file: None, key: file.key.clone() }, &file.late_key(), now).await?;
    }
    Ok(())
}

async fn destroy(tx: &mut Tx, task: &Destroy, dedupe_key: &str, now: Timestamp) -> Result<(), StoreError> {
    let payload = json(task);
    // Of no user: whoever is deleted takes other tasks along, but not this one.
    let task = NewTask { kind: TaskKind::Destroy, dedupe_key, user: None, payload: &payload, available_at: now };
    tasks::note(tx, &task, now).await?;
    Ok(())
}

async fn find(tx: &mut Tx, app: &str, key: &FileKey) -> Result<Option<File>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM user_files
        WHERE app_id = $1 AND service = $2 AND resource_type = $3 AND delivery_type = $4 AND service_file_id = $5 FOR UPDATE"
    );
    let query = tx.rows(&sql).bind(app).bind(SERVICE).bind(&key.resource_type).bind(&key.delivery_type);
    Ok(query.bind(&key.service_file_id).fetch_optional(tx.on()).await?)
}

async fn find_asset(tx: &mut Tx, app: &str, asset: &str) -> Result<Option<File>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND service = $2 AND asset_id = $3 FOR UPDATE");
    Ok(tx.rows(&sql).bind(app).bind(SERVICE).bind(asset).fetch_optional(tx.on()).await?)
}

async fn remove(tx: &mut Tx, id: Uuid) -> Result<(), StoreError> {
    tx.query("DELETE FROM user_files WHERE id = $1").bind(id).execute(tx.on()).await?;
    Ok(())
}

/// Writes the row as it is, whether or not there is one.
async fn write(tx: &mut Tx, app: &str, file: &File) -> Result<(), StoreError> {
    let sql = "INSERT INTO user_files (id, app_id, user_id, service, service_file_id, asset_id, resource_type, delivery_type, version,
            filename, file_type, file_size, file_url, thumbnail_url, status, metadata, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::json, $17, $18)
        ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, service_file_id = excluded.service_file_id,
            asset_id = excluded.asset_id, resource_type = excluded.resource_type, delivery_type = excluded.delivery_type,
            version = excluded.version, filename = excluded.filename, file_type = excluded.file_type, file_size = excluded.file_size,
            file_url = excluded.file_url, thumbnail_url = excluded.thumbnail_url, status = excluded.status,
            metadata = excluded.metadata, updated_at = excluded.updated_at";
    tx.query(sql)
        .bind(file.id)
        .bind(app)
        .bind(&file.user_id)
        .bind(&file.service)
        .bind(&file.service_file_id)
        .bind(&file.asset_id)
        .bind(&file.resource_type)
        .bind(&file.delivery_type)
        .bind(file.version)
        .bind(&file.filename)
        .bind(&file.file_type)
        .bind(file.file_size)
        .bind(&file.file_url)
        .bind(&file.thumbnail_url)
        .bind(file.status.as_str())
        .bind(json(&file.metadata))
        .bind(file.created_at)
        .bind(file.updated_at)
        .execute(tx.on())
        .await?;
    Ok(())
}
