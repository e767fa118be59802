//! Where the source is a shard of a cluster: which slots are let go, and which are taken over. See [`crate::shard`].
//!
//! A slot that is to be held is claimed; the target's keys of it are listed, nobody writes them any more. Then all of it is read
//! at one moment of the shard's own stream. From the beginning of that reading on no command of the slot is passed over before its
//! moment is known: it might lie behind it. How a slot is put in place is the appliers' business.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use replica::ReplId;
use resp::Arg;
use rewrite::{Db, Filter, Slot, Table, slot_of};
use tokio::time::Instant;

use super::repair::{Copies, Touched};
use super::sweep;
use crate::checkpoint::Names;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::shard::claims::Claims;
use crate::shard::copy::{self, SlotCopy};
use crate::shard::{Plan, Shard};
use crate::target;

/// Slots that are read in one go, if they fit.
const SLOTS_AT_ONCE: usize = 32;
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the source may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Work beside the stream.
enum Work {
    /// These claims are given up.
    Released,
    /// These slots are claimed, and the target has these keys of them.
    Claimed(BTreeMap<u16, Vec<Bytes>>),
    /// This is what they hold.
    Read(Vec<(u16, SlotCopy)>),
}

type Working<'a> = Pin<Box<dyn Future<Output = Result<Work, SyncError>> + 'a>>;

/// What is done with a command, as far as slots are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Course {
    Apply,
    /// It is not for this link to bring it.
    PassOver,
    /// Whether it is to be applied is known when its slot is read.
    Wait,
    /// The shard's slots are to be emptied, and no others.
    Flush,
    /// The node has removed keys of these slots by a command of its own: they are to be read again.
    Doubt(Vec<u16>),
    /// The link cannot go on.
    Fail(String),
}

/// A slot that is to be put in place.
pub(super) struct Taken {
    pub(super) slot: u16,
    /// The target's keys of it.
    pub(super) there: Vec<Bytes>,
    pub(super) copies: Copies,
}

/// Where the slots of one connection to the target stand.
#[derive(Default)]
pub(super) struct Slots<'a> {
    pub(super) shard: Option<Arc<Shard>>,
    plan: Arc<Plan>,
    /// To be looked at again, whatever the plan.
    is_stale: bool,
    /// Let go for good.
    left: Vec<u16>,
    /// Claims of this link that nothing is known of are looked for.
    is_settled: bool,
    /// To be claimed.
    coming: BTreeSet<u16>,
    /// Claimed, with the target's keys of them.
    claimed: BTreeMap<u16, Vec<Bytes>>,
    /// Being read.
    reading: BTreeSet<u16>,
    read: Vec<(u16, SlotCopy)>,
    working: Option<Working<'a>>,
    not_before: Option<Instant>,
    said: String,
}

impl<'a> Slots<'a> {
    pub(super) fn new(shard: Option<Arc<Shard>>) -> Self {
        if let Some(shard) = &shard {
            shard.set_still(false);
        }
        Self {
            shard,
            is_stale: true,
            ..Self::default()
        }
    }

    /// Whether the source is a shard.
    pub(super) fn is_on(&self) -> bool {
        self.shard.is_some()
    }

    /// Whether every command has to be looked at.
    pub(super) fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Slots that have come to the shard, and are not in place.
    pub(super) fn waiting(&self) -> usize {
        self.coming.len() + self.claimed.len()
    }

    /// Nothing is under way, or to be done by the plan as it was looked at last.
    pub(super) fn is_idle(&self) -> bool {
        let is_done = self.is_settled && !self.is_stale && self.left.is_empty();
        is_done && self.working.is_none() && self.read.is_empty() && self.waiting() == 0
    }

    /// All is to be looked at again.
    pub(super) fn again(&mut self) {
        self.is_stale = true;
    }

    /// These are let go for good.
    pub(super) fn have_left(&mut self, slots: &[u16]) {
        self.left.extend(slots);
    }

