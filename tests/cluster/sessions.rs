//! Whose a connection is, where another node than its own has authorized it.

use serde_json::json;

use crate::nodes::Nodes;
use crate::postgres::Postgres;
use crate::proxy::{Proxy, Way};
use crate::user::{CLERK_SECRET, auth, authorize, token, webhook};

over_both! {
    a_session_ends_on_the_node_of_its_connection_though_another_one_authorized_it,
    who_is_authorized_after_the_end_is_closed_where_the_connection_is,
}

fn config(database: &Postgres) -> String {
    let auth = auth(&format!("webhook_secret = \"{CLERK_SECRET}\""));
    format!("[database]\nurl = \"{}\"\nschema = \"{}\"\n{auth}", database.url, database.schema)
}

async fn a_session_ends_on_the_node_of_its_connection_though_another_one_authorized_it(url: &str) {
    let database = Postgres::start().await;
    let nodes = Nodes::start(url, 2, &config(&database)).await;
    let mut client = nodes[0].connect().await;
    let mut other = nodes[0].connect().await;
    for (client, session) in [(&mut client, "sess_1"), (&mut other, "sess_2")] {
        let token = token("user_ann", &json!({ "sid": session }));
        let form = format!("socket_id={}&channel_name=private-user-user_ann", client.socket_id());
        let mut data = authorize(&nodes[1], "/pusher/auth", &token, &form).await.ok();
        data["channel"] = "private-user-user_ann".into();
        client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
        client.expect_succeeded("private-user-user_ann").await;
        client.expect("inbox.state").await;
    }
    let session = json!({ "id": "sess_1", "user_id": "user_ann", "object": "session" });
    webhook(&nodes[0], "msg_1", "session.revoked", &session).await.ok();
    client.expect_refusal(4009).await;
    other.expect("session.revoked").await;
    other.settle().await;
}

async fn who_is_authorized_after_the_end_is_closed_where_the_connection_is(url: &str) {
    let database = Postgres::start().await;
    let mut nodes = Nodes::start(url, 1, &config(&database)).await;
    let address = database.url.trim_start_matches("postgres://herald@").trim_end_matches("/postgres");
    let way = Proxy::to(address).await;
    nodes.join(&format!("[database]\nurl = \"postgres://herald@{}/postgres\"", way.address())).await;
    let mut client = nodes[0].connect().await;
    let session = json!({ "id": "sess_1", "user_id": "user_ann", "object": "session" });
    webhook(&nodes[0], "msg_1", "session.revoked", &session).await.ok();
    // The other node cannot ask whether the session has ended: then the token alone counts.
    way.set(Way::Cut);
    let form = format!("socket_id={}&channel_name=private-user-user_ann", client.socket_id());
    authorize(&nodes[1], "/pusher/auth", &token("user_ann", &json!({ "sid": "sess_1" })), &form).await.ok();
    client.expect_refusal(4009).await;
}
