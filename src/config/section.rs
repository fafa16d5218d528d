//! How a section is read: each option from the environment or the file, every problem gathered, nothing left over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use herald_protocol::Secret;
use toml::{Table, Value};

use super::environment::{Environment, Found};
use super::kind::Kind;
use super::secrets;

/// A part of the configuration; `options!` implements it.
pub trait Section: Default {
    /// What it is for.
    const ABOUT: &'static [&'static str];
    /// Takes its options out of `place`.
    fn read(place: Place, reader: &mut Reader<'_>) -> Self;
    /// Lists its options and those of the sections within.
    fn describe(path: &str, into: &mut Vec<Described>);
    /// Writes what is in effect, secrets masked.
    fn effective(&self, path: &str, header: &str, into: &mut String);
}

/// Where a section's options are looked for.
#[derive(Debug, Default)]
pub struct Place {
    /// Its name in the file, such as `connection.queue`; empty for the file itself.
    pub path: String,
    /// What the file says there and nobody has taken yet.
    pub file: Table,
    /// What its options' names in the environment begin with, if they can stand there.
    pub environment: Option<String>,
    /// Which of several it is, for messages.
    pub which: String,
}

/// Reads sections and gathers what is wrong.
#[derive(Debug)]
pub struct Reader<'a> {
    environment: &'a Environment,
    file: String,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Names in the environment that some option has.
    pub known: BTreeSet<String>,
    /// Values that are shown to nobody, with their parts.
    pub secrets: Vec<Secret>,
    /// Where the values came from, by option and by which of several; what is a default is not there.
    pub origins: BTreeMap<(String, String), String>,
    /// How they were written.
    pub written: Written,
}

/// How each option was written, by its name and by which of several it is: enough to tell what has changed, and nothing that could be shown.
#[derive(Clone, Debug, Default)]
pub struct Written(BTreeMap<(String, String), u64>);

impl Written {
    fn note(&mut self, option: &(String, String), text: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.0.insert(option.clone(), hasher.finish());
    }

    /// The options that are written differently in `new`, or in one of the two only.
    pub fn differing(&self, new: &Self) -> impl Iterator<Item = (String, String)> {
        let all: BTreeSet<&(String, String)> = self.0.keys().chain(new.0.keys()).collect();
        let differing: Vec<_> =
            all.into_iter().filter(|option| self.0.get(*option) != new.0.get(*option)).cloned().collect();
        differing.into_iter()
    }

    /// Takes over what `new` says about the options for which `is_taken`.
    pub fn take_over(&mut self, new: Self, is_taken: impl Fn(&str) -> bool) {
        self.0.retain(|(option, _), _| !is_taken(option));
        self.0.extend(new.0.into_iter().filter(|((option, _), _)| is_taken(option)));
    }
}

/// An option that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which, as the file names it.
    pub option: String,
    /// Where the value came from.
    pub origin: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, origin, message } = self;
        if origin.is_empty() {
            write!(f, "{option}: {message}")
        } else {
            write!(f, "{option} (from {origin}): {message}")
        }
    }
}

/// One line of the documentation.
#[derive(Debug)]
pub enum Described {
    /// A section begins.
    Section {
        /// Its name.
        path: String,
        /// What it is for.
        about: String,
    },
    /// An option.
    Option {
        /// Its name within the section.
        name: &'static str,
        /// Its name in the environment, if it can stand there.
        variable: Option<String>,
        /// What it means.
        about: String,
        /// What is allowed.
        allowed: String,
        /// What it is if nothing is said, as the file would have it.
        default: Option<String>,
    },
}

impl Described {
    /// See [`Described::Section`].
    #[must_use]
    pub fn section(path: &str, about: &[&str]) -> Self {
        Self::Section { path: path.to_owned(), about: sentence(about) }
    }

