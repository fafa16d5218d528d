//! Where an inbox stands, for whoever comes to it: `inbox.state`, right after the subscription was answered (section 8.7). A client that was
//! away compares the revision with its own and asks for what it has missed.
//!
//! Left out while the store is away: a client that hears nothing asks by itself.

use futures_util::StreamExt as _;
use futures_util::stream;
use herald_protocol::json::quoted;
use herald_protocol::segment::{USER_CHANNEL, id_of, user_channel};
use herald_protocol::{ChannelName, server};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use super::Outage;
use crate::hub::Client;
use crate::hub::channel::Arrival;
use crate::store::time::Timestamp;
use crate::store::{Inbox, Store};

/// Questions to the store at once.
const AT_ONCE: usize = 4;

/// Runs until it is dropped.
pub async fn run(store: &dyn Store, arrivals: mpsc::Receiver<Arrival>) {
    let outage = Mutex::new(Outage::default());
    let arrivals = stream::unfold(arrivals, |mut arrivals| async { Some((arrivals.recv().await?, arrivals)) });
    arrivals.for_each_concurrent(AT_ONCE, |arrival| greet(store, arrival, &outage)).await;
}

async fn greet(store: &dyn Store, Arrival { client, channel }: Arrival, outage: &Mutex<Outage>) {
    let Some(user) = user(&channel, &client) else { return };
    let inbox = Inbox { app: client.app.id(), user: &user };
    let state = store.state(inbox, Timestamp::now()).await;
    if let Some(state) = outage.lock().note("inbox.state", state) {
        let data = json!({ "rev": state.rev, "counts": state.counts }).to_string();
        client.send(&server::event("inbox.state", &channel, &quoted(&data)));
    }
}

/// Whose channel it is. A name that does not tell is told by the client, if it was authorized for it here.
fn user(channel: &ChannelName, client: &Client) -> Option<String> {
    if let Some(user) = channel.user() {
        return Some(user.to_owned());
    }
    let id = channel.as_str().strip_prefix(USER_CHANNEL).and_then(id_of);
    let bound = || client.bound_user().filter(|user| user_channel(user) == channel.as_str());
    id.map(|id| id.into_owned()).or_else(bound)
}
