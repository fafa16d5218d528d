//! Users' files at a service such as Cloudinary (sections 2.3 and 8.3): what that service tells of them, what their owners see of them.
//!
//! A file that is gone leaves its row for a while, so that a late word of its upload does not bring it back; what is newer by the service's
//! version does. [`settle`] is that rule, for both databases.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::people::Inbound;
use super::time::Timestamp;

/// The largest an event about a file may be, without what it says beside the file's own columns.
const MAX_EVENT_BYTES: usize = 8 * 1024;

/// A file of a user.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct File {
    /// Its id here.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// Where it lies.
    pub service: String,
    /// Its name there: Cloudinary's public id.
    pub service_file_id: String,
    /// Its id there, which no renaming changes.
    pub asset_id: Option<String>,
    /// `image`, `video` or `raw`.
    pub resource_type: String,
    /// How it is delivered: `upload`, `private` or `authenticated`.
    pub delivery_type: String,
    /// Greater with every upload to the same name.
    pub version: i64,
    /// What it is called.
    pub filename: String,
    /// Its MIME type.
    pub file_type: String,
    /// Bytes.
    pub file_size: Option<i64>,
    /// Where it can be had.
    pub file_url: String,
    /// A small picture of it.
    pub thumbnail_url: Option<String>,
    /// Whether it can be had.
    pub status: FileStatus,
    /// What the service says beside that.
    pub metadata: Value,
    /// When it was noted.
    pub created_at: Timestamp,
    /// When that changed last.
    pub updated_at: Timestamp,
}

/// What is to become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileStatus {
    /// It can be had.
    Ready,
    /// It is too large, and is deleted at the service.
    Rejected,
    /// Its owner has deleted it, and the service will.
    Deleting,
    /// It is gone.
    Deleted,
}

impl FileStatus {
    const ALL: [Self; 4] = [Self::Ready, Self::Rejected, Self::Deleting, Self::Deleted];

    /// Its name, as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Rejected => "rejected",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// What a file is called at its service: the same name may be an image's, a video's and a raw file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileKey {
    /// `image`, `video` or `raw`.
    pub resource_type: String,
    /// How it is delivered.
    pub delivery_type: String,
    /// The name.
    pub service_file_id: String,
}

/// A file that was uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFile {
    /// Whose it is.
    pub user: String,
    /// What it is called at the service.
    pub key: FileKey,
    /// Its id there.
    pub asset_id: Option<String>,
    /// Greater with every upload to the same name.
    pub version: i64,
    /// What it is called.
    pub filename: String,
    /// Its MIME type.
    pub file_type: String,
    /// Bytes.
    pub file_size: Option<i64>,
    /// Where it can be had.
    pub file_url: String,
    /// A small picture of it.
    pub thumbnail_url: Option<String>,
    /// What the service says beside that: an object.
    pub metadata: Value,
    /// Whether it is larger than files may be.
    pub is_too_large: bool,
}

/// What a service says has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum FileChange {
    /// A file was uploaded, or replaced.
    Uploaded(Box<NewFile>),
    /// A file is called otherwise now.
    Renamed {
        /// What it was called.
        from: FileKey,
        /// What it is called.
        to: FileKey,
        /// Whose file that name says it is, if it says so.
        owner: Option<String>,
    },
    /// What was to be made of a file is made.
    Derived {
        /// Which.
        file: FileKey,
        /// A small picture of it.
        thumbnail_url: String,
    },
    /// Files are gone.
    Deleted(Vec<Gone>),
    /// Nothing that is kept.
    Nothing,
}

/// A file that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// What it was called.
    pub key: FileKey,
    /// Which version of it; `None` for whichever there is.
    pub version: Option<i64>,
    /// Whose file the name says it is, if it says so.
    pub owner: Option<String>,
}

/// What a task of the kind `cloudinary.destroy` is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroy {
    /// The row that says whether it is still to be done; none where the row went with its user.
    pub file: Option<Uuid>,
    /// What the file is called at the service.
    pub key: FileKey,
}

