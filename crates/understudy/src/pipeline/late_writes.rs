//! What is written at the source after the switch: counted by the keys' prefixes, whether it is applied or not.
//!
//! The way back writes there too, with a checkpoint in each of its transactions: those are nobody's late writes.

use std::convert::Infallible;
use std::time::Duration;

use resp::Arg;
use rewrite::Table;
use rewrite::table::Flags;

use super::stream::input::{Input, InputError};
use crate::config::Config;
use crate::handover::Late;
use crate::spool::Feed;
use crate::status::Status;

/// Between two looks at the feed.
const EVERY: Duration = Duration::from_millis(100);
/// What the names of our keys begin with.
const OURS: &[u8] = b"understudy:";
/// A key without a separator is shown up to here.
const PREFIX_BYTES: usize = 16;

/// Counts what comes in the feed from `from` on, as long as the link runs. `from` is where a command begins.
pub(crate) async fn count_forever(
    config: &Config,
    status: &Status,
    feed: &Feed,
    from: u64,
) -> Infallible {
    let mut counter = Counter::new(config, from);
    loop {
        if let Err(what) = counter.go_on(status, feed) {
            tracing::warn!(what, "late writes are no longer counted");
            return std::future::pending().await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

struct Counter {
    table: Table,
    input: Input,
    places: Vec<usize>,
    /// What a transaction has had so far.
    transaction: Option<Transaction>,
    /// The way back has been seen at work.
    is_back: bool,
}

/// What a transaction has done so far: counted, not kept, since it may be of any length.
#[derive(Debug, Default)]
struct Transaction {
    late: Late,
    /// It writes a key of ours.
    is_ours: bool,
    /// It does something else than setting expiries.
    is_more: bool,
}

/// A command that writes.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    prefixes: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    /// It may be the end of a key whose time was over.
    Removal,
    /// It sets an expiry, as the way back does without a checkpoint.
    Expiry,
    /// It writes a key of ours.
    Ours,
}

impl Counter {
    fn new(config: &Config, from: u64) -> Self {
        Self {
            table: Table::new(),
            input: Input::at(from, config.command_bytes_max()),
            places: Vec::new(),
            transaction: None,
            is_back: false,
        }
    }

    /// Counts what has come.
    fn go_on(&mut self, status: &Status, feed: &Feed) -> Result<(), String> {
        if feed.with_log(|log| log.start()) > self.input.frame_pos {
            return Err("it is no longer kept".to_owned());
        }
        loop {
            match self.input.poll() {
                Ok(Some(frame)) => {
                    self.command(status, frame.len);
                    self.input.advance(frame.len);
                }
                Ok(None) => {
                    let more = self.input.more(feed).map_err(|error| error.to_string())?;
                    if !more {
                        return Ok(());
                    }
                }
                Err(InputError::Resp(error)) => return Err(error.to_string()),
                Err(InputError::TooLarge(bytes)) => {
                    return Err(format!(
                        "a command of {bytes} bytes does not fit into memory"
                    ));
                }
            }
        }
    }

    fn command(&mut self, status: &Status, len: usize) {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let Some(name) = args.first().map(|name| name.of(frame)) else {
            return;
        };
        if name.eq_ignore_ascii_case(b"multi") {
            self.transaction = Some(Transaction::default());
        } else if name.eq_ignore_ascii_case(b"exec") {
            let all = self.transaction.take().unwrap_or_default();
            self.transaction_of(status, &all);
        } else if let Some(write) = write_of(&self.table, frame, args, &mut self.places) {
            match &mut self.transaction {
                Some(all) => {
                    all.is_ours |= write.kind == Kind::Ours;
                    all.is_more |= write.kind != Kind::Expiry;
                    write.note(&mut all.late);
                }
                None => status.handover.late(|late| write.note(late)),
            }
        }
    }

    fn transaction_of(&mut self, status: &Status, all: &Transaction) {
        if all.is_ours {
            self.is_back = true;
            return;
        }
        if self.is_back && !all.is_more {
            return;
        }
        status.handover.late(|late| late.add(&all.late));
    }
}

impl Write {
    fn note(&self, late: &mut Late) {
        match self.kind {
            Kind::Ours => {}
            Kind::Removal => late.removed(&self.prefixes),
            Kind::Any | Kind::Expiry => late.wrote(&self.prefixes),
        }
    }
}

/// What a command writes; none where it changes no data.
fn write_of(table: &Table, frame: &[u8], args: &[Arg], places: &mut Vec<usize>) -> Option<Write> {
    let name = args.first()?.of(frame);
    let Some(command) = table.lookup(name) else {
        // A module's, or newer than the table: it would not be in the stream if it only read.
        let key = args.get(1).map_or(name, |arg| arg.of(frame));
        return Some(Write {
            prefixes: vec![prefix_of(key)],
            kind: Kind::Any,
        });
    };
    let is_script = command.name.starts_with("eval") || command.name.starts_with("fcall");
    if !command.flags.has(Flags::WRITE) && !is_script {
        return None;
    }
    places.clear();
    rewrite::keys_of(command, frame, args, places);
    let keys: Vec<&[u8]> = places
        .iter()
        .filter_map(|at| Some(args.get(*at)?.of(frame)))
        .collect();
    if keys.iter().any(|key| key.starts_with(OURS)) {
        return Some(Write {
            prefixes: Vec::new(),
            kind: Kind::Ours,
        });
    }
    let mut prefixes: Vec<String> = keys.iter().map(|key| prefix_of(key)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    if prefixes.is_empty() {
        prefixes.push(format!("({})", command.name));
    }
    let kind = match &*command.name {
        "del" | "unlink" | "hdel" if keys.len() == 1 => Kind::Removal,
        "pexpireat" => Kind::Expiry,
        _ => Kind::Any,
    };
    Some(Write { prefixes, kind })
}

/// `user:` of `user:17:cart`; of a key without a separator its beginning, with its digits left out.
pub(crate) fn prefix_of(key: &[u8]) -> String {
    let separator = |byte: &u8| matches!(byte, b':' | b'/' | b'|' | b'.');
    if let Some(at) = key.iter().position(separator)
        && let Some(prefix) = key.get(..=at.min(PREFIX_BYTES * 4))
    {
        return prefix.escape_ascii().to_string();
    }
    let start = key.get(..PREFIX_BYTES).unwrap_or(key);
    let digits = start.iter().position(u8::is_ascii_digit);
    match digits.filter(|at| *at > 0).and_then(|at| start.get(..at)) {
        Some(name) => format!("{}*", name.escape_ascii()),
        None => start.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Log;

    #[test]
    fn prefixes_end_at_separators_or_digits() {
        for (key, prefix) in [
            ("user:17:cart", "user:"),
            ("a/b", "a/"),
            ("session4711", "session*"),
            ("4711", "4711"),
            ("counter", "counter"),
            ("a-very-long-key-without-any", "a-very-long-key-"),
        ] {
            assert_eq!(prefix_of(key.as_bytes()), prefix);
        }
    }

    fn counted(commands: &[&[&str]]) -> serde_json::Value {
        counted_with(commands, 0)
    }

    /// With so many keys that the source has removed by itself meanwhile.
    fn counted_with(commands: &[&[&str]], by_itself: u64) -> serde_json::Value {
        let text = "[sync_reader]\naddress = \"a:1\"\n[redis_writer]\naddress = \"b:1\"\n";
        let config = Config::parse(std::path::Path::new("shake.toml"), text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let keep = crate::spool::Keep {
            tail_bytes: 1 << 20,
            retain_bytes: 0,
        };
        let replid = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let feed = Feed::new(Log::create(folder.path(), "stream", replid, 100, keep).unwrap());
        let mut bytes = Vec::new();
        for command in commands {
            let argv: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            resp::encode::command(&mut bytes, &argv);
        }
        feed.append(bytes.into(), 1).unwrap();
        let status = Status::new(0);
        Counter::new(&config, 100).go_on(&status, &feed).unwrap();
        status.handover.late(|late| {
            late.removed_by_itself(0, false);
            late.removed_by_itself(by_itself, true);
        });
        status.handover.json(&[])["late_writes"].clone()
    }

    #[test]
    fn writes_are_counted_and_the_links_own_noise_is_not() {
        let found = counted(&[
            &["PING"],
            &["SELECT", "0"],
            &["SET", "user:1", "x"],
            &["MULTI"],
            &["INCR", "user:2"],
            &["RPUSH", "q:1", "x"],
            &["EXEC"],
            &["FLUSHALL"],
            &["REPLCONF", "GETACK", "*"],
            &["PUBLISH", "c", "m"],
        ]);
        assert_eq!(found["total"], 4);
        let expected = serde_json::json!({"user:": 2, "q:": 1, "(flushall)": 1});
        assert_eq!(found["by_prefix"], expected);
    }

    #[test]
    fn the_ends_of_keys_are_no_writes_in_a_transaction_either() {
        // A client's transaction came upon a key whose time was over.
        let commands: &[&[&str]] = &[
            &["MULTI"],
            &["DEL", "user:1"],
            &["SET", "user:2", "x"],
            &["EXEC"],
        ];
        let found = counted_with(commands, 1);
        assert_eq!((&found["total"], &found["expired"]), (&1.into(), &1.into()));
        assert_eq!(found["by_prefix"], serde_json::json!({"user:": 1}));
        let found = counted_with(commands, 0);
        assert_eq!(found["total"], 2);
    }

    #[test]
    fn what_the_way_back_writes_is_not_late() {
        let own = "understudy:checkpoint:x-back".to_owned();
        let found = counted(&[
            &["MULTI"],
            &["SET", "a:1", "x"],
            &["SET", &own, "v1|"],
            &["EXEC"],
            &["MULTI"],
            &["PEXPIREAT", "a:1", "5"],
            &["EXEC"],
            &["SET", &own, "v1|"],
            &["SET", "b:1", "x"],
        ]);
        assert_eq!(found["by_prefix"], serde_json::json!({"b:": 1}));
    }
}
