//! What an EXEC said when nobody listened.
//!
//! A unit's checkpoint is in the target before the unit's replies are here. A kill, or a lost line, in between takes
//! with it what they said: that a command failed. So a checkpoint tells how many bytes of the stream before its position
//! are those whose replies were not looked at (`Unseen`). Whoever goes on from it reads these commands once more, out of
//! the spool or from the source's backlog, and takes every key for damaged on which one of them can have failed.
//!
//! The names go into the checkpoint as keys under repair. Where they are too many for that, the checkpoint goes on
//! telling of the unseen part until the last of them is repaired, or until that part is too long to be kept.

use std::collections::BTreeSet;

use bytes::Bytes;
use resp::{ErrorCode, Value};
use rewrite::{Group, Table};

use super::late::SAVES;
use super::{StreamApplier, show};
use crate::checkpoint::Names;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::repair::{self, Touched};
use crate::source::spool_error;

/// Most bytes of names that are kept in memory while their keys are repaired.
pub(in crate::pipeline) const NAMES_BYTES_MAX: usize = 16 << 20;

/// Commands that cannot fail for what a key holds: they ask nothing of it.
const UNCONDITIONAL: &[&str] = &[
    "del",
    "discard",
    "exec",
    "expire",
    "expireat",
    "flushall",
    "flushdb",
    "move",
    "mset",
    "multi",
    "persist",
    "pexpire",
    "pexpireat",
    "ping",
    "psetex",
    "publish",
    "replconf",
    "select",
    "set",
    "setex",
    "spublish",
    "swapdb",
    "touch",
    "unlink",
];

/// Whether a command can fail at a target that is not what the source was.
fn can_fail(name: &[u8], frame: &[u8], args: &[resp::Arg]) -> bool {
    let is_known = UNCONDITIONAL
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    // SET with GET gives back what was there, which has to be a string.
    let asks = |arg: &resp::Arg| arg.of(frame).eq_ignore_ascii_case(b"get");
    !is_known || (name.eq_ignore_ascii_case(b"set") && args.iter().skip(3).any(asks))
}

/// Keys with what TYPE has to say of them, each once.
pub(in crate::pipeline) type Kinds = BTreeSet<(u32, Bytes, &'static str)>;

/// Keys that may differ at the target.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Suspects {
    pub(in crate::pipeline) db: u32,
    pub(in crate::pipeline) names: Names,
    /// Keys on which one command counts, and what TYPE has to say of them if it did not fail for that.
    pub(in crate::pipeline) kinds: Kinds,
    /// Keys that were saved from their end, if the target had not ended them by then.
    pub(in crate::pipeline) saved: Names,
    /// Commands that may have failed and name no key.
    pub(in crate::pipeline) keyless: u64,
}

impl Suspects {
    /// The next command of the part that is recalled.
    pub(in crate::pipeline) fn command(&mut self, table: &Table, frame: &[u8], args: &[resp::Arg]) {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let name = word(0);
        if name.eq_ignore_ascii_case(b"select") {
            let text = std::str::from_utf8(word(1)).unwrap_or_default();
            self.db = text.parse().unwrap_or(self.db);
            return;
        }
        if SAVES
            .iter()
            .any(|saves| name.eq_ignore_ascii_case(saves.as_bytes()))
        {
            self.saved.insert(self.db, Bytes::copy_from_slice(word(1)));
        }
        let can_fail = !args.is_empty() && can_fail(name, frame, args);
        if !can_fail && self.names.is_empty() {
            return;
        }
        let touched = Touched::by(table, self.db, frame, args);
        // A run before this one may have passed over all that touches these keys, whatever it was.
        if !can_fail && !touched.hits(&self.names) {
            return;
        }
        if touched.names.is_empty() && can_fail {
            self.keyless += 1;
        }
        if let (1, Some(kind)) = (touched.names.len(), kind_of(table, name)) {
            let key = touched.names.iter().next();
            self.kinds
                .extend(key.map(|(db, key)| (db, key.clone(), kind)));
        }
        let more = touched.spread(&self.names);
        self.names.extend(&more);
    }
}

/// What TYPE says of the keys that a command of this name works on, where it works on no other.
fn kind_of(table: &Table, name: &[u8]) -> Option<&'static str> {
    match table.lookup(&name.to_ascii_lowercase())?.group {
        Group::String | Group::Bitmap | Group::HyperLogLog => Some("string"),
        Group::List => Some("list"),
        Group::Set => Some("set"),
        Group::SortedSet | Group::Geo => Some("zset"),
        Group::Hash => Some("hash"),
        Group::Stream => Some("stream"),
        _ => None,
    }
}

