//! docs/webhooks.md: its configuration works as it stands, and its table names every kind.

use herald_protocol::webhook::WebhookKind;
use serde_json::Value;

use super::receiver::Receiver;
use super::support::Herald;

const PAGE: &str = include_str!("../../docs/webhooks.md");

#[tokio::test]
async fn its_configuration_works() {
    let mut receiver = Receiver::of_default_app().await;
    let (_, config) = PAGE.split_once("```toml\n").unwrap();
    let (config, _) = config.split_once("```").unwrap();
    let address = "https://backend.example/webhooks";
    assert!(config.contains(address));
    let herald = Herald::start(&config.replace(address, &receiver.url())).await;
    let mut client = herald.connect().await;
    client.subscribe("private-room").await;
    client.join("presence-room", "7").await;
    let request = receiver.request().await;
    assert_eq!(request.header("authorization"), "Bearer t0ken");
    let mut shown = request.events();
    if shown.len() == 1 {
        shown.extend(receiver.request().await.events());
    }
    let body = PAGE.lines().find_map(|line| line.trim().strip_prefix(r#"{"time_ms":1327078148132,"#)).unwrap();
    let body: Value = serde_json::from_str(&format!("{{{body}")).unwrap();
    assert_eq!(Value::from(shown), body["events"]);
}

#[test]
fn its_table_names_every_kind() {
    for kind in WebhookKind::ALL {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{}` |", kind.as_str())));
        let row = row.unwrap_or_else(|| panic!("{kind:?} has a row"));
        assert_eq!(row.ends_with("| yes |"), kind.on_by_default(), "{row}");
    }
}
