//! Webhook events that outlive a restart: what was not delivered before the end is written to a file, and read at the next start.
//!
//! Always: the file is there as a whole or not at all; its owner alone may read it, since events and addresses may hold secrets; one
//! that cannot be understood is set aside and never keeps the server from starting.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use herald_protocol::webhook::WebhookKind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const FILE: &str = "undelivered-webhooks.jsonl";
const UNFINISHED: &str = "undelivered-webhooks.jsonl.new";
const SET_ASIDE: &str = "undelivered-webhooks.jsonl.broken";

/// One event for one receiver: a line of the file. A channel's events stand in the order of their delivery.
#[derive(Debug, Serialize, Deserialize)]
pub struct Undelivered {
    /// Its own id; files of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The app's id.
    pub app: String,
    /// The receiver's address.
    pub url: String,
    /// When it happened.
    pub time_ms: u64,
    /// The id of the request that it was tried with, if it was; all events of that request follow each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// Its JSON.
    pub event: Box<RawValue>,
}

/// What an event's JSON says that decides who wants it.
#[derive(Debug, Deserialize)]
pub struct About<'a> {
    name: &'a str,
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
}

impl Undelivered {
    /// What it is about; `None` if that cannot be known.
    #[must_use]
    pub fn about(&self) -> Option<About<'_>> {
        serde_json::from_str(self.event.get()).ok()
    }
}

impl About<'_> {
    /// Its kind, unless this version knows none of that name.
    #[must_use]
    pub fn kind(&self) -> Option<WebhookKind> {
        self.name.parse().ok()
    }
}

/// Writes `events` into `folder`, behind those that another process may have left there.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write(folder: &Path, events: &[Undelivered]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (path, unfinished) = (folder.join(FILE), folder.join(UNFINISHED));
    unless_missing(fs::remove_file(&unfinished))?;
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?);
    if let Some(mut earlier) = unless_missing(File::open(&path))? {
        io::copy(&mut earlier, &mut file)?;
    }
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(folder)?.sync_all()
}

/// Reads what [`write()`] has left in `folder`, and removes it.
#[must_use]
pub fn take(folder: &Path) -> Vec<Undelivered> {
    let path = folder.join(FILE);
    match read(&path) {
        Ok(None) => Vec::new(),
        Ok(Some(events)) => {
            if let Err(error) = fs::remove_file(&path) {
                tracing::error!(%error, file = %path.display(), "cannot remove delivered webhooks: the next start will send them again");
            }
            events
        }
        Err(error) => {
            let aside = folder.join(SET_ASIDE);
            let renamed = fs::rename(&path, &aside).err().map(|error| error.to_string());
            tracing::error!(
                error = format!("{error:#}"),
                renamed_to = %aside.display(),
                not_renamed_because = renamed,
                "undelivered webhooks of the last run cannot be read: none of them is sent"
            );
            Vec::new()
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<Undelivered>>> {
    let file = unless_missing(File::open(path)).with_context(|| path.display().to_string())?;
    let Some(file) = file else { return Ok(None) };
    let mut events = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let place = || format!("{}, line {number}", path.display());
        let line = line.with_context(place)?;
        events.push(serde_json::from_str(&line).with_context(place)?);
    }
    Ok(Some(events))
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn event(number: u64) -> Undelivered {
        let json = format!(r#"{{"name":"client_event","channel":"private-a","data":"\ud83d é {number}"}}"#);
        Undelivered {
            id: (number != 2).then(|| format!("event-{number}")),
            app: "app-id".to_owned(),
            url: "http://receiver/".to_owned(),
            time_ms: number,
            delivery: (number == 1).then(|| "id".to_owned()),
            event: RawValue::from_string(json).unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("made/when/needed");
        assert!(take(&data).is_empty());
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join(UNFINISHED), "of an end that was cut short").unwrap();

        write(&data, &[event(1), event(2)]).unwrap();
        write(&data, &[event(3)]).unwrap();
        assert_eq!(fs::metadata(data.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = take(&data);
        assert_eq!(taken.iter().map(|event| event.time_ms).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(taken[0].event.get(), event(1).event.get(), "byte for byte");
        assert_eq!([taken[0].delivery.as_deref(), taken[1].delivery.as_deref()], [Some("id"), None]);
        let ids: Vec<_> = taken.iter().map(|event| event.id.as_deref()).collect();
        assert_eq!(ids, [Some("event-1"), None, Some("event-3")], "the second as earlier versions wrote it");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        for broken in [&b"{\"app\":1}\n"[..], b"\n", b"\xff\n"] {
            write(folder.path(), &[event(1)]).unwrap();
            let path = folder.path().join(FILE);
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend(broken);
            fs::write(&path, &bytes).unwrap();
            assert!(take(folder.path()).is_empty());
            assert_eq!(fs::read(folder.path().join(SET_ASIDE)).unwrap(), bytes);
            assert!(!path.exists());
        }
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(take(folder.path()).is_empty(), "a folder of that name");
    }
}
