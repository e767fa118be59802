//! Which link of a source cluster holds a slot of the target: said in the slot's own checkpoint, which all of its links share.
//!
//! A link holds a slot when the checkpoint there names its shard, and is of the link's generation. A link takes a slot by the
//! transaction that puts the copy in its place, and only one without a checkpoint; it lets a slot go by removing the checkpoint,
//! when all that it has for the slot is confirmed. Both fall back with the slot's data when a node is lost: what a slot says is
//! always true of what it holds. Whoever reads that another one has a slot by it asks that one to let it go once more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use resp::Value;
use rewrite::{SLOTS, Slot};

use super::locate::{self, locate};
use super::marks::{Note, SlotCheckpoint, State, mark_key};
use super::{Cluster, Group, Mark, redirects};
use crate::checkpoint::{self, Checkpoint, Phase, Progress};
use crate::client::Client;
use crate::config::{ClusterConfig, Config, TargetConfig};
use crate::error::SyncError;
use crate::pipeline::is_own;
use crate::shard::{Held, Shard};

/// Slots in one round trip.
const AT_ONCE: usize = 1024;
/// Keys in one DEL.
const KEYS_AT_ONCE: usize = 512;
/// A slot is emptied again until nothing is found there: a key may have been on its way between two nodes.
const ROUNDS_MAX: usize = 20;
/// What the user at the target needs besides, in words.
const RIGHTS: &str = "for a source cluster the user at the target also needs +get +cluster|countkeysinslot +cluster|getkeysinslot";

/// The name in the keys of the slots' checkpoints.
pub(super) fn marks_name(settings: Option<&ClusterConfig>, link_name: &str) -> String {
    match settings.and_then(|settings| settings.shard.as_ref()) {
        Some(shard) => shard.group.slots_name(),
        None => link_name.to_owned(),
    }
}

/// Who is named as the holder.
pub(super) fn holder(settings: Option<&ClusterConfig>) -> &str {
    let shard = settings.and_then(|settings| settings.shard.as_ref());
    shard.map_or("", |shard| &shard.id)
}

impl Cluster {
    /// Whether the slot is this link's to write to: every one, where the source is no cluster.
    fn is_held(&self, slot: Slot) -> bool {
        let shard = self.settings.shard.as_ref();
        shard.is_none_or(|shard| shard.holds(slot))
    }

    /// Slots that are this link's to write to.
    pub(super) fn held(&self) -> Vec<Slot> {
        let slots = (0..SLOTS).map(Slot);
        slots.filter(|slot| self.is_held(*slot)).collect()
    }

    /// Whether a slot can be a witness: what the link's position is moved on by has to have been the link's before.
    pub(super) fn may_bear_witness(&self, slot: Slot) -> bool {
        match &self.settings.shard {
            None => true,
            Some(shard) => shard.holds(slot) && !shard.is_recent(slot) && self.mark(slot).is_some(),
        }
    }

    /// Finds out which slots are the link's, by what they say; those that name it and are not its own any more are let go.
    pub(super) async fn find_held(
        &mut self,
        config: &TargetConfig,
        shard: &Shard,
        checkpoint: &Checkpoint,
    ) -> Result<(), SyncError> {
        let all: Vec<Slot> = (0..SLOTS).map(Slot).collect();
        let found = self.read_slots(&all).await?;
        let names_us = |found: &Option<SlotCheckpoint>| {
            let found = found.as_ref();
            found.is_some_and(|found| found.holder == shard.id)
        };
        let generation = self.state.generation;
        let is_ours = |found: &Option<SlotCheckpoint>| {
            let of = found.as_ref().map(|found| found.generation);
            names_us(found) && of == Some(generation)
        };
        let slots = || (0_u16..).zip(&found);
        shard.begin(&Held::default(), 0, false);
        match &checkpoint.phase {
            Phase::Stream(_) => {
                let own = slots().filter(|(_, found)| is_ours(found));
                for (slot, found) in own {
                    self.set_found(slot, found.as_ref());
                }
                let own = slots().filter(|(_, found)| is_ours(found));
                shard.begin(&Held::of(own.map(|(slot, _)| slot)), 0, false);
            }
            Phase::Snapshot(progress) => {
                let named = checkpoint.slots.clone().unwrap_or_default();
                let named: BTreeSet<u16> = named.slots().collect();
                let ours = |slot: &u16| found.get(usize::from(*slot)).is_some_and(is_ours);
                self.snapshot_bytes = self.least_of_snapshot(*progress, &found, ours);
                let is_new = self.snapshot_bytes == 0;
                let is_free = |slot: &u16| {
                    let found = found.get(usize::from(*slot));
                    found.is_some_and(|found| found.is_none() || names_us(found))
                };
                let held = named.iter().copied();
                let held: Vec<u16> = held
                    .filter(|slot| if is_new { is_free(slot) } else { ours(slot) })
                    .collect();
                if held.len() < named.len() {
                    tracing::info!(
                        slots = named.len() - held.len(),
                        "slots of the snapshot that are another link's at the target are copied behind it"
                    );
                }
                shard.begin(&Held::of(held.iter().copied()), 0, false);
                if is_new {
                    self.state = State {
                        generation: crate::chance::number(),
                        ..State::default()
                    };
                    let held: Vec<Slot> = held.iter().copied().map(Slot).collect();
                    self.set_marks(&held, Mark::default()).await?;
                } else {
                    for slot in &held {
                        let found = found.get(usize::from(*slot));
                        self.set_found(*slot, found.and_then(Option::as_ref));
                    }
                }
            }
            Phase::Diverged(_) | Phase::Scan(_) => {}
        }
        let strays: Vec<Slot> = slots()
            .filter(|(slot, found)| names_us(found) && !shard.holds(Slot(*slot)))
            .map(|(slot, _)| Slot(slot))
            .collect();
        self.free(config, &strays).await
    }

