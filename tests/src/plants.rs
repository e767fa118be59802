//! What `understudy compare` says of differences that are planted into a copy.

use std::collections::BTreeMap;

use testkit::Daemon;
use testkit::daemon::STATUS_PORT;
pub use testkit::plants::*;

use crate::{Ended, Link, run_file};

/// Runs `compare` on a link, with JSON.
///
/// # Panics
/// Where it prints none.
pub fn compare(link: &Link, more: &[&str]) -> (Ended, serde_json::Value) {
    compare_at(link, 0, more)
}

/// The same where the running sync can be asked by its status port.
///
/// # Panics
/// Where it prints no JSON.
pub fn compare_beside(link: &Link, daemon: &Daemon, more: &[&str]) -> (Ended, serde_json::Value) {
    compare_at(link, daemon.status_port(), more)
}

fn compare_at(link: &Link, port: u16, more: &[&str]) -> (Ended, serde_json::Value) {
    let text = link.text().replace(STATUS_PORT, &port.to_string());
    let args = [&["compare", "shake.toml", "--json"], more].concat();
    let ended = run_file(&args, Some(text.as_bytes()));
    let json = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: code {} {:?}\n{}",
            ended.code, ended.stdout, ended.stderr
        )
    });
    (ended, json)
}

/// The differences that a report names: kind by (db, key); db -1 stands for a library.
///
/// # Panics
/// Where the report has another form.
pub fn found(report: &serde_json::Value) -> BTreeMap<(i64, String), String> {
    let differences = report["differences"].as_array().expect("a list");
    differences
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().expect("a text").to_owned();
            (
                (one["db"].as_i64().unwrap_or(-1), text("key")),
                text("difference"),
            )
        })
        .collect()
}
