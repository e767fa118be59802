//! Doing work at the cluster: windows, and the steps that are done to keys of several slots.
//!
//! We are the target's only writer, and nothing is on its way while a step is done. So what a command reads in other slots can be
//! copied (DUMP) to the slot of the key that it writes, under names of ours, by the very transaction that runs the command there
//! and writes that slot's checkpoint; the copies go in it too. A command that writes two keys is done at the one that gains first,
//! then at the one that loses: each side has its own checkpoint, so that whoever comes after a kill does what is left. Before the
//! second side, a replica has what the first one did: that could not be done again.

use bytes::Bytes;
use resp::Value;
use rewrite::{Apart, Slot, Table, slot_of};

use super::collect::{Kind, Step, What, Work};
use super::{Damage, Failed};
use crate::checkpoint::{Checkpoint, Names};
use crate::client::class_of;
use crate::config::Config;
use crate::error::Class;
use crate::pipeline::repair::{Touched, damaged_in};
use crate::pipeline::{claims, each_command, show};
use crate::spool::Feed;
use crate::status::Status;
use crate::target::cluster::{Cluster, Group, Inner, Mark, temporary};

/// A node is emptied again until nothing is left: a key may have been on its way between two of them.
const FLUSHES_MAX: usize = 20;

/// What work is done with.
#[derive(Clone, Copy)]
pub(super) struct Hands<'a> {
    pub(super) config: &'a Config,
    pub(super) status: &'a Status,
    pub(super) feed: &'a Feed,
    /// The target has no RESTORE.
    pub(super) cannot_restore: bool,
}

/// A value as it is copied.
struct Copied {
    payload: Bytes,
    /// Unix milliseconds; 0 for never.
    expires_at_ms: i64,
}

