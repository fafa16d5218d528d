//! The secrets among the values, each with the parts that are secret by themselves, so that they can be kept out of whatever leaves the process.

use herald_protocol::Secret;
use percent_encoding::percent_decode_str;
use toml::Value;
use url::Url;

/// Shorter ones are words that stand in many texts.
const SHORTEST: usize = 6;

/// Those of a value of the file.
pub(super) fn of_value(value: &Value, into: &mut Vec<Secret>) {
    match value {
        Value::String(text) => of_text(text, into),
        Value::Array(values) => values.iter().for_each(|value| of_value(value, into)),
        Value::Table(values) => values.values().for_each(|value| of_value(value, into)),
        _ => {}
    }
}

/// Those of a text: the whole, each of several with commas between, the key behind an id, the password of an address.
pub(super) fn of_text(text: &str, into: &mut Vec<Secret>) {
    let mut add = |part: &str| {
        if part.len() >= SHORTEST && !into.iter().any(|known| known.is(part)) {
            into.push(Secret::new(part));
        }
    };
    add(text.trim());
    for part in text.split(',').map(str::trim) {
        add(part);
        match Url::parse(part).ok().filter(Url::has_host) {
            Some(url) => {
                let password = url.password().unwrap_or_default();
                add(password);
                add(&percent_decode_str(password).decode_utf8_lossy());
                url.query_pairs().for_each(|(_, value)| add(&value));
            }
            None if part.starts_with("sqlite:") => {}
            None => {
                let key = part.rsplit_once(':').map_or(part, |(_, key)| key);
                add(key);
                add(key.strip_prefix("whsec_").unwrap_or(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        of_text(text, &mut found);
        found.iter().map(|secret| secret.expose().to_owned()).collect()
    }

    #[test]
    fn a_secret_is_known_whole_and_by_its_parts() {
        assert_eq!(found("hush-hush"), ["hush-hush"]);
        assert_eq!(
            found("whsec_bm90aGluZw==, whsec_bW9yZQ=="),
            ["whsec_bm90aGluZw==, whsec_bW9yZQ==", "whsec_bm90aGluZw==", "bm90aGluZw==", "whsec_bW9yZQ==", "bW9yZQ=="]
        );
        assert_eq!(found("k1:c2VjcmV0LWtleQ=="), ["k1:c2VjcmV0LWtleQ==", "c2VjcmV0LWtleQ=="]);
        assert_eq!(
            found("redis://user:p%40ssword@host/0"),
            ["redis://user:p%40ssword@host/0", "p%40ssword", "p@ssword"]
        );
        assert_eq!(found("https://h.example/hook?token=abcdef")[1], "abcdef");
        assert_eq!(found("short"), [""; 0]);
    }

    #[test]
    fn lists_and_tables_are_looked_through() {
        let table: toml::Table = "a = [\"first-one\"]\nb = { c = \"second-one\", d = 1 }".parse().unwrap();
        let mut found = Vec::new();
        of_value(&Value::Table(table), &mut found);
        assert!(found.len() == 2 && found[0].is("first-one") && found[1].is("second-one"));
    }
}