/// What a user's pages are told.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEvent {
    /// What has happened.
    pub name: FileEventName,
    /// To which file, as it is now.
    pub file: File,
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEventName {
    /// It is there.
    Created,
    /// It is otherwise now.
    Updated,
    /// It is too large.
    Rejected,
    /// It is gone.
    Deleted,
}

impl FileEventName {
    /// Its name, as clients know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "file.created",
            Self::Updated => "file.updated",
            Self::Rejected => "file.rejected",
            Self::Deleted => "file.deleted",
        }
    }
}

impl FileEvent {
    /// What clients are told; without the metadata where that is too much for an event.
    #[must_use]
    pub fn data(&self) -> Value {
        let mut data = json!({ "file": self.file });
        if data.to_string().len() > MAX_EVENT_BYTES
            && let Some(metadata) = data.pointer_mut("/file/metadata")
        {
            *metadata = json!({});
            data["truncated"] = true.into();
        }
        data
    }
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The service's own.
    Service,
    /// The client's, who has shown that it was uploaded, and no more.
    Client,
}

/// What becomes of the row of a file that was uploaded, when it is this.
#[must_use]
pub fn settle(known: Option<&File>, new: &NewFile, source: Source) -> Option<(FileStatus, FileEventName)> {
    let ready = |event| if new.is_too_large { rejected() } else { (FileStatus::Ready, event) };
    let Some(known) = known else { return Some(ready(FileEventName::Created)) };
    match new.version.cmp(&known.version) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => {
            let is_news = source == Source::Service && known.status == FileStatus::Ready && !new.is(known);
            is_news.then(|| ready(FileEventName::Updated))
        }
        std::cmp::Ordering::Greater => {
            let is_there = known.status == FileStatus::Ready && known.user_id == new.user;
            let is_own = source == Source::Service || known.user_id == new.user;
            is_own.then(|| ready(if is_there { FileEventName::Updated } else { FileEventName::Created }))
        }
    }
}

const fn rejected() -> (FileStatus, FileEventName) {
    (FileStatus::Rejected, FileEventName::Rejected)
}

impl NewFile {
    /// Whether the row says the same already.
    fn is(&self, known: &File) -> bool {
        self.user == known.user_id
            && self.key == known.key()
            && self.asset_id == known.asset_id
            && self.filename == known.filename
            && self.file_type == known.file_type
            && self.file_size == known.file_size
            && self.file_url == known.file_url
            && self.thumbnail_url == known.thumbnail_url
            && self.metadata == known.metadata
            && !self.is_too_large
    }

    /// What the task is known by that deletes it because its user was deleted before.
    #[must_use]
    pub fn late_key(&self) -> String {
        let FileKey { resource_type, delivery_type, service_file_id } = &self.key;
        format!("late:{resource_type}:{delivery_type}:{}:{service_file_id}", self.version)
    }

    /// The row of it.
    #[must_use]
    pub fn row(&self, known: Option<&File>, status: FileStatus, now: Timestamp) -> File {
        File {
            id: known.map_or_else(Uuid::now_v7, |known| known.id),
            user_id: self.user.clone(),
            service: SERVICE.to_owned(),
            service_file_id: self.key.service_file_id.clone(),
            asset_id: self.asset_id.clone(),
            resource_type: self.key.resource_type.clone(),
            delivery_type: self.key.delivery_type.clone(),
            version: self.version,
            filename: self.filename.clone(),
            file_type: self.file_type.clone(),
            file_size: self.file_size,
            file_url: self.file_url.clone(),
            thumbnail_url: self.thumbnail_url.clone(),
            status,
            metadata: self.metadata.clone(),
            created_at: known.map_or(now, |known| known.created_at),
            updated_at: now,
        }
    }
}

impl Gone {
    /// The row of a file of which nothing else is known: it keeps a late word of its upload from bringing it back.
    #[must_use]
    pub fn row(&self, user: &str, now: Timestamp) -> File {
        NewFile {
            user: user.to_owned(),
            key: self.key.clone(),
            asset_id: None,
            version: self.version.unwrap_or_default(),
            filename: String::new(),
            file_type: String::new(),
            file_size: None,
            file_url: String::new(),
            thumbnail_url: None,
            metadata: json!({}),
            is_too_large: false,
        }
        .row(None, FileStatus::Deleted, now)
    }
}