impl Hands<'_> {
    /// Does the work and waits for its end. `before` is the link's checkpoint with the position before it.
    pub(super) async fn work(
        self,
        cluster: &mut Cluster,
        work: Work,
        before: &Checkpoint,
    ) -> Result<(), Failed> {
        match work.kind {
            Kind::Window(window) => self.groups(cluster, window.groups).await,
            Kind::Step(step) => match step.what {
                What::Flush if step.is_of_another_db() => self.flush_db(cluster, &step).await,
                What::Flush => self.flush(cluster, &step, before).await,
                What::Everywhere => self.everywhere(cluster, &step).await,
                What::Apart(apart) => self.apart(cluster, &step, apart).await,
            },
        }
    }

    /// Carries out groups; a command among them that fails has damaged its keys.
    async fn groups(self, cluster: &mut Cluster, groups: Vec<Group>) -> Result<(), Failed> {
        if groups.is_empty() {
            return Ok(());
        }
        let run = cluster.run(&self.config.target, groups, Some(self.feed));
        let (groups, mut inner) = run.await?;
        for (group, inner) in groups.iter().zip(&mut inner) {
            claims::count(self.status, &mut inner.ended, |each| {
                each_command(&group.bytes, each);
            });
        }
        let mut damage = Damage {
            is_whole: true,
            ..Damage::default()
        };
        let is_well = |inner: &Inner| inner.errors.is_empty() && inner.ended.is_empty();
        if inner.iter().all(is_well) {
            return Ok(());
        }
        let table = Table::new();
        for (group, inner) in groups.iter().zip(&inner) {
            if is_well(inner) {
                continue;
            }
            tell(group, inner, &mut damage);
            let failed: Vec<usize> = inner.errors.iter().map(|(at, _)| *at).collect();
            match damaged_in(&table, &group.bytes, &failed) {
                Some(names) => drop(damage.names.extend(&names)),
                None => damage.is_keyless = true,
            }
            if let Some(names) = damaged_in(&table, &group.bytes, &inner.ended) {
                damage.ended.extend(&names);
            }
        }
        Err(Failed::Damaged(Box::new(damage)))
    }

    /// Empties a database that is not 0 at every node. The slots' checkpoints stay, and say where that is done.
    async fn flush_db(self, cluster: &mut Cluster, step: &Step) -> Result<(), Failed> {
        let nodes = cluster.slots();
        let mut open = Vec::new();
        for (address, slots) in &nodes {
            let marks = slots.iter().map(|slot| cluster.mark(*slot));
            let (mut is_done, mut has_gone_on) = (true, false);
            for mark in marks {
                is_done &= mark >= Some(step.mark);
                has_gone_on |= mark > Some(step.mark);
            }
            match (is_done, has_gone_on) {
                (true, _) => {}
                (_, false) => open.push((address, slots)),
                (_, true) => {
                    let what = "FLUSHDB is to be done again, because a node has lost what it had, but other slots of it have gone on";
                    return Err(Failed::Gone(what.to_owned()));
                }
            }
        }
        for round in 0.. {
            for (address, _) in &open {
                cluster
                    .flush_db(&self.config.target, address, step.db)
                    .await?;
            }
            // Where all nodes are emptied, nothing is left: a key may have been on its way between two of them.
            if open.len() < nodes.len() {
                break;
            }
            let of = Some(step.db);
            let left = cluster.foreign_keys(&self.config.target, of).await?;
            if left == 0 {
                break;
            }
            if round == FLUSHES_MAX {
                return Err(Failed::Sync(cluster.lost(&format!(
                    "{left} keys are left after FLUSHDB: does somebody else write there?"
                ))));
            }
        }
        for (_, slots) in open {
            cluster.set_marks(slots, step.mark).await?;
        }
        Ok(())
    }

    /// Empties every node.
    async fn flush(
        self,
        cluster: &mut Cluster,
        step: &Step,
        before: &Checkpoint,
    ) -> Result<(), Failed> {
        // Whoever was interrupted had applied nothing behind it: all is emptied once more.
        let is_resumed = cluster.state.flushes;
        let is_done = |slot: &&Slot| cluster.mark(**slot) >= Some(step.mark);
        let nodes = cluster.slots();
        let done: Vec<usize> = nodes
            .values()
            .map(|slots| slots.iter().filter(is_done).count())
            .collect();
        let is_partly = nodes
            .values()
            .zip(&done)
            .any(|(slots, done)| *done > 0 && *done < slots.len());
        let count = done.iter().filter(|done| **done > 0).count();
        if count > 0 && !is_resumed {
            if is_partly {
                let what = "FLUSHALL is to be done again, because a node has lost what it had, but other slots of it have gone on";
                return Err(Failed::Gone(what.to_owned()));
            }
            for ((address, slots), done) in nodes.iter().zip(done) {
                if done == 0 {
                    cluster
                        .flush_node(&self.config.target, address, &step.frame)
                        .await?;
                    cluster.set_marks(slots, step.mark).await?;
                }
            }
            return Ok(());
        }
        // From here on a slot without a checkpoint is one that was emptied just now.
        cluster.state.flushes = true;
        cluster.write_checkpoint(before).await?;
        for round in 0.. {
            for address in nodes.keys() {
                cluster
                    .flush_node(&self.config.target, address, &step.frame)
                    .await?;
            }
            let of = step.is_of_one_db().then_some(0);
            let left = cluster.foreign_keys(&self.config.target, of).await?;
            if left == 0 {
                break;
            }
            if round == FLUSHES_MAX {
                return Err(Failed::Sync(cluster.lost(&format!(
                    "{left} keys are left after FLUSHALL: does somebody else write there?"
                ))));
            }
        }
        let all: Vec<Slot> = nodes.into_values().flatten().collect();
        cluster.set_marks(&all, step.mark).await?;
        cluster.state.flushes = false;
        cluster.write_checkpoint(before).await?;
        Ok(())
    }

    /// A command without keys: libraries of functions, scripts.
    async fn everywhere(self, cluster: &mut Cluster, step: &Step) -> Result<(), Failed> {
        let word = |at: usize| {
            step.args
                .get(at)
                .map(|arg| arg.of(&step.frame))
                .unwrap_or_default()
        };
        let deletes =
            word(0).eq_ignore_ascii_case(b"function") && word(1).eq_ignore_ascii_case(b"delete");
        for error in cluster.everywhere(&self.config.target, &step.frame).await? {
            // It may be done a second time.
            if deletes && error.text.ends_with(b"not found") {
                continue;
            }
            let what = format!("{} {} was refused: {error}", show(word(0)), show(word(1)));
            return Err(match class_of(error.code) {
                Class::Stop => {
                    let mut damage = Damage {
                        is_keyless: true,
                        ..Damage::default()
                    };
                    damage.failed(error.code.word(), || what);
                    Failed::Damaged(Box::new(damage))
                }
                Class::Reconnect | Class::Resync => {
                    self.status.target_errors.add(error.code.word(), 1);
                    Failed::Sync(cluster.lost(&what))
                }
            });
        }
        Ok(())
    }

    /// A command whose keys are in several slots.
    async fn apart(
        self,
        cluster: &mut Cluster,
        step: &Step,
        apart: Option<Apart>,
    ) -> Result<(), Failed> {
        let Some(apart) = apart else {
            let what = format!(
                "{} has keys in several slots of the cluster, and what it does to them is not known here; nothing of it was done: give its keys one hash tag at the source, or block it with filter.block_command",
                names(step)
            );
            return Err(Failed::Sync(cluster.refused(&what)));
        };
        if !cluster.emulates() {
            let what = format!(
                "{} has keys in several slots of the cluster, and redis_writer.cross_slot is \"fail\"; nothing of it was done: give its keys one hash tag at the source, or set it to \"emulate\"",
                names(step)
            );
            return Err(Failed::Sync(cluster.refused(&what)));
        }
        let one = One {
            hands: self,
            cluster,
            step,
        };
        match one.do_it(apart).await {
            Ok(is_anything) => {
                self.status
                    .cross_slot
                    .add("emulated", u64::from(is_anything));
                Ok(())
            }
            // One of its keys differs, and so may all that it writes. Nothing of it is to be done any more.
            Err(Failed::Damaged(damage)) => Err(Failed::Damaged(Box::new(Damage {
                names: keys_of(step),
                ended: Names::default(),
                is_whole: false,
                ..*damage
            }))),
            Err(other) => Err(other),
        }
    }
}