    /// So far of a snapshot all nodes are.
    fn least_of_snapshot(
        &self,
        progress: Progress,
        found: &[Option<SlotCheckpoint>],
        is_ours: impl Fn(&u16) -> bool,
    ) -> u64 {
        let witnesses = &self.state.witnesses;
        if progress.rdb_bytes == 0 || !witnesses.iter().all(is_ours) {
            return 0;
        }
        let marks = witnesses.iter().filter_map(|slot| {
            let found = found.get(usize::from(*slot))?.as_ref()?;
            Some(found.mark.offset)
        });
        marks.min().unwrap_or(0).min(progress.rdb_bytes)
    }

    fn set_found(&mut self, slot: u16, found: Option<&SlotCheckpoint>) {
        let at = usize::from(slot);
        let Some(found) = found else { return };
        if let (Some(mark), Some(note)) = (self.marks.get_mut(at), self.notes.get_mut(at)) {
            *mark = Some(found.mark);
            *note = Note::of(found);
            if let Some(names) = &note.repairs {
                self.named += 1;
                self.repairs.insert(slot, (**names).clone());
            }
        }
    }

    /// What the checkpoints of these slots say.
    async fn read_slots(
        &mut self,
        slots: &[Slot],
    ) -> Result<Vec<Option<SlotCheckpoint>>, SyncError> {
        let questions = slots.iter().map(|slot| {
            let mut frame = Vec::new();
            let key = mark_key(*slot, &self.marks_name);
            resp::encode::command(&mut frame, &[b"GET", key.as_bytes()]);
            (*slot, frame)
        });
        let questions: Vec<(Slot, Vec<u8>)> = questions.collect();
        let answers = self.ask_slots(questions).await?;
        let mut all = Vec::with_capacity(slots.len());
        for (slot, value) in slots.iter().zip(answers) {
            all.push(match &value {
                Value::Bulk(text) => {
                    let parsed = SlotCheckpoint::parse(text);
                    let key = mark_key(*slot, &self.marks_name);
                    Some(parsed.map_err(|why| {
                        self.refused(&format!(
                            "the checkpoint {key} cannot be read: {why}; delete {} to begin anew",
                            self.key
                        ))
                    })?)
                }
                Value::Error(error) => return Err(self.refusal_of("GET", error)),
                _ => None,
            });
        }
        Ok(all)
    }

    /// Lets slots go that are the link's by what they say: all that it has for them is confirmed. From here on they may be taken.
    pub(crate) async fn free(
        &mut self,
        config: &TargetConfig,
        slots: &[Slot],
    ) -> Result<(), SyncError> {
        let groups = slots.iter().map(|slot| {
            let mut group = Group::plain(*slot, 0);
            let mut frame = Vec::new();
            let key = mark_key(*slot, &self.marks_name);
            resp::encode::command(&mut frame, &[b"DEL", key.as_bytes()]);
            group.push(&frame, 2, &[], false);
            group
        });
        let groups: Vec<Group> = groups.collect();
        if groups.is_empty() {
            return Ok(());
        }
        let (_, inner) = self.run(config, groups, None).await?;
        for kind in inner.iter().flat_map(|inner| &inner.kinds) {
            if let resp::ReplyKind::Error(error) = kind {
                return Err(self.refusal_of("DEL", error));
            }
        }
        let witnesses = &mut self.state.witnesses;
        witnesses.retain(|witness| !slots.contains(&Slot(*witness)));
        for slot in slots {
            let at = usize::from(slot.0);
            self.repairs.remove(&slot.0);
            if let (Some(mark), Some(note)) = (self.marks.get_mut(at), self.notes.get_mut(at)) {
                self.named -= usize::from(note.repairs.is_some());
                *mark = None;
                *note = Note::default();
            }
        }
        Ok(())
    }

