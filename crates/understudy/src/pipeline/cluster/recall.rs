//! What the target said when nobody listened: see [`crate::pipeline::stream::recall`].
//!
//! A slot's checkpoint is at the target before the answers to its group are looked at, so it tells how many bytes before its mark
//! those are. Whoever goes on reads the stream from the link's position up to the furthest of these marks once, before anything is
//! applied, and takes every key for damaged on which a command of a slot's unseen part can have failed.

use std::collections::HashMap;

use resp::Value;
use rewrite::slot_of;

use super::low_water::Memory;
use super::stream::ClusterStream;
use crate::checkpoint::Names;
use crate::error::SyncError;
use crate::pipeline::repair::{self, Touched};
use crate::pipeline::show;
use crate::pipeline::stream::input::Input;
use crate::pipeline::stream::recall::{Kinds, Suspects};
use crate::source::spool_error;
use crate::target::cluster::{Cluster, Mark, Note, Question};

/// The part of the stream of which nobody has looked at the answers to what a slot has: behind `from`, up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone {
    from: u64,
    to: u64,
}

/// The unseen parts of all slots, for whoever begins at `begin`.
pub(super) fn zones(cluster: &Cluster, memory: &Memory, begin: u64) -> Vec<(u16, Zone)> {
    let generation = cluster.state.generation;
    let slots = (0_u16..).zip(cluster.marks().iter().zip(cluster.notes()));
    let zone = |(slot, (mark, note)): (u16, (&Option<Mark>, &Note))| {
        let mark = (*mark)?;
        let seen = memory.seen_of(generation, slot, mark).max(begin);
        let from = mark.offset.saturating_sub(note.unseen).max(seen);
        let zone = Zone {
            from,
            to: mark.offset,
        };
        (note.unseen > 0 && zone.from < zone.to).then_some((slot, zone))
    };
    slots.filter_map(zone).collect()
}