impl Step {
    /// Whether it empties one database alone.
    fn is_of_one_db(&self) -> bool {
        let name = self.args.first().map(|arg| arg.of(&self.frame));
        name.is_some_and(|name| name.eq_ignore_ascii_case(b"flushdb"))
    }

    fn is_of_another_db(&self) -> bool {
        self.db != 0 && self.is_of_one_db()
    }
}

/// Notes the errors of a group, and says which keys they are about, each once.
fn tell(group: &Group, inner: &Inner, damage: &mut Damage) {
    let mut told: Vec<String> = Vec::new();
    let mut errors = inner.errors.iter().peekable();
    each_command(&group.bytes, |at, frame, args| {
        let Some((_, error)) = errors.next_if(|(index, _)| *index == at) else {
            return;
        };
        let word = |at: usize| args.get(at).map(|arg| show(arg.of(frame)));
        let (name, key) = (word(0).unwrap_or_default(), word(1).unwrap_or_default());
        damage.failed(error.code.word(), || {
            format!("{name} {key} was refused: {error}")
        });
        if !told.contains(&key) {
            tracing::warn!(
                key,
                command = name,
                error = show(&error.text),
                "a command failed at the target, which differs from the source in this key: it is copied again"
            );
            told.push(key);
        }
    });
}

/// One command of several slots.
struct One<'a, 'h> {
    hands: Hands<'h>,
    cluster: &'a mut Cluster,
    step: &'a Step,
}

