//! A `shake.toml` as it was typed: parsed, every key known and of its kind, with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rewrite::DbMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment;
use super::keys::{KEYS, Key, Kind, Support, TABLES_LATER};
use super::units;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// File and line.
    pub place: Place,
    /// What is wrong and how it is mended.
    pub what: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: PathBuf,
    /// Line, from 1; `None` for the whole file.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    /// A number; sizes are in bytes, times in milliseconds.
    Int(i64),
    Texts(Vec<String>),
    Ints(Vec<i64>),
    Dbs(DbMap),
}

/// A checked file.
#[derive(Debug)]
pub(crate) struct Document {
    file: PathBuf,
    values: BTreeMap<&'static str, (Value, usize)>,
    /// Where the first lines of texts of several lines stand.
    text_lines: BTreeMap<&'static str, usize>,
}

impl Document {
    /// Reads `file`, expands `${VAR}` from the environment, and checks every key.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            place: Place {
                file: file.to_owned(),
                line: None,
            },
            what: format!(
                "cannot be read: {error}; name a shake.toml, e.g. `understudy sync shake.toml`"
            ),
        })?;
        Self::parse(
            file,
            &environment::expand(&text, |name| std::env::var(name).ok()),
        )
    }

    /// Checks `text`, called `file` in errors.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            file: file.to_owned(),
            text,
            values: BTreeMap::new(),
            text_lines: BTreeMap::new(),
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            reader.error(at, format!("not TOML: {}", error.message().trim()))
        })?;
        reader.table("", table.get_ref())?;
        Ok(Self {
            file: reader.file,
            values: reader.values,
            text_lines: reader.text_lines,
        })
    }

    /// The value of `path`, or its default.
    pub(crate) fn value(&self, path: &'static str) -> Value {
        match self.values.get(path) {
            Some((value, _)) => value.clone(),
            None => default_of(path),
        }
    }

    /// Whether a text, or a list, is there and not empty.
    pub(crate) fn is_filled(&self, path: &'static str) -> bool {
        match self.value(path) {
            Value::Text(text) => !text.is_empty(),
            Value::Texts(list) => !list.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    pub(crate) fn text(&self, path: &'static str) -> String {
        match self.value(path) {
            Value::Text(text) => text,
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    pub(crate) fn bool(&self, path: &'static str) -> bool {
        match self.value(path) {
            Value::Bool(value) => value,
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    pub(crate) fn int(&self, path: &'static str) -> u64 {
        match self.value(path) {
            Value::Int(value) => value.unsigned_abs(),
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    pub(crate) fn texts(&self, path: &'static str) -> Vec<String> {
        match self.value(path) {
            Value::Texts(value) => value,
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    pub(crate) fn ints(&self, path: &'static str) -> Vec<i64> {
        match self.value(path) {
            Value::Ints(value) => value,
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    /// Where databases go; `None` where each keeps its number.
    pub(crate) fn dbs(&self, path: &'static str) -> Option<DbMap> {
        match self.value(path) {
            Value::Dbs(DbMap::Numbers(rules)) if rules.is_empty() => None,
            Value::Dbs(map) => Some(map),
            other => unreachable!("{path} holds {other:?}"),
        }
    }

    /// The file as it was named.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The line of the file that the first line of a text of several lines is.
    pub(crate) fn text_line(&self, path: &str) -> Option<usize> {
        self.text_lines.get(path).copied()
    }

    /// An error at a line within the text of `path`; at its own where that is not known.
    pub(crate) fn error_at(
        &self,
        path: &str,
        line: Option<usize>,
        what: impl Into<String>,
    ) -> ConfigError {
        let mut error = self.error(path, what);
        error.place.line = line.or(error.place.line);
        error
    }

    /// An error at the line of `path` (or of the file, where it is not set).
    pub(crate) fn error(&self, path: &str, what: impl Into<String>) -> ConfigError {
        let line = self.values.get(path).map(|(_, line)| *line);
        ConfigError {
            place: Place {
                file: self.file.clone(),
                line,
            },
            what: what.into(),
        }
    }
}

/// The default of a key; a key that is not in the table is a bug of ours.
fn default_of(path: &str) -> Value {
    let Some(key) = KEYS.iter().find(|key| key.path == path) else {
        unreachable!("no such key: {path}")
    };
    let text = format!("x = {}", key.default);
    let parsed = DeTable::parse(&text).ok();
    let value = parsed
        .as_ref()
        .and_then(|table| table.get_ref().get("x"))
        .and_then(|value| convert(key, value.get_ref()).ok());
    match value {
        Some(value) => value,
        None => unreachable!("default of {path} does not parse: {}", key.default),
    }
}

struct Reader<'a> {
    file: PathBuf,
    text: &'a str,
    values: BTreeMap<&'static str, (Value, usize)>,
    text_lines: BTreeMap<&'static str, usize>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    fn error(&self, at: usize, what: String) -> ConfigError {
        ConfigError {
            place: Place {
                file: self.file.clone(),
                line: Some(self.line(at)),
            },
            what,
        }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            self.entry(&path, name.span().start, value)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        at: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        if let Some((_, word)) = TABLES_LATER.iter().find(|(table, _)| *table == path) {
            return Err(self.error(at, format!("[{path}]: {word}")));
        }
        let is_table = KEYS
            .iter()
            .any(|key| key.path.starts_with(&format!("{path}.")));
        let is_value = !(is_table && matches!(value.get_ref(), DeValue::Table(_)));
        if let Some(key) = KEYS.iter().find(|key| key.path == path && is_value) {
            let line = self.line(at);
            let begin = value.span().start;
            let raw = self.text.get(begin..).unwrap_or_default();
            if let Some(rest) = ["\"\"\"", "'''"]
                .iter()
                .find_map(|quotes| raw.strip_prefix(quotes))
            {
                // TOML takes off a line's end right behind the quotes.
                let is_below = rest.starts_with('\n') || rest.starts_with("\r\n");
                let first = self.line(begin) + usize::from(is_below);
                self.text_lines.insert(key.path, first);
            }
            let value = convert(key, value.get_ref())
                .map_err(|what| self.error(at, format!("{path} {what}")))?;
            if key.support == Support::DefaultOnly && value != default_of(path) {
                let what = format!("{path}: only {} is supported by this version", key.default);
                return Err(self.error(at, what));
            }
            self.values.insert(key.path, (value, line));
            return Ok(());
        }
        match value.get_ref() {
            DeValue::Table(inner) if is_table => self.table(path, inner),
            _ if is_table => Err(self.error(at, format!("{path} is a table, not a value"))),
            _ => Err(self.error(at, unknown(path))),
        }
    }
}

/// The word said of an unknown key, with the nearest known one.
fn unknown(path: &str) -> String {
    let tables: std::collections::BTreeSet<&str> = KEYS
        .iter()
        .filter_map(|key| key.path.split_once('.').map(|(table, _)| table))
        .collect();
    let (own_table, name) = path.rsplit_once('.').unwrap_or(("", path));
    let nearest = KEYS
        .iter()
        .map(|key| key.path)
        .chain(tables)
        .max_by(|a, b| {
            let score = |known: &str| {
                let (table, known_name) = known.rsplit_once('.').unwrap_or(("", known));
                let same_table = if table == own_table { 0.15 } else { 0.0 };
                strsim::jaro_winkler(known_name, name).max(strsim::jaro_winkler(known, path))
                    + same_table
            };
            score(a).total_cmp(&score(b))
        })
        .unwrap_or_default();
    format!("unknown key {path}; did you mean {nearest}?")
}

fn db_map(value: &DeValue<'_>) -> Result<DbMap, String> {
    let wrong = || "must be a table such as { 1 = 0, 3 = \"drop\" }, or \"prefix\"".to_owned();
    if value.as_str() == Some("prefix") {
        return Ok(DbMap::Prefix);
    }
    let mut rules = BTreeMap::new();
    for (from, to) in value.as_table().ok_or_else(wrong)? {
        let name = from.get_ref();
        let from: u32 = name
            .parse()
            .map_err(|_| format!("names {name:?}, which is not a database"))?;
        let to = to.get_ref();
        let number = to.as_integer().and_then(|to| to.as_str().parse().ok());
        let to = match (to.as_str(), number) {
            (Some("drop"), _) => None,
            (None, Some(to)) => Some(to),
            _ => return Err(wrong()),
        };
        rules.insert(from, to);
    }
    Ok(DbMap::Numbers(rules))
}

/// Turns a TOML value into one of the key's kind.
fn convert(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    let wrong = |wanted: &str| format!("must be {wanted}, not {}", article(value.type_str()));
    let text = value.as_str();
    let int = value
        .as_integer()
        .and_then(|int| i64::from_str_radix(int.as_str(), int.radix()).ok());
    match key.kind {
        Kind::Text | Kind::Secret => text
            .map(|text| Value::Text(text.to_owned()))
            .ok_or_else(|| wrong("a text")),
        Kind::Address => {
            let text = text.ok_or_else(|| wrong("a text \"host:port\""))?;
            units::address(text).map(|()| Value::Text(text.to_owned()))
        }
        Kind::Bool => value
            .as_bool()
            .map(Value::Bool)
            .ok_or_else(|| wrong("true or false")),
        Kind::Int { min, max } => match int.ok_or_else(|| wrong("a whole number"))? {
            number if number < min || number > max => Err(if max == i64::MAX {
                format!("is {number}, but must be at least {min}")
            } else {
                format!("is {number}, but must be between {min} and {max}")
            }),
            number => Ok(Value::Int(number)),
        },
        Kind::Bytes => match (int, text) {
            (Some(number), _) if number >= 0 => Ok(Value::Int(number)),
            (_, Some(text)) => units::bytes(text).map(Value::Int),
            _ => Err(wrong("a size such as 1048576 or \"1mb\"")),
        },
        Kind::Time => match (int, text) {
            (Some(number), _) if number >= 0 => Ok(Value::Int(number.saturating_mul(1000))),
            (_, Some(text)) => units::time_ms(text).map(Value::Int),
            _ => Err(wrong("a time such as 10 (seconds) or \"10s\"")),
        },
        Kind::Word(words) => match text.ok_or_else(|| wrong("a text"))? {
            word if words.contains(&word) => Ok(Value::Text(word.to_owned())),
            word => {
                let known: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                Err(format!(
                    "is {word:?}, but must be one of {}",
                    known.join(", ")
                ))
            }
        },
        Kind::Texts => value
            .as_array()
            .and_then(|list| {
                list.iter()
                    .map(|item| item.get_ref().as_str().map(str::to_owned))
                    .collect()
            })
            .map(Value::Texts)
            .ok_or_else(|| wrong("a list of texts")),
        Kind::Files => match (text, value.as_array()) {
            (Some(""), _) => Ok(Value::Texts(Vec::new())),
            (Some(file), _) => Ok(Value::Texts(vec![file.to_owned()])),
            (None, list) => list
                .and_then(|list| {
                    list.iter()
                        .map(|item| item.get_ref().as_str().filter(|file| !file.is_empty()))
                        .map(|file| file.map(str::to_owned))
                        .collect()
                })
                .map(Value::Texts)
                .ok_or_else(|| wrong("a file's name, or a list of them")),
        },
        Kind::Ints => value
            .as_array()
            .and_then(|list| {
                list.iter()
                    .map(|item| {
                        let int = item.get_ref().as_integer()?;
                        i64::from_str_radix(int.as_str(), int.radix()).ok()
                    })
                    .collect()
            })
            .map(Value::Ints)
            .ok_or_else(|| wrong("a list of whole numbers")),
        Kind::Dbs => db_map(value).map(Value::Dbs),
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        match Document::parse(Path::new("shake.toml"), text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn defaults_all_parse() {
        for key in KEYS {
            default_of(key.path);
        }
    }

    #[test]
    fn errors_name_line_and_mend() {
        assert_eq!(
            problem("\n[sync_reader]\naddres = \"a:1\"\n"),
            "shake.toml:3: unknown key sync_reader.addres; did you mean sync_reader.address?"
        );
        assert_eq!(
            problem("[sync_reader]\ntls = \"yes\"\n"),
            "shake.toml:2: sync_reader.tls must be true or false, not a string"
        );
        assert_eq!(
            problem("[advanced]\nstatus_port = 70000\n"),
            "shake.toml:2: advanced.status_port is 70000, but must be between 0 and 65535"
        );
        assert!(problem("[advanced]\nlog_level = \"loud\"\n").contains("must be one of \"trace\""));
        assert!(problem("[advanced\n").starts_with("shake.toml:1: not TOML"));
        assert!(problem("[sync_redaer]\naddress=\"a:1\"").contains("did you mean sync_reader?"));
        assert!(problem("[sync_reader]\naddress=\"nohost\"").contains("host:port"));
    }
}