    /// Lets all slots of the link go.
    pub(crate) async fn free_all(&mut self, config: &TargetConfig) -> Result<(), SyncError> {
        let Some(shard) = self.settings.shard.clone() else {
            return Ok(());
        };
        let held = self.held();
        held.iter().for_each(|slot| shard.leave(slot.0));
        self.free(config, &held).await
    }

    /// Lets those of these slots go that name the link, though it does not hold them: a node has fallen back to before it let
    /// them go.
    pub(crate) async fn free_again(
        &mut self,
        config: &TargetConfig,
        slots: &[Slot],
    ) -> Result<(), SyncError> {
        let found = self.read_slots(slots).await?;
        let own = slots.iter().zip(found).filter(|(slot, found)| {
            let found = found.as_ref();
            let names_us = found.is_some_and(|found| found.holder == holder(Some(&self.settings)));
            names_us && !self.is_held(**slot)
        });
        let own: Vec<Slot> = own.map(|(slot, _)| *slot).collect();
        self.free(config, &own).await
    }

    /// Whether one of these slots is a witness of how far the nodes are.
    pub(crate) fn is_witness(&self, slots: &[Slot]) -> bool {
        let witnesses = &self.state.witnesses;
        slots.iter().any(|slot| witnesses.contains(&slot.0))
    }

    /// Removes all keys of slots that may be copied, and says at each that everything up to `mark` is done there.
    pub(crate) async fn empty_slots(
        &mut self,
        config: &Config,
        slots: &[Slot],
        mark: Mark,
    ) -> Result<u64, SyncError> {
        let mut removed = 0;
        for round in 0.. {
            let mut found: BTreeMap<u16, Vec<Bytes>> =
                slots.iter().map(|slot| (slot.0, Vec::new())).collect();
            let mut clients = locate::connect_all(config).await?;
            keys_of(&mut clients, &mut found).await?;
            let mut groups = Vec::new();
            for (slot, keys) in &found {
                let keys = keys.iter().filter(|key| config.may_be_copied(0, key));
                let keys: Vec<&[u8]> = keys.map(|key| &key[..]).collect();
                for keys in keys.chunks(KEYS_AT_ONCE) {
                    removed += keys.len() as u64;
                    let mut group = Group::plain(Slot(*slot), 0);
                    // One by one: those of a slot that moves are at two nodes.
                    for key in keys {
                        let mut frame = Vec::new();
                        resp::encode::command(&mut frame, &[b"DEL", key]);
                        group.push(&frame, 2, &[], false);
                    }
                    groups.push(group);
                }
            }
            if groups.is_empty() {
                break;
            }
            if round == ROUNDS_MAX {
                return Err(self.lost(
                    "keys are left after the flush of a shard: does somebody else write there?",
                ));
            }
            self.run(&config.target, groups, None).await?;
        }
        self.set_marks(slots, mark).await?;
        Ok(removed)
    }
}