impl One<'_, '_> {
    /// Does what is not done yet; whether that was anything.
    async fn do_it(mut self, apart: Apart) -> Result<bool, Failed> {
        match apart {
            Apart::Copy { from, to } => {
                let gains = self.takes(from, to, self.copy_db()).await?;
                Ok(self.put(to, gains, false).await?)
            }
            Apart::Rename { from, to } => {
                let gains = self.takes(from, to, self.step.db).await?;
                let done = self.put(to, gains, true).await?;
                let loses = self.write(from, &[&[b"DEL", self.word(from)]]);
                Ok(self.put(from, loses, false).await? || done)
            }
            Apart::MoveMember { from, to, member } => {
                let gains = self.write(to, &[&[b"SADD", self.word(to), self.word(member)]]);
                let done = self.put(to, gains, true).await?;
                let loses = self.write(from, &[&[b"SREM", self.word(from), self.word(member)]]);
                Ok(self.put(from, loses, false).await? || done)
            }
            Apart::MoveElement {
                from,
                to,
                from_left,
                to_left,
            } => {
                let gains = self.element(from, to, from_left, to_left).await?;
                let done = self.put(to, gains, true).await?;
                let pop: &[u8] = if from_left { b"LPOP" } else { b"RPOP" };
                let loses = self.write(from, &[&[pop, self.word(from)]]);
                Ok(self.put(from, loses, false).await? || done)
            }
            Apart::MoveMany { from, to } => {
                let gains = self.derived(to).await?;
                let done = self.put(to, gains, true).await?;
                let name = temporary(self.slot(from), 0);
                let moves = self.with_names(&[(to, name.as_bytes())]);
                let loses = self.group(from).map(|mut group| {
                    push(&mut group, &moves, self.step.args.len());
                    push_words(&mut group, &[b"DEL", name.as_bytes()]);
                    group
                });
                Ok(self.put(from, loses, false).await? || done)
            }
            Apart::Derive { to } => {
                let gains = self.derived(to).await?;
                Ok(self.put(to, gains, true).await?)
            }
        }
    }

    fn word(&self, at: usize) -> &[u8] {
        let arg = self.step.args.get(at);
        arg.map(|arg| arg.of(&self.step.frame)).unwrap_or_default()
    }

    fn slot(&self, at: usize) -> Slot {
        slot_of(self.word(at))
    }

    /// What is to be done in the slot of a key; nothing, if it is done.
    fn group(&self, at: usize) -> Option<Group> {
        let slot = self.slot(at);
        (self.cluster.mark(slot) < Some(self.step.mark)).then(|| {
            let mut group = Group::new(slot, Some(self.step.mark));
            group.select(self.step.db);
            group
        })
    }

    /// The database that a COPY goes to.
    fn copy_db(&self) -> u32 {
        let named = rewrite::copy_db(&self.step.frame, &self.step.args);
        let number = named.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        number.unwrap_or(self.step.db)
    }

    fn write(&self, at: usize, commands: &[&[&[u8]]]) -> Option<Group> {
        self.group(at).map(|mut group| {
            commands
                .iter()
                .for_each(|words| push_words(&mut group, words));
            group
        })
    }

    /// Carries out what is to be done in one slot, if anything. What could not be done again is to be at a replica first.
    async fn put(
        &mut self,
        at: usize,
        group: Option<Group>,
        is_once: bool,
    ) -> Result<bool, Failed> {
        let Some(group) = group else {
            return Ok(false);
        };
        self.hands.groups(self.cluster, vec![group]).await?;
        if is_once {
            let slot = self.slot(at);
            self.cluster.wait_for_replica(slot).await?;
        }
        Ok(true)
    }

    /// The value of a key goes to another, with its expiry.
    async fn takes(&mut self, from: usize, to: usize, to_db: u32) -> Result<Option<Group>, Failed> {
        let Some(mut group) = self.group(to) else {
            return Ok(None);
        };
        let Some(copied) = self.copied(from).await? else {
            return Err(self.missing(from));
        };
        let at_ms = copied.expires_at_ms.to_string();
        group.select(to_db);
        push_words(
            &mut group,
            &[
                b"RESTORE",
                self.word(to),
                at_ms.as_bytes(),
                &copied.payload,
                b"REPLACE",
                b"ABSTTL",
            ],
        );
        Ok(Some(group))
    }