impl ClusterStream<'_> {
    /// Takes keys under repair on which a command can have failed without anybody having heard of it.
    pub(super) async fn recall(&mut self) -> Result<(), SyncError> {
        let zones: HashMap<u16, Zone> = std::mem::take(&mut self.zones).into_iter().collect();
        let Some(until) = zones.values().map(|zone| zone.to).max() else {
            return Ok(());
        };
        if self.config.function.is_some() {
            self.status.suspects.add("unchecked", zones.len() as u64);
            tracing::warn!(slots = zones.len(), "{}", crate::pipeline::stream::UNHEARD);
            return Ok(());
        }
        // Without a spool it comes from the source.
        while self.feed.end() < until {
            if self.feed.is_complete() {
                return Ok(());
            }
            self.feed.changed().await;
        }
        let mut suspects = Suspects {
            db: self.confirmed.db.0,
            ..Suspects::default()
        };
        let mut input = Input::at(self.confirmed.offset, self.config.command_bytes_max());
        while input.frame_pos < until {
            match input.poll() {
                Ok(Some(frame)) => {
                    let bytes = input.window().get(..frame.len).unwrap_or_default();
                    let end = input.frame_end(frame.len);
                    self.suspect(&mut suspects, &zones, bytes, input.args(), end);
                    input.advance(frame.len);
                }
                Ok(None) => {
                    if !input.more(self.feed).map_err(spool_error)? {
                        break;
                    }
                    // It may be long: the source is heard meanwhile.
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(self.not_a_command(&error)),
            }
        }
        if self.late.looks() {
            let saved = self.copied(&suspects.saved);
            let ended = self.missing(&saved).await?;
            suspects.names.extend(&ended);
        }
        self.hold_suspects(suspects).await
    }

    /// Looks at a command: only what is in a slot's unseen part can have failed unheard.
    fn suspect(
        &self,
        suspects: &mut Suspects,
        zones: &HashMap<u16, Zone>,
        frame: &[u8],
        args: &[resp::Arg],
        end: u64,
    ) {
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"select") {
            return suspects.command(self.rewriter.table(), frame, args);
        }
        let touched = Touched::by(self.rewriter.table(), suspects.db, frame, args);
        let target = &self.config.target;
        let is_unseen = |(db, key): (u32, &bytes::Bytes)| {
            let zone = zones.get(&target.slot_of(db, key).0);
            zone.is_some_and(|zone| zone.from < end && end <= zone.to)
        };
        if touched.names.iter().any(is_unseen) {
            suspects.command(self.rewriter.table(), frame, args);
        }
    }

    /// Those of `names` that the target does not have.
    async fn missing(&mut self, names: &Names) -> Result<Names, SyncError> {
        let mut missing = Names::default();
        for ((db, key), reply) in names.iter().zip(self.ask_each(b"PTTL", names).await?) {
            if reply == Value::Int(-2) {
                missing.insert(db, key.clone());
            }
        }
        Ok(missing)
    }

    /// The answers to a command of one word and a key, for each of these keys.
    async fn ask_each(&mut self, word: &[u8], names: &Names) -> Result<Vec<Value>, SyncError> {
        let questions = names.iter().map(|(db, key)| {
            let (db, key) = self.config.target.name_of(db, key);
            Question::new(db, slot_of(&key), &[word, &key])
        });
        match &mut self.cluster {
            Some(cluster) if !names.is_empty() => {
                let replies = cluster.ask_in(questions.collect()).await?;
                for reply in &replies {
                    // What is not allowed is not known; what is not answered now is asked again.
                    if let Value::Error(error) = reply
                        && error.code != resp::ErrorCode::NoPerm
                    {
                        return Err(cluster.refusal_of(&String::from_utf8_lossy(word), error));
                    }
                }
                Ok(replies)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Takes keys for damaged; where they cannot be repaired, looks at what can be seen of them.
    async fn hold_suspects(&mut self, suspects: Suspects) -> Result<(), SyncError> {
        if suspects.keyless > 0 {
            self.status.suspects.add("keyless", suspects.keyless);
        }
        let mut names = self.copied(&suspects.names);
        if names.is_empty() {
            return Ok(());
        }
        let mut large = match self.config.repair {
            true => Names::default(),
            false => std::mem::take(&mut names),
        };
        for (db, key, bytes) in repair::too_large(self.config, &names).await {
            tracing::warn!(
                db,
                key = show(&key),
                bytes,
                "whether its last command failed at the target is not known, and it is too large to be copied for that: only its type is compared"
            );
            large.insert(db, key);
        }
        self.status.suspects.add("unchecked", large.len() as u64);
        if let Some(wrong) = self.wrong_kind(&suspects.kinds, &large).await? {
            self.heal.fail(wrong);
        }
        names.remove(&large);
        if names.is_empty() || self.heal.has_failed() {
            return Ok(());
        }
        self.status.suspects.add("repaired", names.len() as u64);
        tracing::info!(
            keys = names.len(),
            "the last answers of the target were not seen: the keys of the commands that can have failed are copied again"
        );
        if !self.repairs.add_doubtful(&names) {
            let what = "whether the commands of the last windows failed is not known, and they name too many keys to copy them one by one";
            self.heal.fail(what.to_owned());
        }
        self.begin_healing();
        Ok(())
    }

    /// The first of `kinds` at whose key the target holds something else.
    async fn wrong_kind(
        &mut self,
        kinds: &Kinds,
        names: &Names,
    ) -> Result<Option<String>, SyncError> {
        let wanted: HashMap<(u32, &bytes::Bytes), _> = kinds
            .iter()
            .map(|(db, key, kind)| ((*db, key), kind))
            .collect();
        let replies = self.ask_each(b"TYPE", names).await?;
        for ((db, key), reply) in names.iter().zip(replies) {
            let (Some(kind), Value::Simple(found)) = (wanted.get(&(db, key)), reply) else {
                continue;
            };
            if found != kind.as_bytes() && found != "none" {
                return Ok(Some(format!(
                    "key \"{}\" (db {db}) holds a {} at the target, where the last window needed a {kind}",
                    show(key),
                    show(&found)
                )));
            }
        }
        Ok(None)
    }
}