/// Those of these slots that no link holds, with the target's keys of them. Links that hold others are asked to let them go.
///
/// # Errors
/// As the nodes' clients.
pub(crate) async fn keys_of_free_slots(
    config: &Config,
    shard: &Shard,
    slots: BTreeMap<u16, Vec<Bytes>>,
) -> Result<BTreeMap<u16, Vec<Bytes>>, SyncError> {
    let key = checkpoint::key(&config.link_name);
    let located = locate(&config.target, &key).await?;
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    for address in located.topology.primaries() {
        let client = locate::connect(&config.target, &address).await?;
        clients.insert(address, client);
    }
    let mut by_node: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for slot in slots.keys() {
        if let Some(owner) = located.topology.owner(Slot(*slot)) {
            by_node.entry(&owner.address).or_default().push(*slot);
        }
    }
    let mut free: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
    let name = shard.group.slots_name();
    for (address, slots) in by_node {
        let Some(client) = clients.get_mut(address) else {
            continue;
        };
        for slots in slots.chunks(AT_ONCE) {
            let keys: Vec<String> = slots
                .iter()
                .map(|slot| mark_key(Slot(*slot), &name))
                .collect();
            let commands: Vec<Vec<&[u8]>> = keys
                .iter()
                .map(|key| vec![&b"GET"[..], key.as_bytes()])
                .collect();
            let replies = client.ask_all(&commands).await?;
            for ((slot, reply), command) in slots.iter().zip(&replies).zip(&commands) {
                match reply {
                    Value::Null => drop(free.insert(*slot, Vec::new())),
                    // It moves: it is looked at again.
                    Value::Error(error) if redirects(error.code) => {}
                    Value::Error(error) => return Err(client.refused(command, error)),
                    Value::Bulk(text) => match SlotCheckpoint::parse(text) {
                        // A run before has put it in place, or begun to, and not come to hear of it.
                        Ok(found) if found.holder == shard.id => {
                            shard.group.ask_for(&found.holder, *slot);
                        }
                        Ok(found) if !shard.group.ask_for(&found.holder, *slot) => {
                            tracing::debug!(
                                slot,
                                holder = found.holder,
                                "held by a shard that is gone"
                            );
                            free.insert(*slot, Vec::new());
                        }
                        // Its link lets it go first; what cannot be read is nobody's that we know.
                        Ok(_) | Err(_) => {}
                    },
                    _ => {}
                }
            }
        }
    }
    let mut clients: Vec<Client> = clients.into_values().collect();
    keys_of(&mut clients, &mut free).await?;
    Ok(free)
}

/// Lists the keys of these slots at all nodes, ours left out. Twice: of a slot that moves, a key may have gone to a node that was
/// asked already.
async fn keys_of(
    clients: &mut [Client],
    slots: &mut BTreeMap<u16, Vec<Bytes>>,
) -> Result<(), SyncError> {
    let mut all: BTreeMap<u16, BTreeSet<Bytes>> = BTreeMap::new();
    let names: Vec<(u16, String)> = slots.keys().map(|slot| (*slot, slot.to_string())).collect();
    for _ in 0..2 {
        for client in clients.iter_mut() {
            for names in names.chunks(AT_ONCE) {
                for (slot, keys) in keys_at(client, names).await? {
                    all.entry(slot).or_default().extend(keys);
                }
            }
        }
    }
    for (slot, keys) in slots.iter_mut() {
        *keys = all.remove(slot).unwrap_or_default().into_iter().collect();
    }
    Ok(())
}

/// The keys of slots at one node.
async fn keys_at(
    client: &mut Client,
    slots: &[(u16, String)],
) -> Result<Vec<(u16, Vec<Bytes>)>, SyncError> {
    let counts = slots
        .iter()
        .map(|(_, name)| vec![&b"CLUSTER"[..], b"COUNTKEYSINSLOT", name.as_bytes()]);
    let counts = ask_each(client, &counts.collect::<Vec<_>>()).await?;
    let asked = slots.iter().zip(counts);
    let asked = asked.filter_map(|((slot, name), count)| match count {
        // Others may come meanwhile, by a slot that moves.
        Value::Int(count) if count > 0 => Some((*slot, name, (count + 64).to_string())),
        _ => None,
    });
    let asked: Vec<(u16, &String, String)> = asked.collect();
    let lists = asked.iter().map(|(_, name, most)| {
        let (name, most) = (name.as_bytes(), most.as_bytes());
        vec![&b"CLUSTER"[..], b"GETKEYSINSLOT", name, most]
    });
    let lists = ask_each(client, &lists.collect::<Vec<_>>()).await?;
    let mut all = Vec::new();
    for ((slot, ..), reply) in asked.iter().zip(lists) {
        let Value::Array(keys) = reply else { continue };
        let keys = keys.iter().filter_map(|key| key.as_bytes().cloned());
        all.push((*slot, keys.filter(|key| !is_own(key)).collect()));
    }
    Ok(all)
}

async fn ask_each(client: &mut Client, commands: &[Vec<&[u8]>]) -> Result<Vec<Value>, SyncError> {
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    let replies = client.ask_all(commands).await?;
    for (reply, command) in replies.iter().zip(commands) {
        if let Value::Error(error) = reply {
            let mut error = client.refused(command, error);
            error.what = format!("{}; {RIGHTS}", error.what);
            return Err(error);
        }
    }
    Ok(replies)
}
