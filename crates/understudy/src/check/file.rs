//! An RDB file in the place of a live source: what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rdb::{Event, Limits, Want};

use super::data::Sample;
use super::finding::{Finding, fail, pass};
use crate::config::human_bytes;
use crate::error::SyncError;
use crate::rdb::bar::Bar;
use crate::rdb::names::{grouped, kind_name};
use crate::rdb::reader::Reader;

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) bytes: u64,
    pub(super) dbs: BTreeSet<u32>,
    pub(super) libraries: u64,
    pub(super) sample: Sample,
    /// What its server had in memory.
    pub(super) used_memory: Option<u64>,
    pub(super) modules: Vec<String>,
    pub(super) finding: Option<Finding>,
}

/// Reads a file to its end, or to where it is damaged.
///
/// # Errors
/// Where it cannot be opened.
pub(super) fn read(file: &Path) -> Result<Contents, SyncError> {
    const CHECK: &str = "source";
    let mut contents = Contents::default();
    let reader = Reader::open(file, Limits::default(), &Bar::beside_a_report());
    let mut reader = reader.map_err(|failure| SyncError::local(&failure))?;
    let mut notes: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    let mut at = 0;
    let mut version = String::new();
    let ended = loop {
        let event = match reader.next() {
            Ok(Some(event)) => event,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure.to_string()),
        };
        match event {
            Event::Start {
                dialect,
                version: of,
            } => {
                version = format!("{dialect:?} RDB version {}", of.0);
            }
            Event::Aux { name, value } => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                notes.insert(text(&name), text(&value));
            }
            Event::Function { .. } | Event::FunctionPreGa { .. } => contents.libraries += 1,
            Event::ModuleAux { module, .. } => contents.modules.push(name_of(&module)),
            Event::Key(head) => {
                contents.dbs.insert(head.db.0);
                at = reader.offset();
                current = Some((head, None));
                reader.want(Want::Elements);
            }
            Event::ModuleType(module) => {
                if let Some((_, name)) = &mut current {
                    *name = Some(name_of(&module));
                }
            }
            Event::String(_) | Event::Raw(_) | Event::ValueEnd => {
                if let Some((head, module)) = current.take() {
                    let kind = module.unwrap_or_else(|| kind_name(head.kind).to_owned());
                    let bytes = reader.offset().saturating_sub(at);
                    contents.sample.add(head.db.0, head.key, &kind, bytes);
                }
            }
            _ => {}
        }
    };
    contents.bytes = reader.offset();
    contents.sample.of = contents.sample.keys;
    contents.sample.settle();
    contents.used_memory = notes.get("used-mem").and_then(|text| text.parse().ok());
    let by = ["redis-ver", "valkey-ver"]
        .iter()
        .find_map(|name| notes.get(*name))
        .map_or(String::new(), |version| format!(" by {version}"));
    let what = format!(
        "{}: {version}, written{by}: {} keys, {}",
        file.display(),
        grouped(contents.sample.keys),
        human_bytes(contents.bytes)
    );
    contents.finding = Some(match ended {
        Ok(()) => pass(CHECK, what),
        Err(damage) => fail(
            CHECK,
            damage,
            "take another copy of the file; `understudy rdb verify` says where it is damaged",
        ),
    });
    Ok(contents)
}

/// The name of a module's type, without the version of its encoding.
fn name_of(module: &rdb::ModuleId) -> String {
    module.to_string().chars().take(9).collect()
}