impl File {
    /// What it is called at its service.
    #[must_use]
    pub fn key(&self) -> FileKey {
        FileKey {
            resource_type: self.resource_type.clone(),
            delivery_type: self.delivery_type.clone(),
            service_file_id: self.service_file_id.clone(),
        }
    }

    /// Takes another name. Returns what its owner is told; in another user's folder it is no more theirs.
    #[must_use]
    pub fn rename(&mut self, to: &FileKey, owner: Option<&str>, now: Timestamp) -> Option<FileEventName> {
        let is_told = self.status == FileStatus::Ready;
        self.service_file_id.clone_from(&to.service_file_id);
        self.resource_type.clone_from(&to.resource_type);
        self.delivery_type.clone_from(&to.delivery_type);
        self.updated_at = now;
        if owner.is_some_and(|owner| owner != self.user_id) {
            self.status = FileStatus::Deleted;
            return is_told.then_some(FileEventName::Deleted);
        }
        is_told.then_some(FileEventName::Updated)
    }

    /// Is gone, if that version of it is. One that is too large stays as it was, for its owner to see.
    #[must_use]
    pub fn forget(&mut self, gone: &Gone, now: Timestamp) -> bool {
        let is_this = gone.version.is_none_or(|version| version >= self.version);
        let is_gone = is_this && matches!(self.status, FileStatus::Ready | FileStatus::Deleting);
        if is_gone {
            (self.status, self.updated_at) = (FileStatus::Deleted, now);
        }
        is_gone
    }

    /// What is told once it is so: its owner, and whoever was that before.
    #[must_use]
    pub fn told(&self, name: FileEventName, before: Option<&Self>) -> Vec<FileEvent> {
        let lost = before.filter(|before| before.user_id != self.user_id && before.status == FileStatus::Ready);
        let lost = lost.map(|before| FileEvent {
            name: FileEventName::Deleted,
            file: Self { status: FileStatus::Deleted, ..before.clone() },
        });
        std::iter::once(FileEvent { name, file: self.clone() }).chain(lost).collect()
    }

    /// The task that deletes it at its service, while its row says so.
    #[must_use]
    pub fn destroy(&self) -> Destroy {
        Destroy { file: Some(self.id), key: self.key() }
    }

    /// What tasks that delete it are known by: one for each reason and version.
    #[must_use]
    pub fn destroy_key(&self) -> String {
        format!("{}:{}:{}", self.status.as_str(), self.id, self.version)
    }
}

/// The service of all files so far.
pub const SERVICE: &str = "cloudinary";

/// A page of a user's files.
#[derive(Clone, Debug, PartialEq)]
pub struct FilePage {
    /// The files.
    pub items: Vec<File>,
    /// Where the next page begins, if there is one.
    pub next: Option<FileCursor>,
}

impl FilePage {
    /// The first `limit` of these, of which there is one more if there is a next page.
    #[must_use]
    pub fn of(mut items: Vec<File>, limit: usize) -> Self {
        let is_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| is_more);
        let next = last.map(|last| FileCursor { created_at: last.created_at, id: last.id });
        Self { items, next }
    }
}

/// The last file of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCursor {
    /// When it was noted.
    pub created_at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// See the module.
#[async_trait]
pub trait Files {
    /// Notes a webhook of the service and does what follows from it, in one transaction; one that was noted before does nothing. What is too
    /// large is noted as rejected, with a task that deletes it. A file of a user of whom nothing is known is noted if `strangers`, else
    /// not; one of a deleted user never is, but gets such a task.
    async fn apply_to_files(
        &self,
        app: &str,
        inbound: &Inbound<'_>,
        change: &FileChange,
        strangers: bool,
        now: Timestamp,
    ) -> Result<Vec<FileEvent>, StoreError>;

    /// Notes what a client says it has uploaded, as the service's own word would; the service's own word counts for more. Returns the file
    /// as it is known, and what has happened to it; `None` where it is another user's, or its user was deleted.
    async fn report_file(
        &self,
        app: &str,
        file: &NewFile,
        now: Timestamp,
    ) -> Result<Option<(File, Option<FileEventName>)>, StoreError>;

