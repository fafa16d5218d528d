//! One store, one cluster: a node with a database of its own is told so before it can make a second inbox of it.

use crate::nodes::{Nodes, until};
use crate::user::auth;

over_both! {
    a_node_with_another_database_does_not_start_until_the_others_have_ended,
    without_users_it_is_a_warning,
}

async fn a_node_with_another_database_does_not_start_until_the_others_have_ended(url: &str) {
    let mut nodes = Nodes::start(url, 1, &auth("")).await;
    let said = nodes.refusal().await;
    assert!(said.contains("DATABASE_URL") && said.contains("another database"), "{said}");
    until(&nodes[0], "ready").await;
    nodes[0].terminate();
    assert!(nodes[0].ended().await.success());
    nodes.join("").await;
}

async fn without_users_it_is_a_warning(url: &str) {
    let nodes = Nodes::start(url, 2, "").await;
    nodes[1].logged("another database").await;
    assert!(!nodes[0].has_logged("another database"), "the second one says it");
}
