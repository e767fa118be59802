//! `understudy cutover --undo`: what a cutover has left that died, or that is called off.

use std::path::Path;

use serde_json::Value;

use super::daemon::Daemon;
use super::fence::{self, Sites};
use super::steps::Steps;
use super::{back, hooks, shards};
use crate::config::{Config, reversed};
use crate::error::SyncError;
use crate::handover::mark::{self, Record};

/// Takes back what a cutover has left that is not there any more, the checkpoint of the way back too; gives the exit code.
pub(super) async fn take_back(
    config: &Config,
    file: &Path,
    record: Option<&Record>,
    daemon: &Daemon,
    steps: &Steps,
) -> Result<u8, SyncError> {
    let mut all = true;
    let mut note = |what: &str, done: Result<(), String>| {
        all &= done.is_ok();
        let text = match &done {
            Ok(()) => what.to_owned(),
            Err(why) => format!("{what}: {why}"),
        };
        steps.tell("undo", done.is_ok(), &text, Value::Null);
    };
    let source = fence::endpoint(config);
    if let Some(record) = record {
        let undone = fence::undo(&source, &record.undo).await;
        let whose: Vec<&str> = record.undo.iter().map(|undo| undo.what.as_str()).collect();
        let what = match whose.is_empty() {
            true => "nothing was changed at the source".to_owned(),
            false => format!("as before: {}", whose.join(", ")),
        };
        note(&what, undone.map_err(|error| error.to_string()));
    }
    if let Some(command) = &config.cutover.unfence_command {
        note(
            "cutover.unfence_command",
            hooks::run("cutover.unfence_command", command, &[]).await,
        );
    }
    // Sources before 6.2 cannot, and where nothing is paused it does nothing.
    let paused = match shards::survey(config, daemon).await {
        Ok(Some(survey)) => Sites::of(&source, &survey),
        Ok(None) | Err(_) => Sites::one(source.clone()),
    };
    if fence::unpause_each(paused.primaries()).await.is_ok() {
        note("no client is paused", Ok(()));
    }
    // Behind the fence, which may keep us from writing there too. A way back that is followed stops by that.
    if record.is_some_and(Record::comes_back) {
        let unseeded = match reversed(file) {
            Ok(way_back) => back::unseed(&way_back)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        note("the old server has no checkpoint of a way back", unseeded);
    }
    let removed = remove_record(config).await;
    note(
        "the target has no record of a cutover",
        removed.map_err(|error| error.to_string()),
    );
    note("sync goes on", daemon.open().await);
    Ok(u8::from(!all))
}

/// Removes the record of a switch-over.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn remove_record(config: &Config) -> Result<(), SyncError> {
    let mut target = mark::connect(&config.target, &config.link_name).await?;
    let key = mark::key(&config.link_name);
    target.call(&[b"DEL", key.as_bytes()]).await.map(drop)
}