    /// A page of the files that are not deleted, newest first.
    async fn files(
        &self,
        app: &str,
        user: &str,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<FilePage, StoreError>;

    /// Takes a file from its user's list and notes a task that deletes it at its service. Returns it as it is now, and whether that is new;
    /// `None` if there is no such file.
    async fn delete_file(
        &self,
        app: &str,
        user: &str,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(File, bool)>, StoreError>;

    /// Whether the file is still to be deleted at its service.
    async fn is_to_be_destroyed(&self, id: Uuid) -> Result<bool, StoreError>;

    /// The file is deleted at its service.
    async fn destroyed(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(version: i64) -> NewFile {
        NewFile {
            user: "user_ann".to_owned(),
            key: FileKey {
                resource_type: "image".to_owned(),
                delivery_type: "upload".to_owned(),
                service_file_id: "users/user_ann/photo".to_owned(),
            },
            asset_id: Some("asset".to_owned()),
            version,
            filename: "photo.jpg".to_owned(),
            file_type: "image/jpeg".to_owned(),
            file_size: Some(version),
            file_url: format!("https://res.example/v{version}/photo.jpg"),
            thumbnail_url: None,
            metadata: json!({}),
            is_too_large: false,
        }
    }

    #[test]
    fn what_is_newer_counts_and_the_services_word_before_the_clients() {
        use FileEventName::{Created, Rejected, Updated};
        use FileStatus::{Deleted, Deleting, Ready};
        let large = |version| NewFile { is_too_large: true, ..new(version) };
        let other = |version| NewFile { file_size: Some(1_000), ..new(version) };
        let bobs = NewFile { user: "user_bob".to_owned(), ..new(3) };
        let ready = |event| Some((Ready, event));
        let rejected = Some((FileStatus::Rejected, Rejected));
        for (known, file, source, expected, rule) in [
            (None, new(2), Source::Service, ready(Created), "a new one"),
            (None, new(2), Source::Client, ready(Created), "a new one, by its client"),
            (None, large(2), Source::Service, rejected, "a new one, too large"),
            (Some(Ready), new(1), Source::Service, None, "older news"),
            (Some(Ready), new(2), Source::Service, None, "the same"),
            (Some(Ready), other(2), Source::Service, ready(Updated), "the service knows better"),
            (Some(Ready), other(2), Source::Client, None, "the client does not"),
            (Some(Ready), large(2), Source::Service, rejected, "the client said it was small"),
            (Some(Ready), new(3), Source::Service, ready(Updated), "it was replaced"),
            (Some(Ready), large(3), Source::Service, rejected, "it was replaced by one too large"),
            (Some(FileStatus::Rejected), other(2), Source::Service, None, "it is being deleted"),
            (Some(FileStatus::Rejected), new(3), Source::Client, ready(Created), "one that fits, in its place"),
            (Some(Deleting), new(2), Source::Service, None, "late news of one that is being deleted"),
            (Some(Deleted), other(2), Source::Client, None, "late news of one that is deleted"),
            (Some(Deleted), new(3), Source::Service, ready(Created), "a new one in its place"),
            (Some(Ready), bobs.clone(), Source::Service, ready(Created), "it is another user's now"),
            (Some(Ready), bobs.clone(), Source::Client, None, "no client says that"),
        ] {
            let known = known.map(|status| new(2).row(None, status, Timestamp::EPOCH));
            assert_eq!(settle(known.as_ref(), &file, source), expected, "{rule}");
        }
    }

    #[test]
    fn an_event_that_is_too_long_goes_without_the_metadata() {
        let mut file = new(1).row(None, FileStatus::Ready, Timestamp::EPOCH);
        file.metadata = json!({ "width": 2 });
        let event = |file: &File| FileEvent { name: FileEventName::Created, file: file.clone() }.data();
        assert_eq!(event(&file)["file"]["metadata"], json!({ "width": 2 }));
        file.metadata = json!({ "text": "x".repeat(MAX_EVENT_BYTES) });
        let long = event(&file);
        assert_eq!((&long["file"]["metadata"], &long["truncated"]), (&json!({}), &json!(true)));
        assert_eq!(long["file"]["filename"], "photo.jpg");
    }
}
