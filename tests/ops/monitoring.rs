//! What those who watch over Herald are given: the dashboard, the alerts and docs/operations.md, held against what Herald really says and
//! against each other. PromQL is checked by Prometheus's own `promtool`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::metrics::{Page, documented};
use crate::process::Setup;

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const DASHBOARD: &str = include_str!("../../config/grafana/herald.json");
const ALERTS: &str = include_str!("../../config/prometheus/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../config/prometheus/alerts.test.yml");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus");

/// Every metric with its kind: what the code declares, and what a server that has something to do has on its page.
async fn known() -> BTreeMap<String, String> {
    let herald = Setup::new().start().await;
    let mut client = herald.connect().await;
    client.subscribe("private-room").await;
    herald.api().trigger("private-room", "e", "data").await;
    client.expect("e").await;
    let page = Page::of(&herald).await;
    let mut known: BTreeMap<_, _> = documented().into_iter().collect();
    let live = page.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    known.extend(live.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert!(known.len() > 50, "{known:?}");
    known
}

/// The metrics that an expression is about, by the names that they are declared with.
fn metrics_of(expression: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("herald_") || word.starts_with("process_"));
    let declared = |name: &str| {
        let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let histogram = series.filter(|base| known.get(*base).is_some_and(|kind| kind == "histogram"));
        histogram.unwrap_or(name).to_owned()
    };
    names.map(declared).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// The expressions of all panels, with what they stand on.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| Some((panel["title"].as_str()?, panel["targets"].as_array()?)));
    targets.flat_map(|(title, all)| all.iter().map(move |one| (title, one["expr"].as_str().unwrap()))).collect()
}

/// The alerts, each with the lines from its name to the next one's.
fn alerts() -> BTreeMap<&'static str, &'static str> {
    let parts = ALERTS.split("- alert: ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap()).collect()
}

/// The text from a heading to the next one of its level.
fn section(heading: &str) -> &'static str {
    let (_, rest) = OPERATIONS.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading} is missing"));
    let level = heading.split(' ').next().unwrap();
    rest.split_once(&format!("\n{level} ")).map_or(rest, |(text, _)| text)
}

#[tokio::test]
async fn every_metric_is_on_a_panel_and_explained_and_there_are_no_others() {
    let known = known().await;
    let dashboard = dashboard();
    let mut shown = BTreeSet::new();
    for (title, expression) in expressions(&dashboard) {
        let metrics = metrics_of(expression, &known);
        assert!(!metrics.is_empty(), "{title}: {expression}");
        shown.extend(metrics);
    }
    let watched: BTreeSet<_> = alerts().values().flat_map(|alert| metrics_of(alert, &known)).collect();
    let all: BTreeSet<_> = known.keys().cloned().collect();
    let none = Vec::<&String>::new();
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), none, "these are on no panel");
    assert_eq!(shown.difference(&all).collect::<Vec<_>>(), none, "panels show what there is not");
    assert_eq!(watched.difference(&all).collect::<Vec<_>>(), none, "alerts are built on what there is not");
    let told = section("## Metrics");
    let rows: BTreeMap<_, _> = told.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect();
    for row in include_str!("../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `")) {
        let columns: Vec<&str> = row.split('|').map(|column| column.trim().trim_end_matches('`')).collect();
        let explained =
            rows.get(columns[0]).unwrap_or_else(|| panic!("{} has no row in docs/operations.md", columns[0]));
        for label in columns[2].split_whitespace() {
            assert!(explained.contains(&format!("`{label}`")), "{}: the label {label} is not told", columns[0]);
        }
    }
    let gone: Vec<_> = rows.keys().filter(|name| !all.contains(**name)).collect();
    assert!(gone.is_empty(), "docs/operations.md explains what there is not: {gone:?}");
}

#[test]
fn the_dashboard_can_be_imported_with_any_data_source() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = &variables[0];
    assert_eq!(
        (&source["name"], &source["type"], &source["query"]),
        (&"datasource".into(), &"datasource".into(), &"prometheus".into())
    );
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39, "of Grafana 11");
    assert!(dashboard["id"].is_null(), "it is a new one where it comes to");
    let every_uid = DASHBOARD.lines().filter(|line| line.trim().starts_with("\"uid\":")).map(str::trim);
    for uid in every_uid.filter(|line| *line != "\"uid\": \"herald\",") {
        assert_eq!(uid, "\"uid\": \"${datasource}\"", "no data source is fixed");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|panel| panel["title"].as_str().unwrap()).collect();
    assert_eq!(
        rows,
        [
            "Overview",
            "Connections",
            "Messages",
            "Fan-out and latency",
            "Cluster and Redis",
            "Inbox and database",
            "Webhooks and tasks",
            "Third parties",
            "Rate limits",
            "Files and support",
            "Web vitals",
            "Process"
        ]
    );
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for cell in (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another panel", panel["title"]);
        }
    }
}

