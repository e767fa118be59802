//! Printing a configuration: the annotated default, and what a file comes to.

use std::fmt::Write;
use std::path::Path;

use super::document::{ConfigError, Document, Value};
use super::keys::{KEYS, Kind, Support};

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
        let _ = writeln!(out, "{} = {}", printer.name(key.path), key.default);
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
        printer.header(&mut out, key.path);
        let value = match (key.kind, doc.value(key.path)) {
            (Kind::Secret, Value::Text(text)) if !text.is_empty() => "\"***\"".to_owned(),
            (Kind::Time, Value::Int(ms)) => format!("\"{ms}ms\""),
            (_, Value::Text(text)) => toml::Value::String(text).to_string(),
            (_, Value::Bool(value)) => value.to_string(),
            (_, Value::Int(value)) => value.to_string(),
            (_, Value::Texts(list)) => toml::Value::from(list).to_string(),
            (_, Value::Ints(list)) => toml::Value::from(list).to_string(),
        };
        let _ = writeln!(out, "{} = {value}", printer.name(key.path));
    }
    Ok(out)
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