    /// An element of a list goes to another.
    async fn element(
        &mut self,
        from: usize,
        to: usize,
        from_left: bool,
        to_left: bool,
    ) -> Result<Option<Group>, Failed> {
        let Some(mut group) = self.group(to) else {
            return Ok(None);
        };
        self.is_as_it_was(from)?;
        let (key, slot) = (self.word(from).to_vec(), self.slot(from));
        let index: &[u8] = if from_left { b"0" } else { b"-1" };
        let value = self.ask(slot, &[b"LINDEX", &key, index]).await?;
        let Value::Bulk(value) = value else {
            return Err(self.missing(from));
        };
        let name: &[u8] = if to_left { b"LPUSH" } else { b"RPUSH" };
        push_words(&mut group, &[name, self.word(to), &value]);
        Ok(Some(group))
    }

    /// The command itself, in the slot of the key that it writes, on copies of the others.
    async fn derived(&mut self, to: usize) -> Result<Option<Group>, Failed> {
        let Some(mut group) = self.group(to) else {
            return Ok(None);
        };
        let home = self.slot(to);
        let mut names: Vec<(usize, String)> = Vec::new();
        let mut copied: Vec<(Vec<u8>, String)> = Vec::new();
        for at in self.step.places.clone() {
            if self.slot(at) == home {
                continue;
            }
            let key = self.word(at).to_vec();
            let known = copied.iter().find(|(known, _)| *known == key);
            let name = match known {
                Some((_, name)) => name.clone(),
                None => {
                    let name = temporary(home, copied.len());
                    if let Some(value) = self.copied(at).await? {
                        let restore: [&[u8]; 5] = [
                            b"RESTORE",
                            name.as_bytes(),
                            b"0",
                            &value.payload,
                            b"REPLACE",
                        ];
                        push_words(&mut group, &restore);
                    }
                    copied.push((key, name.clone()));
                    name
                }
            };
            names.push((at, name));
        }
        let names: Vec<(usize, &[u8])> = names
            .iter()
            .map(|(at, name)| (*at, name.as_bytes()))
            .collect();
        let command = self.with_names(&names);
        push(&mut group, &command, self.step.args.len());
        let mut del: Vec<&[u8]> = vec![b"DEL"];
        del.extend(copied.iter().map(|(_, name)| name.as_bytes()));
        push_words(&mut group, &del);
        Ok(Some(group))
    }