    /// The end of the work beside the stream, or the time for more of it.
    pub(super) async fn progress(&mut self) {
        if let Some(working) = &mut self.working {
            let done = working.await;
            self.working = None;
            self.has_done(done);
            return;
        }
        let Some(shard) = &self.shard else {
            return std::future::pending().await;
        };
        let pause = self.not_before.unwrap_or_else(|| Instant::now() + PAUSE);
        let mut plan = shard.group.watch();
        tokio::select! {
            _ = plan.changed() => {}
            () = tokio::time::sleep_until(pause) => self.not_before = None,
        }
    }

    fn has_done(&mut self, done: Result<Work, SyncError>) {
        match done {
            Ok(Work::Released) => self.is_settled = true,
            Ok(Work::Claimed(slots)) => {
                self.coming.retain(|slot| !slots.contains_key(slot));
                if !self.coming.is_empty() {
                    // Another link still has them.
                    self.not_before = Some(Instant::now() + PAUSE);
                }
                self.claimed.extend(slots);
                self.is_stale = true;
            }
            Ok(Work::Read(read)) => self.read = read,
            Err(error) => {
                let what = error.to_string();
                if self.said != what {
                    if error.class == Class::Stop {
                        tracing::error!(%error, "slots that have moved cannot be taken over, and stay as they were");
                    } else {
                        tracing::warn!(%error, "slots that have moved cannot be taken over yet");
                    }
                    self.said = what;
                }
                self.reading.clear();
                self.is_settled = false;
                self.not_before = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Looks at who is to hold which slot; gives those that are to be let go.
    pub(super) fn follow_plan(&mut self) -> Vec<u16> {
        let Some(shard) = &self.shard else {
            return Vec::new();
        };
        let plan = shard.group.plan();
        if !self.is_stale && Arc::ptr_eq(&plan, &self.plan) {
            return Vec::new();
        }
        self.is_stale = false;
        self.plan = plan.clone();
        if plan.addresses.is_empty() {
            return Vec::new();
        }
        let is_ours = |slot: &u16| plan.owner(*slot) == Some(shard.index);
        let leaving: Vec<u16> = shard
            .slots()
            .into_iter()
            .filter(|slot| !is_ours(slot))
            .collect();
        let claimed = std::mem::take(&mut self.claimed).into_iter();
        let (kept, no_more): (BTreeMap<_, _>, BTreeMap<_, _>) =
            claimed.partition(|(slot, _)| is_ours(slot));
        self.left.extend(no_more.keys());
        self.claimed = kept;
        let coming = plan.slots_of(shard.index).into_iter();
        self.coming = coming
            .filter(|slot| !shard.holds(Slot(*slot)) && !self.claimed.contains_key(slot))
            .collect();
        leaving
    }

    /// Begins the next work beside the stream. `leaving` are slots whose end is not confirmed yet; the target is `owner`'s.
    pub(super) fn begin_work(
        &mut self,
        config: &'a Config,
        leaving: impl IntoIterator<Item = u16>,
        tells_time: bool,
        owner: u64,
    ) {
        let is_busy = self.working.is_some() || self.not_before.is_some() || !self.read.is_empty();
        let Some(shard) = self.shard.clone().filter(|_| !is_busy) else {
            return;
        };
        if !self.left.is_empty() || !self.is_settled {
            let left = std::mem::take(&mut self.left);
            let mut keeps: BTreeSet<u16> = shard.slots().into_iter().collect();
            keeps.extend(self.claimed.keys());
            keeps.extend(leaving);
            let settles = !self.is_settled;
            self.working = Some(Box::pin(async move {
                release(config, &shard, left, &keeps, settles, owner).await
            }));
        } else if !self.coming.is_empty() && self.claimed.is_empty() {
            let coming: Vec<u16> = self.coming.iter().copied().collect();
            self.working = Some(Box::pin(async move {
                claim(config, &shard, &coming, owner).await
            }));
        } else if !self.claimed.is_empty() {
            let slots: Vec<u16> = self.claimed.keys().copied().take(SLOTS_AT_ONCE).collect();
            self.reading = slots.iter().copied().collect();
            self.working = Some(Box::pin(
                async move { read(config, &slots, tells_time).await },
            ));
        }
    }

    /// There is no place for what was read: it is read again.
    pub(super) fn discard_read(&mut self) {
        if !self.read.is_empty() {
            self.read.clear();
            self.reading.clear();
        }
    }

    /// Slots that were read, at moments of the history `replid`. An error says why the link cannot go on.
    pub(super) fn take_read(
        &mut self,
        config: &Config,
        replid: ReplId,
    ) -> Result<Vec<Taken>, String> {
        let mut all = Vec::new();
        let Some(shard) = self.shard.as_ref().filter(|_| !self.read.is_empty()) else {
            return Ok(all);
        };
        self.reading.clear();
        for (slot, copy) in std::mem::take(&mut self.read) {
            let why = match copy {
                _ if self.plan.owner(slot) != Some(shard.index) => continue,
                SlotCopy::Whole(copies) if copies.replid == Some(replid) => {
                    if let Some(there) = self.claimed.remove(&slot) {
                        all.push(Taken {
                            slot,
                            there,
                            copies,
                        });
                    }
                    continue;
                }
                SlotCopy::Whole(_) => "another history answers".to_owned(),
                SlotCopy::Elsewhere(what) => what,
                SlotCopy::Busy => "its keys come and go faster than they are listed".to_owned(),
                SlotCopy::TooLarge { bytes } => {
                    return Err(format!(
                        "slot {slot} has moved to this shard and takes {bytes} bytes, and no more than {} are copied at once (a quarter of the shard's part of limits.memory): raise limits.memory",
                        copy::bytes_max(config)
                    ));
                }
            };
            tracing::debug!(slot, why, "a slot is tried again");
            self.not_before = Some(Instant::now() + PAUSE);
        }
        Ok(all)
    }

    /// What a command means where the source is a shard.
    pub(super) fn course(
        &self,
        filter: &Filter,
        table: &Table,
        db: Db,
        frame: &[u8],
        args: &[Arg],
    ) -> Course {
        let Some(shard) = &self.shard else {
            return Course::Apply;
        };
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
        if db != Db(0) && !is(b"select") && filter.db(db) {
            return Course::Fail(format!(
                "the source cluster uses database {}, and slots that move are followed in database 0 alone: set filter.allow_db = [0]",
                db.0
            ));
        }
        if is(b"flushall") || is(b"flushdb") {
            let known = table.lookup(&name.to_ascii_lowercase());
            let passes = known.is_none_or(|known| filter.table_command(known).is_ok());
            return match passes && filter.db(db) {
                // A slot that is being read may have been read before it.
                true if self.is_reading() => Course::Wait,
                true => Course::Flush,
                false => Course::Apply,
            };
        }
        if is(b"trimslots") || is(b"cluster") {
            let slots = named(frame, args);
            if slots.iter().any(|slot| self.reading.contains(slot)) {
                return Course::Wait;
            }
            let slots = slots.into_iter();
            return Course::Doubt(slots.filter(|slot| shard.holds(Slot(*slot))).collect());
        }
        if is(b"function") && !shard.has_libraries() {
            return Course::PassOver;
        }
        if !self.is_reading() {
            return Course::Apply;
        }
        let touched = Touched::by(table, 0, frame, args);
        let mut names = touched.names.iter();
        match names.any(|(_, key)| self.reading.contains(&slot_of(key).0)) {
            true => Course::Wait,
            false => Course::Apply,
        }
    }
}

/// Those of these keys whose slots are not the link's.
pub(super) fn of_others(config: &Config, names: &Names) -> Names {
    let mut others = Names::default();
    let Some(shard) = &config.shard else {
        return others;
    };
    for (db, key) in names.iter().filter(|(_, key)| !shard.holds(slot_of(key))) {
        others.insert(db, key.clone());
    }
    others
}

/// The slots in `TRIMSLOTS RANGES <count> <first> <last> ..`, or in `CLUSTER <word> <slot>`.
fn named(frame: &[u8], args: &[Arg]) -> Vec<u16> {
    let number = |arg: &Arg| {
        let text = std::str::from_utf8(arg.of(frame)).ok();
        text.and_then(|text| text.parse::<u16>().ok())
    };
    let numbers: Vec<Option<u16>> = args.iter().skip(2).map(number).collect();
    match numbers.as_slice() {
        [Some(_), pairs @ ..] if pairs.len() > 1 => pairs
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [Some(first), Some(last)] => Some(*first..=*last),
                _ => None,
            })
            .flatten()
            .collect(),
        [Some(slot), ..] => vec![*slot],
        _ => Vec::new(),
    }
}

/// Gives claims up: these, and where `settles` all that nothing is known of.
async fn release(
    config: &Config,
    shard: &Shard,
    mut left: Vec<u16>,
    keeps: &BTreeSet<u16>,
    settles: bool,
    owner: u64,
) -> Result<Work, SyncError> {
    let mut claims = Claims::connect(config, shard.group.claims_key()).await?;
    if settles {
        let all = claims.all().await?;
        left.extend(all.get(&config.link_name).into_iter().flatten());
    }
    left.retain(|slot| !keeps.contains(slot));
    claims.release(&config.link_name, &left, owner).await?;
    Ok(Work::Released)
}

/// Claims slots, and lists the target's keys of those that this link has then.
async fn claim(
    config: &Config,
    shard: &Shard,
    slots: &[u16],
    owner: u64,
) -> Result<Work, SyncError> {
    let mut claims = Claims::connect(config, shard.group.claims_key()).await?;
    let claimed = claims.claim(&config.link_name, slots, Some(owner)).await?;
    let mut found: BTreeMap<u16, Vec<Bytes>> =
        claimed.into_iter().map(|slot| (slot, Vec::new())).collect();
    if found.is_empty() {
        return Ok(Work::Claimed(found));
    }
    match config.target.cluster {
        None => sweep::each_key_of_slots(config, &mut found).await?,
        Some(_) => {
            let claimed: BTreeSet<u16> = found.keys().copied().collect();
            found = target::cluster::keys_of_free_slots(config, shard, found).await?;
            // The others are asked for again: meanwhile whoever has them may want them back.
            let held = claimed.into_iter().filter(|slot| !found.contains_key(slot));
            let held: Vec<u16> = held.collect();
            claims.release(&config.link_name, &held, owner).await?;
        }
    }
    Ok(Work::Claimed(found))
}

async fn read(config: &Config, slots: &[u16], tells_time: bool) -> Result<Work, SyncError> {
    match tokio::time::timeout(TIMEOUT, copy::read(config, slots, tells_time)).await {
        Ok(read) => read.map(Work::Read),
        Err(_) => {
            let address = &config.source.endpoint.address;
            Err(SyncError::reconnect(
                Side::Source,
                address,
                "it does not answer DUMP",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Group, Held};

    fn course(slots: &Slots<'_>, text: &str) -> Course {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &words);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).unwrap().unwrap();
        let table = Table::new();
        slots.course(&Filter::default(), &table, Db(0), &frame, decoder.args())
    }

    #[test]
    fn commands_that_concern_slots() {
        let shard = Arc::new(Shard::new(
            Arc::new(Group::new("base".to_owned())),
            0,
            "a",
            false,
        ));
        shard.begin(&Held::parse("100-200").unwrap(), 0, false);
        let mut slots = Slots::new(Some(shard));
        assert_eq!(course(&slots, "FlushAll ASYNC"), Course::Flush);
        assert_eq!(course(&slots, "FUNCTION LOAD x"), Course::PassOver);
        assert_eq!(
            course(&slots, "TRIMSLOTS RANGES 2 1 3 199 300"),
            Course::Doubt(vec![199, 200])
        );
        assert_eq!(
            course(&slots, "CLUSTER FLUSHSLOT 150"),
            Course::Doubt(vec![150])
        );
        assert_eq!(
            course(&slots, "CLUSTER SETSLOT 5 NODE x"),
            Course::Doubt(Vec::new())
        );
        assert_eq!(course(&slots, "SET foo 1"), Course::Apply);
        slots.reading.insert(12182);
        assert_eq!(course(&slots, "SET foo 1"), Course::Wait);
        assert_eq!(course(&slots, "FLUSHALL"), Course::Wait);
        assert_eq!(course(&slots, "CLUSTER FLUSHSLOT 12182"), Course::Wait);
        assert_eq!(course(&slots, "SET bar 1"), Course::Apply);
        assert_eq!(course(&Slots::new(None), "FLUSHALL"), Course::Apply);
    }
}