impl StreamApplier<'_> {
    /// Reads once more what an earlier connection, or an earlier run, has sent without hearing what became of it.
    pub(super) async fn recall(&mut self) -> Result<(), SyncError> {
        let (position, db) = self.seen;
        let has_seen = self.repairs.has_seen(position);
        if !has_seen {
            self.repairs.forget_seen();
        }
        let Some(unseen) = self.target.checkpoint.unseen else {
            return Ok(());
        };
        if has_seen {
            // By this run, over an earlier connection; the checkpoint does not say so.
            self.tells_unseen = true;
            return Ok(());
        }
        if self.config.function.is_some() {
            self.tells_unseen = true;
            self.status.suspects.add("unchecked", 1);
            tracing::warn!("{}", super::UNHEARD);
            return Ok(());
        }
        let from = position.saturating_sub(unseen.bytes);
        // Without a spool it comes from the source.
        while self.feed.end() < position {
            if self.feed.is_complete() {
                return Ok(());
            }
            self.feed.changed().await;
        }
        // Said at the target at once, so that the next kill finds it said.
        self.next.set_end(position, db, crate::clock::unix_ms());
        let kept = self.feed.with_log(|log| log.start());
        if from < kept && self.target.checkpoint.repairs.are_unread() {
            let what =
                "keys that differ are to be found in a part of the stream that is no longer kept";
            self.heal.fail(what.to_owned());
            return Ok(());
        }
        if from < kept {
            self.status.suspects.add("forgotten", 1);
            tracing::warn!(
                from,
                to = position,
                kept_from = kept,
                "whether a command of this part of the stream failed at the target is not known, and it is no longer kept: if somebody else writes there, compare the keys"
            );
            return Ok(());
        }
        let mut suspects = Suspects {
            db: unseen.db,
            ..Suspects::default()
        };
        let mut input = super::input_at(self.config, from);
        while input.frame_pos < position {
            match input.poll() {
                Ok(Some(frame)) => {
                    let bytes = input.window().get(..frame.len).unwrap_or_default();
                    suspects.command(self.rewriter.table(), bytes, input.args());
                    input.advance(frame.len);
                }
                Ok(None) => {
                    if !input.more(self.feed).map_err(spool_error)? {
                        break;
                    }
                    // It may be long: the source is heard meanwhile.
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(self.not_a_command(&input, &error)),
            }
        }
        if self.late.looks() {
            let ended = missing(self.config, &suspects.saved).await?;
            suspects.names.extend(&ended);
        }
        self.suspect(suspects, (from, rewrite::Db(unseen.db)))
            .await?;
        if self.recalled_from.is_none() {
            self.repairs.set_seen(position);
        }
        Ok(())
    }

    /// Takes keys for damaged; where they cannot be repaired, looks at what can be seen of them.
    async fn suspect(
        &mut self,
        suspects: Suspects,
        from: (u64, rewrite::Db),
    ) -> Result<(), SyncError> {
        if suspects.keyless > 0 {
            self.status.suspects.add("keyless", suspects.keyless);
            tracing::warn!(
                commands = suspects.keyless,
                "whether commands without keys (FUNCTION, for instance) failed at the target is not known"
            );
        }
        let mut names = Names::default();
        for (db, key) in suspects.names.iter() {
            if repair::is_copied(self.config, db, key) {
                names.insert(db, key.clone());
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        if !self.config.repair {
            self.status.suspects.add("unchecked", names.len() as u64);
            if let Some(wrong) = wrong_kind(self.config, &suspects.kinds, &names).await? {
                self.heal.fail(wrong);
            }
            return Ok(());
        }
        self.let_go_of_large(&mut names, &suspects.kinds).await?;
        if names.is_empty() || self.heal.has_failed() {
            return Ok(());
        }
        self.status.suspects.add("repaired", names.len() as u64);
        tracing::info!(
            keys = names.len(),
            "the last answers of the target were not seen: the keys of the commands that can have failed are copied again"
        );
        if self.repairs.has_room(&names) {
            self.repairs.add(&names);
        } else {
            self.unlisted = names.clone();
            self.recalled_from = Some(from);
            if names.bytes() > NAMES_BYTES_MAX {
                let what = "whether the commands of the last unit failed is not known, and they name too many keys to copy them one by one";
                self.heal.fail(what.to_owned());
            }
        }
        self.heal.held.extend(&names);
        self.show_repairs();
        Ok(())
    }
}

impl StreamApplier<'_> {
    /// What the spool keeps of the unseen part, and all that came after it, is bounded: beyond that the checkpoint says no
    /// longer where the part is, but that keys are under repair which it does not name.
    pub(super) fn bound_unseen(&mut self) {
        let bytes_max = self.config.spool.unseen_bytes_max;
        let is_long = |(from, _)| self.feed.end().saturating_sub(from) > bytes_max;
        if !self.recalled_from.is_some_and(is_long) {
            return;
        }
        self.recalled_from = None;
        let names = std::mem::take(&mut self.unlisted);
        tracing::info!(
            keys = names.len(),
            "the spool no longer keeps the commands whose answers were not seen: killed before their keys are copied again, this link takes a new snapshot"
        );
        if !self.repairs.add_doubtful(&names) {
            let what = "too many keys hang on those of which it is not known whether they differ";
            self.heal.fail(what.to_owned());
        }
    }

    /// A key that is too large to be copied for a mere suspicion is looked at, at the target, and let go.
    async fn let_go_of_large(&mut self, names: &mut Names, kinds: &Kinds) -> Result<(), SyncError> {
        let mut large = Names::default();
        for (db, key, bytes) in repair::too_large(self.config, names).await {
            tracing::warn!(
                db,
                key = show(&key),
                bytes,
                "whether its last command failed at the target is not known, and it is too large to be copied for that: only its type is compared"
            );
            large.insert(db, key);
        }
        if large.is_empty() {
            return Ok(());
        }
        self.status.suspects.add("unchecked", large.len() as u64);
        if let Some(wrong) = wrong_kind(self.config, kinds, &large).await? {
            self.heal.fail(wrong);
        }
        names.remove(&large);
        Ok(())
    }
}

/// What the target answers to a command of one word and a key, for each of these keys.
async fn ask_each(
    config: &Config,
    client: &mut Client,
    word: &[u8],
    keys: &[(u32, &Bytes)],
) -> Result<Vec<Value>, SyncError> {
    let names: Vec<_> = keys
        .iter()
        .map(|(db, key)| config.target.name_of(*db, key))
        .map(|(db, key)| (key, db.to_string()))
        .collect();
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    for (key, db) in &names {
        commands.push(vec![b"SELECT", db.as_bytes()]);
        commands.push(vec![word, key]);
    }
    let replies = client.ask_all(&commands).await?;
    Ok(replies.into_iter().skip(1).step_by(2).collect())
}

/// Those of `names` that the target does not have.
async fn missing(config: &Config, names: &Names) -> Result<Names, SyncError> {
    let mut missing = Names::default();
    if names.is_empty() {
        return Ok(missing);
    }
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let keys: Vec<_> = names.iter().collect();
    for part in keys.chunks(1000) {
        let replies = ask_each(config, &mut client, b"PTTL", part).await?;
        for ((db, key), reply) in part.iter().zip(replies) {
            match reply {
                Value::Int(-2) => {
                    missing.insert(*db, (*key).clone());
                }
                // Who may not ask is told so by what asks before units.
                Value::Error(error) if error.code != ErrorCode::NoPerm => {
                    return Err(client.refused(&[b"PTTL", key], &error));
                }
                _ => {}
            }
        }
    }
    Ok(missing)
}

/// The first of `kinds` at whose key the target holds something else.
async fn wrong_kind(
    config: &Config,
    kinds: &Kinds,
    names: &Names,
) -> Result<Option<String>, SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let kinds = kinds.iter().filter(|(db, key, _)| names.contains(*db, key));
    let kinds: Vec<_> = kinds.collect();
    for part in kinds.chunks(1000) {
        let keys: Vec<_> = part.iter().map(|(db, key, _)| (*db, key)).collect();
        let replies = ask_each(config, &mut client, b"TYPE", &keys).await?;
        for ((db, key, kind), reply) in part.iter().zip(replies) {
            let Value::Simple(found) = reply else {
                continue;
            };
            if found != kind.as_bytes() && found != "none" {
                return Ok(Some(format!(
                    "key \"{}\" (db {db}) holds a {} at the target, where the last unit needed a {kind}",
                    show(key),
                    show(&found)
                )));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspects(commands: &[&str]) -> (String, u64) {
        let mut suspects = Suspects::default();
        for words in commands {
            let argv: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, &argv);
            let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
            decoder.poll(&frame).unwrap().unwrap();
            suspects.command(&Table::new(), &frame, decoder.args());
        }
        let names: Vec<String> = suspects
            .names
            .iter()
            .map(|(db, key)| format!("{db}:{}", key.escape_ascii()))
            .collect();
        (names.join(" "), suspects.keyless)
    }

    #[test]
    fn only_what_asks_something_of_a_key_can_have_failed() {
        let of = |commands: &[&str]| suspects(commands).0;
        assert_eq!(of(&["SET a 1", "MSET b 1 c 2", "DEL d", "FLUSHALL"]), "");
        assert_eq!(of(&["SET a 1 PXAT 99", "PEXPIREAT b 1", "PERSIST c"]), "");
        assert_eq!(of(&["set a 1 get", "SELECT 3", "INCR b"]), "0:a 3:b");
        assert_eq!(of(&["MULTI", "RPUSH a 1", "EXEC", "PING"]), "0:a");
        assert_eq!(of(&["SELECT 2", "RENAME a b"]), "2:a 2:b");
    }

    #[test]
    fn what_comes_after_may_have_been_passed_over() {
        let of = |commands: &[&str]| suspects(commands).0;
        assert_eq!(of(&["MSET a 1 b 1", "INCR a", "SET a 5"]), "0:a");
        assert_eq!(of(&["INCR a", "MSET a 1 b 1", "MOVE b 4"]), "0:a 0:b 4:b");
        assert_eq!(of(&["INCR a", "SWAPDB 0 1"]), "0:a 1:a");
    }

    #[test]
    fn commands_without_keys_are_counted() {
        assert_eq!(suspects(&["FUNCTION LOAD x", "INCR a"]), ("0:a".into(), 1));
    }
}
