//! `filter.function`, and what cannot be had beside it.

use std::time::Duration;

use super::document::{ConfigError, Document};
use super::{ExistingKeys, TargetConfig};
use crate::function::{Function, FunctionConfig};

const FUNCTION: &str = "filter.function";

/// The script, compiled once to see that it can be.
pub(super) fn read(
    doc: &Document,
    target: &TargetConfig,
) -> Result<Option<FunctionConfig>, ConfigError> {
    let text = doc.text(FUNCTION);
    if text.trim().is_empty() {
        return Ok(None);
    }
    refuse_beside(doc, target)?;
    let memory_bytes = doc.int("filter.function_memory");
    if memory_bytes < MEMORY_MIN {
        let what = format!(
            "filter.function_memory is {memory_bytes} bytes, but must be at least {MEMORY_MIN}"
        );
        return Err(doc.error("filter.function_memory", what));
    }
    let timeout = doc.int("filter.function_timeout");
    if timeout == 0 {
        let what = "filter.function_timeout must be more than 0: a script that does not end would hold the link for ever";
        return Err(doc.error("filter.function_timeout", what));
    }
    let config = FunctionConfig {
        text,
        file: doc.file().to_owned(),
        line: doc.text_line(FUNCTION),
        timeout: Duration::from_millis(timeout),
        memory_bytes: usize::try_from(memory_bytes).unwrap_or(usize::MAX),
    };
    Function::new(&config).map_err(|error| {
        let line = config.line.zip(error.line);
        let line = line.map(|(from, line)| from + line - 1);
        doc.error_at(FUNCTION, line, format!("{FUNCTION}: {}", error.what))
    })?;
    Ok(Some(config))
}

/// Lua itself takes some 30 KiB.
const MEMORY_MIN: u64 = 1 << 20;

/// What a script makes of a key cannot be told from the key: whatever would need that is refused by name.
fn refuse_beside(doc: &Document, target: &TargetConfig) -> Result<(), ConfigError> {
    let refused = [
        (
            "sync_reader.cluster",
            doc.bool("sync_reader.cluster"),
            "sync_reader.cluster cannot be had beside filter.function in this version: slots that move are copied from the source as they are",
        ),
        (
            "scan_reader.address",
            doc.is_filled("scan_reader.address"),
            "scan_reader cannot be had beside filter.function in this version: what a sweep compares are the source's own keys",
        ),
        (
            "redis_writer.db_map",
            target.db_map.is_some(),
            "redis_writer.db_map cannot be had beside filter.function: let the function name the database, shake.call(0, ARGV)",
        ),
        (
            "redis_writer.existing_keys",
            target.mirror,
            "redis_writer.existing_keys = \"mirror\" cannot be had beside filter.function: which of the target's keys are the source's cannot be told",
        ),
        (
            existing_path(doc),
            target.existing == ExistingKeys::Skip,
            "keys that the target holds cannot be left as they are (\"skip\") beside filter.function: a key is built by several commands, and the function says which key each is for; empty the target, or say \"replace\"",
        ),
        (
            "compare.background_qps",
            doc.int("compare.background_qps") > 0,
            "compare.background_qps cannot be had beside filter.function: what the target should hold is what the function has made",
        ),
        (
            "checkpoint.on_divergence",
            doc.is_set("checkpoint.on_divergence")
                && doc.text("checkpoint.on_divergence") == "repair",
            "checkpoint.on_divergence = \"repair\" cannot be had beside filter.function: a key of the target cannot be copied from the source",
        ),
    ];
    match refused.into_iter().find(|(_, is_set, _)| *is_set) {
        Some((path, _, what)) => Err(doc.error(path, what)),
        None => Ok(()),
    }
}

fn existing_path(doc: &Document) -> &'static str {
    let own = "redis_writer.existing_keys";
    match doc.is_set(own) {
        true => own,
        false => "advanced.rdb_restore_command_behavior",
    }
}