    /// The command with some words replaced.
    fn with_names(&self, names: &[(usize, &[u8])]) -> Vec<u8> {
        let words: Vec<&[u8]> = (0..self.step.args.len())
            .map(|at| {
                let name = names.iter().find(|(place, _)| *place == at);
                name.map_or_else(|| self.word(at), |(_, name)| *name)
            })
            .collect();
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &words);
        frame
    }

    /// A copy of a key's value; `None` if there is none.
    async fn copied(&mut self, at: usize) -> Result<Option<Copied>, Failed> {
        if self.hands.cannot_restore {
            let what = format!(
                "{} has keys in several slots of the cluster, which takes RESTORE at the target; advanced.target_redis_proto_max_bulk_len is 0 (never RESTORE)",
                names(self.step)
            );
            return Err(Failed::Sync(self.cluster.refused(&what)));
        }
        self.is_as_it_was(at)?;
        let (key, slot) = (self.word(at).to_vec(), self.slot(at));
        self.fits(slot, &key).await?;
        let dump = self.ask(slot, &[b"DUMP", &key]).await?;
        let Value::Bulk(payload) = dump else {
            return Ok(None);
        };
        let expires_at_ms = match self.ask(slot, &[b"PTTL", &key]).await? {
            Value::Int(left) if left >= 0 => self.expires_at(slot, &key, left).await?,
            // It ran out between the two questions.
            Value::Int(-2) => return Ok(None),
            _ => 0,
        };
        Ok(Some(Copied {
            payload,
            expires_at_ms,
        }))
    }

    /// A copy is in memory whole, twice over; nothing of the command is done yet.
    async fn fits(&mut self, slot: Slot, key: &[u8]) -> Result<(), Failed> {
        let limit = self.hands.config.transaction_bytes_max() as u64;
        match self.cluster.memory_usage(self.step.db, slot, key).await? {
            Some(bytes) if bytes > limit => {
                let what = format!(
                    "{} has keys in several slots of the cluster, and key \"{}\" takes {bytes} bytes: no more than {limit} are copied from slot to slot (a quarter of limits.memory); raise limits.memory and start again, nothing is lost",
                    names(self.step),
                    show(key)
                );
                Err(Failed::Sync(self.cluster.refused(&what)))
            }
            _ => Ok(()),
        }
    }

    /// When a key expires that has so many milliseconds left: exactly, where the target tells it.
    async fn expires_at(&mut self, slot: Slot, key: &[u8], left_ms: i64) -> Result<i64, Failed> {
        let words: [&[u8]; 2] = [b"PEXPIRETIME", key];
        let told = self.cluster.call_in(self.step.db, slot, &words).await;
        match told {
            Ok(Value::Int(at_ms)) if at_ms > 0 => return Ok(at_ms),
            // An answer may still be on its way there.
            Err(error) if error.class != Class::Stop => return Err(error.into()),
            _ => {}
        }
        let now_ms = i64::try_from(crate::clock::unix_ms()).unwrap_or(i64::MAX);
        Ok(now_ms.saturating_add(left_ms))
    }

    async fn ask(&mut self, slot: Slot, words: &[&[u8]]) -> Result<Value, Failed> {
        Ok(self.cluster.call_in(self.step.db, slot, words).await?)
    }

    /// What is read has to be what it was when the source ran the command: its slot is not further than that.
    fn is_as_it_was(&self, at: usize) -> Result<(), Failed> {
        if self.cluster.mark(self.slot(at)) < Some(self.step.mark) {
            return Ok(());
        }
        Err(self.cannot(&format!(
            "it is to be done again, because a node has lost what it had, but key \"{}\" is not what it was then",
            show(self.word(at))
        )))
    }

    fn missing(&self, at: usize) -> Failed {
        self.cannot(&format!(
            "the target has no key \"{}\", or it is empty",
            show(self.word(at))
        ))
    }

    /// The keys are copied from the source instead.
    fn cannot(&self, why: &str) -> Failed {
        let what = format!("{} cannot be done: {why}", names(self.step));
        tracing::warn!(what, "its keys are copied again");
        let mut damage = Damage::default();
        damage.failed("ERR", || what);
        Failed::Damaged(Box::new(damage))
    }
}

impl Damage {
    fn failed(&mut self, code: &'static str, what: impl FnOnce() -> String) {
        self.codes.push(code);
        self.what.get_or_insert_with(what);
    }
}

/// The keys of a command, in all databases that it names.
fn keys_of(step: &Step) -> Names {
    Touched::by(&Table::new(), step.db, &step.frame, &step.args).names
}

fn push(group: &mut Group, frame: &[u8], words: usize) {
    group.push(frame, words, &[], false);
}

fn push_words(group: &mut Group, words: &[&[u8]]) {
    resp::encode::command(&mut group.bytes, words);
    group.commands += 1;
    group.words += words.len();
}

/// A command and its keys, for people.
fn names(step: &Step) -> String {
    let word = |at: usize| {
        step.args
            .get(at)
            .map(|arg| arg.of(&step.frame))
            .unwrap_or_default()
    };
    let mut text = show(word(0));
    for at in step.places.iter().take(4) {
        text.push_str(&format!(" \"{}\"", show(word(*at))));
    }
    format!("command {text} at offset {}", step.mark.offset)
}

/// The slot's mark before anything of the stream.
pub(super) fn beginning(offset: u64) -> Mark {
    Mark { offset, part: 0 }
}

/// A generation that no other snapshot has.
pub(super) fn generation() -> u64 {
    crate::chance::number()
}
