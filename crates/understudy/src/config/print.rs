//! Printing a configuration: the annotated default, and what a file comes to.

use std::fmt::Write;
use std::path::Path;

use super::document::{ConfigError, Document, Value};
use super::keys::{KEYS, Key, Kind, Support};

/// The default `shake.toml`, every key with its meaning.
pub fn annotated_default() -> String {
    let mut out = String::from(
        "# shake.toml of Understudy: every key with its default.\n\
         # Sizes take units (\"64kb\", \"20gb\"), times too (\"500ms\", \"10s\"); ${VAR} is taken from the environment.\n",
    );
    let mut printer = Printer::default();
    for key in KEYS {
        printer.header(&mut out, key.path);
        let note = if key.support == Support::DefaultOnly {
            " (only this value, in this version)"
        } else {
            ""
        };
        let _ = writeln!(out, "# {}{note}", key.doc);
        let comment = if key.support == Support::Nested {
            "# "
        } else {
            ""
        };
        let _ = writeln!(out, "{comment}{} = {}", printer.name(key.path), key.default);
    }
    out
}

/// What `file` comes to, with every default filled in; secrets are masked.
///
/// # Errors
/// As reading the file.
pub fn effective(file: &Path) -> Result<String, ConfigError> {
    let doc = Document::read(file)?;
    super::Config::from_document(&doc)?;
    let mut out = String::new();
    let mut printer = Printer::default();
    for key in KEYS {
        let below = format!("{}.", key.path);
        let has_table =
            |other: &super::keys::Key| other.path.starts_with(&below) && doc.is_set(other.path);
        let is_nested = key.support == Support::Nested;
        if (is_nested && !doc.is_set(key.path)) || KEYS.iter().any(has_table) {
            continue;
        }
        printer.header(&mut out, key.path);
        let value = match (key.kind, doc.value(key.path)) {
            (Kind::Secret, Value::Text(text)) if !text.is_empty() => "\"***\"".to_owned(),
            (_, value) => literal(key, value),
        };
        let _ = writeln!(out, "{} = {value}", printer.name(key.path));
    }
    Ok(out)
}

/// A value as it stands in a file.
pub(super) fn literal(key: &Key, value: Value) -> String {
    match (key.kind, value) {
        (Kind::Time, Value::Int(ms)) => format!("\"{ms}ms\""),
        (_, Value::Text(text)) => toml::Value::String(text).to_string(),
        (_, Value::Bool(value)) => value.to_string(),
        (_, Value::Int(value)) => value.to_string(),
        (Kind::Files, Value::Texts(list)) => match list.as_slice() {
            [] => "\"\"".to_owned(),
            [one] => toml::Value::String(one.clone()).to_string(),
            _ => toml::Value::from(list).to_string(),
        },
        (_, Value::Texts(list)) => toml::Value::from(list).to_string(),
        (_, Value::Ints(list)) => toml::Value::from(list).to_string(),
        (_, Value::Dbs(map)) => dbs(&map),
    }
}

fn dbs(map: &rewrite::DbMap) -> String {
    let rewrite::DbMap::Numbers(rules) = map else {
        return "\"prefix\"".to_owned();
    };
    let rule = |(from, to): (&u32, &Option<u32>)| match to {
        Some(to) => format!("{from} = {to}"),
        None => format!("{from} = \"drop\""),
    };
    let rules: Vec<String> = rules.iter().map(rule).collect();
    match rules.as_slice() {
        [] => "{}".to_owned(),
        rules => format!("{{ {} }}", rules.join(", ")),
    }
}

/// Keeps track of the table in which lines are being printed.
#[derive(Default)]
struct Printer {
    table: String,
}

impl Printer {
    fn header(&mut self, out: &mut String, path: &str) {
        let table = path.split_once('.').map_or("", |(table, _)| table);
        if table != self.table {
            let _ = writeln!(out, "\n[{table}]");
            self.table = table.to_owned();
        }
    }

    /// The key within its table; a deeper table is written dotted.
    fn name<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(&self.table)
            .and_then(|name| name.strip_prefix('.'))
            .unwrap_or(path)
    }
}