    /// See [`Described::Option`].
    #[must_use]
    pub fn option<K: Kind>(path: &str, name: &'static str, about: &[&str], default: &K::Value) -> Self {
        let variable = match path {
            "server" => Some("HERALD_".to_owned()),
            "apps" => Some("HERALD_APP_".to_owned()),
            "apps.limits" => Some("HERALD_APP_LIMITS_".to_owned()),
            _ if path.starts_with("apps.") || path == "auth.rules" => None,
            _ => Some(format!("HERALD_{}_", path.to_uppercase().replace('.', "_"))),
        };
        Self::Option {
            name,
            variable: variable.map(|prefix| prefix + &name.to_uppercase()),
            about: sentence(about),
            allowed: K::allowed(),
            default: K::write(default),
        }
    }
}

fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// `path.name`, or `name` at the top.
#[must_use]
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl<'a> Reader<'a> {
    /// A reader of the file called `file` and of `environment`.
    #[must_use]
    pub fn new(environment: &'a Environment, file: String) -> Self {
        Self {
            environment,
            file,
            problems: Vec::new(),
            known: BTreeSet::new(),
            secrets: Vec::new(),
            origins: BTreeMap::new(),
            written: Written::default(),
        }
    }

    /// An option: from the environment, else from the file, else its default.
    pub fn option<K: Kind>(&mut self, place: &mut Place, name: &str, default: impl FnOnce() -> K::Value) -> K::Value {
        let path = join(&place.path, name);
        let mut value = None;
        let this = (path.clone(), place.which.clone());
        if let Some(written) = place.file.remove(name) {
            self.origins.insert(this.clone(), self.origin(place));
            self.written.note(&this, &written.to_string());
            value = K::read(&written);
            if value.is_none() {
                self.wrong::<K>(&path, self.origin(place), &written.to_string());
            }
            if K::is_secret(&written.to_string()) {
                secrets::of_value(&written, &mut self.secrets);
            }
        }
        if let Some(prefix) = &place.environment {
            let variable = prefix.clone() + &name.to_uppercase();
            if let Some(found) = self.environment.get(&variable) {
                self.written.note(&this, &found.value);
                self.origins.insert(this, found.origin.clone());
                value = self.value::<K>(&path, found).or(value);
            }
            self.known.insert(variable);
        }
        value.unwrap_or_else(default)
    }

    /// What the environment says of an option; a value that is not allowed is noted.
    pub fn value<K: Kind>(&mut self, path: &str, found: &Found) -> Option<K::Value> {
        if K::is_secret(&found.value) {
            secrets::of_text(&found.value, &mut self.secrets);
        }
        let value = K::parse(&found.value);
        if value.is_none() {
            self.wrong::<K>(path, found.origin.clone(), &format!("{:?}", found.value));
        }
        value
    }

    /// A section within `place`.
    pub fn section<S: Section>(&mut self, place: &mut Place, name: &str) -> S {
        let environment = place.environment.as_ref().map(|prefix| match (place.path.as_str(), name) {
            ("", "server") => prefix.clone(),
            _ => format!("{prefix}{}_", name.to_uppercase()),
        });
        let path = join(&place.path, name);
        let file = match place.file.remove(name) {
            None => Table::new(),
            Some(Value::Table(file)) => file,
            Some(_) => {
                self.problem(&path, self.origin(place), format!("it must be a section, [{path}]"));
                Table::new()
            }
        };
        S::read(Place { path, file, environment, which: place.which.clone() }, self)
    }

    /// A list of sections within `place`, all from the file.
    pub fn list<S: Section>(&mut self, place: &mut Place, name: &str) -> Vec<S> {
        let path = join(&place.path, name);
        let Some(value) = place.file.remove(name) else { return Vec::new() };
        let Value::Array(entries) = value else {
            self.problem(&path, self.origin(place), format!("it must be a list of sections, [[{path}]]"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(entries.len());
        for (position, entry) in (1..).zip(entries) {
            let Value::Table(file) = entry else {
                self.problem(&path, self.origin(place), format!("entry {position} must be a section, [[{path}]]"));
                continue;
            };
            let id = file.get("id").and_then(Value::as_str).map(|id| format!("{id:?}"));
            let which = format!("{}, {} {}", place.which, name, id.unwrap_or_else(|| position.to_string()));
            sections.push(S::read(Place { path: path.clone(), file, environment: None, which }, self));
        }
        sections
    }

    /// Sections within `place` that have names of one's own, from the file and from the environment, which names them in capital letters.
    pub fn named<S: Section>(&mut self, place: &mut Place, name: &str) -> BTreeMap<String, S> {
        let path = join(&place.path, name);
        let mut tables = match place.file.remove(name) {
            None => Table::new(),
            Some(Value::Table(tables)) => tables,
            Some(_) => {
                self.problem(&path, self.origin(place), format!("it must hold sections, such as [{path}.name]"));
                Table::new()
            }
        };
        let prefix = place.environment.as_ref().map(|prefix| format!("{prefix}{}_", name.to_uppercase()));
        let said_by = |own: &str| Some(format!("{}{}_", prefix.as_ref()?, own.to_uppercase().replace(['-', '.'], "_")));
        for own in self.names_in_environment::<S>(prefix.as_deref()) {
            if !tables.keys().any(|known| said_by(known) == said_by(&own)) {
                tables.insert(own, Value::Table(Table::new()));
            }
        }
        let mut sections = BTreeMap::new();
        for (own, value) in tables {
            let path = join(&path, &own);
            match value {
                Value::Table(file) if is_service(&own) => {
                    let within = Place { path, file, environment: said_by(&own), which: place.which.clone() };
                    sections.insert(own, S::read(within, self));
                }
                Value::Table(_) => {
                    let message =
                        "its name must be 1 to 64 of a-z, 0-9, _, - and ., a letter or digit first".to_owned();
                    self.problem(&path, self.origin(place), message);
                }
                _ => self.problem(&path, self.origin(place), format!("it must be a section, [{path}]")),
            }
        }
        sections
    }

    /// The names behind `prefix` of sections one of whose options the environment has.
    fn names_in_environment<S: Section>(&self, prefix: Option<&str>) -> BTreeSet<String> {
        let mut described = Vec::new();
        S::describe("", &mut described);
        let ends = described.iter().filter_map(|described| match described {
            Described::Option { name, .. } => Some(format!("_{}", name.to_uppercase())),
            Described::Section { .. } => None,
        });
        let ends: Vec<String> = ends.collect();
        let behind = |variable: &str| {
            let rest = variable.strip_prefix(prefix?)?;
            // The shortest is right: `_OTHER_CLIENT_SECRET` ends with `_CLIENT_SECRET`.
            let names = ends.iter().filter_map(|end| rest.strip_suffix(end.as_str()));
            names.filter(|own| !own.is_empty()).min_by_key(|own| own.len()).map(str::to_lowercase)
        };
        self.environment.names().filter_map(behind).collect()
    }

    /// Refuses what no option has taken.
    pub fn finish(&mut self, place: &Place, names: &[&str]) {
        for unknown in place.file.keys() {
            let nearest = nearest(unknown, names.iter().copied());
            let hint = nearest
                .map_or_else(|| format!("known are {}", names.join(", ")), |name| format!("did you mean {name}?"));
            self.problem(&join(&place.path, unknown), self.origin(place), format!("there is no such option; {hint}"));
        }
    }

    /// Notes a problem.
    pub fn problem(&mut self, option: &str, origin: String, message: String) {
        self.problems.push(Problem { option: option.to_owned(), origin, message });
    }

    fn wrong<K: Kind>(&mut self, path: &str, origin: String, written: &str) {
        let allowed = K::allowed();
        let message = if K::is_secret(written) {
            format!("the value is not allowed; it must be {allowed}")
        } else {
            let shown: String = written.trim().chars().take(100).collect();
            format!("{shown} is not allowed; it must be {allowed}")
        };
        self.problem(path, origin, message);
    }

    fn origin(&self, place: &Place) -> String {
        self.origin_of(&place.which)
    }

    /// The file and which of several sections in it.
    #[must_use]
    pub fn origin_of(&self, which: &str) -> String {
        format!("{}{which}", self.file)
    }
}

/// Whether it may be the name of a service.
#[must_use]
pub fn is_service(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(is_part)
        && name.bytes().all(|byte| is_part(byte) || b"_-.".contains(&byte))
}

/// The known name that was most likely meant.
#[must_use]
pub fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
    let close = known.map(|candidate| (distance(candidate), candidate)).min()?;
    (close.0 <= 1 + name.len() / 4).then_some(close.1)
}
