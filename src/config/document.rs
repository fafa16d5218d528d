//! The pages about the configuration, written from the options themselves: config/herald.toml, docs/configuration.md, `herald check`.

use super::options::Config;
use super::section::{Described, Section as _};

/// Every option with its default, each commented out: config/herald.toml.
#[must_use]
pub fn example_file() -> String {
    let mut text = "# Every option of Herald with its default. What is commented out is in effect unless something else is said; the environment\n\
                    # is over the file. `herald check` says whether a file is right and prints what is in effect.\n"
        .to_owned();
    for described in described() {
        match described {
            Described::Section { path, about } if path.is_empty() => drop(about),
            Described::Section { path, about } => {
                let header = if is_list(&path) { format!("[[{path}]]") } else { format!("[{path}]") };
                text.push_str(&format!("\n{}# {header}\n", comment(&about)));
            }
            Described::Option { name, variable, about, allowed, default } => {
                let variable = variable.map(|variable| format!(" {variable} in the environment.")).unwrap_or_default();
                text.push_str(&comment(&format!("{about} Allowed: {allowed}.{variable}")));
                text.push_str(&format!("# {name} = {}\n", default.unwrap_or_default()).replace(" = \n", " =\n"));
            }
        }
    }
    text
}

/// Every option in tables: docs/configuration.md.
#[must_use]
pub fn page() -> String {
    let mut text = include_str!("configuration.head.md").to_owned();
    for described in described() {
        match described {
            Described::Section { path, .. } if path.is_empty() => {}
            Described::Section { path, about } => {
                let header = if is_list(&path) { format!("[[{path}]]") } else { format!("[{path}]") };
                text.push_str(&format!(
                    "\n## `{header}`\n\n{about}\n\n| option | default | allowed | what it is for |\n|---|---|---|---|\n"
                ));
            }
            Described::Option { name, variable, about, allowed, default } => {
                let variable = variable.map(|variable| format!("<br>`{variable}`")).unwrap_or_default();
                let default = default
                    .filter(|default| default != "\"\"")
                    .map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
                text.push_str(&format!("| `{name}`{variable} | {default} | {allowed} | {about} |\n"));
            }
        }
    }
    text
}

/// What is in effect, as a file that would say the same; secrets are masked.
#[must_use]
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    config.effective("", "", &mut text);
    text.trim_start().to_owned()
}

fn described() -> Vec<Described> {
    let mut described = Vec::new();
    Config::describe("", &mut described);
    described
}

fn is_list(path: &str) -> bool {
    matches!(path, "apps" | "apps.keys" | "apps.webhooks" | "auth.rules")
}

fn comment(text: &str) -> String {
    const WIDTH: usize = 130;
    let mut lines = String::new();
    let mut line = String::from("##");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("##");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// Compares a page with what it is generated from; with `HERALD_WRITE_DOCS=1` it is written.
#[cfg(test)]
pub(crate) fn is_up_to_date(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("HERALD_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == text, "{} is not up to date: run the tests with HERALD_WRITE_DOCS=1", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_pages_say_what_the_options_are() {
        is_up_to_date("config/herald.toml", &example_file());
        is_up_to_date("docs/configuration.md", &page());
    }

    #[test]
    fn the_example_with_its_comments_taken_off_is_the_default() {
        let lines = example_file();
        // Options without a default stand there with nothing behind the sign; ids, keys and URLs have to be one's own.
        let uncommented: Vec<String> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| !line.ends_with('=') && (line.starts_with('[') || line.contains(" = ")))
            .filter(|line| *line != "[integrations.oauth.name]") // nothing in it has a default
            .map(|line| match line {
                "id = \"\"" => "id = \"app-id\"".to_owned(),
                "key = \"\"" => "key = \"KEY\"".to_owned(),
                "secret = \"\"" => "secret = \"app-secret\"".to_owned(),
                "url = \"\"" => "url = \"http://127.0.0.1\"".to_owned(),
                other => other.to_owned(),
            })
            .collect();
        let text = uncommented.join("\n").replacen("KEY", "app-key", 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let mut all = Sources { file: Some(file.path().into()), ..Sources::default() }
            .load()
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
            .config;
        all.apps[0].keys.clear();
        all.apps[0].webhooks.clear();
        all.auth.rules.clear();
        let nothing = Sources::default().load().unwrap();
        assert_eq!(effective(&all), effective(&nothing.config));
    }

    #[test]
    fn what_is_in_effect_reads_as_a_file_and_shows_no_secret() {
        let text = effective(&Sources::default().load().unwrap().config);
        assert!(text.contains("secret = \"***\"") && !text.contains("app-secret"), "{text}");
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    }
}