#[test]
fn every_alert_is_explained_and_tested_both_ways() {
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{alerts:?}");
    let told = section("## Alerts");
    let explained: BTreeSet<&str> = told.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(explained, alerts.keys().copied().collect::<BTreeSet<_>>());
    for (name, alert) in &alerts {
        assert!(section(&format!("### {name}")).trim().len() > 80, "{name}: what it means and what to do");
        assert!(alert.contains(&format!("runbook: docs/operations.md#{}\n", name.to_lowercase())), "{name}: {alert}");
        assert!(alert.contains("severity: critical") || alert.contains("severity: warning"), "{name}");
        let cases = ALERT_TESTS.split("\n  - name: ").skip(1);
        let of_this = cases.filter(|case| case.lines().any(|line| line.trim() == format!("- alertname: {name}")));
        let (silent, firing): (Vec<_>, Vec<_>) = of_this.partition(|case| case.contains("exp_alerts: []"));
        assert!(!silent.is_empty() && !firing.is_empty(), "{name} is tested when it fires, and when it must not");
    }
}

/// Runs `promtool`, which must succeed.
fn promtool(folder: &Path, arguments: &[&str]) {
    let run = Command::new("promtool").args(arguments).current_dir(folder).output();
    let done = run.expect("promtool is there (Debian's package prometheus)");
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(done.status.success(), "promtool {arguments:?}\n{said}");
}

#[test]
fn prometheus_takes_the_configuration_and_the_alerts_do_what_their_tests_say() {
    let folder = Path::new(RULES);
    promtool(folder, &["check", "rules", "alerts.yml"]);
    promtool(folder, &["check", "config", "prometheus.yml"]);
    promtool(folder, &["test", "rules", "alerts.test.yml"]);
}

#[test]
fn prometheus_understands_every_panel() {
    let dashboard = dashboard();
    let rule = |(number, (_, expression)): (usize, (&str, &str))| {
        let expression = expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
        format!("      - record: panel:{number}\n        expr: {}\n", Value::from(expression))
    };
    let rules: String = expressions(&dashboard).into_iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("panels.yml"), format!("groups:\n  - name: panels\n    rules:\n{rules}")).unwrap();
    promtool(folder.path(), &["check", "rules", "panels.yml"]);
}

/// The names of fields that lines of the log have, of all of `src`.
fn logged_fields(folder: &Path, fields: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logged_fields(&path, fields);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for level in ["error", "warn", "info", "debug", "trace"] {
                for rest in text.split(&format!("tracing::{level}!(")).skip(1) {
                    fields.extend(arguments(rest).iter().filter_map(|argument| field(argument)));
                }
            }
        }
    }
}

/// What stands between the commas, up to the closing bracket.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    let mut all = vec![String::new()];
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text && depth == 0 => return all,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().unwrap().push(c);
    }
    panic!("a bracket is not closed: {text}");
}

/// The field's name, of `name`, `%name`, `?name` and `name = …`; nothing for the message.
fn field(argument: &str) -> Option<String> {
    let argument = argument.trim();
    let name = argument.split('=').next().unwrap_or_default().trim().trim_start_matches(['%', '?']);
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
    assert!(argument.is_empty() || argument.starts_with('"') || is_name(name), "what field is this: {argument}");
    is_name(name).then(|| name.to_owned())
}

#[test]
fn every_field_of_the_log_is_explained() {
    let mut used: BTreeSet<String> = ["timestamp", "level", "target", "message"].map(str::to_owned).into();
    logged_fields(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
    assert!(used.len() > 40, "{used:?}");
    let rows = section("## The log").lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let names = rows.flat_map(|(names, _)| names.split(", ").map(|name| name.trim_matches('`').to_owned()));
    let explained: BTreeSet<String> = names.collect();
    assert_eq!(used.difference(&explained).collect::<Vec<_>>(), Vec::<&String>::new(), "these are not explained");
    assert_eq!(explained.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "these are in no line");
}
