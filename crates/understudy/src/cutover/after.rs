//! After the switch: who is still at the old server, and what is still written there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use resp::Value;
use rewrite::Table;
use rewrite::table::Flags;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::daemon::{Daemon, Told};
use super::steps::Steps;
use crate::client::Client;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Clients that are shown.
const SHOWN: usize = 20;

/// Tells what changes at the old server, until `end`.
pub(super) async fn watch(daemon: &Daemon, steps: &Steps, end: impl Future<Output = ()>) {
    let mut end = std::pin::pin!(end);
    let mut last = String::new();
    loop {
        match daemon.status().await {
            Ok(told) => {
                let line = summary(&told);
                if line != last {
                    tell(steps, &told, &line);
                    last = line;
                }
            }
            Err(why) if why != last => {
                steps.tell("stragglers", false, &why, json!({}));
                last = why;
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            () = &mut end => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at the old server.
///
/// # Errors
/// The daemon does not answer.
pub(super) async fn show(daemon: &Daemon, steps: &Steps) -> Result<(), String> {
    let told = daemon.status().await?;
    tell(steps, &told, &summary(&told));
    for line in table(&told) {
        steps.say(&line);
    }
    Ok(())
}

fn tell(steps: &Steps, told: &Told, line: &str) {
    let cutover = told.cutover();
    let is_quiet = cutover["late_writes"]["total"] == 0;
    let facts = json!({
        "source_clients": cutover["source_clients"],
        "stragglers": cutover["stragglers"],
        "late_writes": cutover["late_writes"],
    });
    steps.tell("stragglers", is_quiet, line, facts);
}

fn summary(told: &Told) -> String {
    let cutover = told.cutover();
    let clients = cutover["source_clients"].as_u64();
    let clients = clients.map_or("unknown".to_owned(), |count| count.to_string());
    let late = &cutover["late_writes"];
    let by_prefix = late["by_prefix"].as_object();
    let prefixes: Vec<String> = by_prefix
        .into_iter()
        .flatten()
        .map(|(prefix, count)| format!("{prefix} {count}"))
        .collect();
    let total = late["total"].as_u64().unwrap_or(0);
    let of = match prefixes.is_empty() {
        true => String::new(),
        false => format!(" ({})", prefixes.join(", ")),
    };
    format!("{clients} clients at the old server, {total} late writes{of}")
}

/// The clients, for people.
pub(super) fn table(told: &Told) -> Vec<String> {
    let clients = told.cutover()["stragglers"].as_array();
    let clients = clients.cloned().unwrap_or_default();
    if clients.is_empty() {
        return Vec::new();
    }
    let row = |cells: [&str; 7]| {
        let [address, name, user, lib, last, idle, writes] = cells;
        format!("{address:<22} {name:<16} {user:<12} {lib:<20} {last:<12} {idle:>6} {writes:>6}")
            .trim_end()
            .to_owned()
    };
    let mut lines = vec![row([
        "address", "name", "user", "library", "last", "idle s", "writes",
    ])];
    for client in clients.iter().take(SHOWN) {
        let text = |field: &str| client[field].as_str().unwrap_or_default();
        let number = |field: &str| client[field].as_u64().unwrap_or(0).to_string();
        lines.push(row([
            text("address"),
            text("name"),
            text("user"),
            text("lib"),
            text("last_command"),
            &number("idle_seconds"),
            &number("writes"),
        ]));
    }
    if clients.len() > SHOWN {
        lines.push(format!("... and {} more", clients.len() - SHOWN));
    }
    lines
}

/// Listens to each of these servers at once.
///
/// # Errors
/// As [`monitor`], of the first.
pub(super) async fn monitor_each(
    endpoints: &[Endpoint],
    time: Duration,
    steps: &Steps,
) -> Result<(), SyncError> {
    let each = endpoints
        .iter()
        .map(|endpoint| monitor(endpoint, time, steps));
    join_all(each).await.into_iter().collect()
}

/// Listens to everything that the old server does for a while (MONITOR), and tells who writes what.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn monitor(
    endpoint: &Endpoint,
    time: Duration,
    steps: &Steps,
) -> Result<(), SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    client.call(&[b"MONITOR"]).await?;
    let (table, until) = (Table::new(), Instant::now() + time);
    let mut writers: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    while let Ok(heard) = tokio::time::timeout_at(until, client.ask_encoded(b"", 1)).await {
        for line in heard? {
            let Value::Simple(line) = line else { continue };
            if let Some((address, what)) = heard_write(&table, &String::from_utf8_lossy(&line)) {
                *writers.entry(address).or_default().entry(what).or_default() += 1;
            }
        }
    }
    let count = writers.len();
    let text = format!(
        "{count} clients have written in {} s{}",
        time.as_secs(),
        if count == 0 { "" } else { ":" }
    );
    steps.tell(
        "monitor",
        count == 0,
        &text,
        json!({ "writers": writers_json(&writers) }),
    );
    for (address, commands) in &writers {
        let each: Vec<String> = commands
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        steps.say(&format!("{address:<22} {}", each.join(", ")));
    }
    Ok(())
}

fn writers_json(writers: &BTreeMap<String, BTreeMap<String, u64>>) -> Json {
    json!(writers)
}

/// `1700000000.123456 [0 10.0.0.1:5000] "SET" "user:1" "x"`: who, and `set user:`; nothing for what only reads.
fn heard_write(table: &Table, line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" [")?;
    let (from, command) = rest.split_once("] ")?;
    let address = from.split_once(' ')?.1;
    // What scripts do is their caller's.
    if address == "lua" {
        return None;
    }
    let mut words = command.split("\" \"");
    let name = words.next()?.trim_matches('"').to_ascii_lowercase();
    let found = table.lookup(name.as_bytes())?;
    if !found.flags.has(Flags::WRITE) {
        return None;
    }
    let key = words.next().unwrap_or_default().trim_end_matches('"');
    if key.starts_with("understudy:") {
        return None;
    }
    let prefix = crate::pipeline::prefix_of(key.as_bytes());
    Some((
        address.to_owned(),
        format!("{name} {prefix}").trim_end().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_monitor_name_writers() {
        let table = Table::new();
        let heard = |line: &str| heard_write(&table, line);
        let found = heard("1700000000.1 [0 10.0.0.1:5000] \"SET\" \"user:1\" \"x\"");
        let expected = ("10.0.0.1:5000".to_owned(), "set user:".to_owned());
        assert_eq!(found, Some(expected));
        for other in [
            "1700000000.1 [0 10.0.0.1:5000] \"get\" \"user:1\"",
            "1700000000.1 [0 lua] \"set\" \"a\" \"b\"",
            "1700000000.1 [0 10.0.0.1:1] \"set\" \"understudy:checkpoint:x\" \"b\"",
            "OK",
        ] {
            assert_eq!(heard(other), None, "{other}");
        }
    }
}
