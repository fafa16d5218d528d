//! The end of whoever is not served any more, on every node: sessions that were ended, users who were deleted or banned, members who left
//! (sections 1.9 and 1.11). One node gets the webhook and keeps what it says; every node looks once a second what was kept, that one at once.
//!
//! Looking goes on where it last succeeded, so an end that came while the store was away is not missed. It looks back a little each time,
//! since another node's clock may be behind, and does nothing twice.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::hub::Hub;
use crate::notifications::Outage;
use crate::store::Store;
use crate::store::people::Ended;
use crate::store::time::Timestamp;

/// How often is looked.
const TICK: Duration = Duration::from_secs(1);
/// How far back: how much clocks may differ, and at the start how old a token may be.
const BACK: Duration = Duration::from_secs(120);

/// Runs until it is dropped. `told` says that something was kept just now.
pub async fn run(store: &dyn Store, hub: &Hub, told: &Notify) {
    let mut outage = Outage::default();
    let mut since = Timestamp::now().before(BACK);
    let mut done: HashSet<Ended> = HashSet::new();
    loop {
        hub.node.end_expired(SystemTime::now());
        let begun = Timestamp::now();
        if let Some(ended) = outage.note("sessions", store.ended_since(since).await) {
            let ended: HashSet<Ended> = ended.into_iter().collect();
            for ended in ended.difference(&done) {
                end(hub, ended).await;
            }
            for gone in done.difference(&ended) {
                if let Ended::User { user, .. } = gone {
                    hub.node.readmit(user); // not banned any more
                }
            }
            done = ended;
            since = begun.before(BACK);
        }
        tokio::select! {
            () = told.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn end(hub: &Hub, ended: &Ended) {
    match ended {
        Ended::Session { session, .. } => hub.node.end_session(session).await,
        Ended::User { user, .. } => hub.node.end_user(user),
        Ended::Membership { user, .. } => hub.node.ask_anew(user),
    }
}
