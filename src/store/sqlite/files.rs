//! Users' files.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Row as _};
use uuid::Uuid;

use super::{Sqlite, is_known, people, tasks};
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
    file_size, file_url, thumbnail_url, status, coalesce(metadata, '{}') AS metadata, created_at, updated_at";

impl<'r> FromRow<'r, SqliteRow> for File {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let (id, status): (&str, &str) = (row.try_get("id")?, row.try_get("status")?);
        let Json(metadata): Json<Value> = row.try_get("metadata")?;
        Ok(Self {
            id: id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?,
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
impl Files for Sqlite {
    async fn apply_to_files(
        &self,
        app: &str,
        inbound: &Inbound<'_>,
        change: &FileChange,
        strangers: bool,
        now: Timestamp,
    ) -> Result<Vec<FileEvent>, StoreError> {
        let mut tx = self.write().await?;
        if !people::note(&mut tx, inbound, now).await? {
            return Ok(Vec::new());
        }
        let events = match change {
            FileChange::Uploaded(file) => {
                if is_known(&mut tx, &file.user, !strangers, now).await? {
                    put(&mut tx, app, file, Source::Service, now).await?.1
                } else {
                    destroy_of_deleted(&mut tx, file, now).await?;
                    Vec::new()
                }
            }
            FileChange::Renamed { from, to, owner } => rename(&mut tx, app, from, to, owner.as_deref(), now).await?,
            FileChange::Derived { file, thumbnail_url } => derive(&mut tx, app, file, thumbnail_url, now).await?,
            FileChange::Deleted(gone) => {
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
    }

    async fn report_file(
        &self,
        app: &str,
        file: &NewFile,
        now: Timestamp,
    ) -> Result<Option<(File, Option<FileEventName>)>, StoreError> {
        let mut tx = self.write().await?;
        if !is_known(&mut tx, &file.user, false, now).await? {
            return Ok(None);
        }
        let (row, events) = put(&mut tx, app, file, Source::Client, now).await?;
        tx.commit().await?;
        let own = row.filter(|row| row.user_id == file.user);
        Ok(own.map(|row| (row, events.first().map(|event| event.name))))
    }

    async fn files(
        &self,
        app: &str,
        user: &str,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<FilePage, StoreError> {
        let beyond = if after.is_some() { "AND (created_at, id) < ($4, $5)" } else { "" };
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND user_id = $2 AND status IN ('ready','rejected') {beyond}
            ORDER BY created_at DESC, id DESC LIMIT $3"
        ));
        let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut query = sqlx::query_as(sql).bind(app).bind(user).bind(one_more);
        if let Some(after) = after {
            query = query.bind(after.created_at).bind(after.id.to_string());
        }
        Ok(FilePage::of(query.fetch_all(&self.readers).await?, limit))
    }

    async fn delete_file(
        &self,
        app: &str,
        user: &str,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(File, bool)>, StoreError> {
        let mut tx = self.write().await?;
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND user_id = $2 AND id = $3 AND status <> 'deleted'"
        ));
        let found = sqlx::query_as(sql).bind(app).bind(user).bind(id.to_string()).fetch_optional(&mut *tx).await?;
        let Some(mut file): Option<File> = found else { return Ok(None) };
        if file.status == FileStatus::Deleting {
            return Ok(Some((file, false)));
        }
        (file.status, file.updated_at) = (FileStatus::Deleting, now);
        write(&mut tx, app, &file).await?;
        destroy(&mut tx, &file.destroy(), &file.destroy_key(), now).await?;
        tx.commit().await?;
        Ok(Some((file, true)))
    }

    async fn is_to_be_destroyed(&self, id: Uuid) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM user_files WHERE id = $1 AND status IN ('rejected', 'deleting')";
        let found: Option<i64> = sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(&self.readers).await?;
        Ok(found.is_some())
    }

    async fn destroyed(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let sql = "UPDATE user_files SET status = 'deleted', updated_at = $2 WHERE id = $1 AND status = 'deleting'";
        sqlx::query(sql).bind(id.to_string()).bind(now).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

/// The file as it is afterwards, and what its owner is told; its owner before that too, if that was another one.
async fn put(
    connection: &mut SqliteConnection,
    app: &str,
    new: &NewFile,
    source: Source,
    now: Timestamp,
) -> Result<(Option<File>, Vec<FileEvent>), StoreError> {
    let of_name = find(connection, app, &new.key).await?;
    let of_asset = match &new.asset_id {
        Some(asset) if of_name.as_ref().is_none_or(|file| file.asset_id.as_deref() != Some(asset)) => {
            find_asset(connection, app, asset).await?
        }
        _ => None,
    };
    // The same file under another name: its renaming was missed. What had the name before is no more.
    let known = of_asset.as_ref().or(of_name.as_ref());
    let Some((status, name)) = settle(known, new, source) else {
        return Ok((known.cloned(), Vec::new()));
    };
    if let (Some(_), Some(replaced)) = (&of_asset, &of_name) {
        remove(connection, replaced.id).await?;
    }
    let row = new.row(known, status, now);
    write(connection, app, &row).await?;
    if status == FileStatus::Rejected {
        destroy(connection, &row.destroy(), &row.destroy_key(), now).await?;
    }
    let events = row.told(name, known);
    Ok((Some(row), events))
}

async fn rename(
    connection: &mut SqliteConnection,
    app: &str,
    from: &FileKey,
    to: &FileKey,
    owner: Option<&str>,
    now: Timestamp,
) -> Result<Vec<FileEvent>, StoreError> {
    let Some(mut file) = find(connection, app, from).await?.filter(|_| from != to) else { return Ok(Vec::new()) };
    if let Some(replaced) = find(connection, app, to).await? {
        remove(connection, replaced.id).await?;
    }
    let name = file.rename(to, owner, now);
    write(connection, app, &file).await?;
    Ok(name.map(|name| FileEvent { name, file }).into_iter().collect())
}

async fn derive(
    connection: &mut SqliteConnection,
    app: &str,
    key: &FileKey,
    thumbnail_url: &str,
    now: Timestamp,
) -> Result<Vec<FileEvent>, StoreError> {
    let found = find(connection, app, key).await?;
    let is_news =
        |file: &File| file.thumbnail_url.as_deref() != Some(thumbnail_url) && file.status == FileStatus::Ready;
    let Some(mut file) = found.filter(is_news) else { return Ok(Vec::new()) };
    (file.thumbnail_url, file.updated_at) = (Some(thumbnail_url.to_owned()), now);
    write(connection, app, &file).await?;
    Ok(vec![FileEvent { name: FileEventName::Updated, file }])
}

async fn forget(
    connection: &mut SqliteConnection,
    app: &str,
    gone: &Gone,
    now: Timestamp,
) -> Result<Option<FileEvent>, StoreError> {
    let Some(mut file) = find(connection, app, &gone.key).await? else {
        if let Some(user) = &gone.owner
            && is_known(connection, user, true, now).await?
        {
            write(connection, app, &gone.row(user, now)).await?;
        }
        return Ok(None);
    };
    let is_told = file.status == FileStatus::Ready;
    if !file.forget(gone, now) {
        return Ok(None);
    }
    write(connection, app, &file).await?;
    Ok(is_told.then_some(FileEvent { name: FileEventName::Deleted, file }))
}

/// Notes a task for each of the user's files: the rows go with the user.
pub(super) async fn destroy_all(
    connection: &mut SqliteConnection,
    user: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "SELECT id, resource_type, delivery_type, service_file_id FROM user_files
        WHERE user_id = $1 AND service = $2 AND status <> 'deleted'";
    let files: Vec<(String, String, String, String)> =
        sqlx::query_as(sql).bind(user).bind(SERVICE).fetch_all(&mut *connection).await?;
    for (id, resource_type, delivery_type, service_file_id) in files {
        let key = FileKey { resource_type, delivery_type, service_file_id };
        destroy(connection, &Destroy { file: None, key }, &format!("user:{id}"), now).await?;
    }
    Ok(())
}

/// What was on its way when its user was deleted goes too.
async fn destroy_of_deleted(
    connection: &mut SqliteConnection,
    file: &NewFile,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM user_tombstones WHERE id = $1";
    let is_deleted: Option<i64> = sqlx::query_scalar(sql).bind(&file.user).fetch_optional(&mut *connection).await?;
    if is_deleted.is_some() {
        destroy(connection, &Destroy { file: None, key: file.key.clone() }, &file.late_key(), now).await?;
    }
    Ok(())
}

async fn destroy(
    connection: &mut SqliteConnection,
    task: &Destroy,
    dedupe_key: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let payload = serde_json::to_string(task).map_err(|error| sqlx::Error::Encode(error.into()))?;
    // Of no user: whoever is deleted takes other tasks along, but not this one.
    let task = NewTask { kind: TaskKind::Destroy, dedupe_key, user: None, payload: &payload, available_at: now };
    tasks::note(connection, &task, now).await?;
    Ok(())
}

async fn find(connection: &mut SqliteConnection, app: &str, key: &FileKey) -> Result<Option<File>, StoreError> {
    let sql = AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM user_files
        WHERE app_id = $1 AND service = $2 AND resource_type = $3 AND delivery_type = $4 AND service_file_id = $5"
    ));
    let query = sqlx::query_as(sql).bind(app).bind(SERVICE).bind(&key.resource_type).bind(&key.delivery_type);
    Ok(query.bind(&key.service_file_id).fetch_optional(connection).await?)
}

async fn find_asset(connection: &mut SqliteConnection, app: &str, asset: &str) -> Result<Option<File>, StoreError> {
    let sql =
        AssertSqlSafe(format!("SELECT {COLUMNS} FROM user_files WHERE app_id = $1 AND service = $2 AND asset_id = $3"));
    Ok(sqlx::query_as(sql).bind(app).bind(SERVICE).bind(asset).fetch_optional(connection).await?)
}

async fn remove(connection: &mut SqliteConnection, id: Uuid) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_files WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// Writes the row as it is, whether or not there is one.
async fn write(connection: &mut SqliteConnection, app: &str, file: &File) -> Result<(), StoreError> {
    let sql = "INSERT INTO user_files (id, app_id, user_id, service, service_file_id, asset_id, resource_type, delivery_type, version,
            filename, file_type, file_size, file_url, thumbnail_url, status, metadata, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, service_file_id = excluded.service_file_id,
            asset_id = excluded.asset_id, resource_type = excluded.resource_type, delivery_type = excluded.delivery_type,
            version = excluded.version, filename = excluded.filename, file_type = excluded.file_type, file_size = excluded.file_size,
            file_url = excluded.file_url, thumbnail_url = excluded.thumbnail_url, status = excluded.status,
            metadata = excluded.metadata, updated_at = excluded.updated_at";
    sqlx::query(sql)
        .bind(file.id.to_string())
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
        .bind(Json(&file.metadata))
        .bind(file.created_at)
        .bind(file.updated_at)
        .execute(connection)
        .await?;
    Ok(())
}
