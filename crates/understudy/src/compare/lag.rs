//! How far the target is behind: what differs now may be on its way.
//!
//! Where sync keeps the target, a link's checkpoint there says which of the source's offsets is applied. Where nobody keeps a
//! checkpoint, nothing is known, and a pause has to do. A source that is a cluster has a link for each shard, and each of its
//! keys is judged by the link that holds its slot. At a target that is a cluster the link's checkpoint trails by some ten
//! seconds; there the running sync is asked by its status port, if it has one, and otherwise older looks are what the checkpoint
//! proves something about. Between two clusters each slot of the target says whose it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use resp::Value;
use rewrite::{SLOTS, Slot, SlotSet, slot_of};
use tokio::time::Instant;

use super::end::End;
use super::look::Name;
use crate::checkpoint::{self, Checkpoint, Phase};
use crate::client::Info;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::http::ask::{Request, ask};
use crate::shard::Group;
use crate::status::Status;
use crate::target::cluster::mark_key;

/// Between two looks at the checkpoint.
const POLL: Duration = Duration::from_millis(10);
/// A checkpoint that trails and does not move for so long does not go on.
const TRAILS_STILL: Duration = Duration::from_secs(15);
/// So often in a row the status port may fail before it is asked no more.
const STATUS_FAILURES_MAX: u32 = 3;

/// How the target keeps up with the source.
pub(super) struct Lag<'a> {
    link: String,
    /// Of a source cluster: the key that tells which links there are.
    claims: Option<String>,
    /// Their names, or the one of the link.
    links: Vec<String>,
    /// Of a source cluster: the ids of its nodes, which links are called by.
    nodes: Vec<String>,
    /// Slots of the keys that are looked at.
    wanted: BTreeSet<u16>,
    exact: Exact<'a>,
    /// The checkpoint trails, and nobody tells more exactly.
    is_trailing: bool,
    /// Looks that nothing is proven about yet, and where the source was behind each of them.
    marks: VecDeque<(u32, Mark)>,
    /// The furthest position that a trailing checkpoint was seen at, and since when.
    moved: Option<(u64, Instant)>,
    /// It was waited in vain already.
    is_still: bool,
    /// Nothing is on its way.
    is_none: bool,
}

/// Who tells what is applied at a cluster.
enum Exact<'a> {
    /// Nobody: the checkpoint alone.
    Nobody,
    /// We are in its process.
    Own(&'a Status),
    /// The status port at this address, which has failed so often in a row.
    Port { address: String, failures: u32 },
}

/// Where the source stands at one moment: each of its masters that a link follows.
#[derive(Debug, Clone)]
pub(super) struct Mark(Vec<NodeMark>);

#[derive(Debug, Clone)]
struct NodeMark {
    address: String,
    replids: [String; 2],
    offset: u64,
}

/// What a link has applied.
struct Applied {
    link: String,
    replid: String,
    offset: u64,
    checkpoint: Checkpoint,
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// Everything up to there is applied.
    Yes,
    /// Nobody says where the target stands.
    Unknown,
    /// It goes on, but is not there yet; so many bytes are missing.
    Moving(u64),
    /// It does not go on.
    Still(u64),
}

/// What waiting proves about the looks before it.
pub(super) struct Proof {
    pub(super) reached: Reached,
    /// Everything that was done at the source before this look is applied, or nothing is on its way.
    upto: Option<u32>,
    /// Of a source cluster: slots of which that can be said.
    slots: Option<SlotSet>,
}

impl Proof {
    /// Whether a key that was the same at the source since the look `since` cannot be on its way.
    pub(super) fn stands(&self, name: &Name, since: u32) -> bool {
        let slots = self.slots.as_ref();
        self.upto.is_some_and(|upto| since <= upto)
            && slots.is_none_or(|slots| slots.contains(slot_of(&name.1)))
    }
}

impl<'a> Lag<'a> {
    pub(super) fn new(config: &Config) -> Self {
        let http = config.http.as_ref();
        let exact = http.map_or(Exact::Nobody, |http| Exact::Port {
            // Bound to every address it is reached by this one.
            address: http.bind.replace("0.0.0.0:", "127.0.0.1:"),
            failures: 0,
        });
        Self::of(config, exact)
    }

    /// Inside the process that runs the link.
    pub(super) fn inside(config: &Config, status: &'a Status) -> Self {
        Self::of(config, Exact::Own(status))
    }

    fn of(config: &Config, exact: Exact<'a>) -> Self {
        let link = config.link_name.clone();
        let (claims, links) = match config.source.cluster {
            false => (None, vec![link.clone()]),
            true => (Some(Group::new(link.clone()).claims_key()), Vec::new()),
        };
        Self {
            link,
            claims,
            links,
            nodes: Vec::new(),
            wanted: BTreeSet::new(),
            exact,
            is_trailing: false,
            marks: VecDeque::new(),
            moved: None,
            is_still: false,
            is_none: false,
        }
    }

    /// Where nothing moves, and so nothing is waited for.
    pub(super) fn set_none(&mut self) {
        self.is_none = true;
    }

    /// A new row of looks at these keys begins.
    pub(super) fn begin<'k>(&mut self, names: impl Iterator<Item = &'k Name>) {
        self.marks.clear();
        self.moved = None;
        self.wanted = match self.claims {
            None => BTreeSet::new(),
            Some(_) => names.map(|(_, key)| slot_of(key).0).collect(),
        };
    }

    /// Asks a source that is a cluster which nodes it has.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn know(&mut self, source: &mut End) -> Result<(), SyncError> {
        if self.claims.is_none() {
            return Ok(());
        }
        let told = source.one_here(0, &[b"CLUSTER", b"NODES"]).await?;
        let text = told.as_bytes().cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let ids = text.lines().filter_map(|line| line.split(' ').next());
        self.nodes = ids.map(str::to_owned).collect();
        self.links.clear();
        Ok(())
    }

    /// Whether what is applied is told some ten seconds late.
    pub(super) fn is_trailing(&self) -> bool {
        self.is_trailing
    }

    /// The checkpoints of this link, or of its shards' links, as far as there are any.
    ///
    /// # Errors
    /// Those of the connection; stop where one cannot be read.
    pub(super) async fn checkpoints(
        &mut self,
        target: &mut End,
    ) -> Result<Vec<(String, Checkpoint)>, SyncError> {
        if let Some(claims) = &self.claims
            && self.links.is_empty()
        {
            let reply = target.one_here(0, &[b"HVALS", claims.as_bytes()]).await?;
            let Value::Array(values) = reply else {
                return Err(target.strange("HVALS", &reply));
            };
            let prefix = format!("{}/", self.link);
            let names = values.iter().filter_map(|value| {
                let name = String::from_utf8_lossy(value.as_bytes()?).into_owned();
                name.starts_with(&prefix).then_some(name)
            });
            // At a cluster nothing is claimed: there slots say it.
            let group = Group::new(self.link.clone());
            let by_id = self.nodes.iter().map(|id| group.link_name(id));
            self.links = names.chain(by_id).collect();
            self.links.sort_unstable();
            self.links.dedup();
        }
        let mut found = Vec::new();
        for link in &self.links {
            let key = checkpoint::key(link);
            match target.one_here(0, &[b"GET", key.as_bytes()]).await? {
                Value::Bulk(value) => match Checkpoint::parse(&value) {
                    Ok(checkpoint) => found.push((link.clone(), checkpoint)),
                    Err(why) => {
                        let what = format!("the checkpoint {key} cannot be read: {why}");
                        let address = &target.endpoint.address;
                        return Err(SyncError::stop(Side::Target, address, what));
                    }
                },
                Value::Null => {}
                other => return Err(target.strange("GET", &other)),
            }
        }
        Ok(found)
    }

    /// What the links have applied.
    async fn applied(&mut self, target: &mut End) -> Result<Vec<Applied>, SyncError> {
        let checkpoints = self.checkpoints(target).await?;
        let trails = target.is_cluster() && !checkpoints.is_empty();
        let exact = match trails {
            true => self.exact().await,
            false => None,
        };
        self.is_trailing = trails && exact.is_none();
        if self.claims.is_some() {
            let is_there = |link: &String| checkpoints.iter().any(|(there, _)| there == link);
            self.links.retain(is_there);
        }
        let applied = checkpoints.into_iter().filter_map(|(link, checkpoint)| {
            let Phase::Stream(position) = checkpoint.phase else {
                return None;
            };
            let told = exact.as_ref().and_then(|exact| exact.get(&link)).copied();
            Some(Applied {
                link,
                replid: position.replid.to_string(),
                offset: position.offset.0.max(told.unwrap_or(0)),
                checkpoint,
            })
        });
        Ok(applied.collect())
    }

    /// What the running sync says, by its links.
    async fn exact(&mut self) -> Option<BTreeMap<String, u64>> {
        match &mut self.exact {
            Exact::Nobody => None,
            Exact::Own(status) => {
                let offset = status.applied_offset.get();
                Some(BTreeMap::from([(self.link.clone(), offset)]))
            }
            Exact::Port { failures, .. } if *failures >= STATUS_FAILURES_MAX => None,
            Exact::Port { address, failures } => {
                let told = told(address).await.filter(|told| {
                    let links = &self.links;
                    links.iter().any(|link| told.contains_key(link))
                });
                *failures = match told {
                    Some(_) => 0,
                    None => *failures + 1,
                };
                told
            }
        }
    }

    /// Where the source stands now, in the histories that the target follows; none where it follows none.
    pub(super) async fn mark(
        &mut self,
        source: &mut End,
        target: &mut End,
    ) -> Result<Option<Mark>, SyncError> {
        if self.is_none {
            return Ok(None);
        }
        let mut applied = self.applied(target).await?;
        if applied.is_empty() {
            return Ok(None);
        }
        let mut marks = Vec::new();
        for (address, reply) in source.each(0, &[b"INFO", b"replication"]).await? {
            let Value::Bulk(text) = reply else {
                return Err(source.strange("INFO", &reply));
            };
            let info = Info::of(&text);
            let id = |field| info.get(field).unwrap_or_default().to_owned();
            let replids = [id("master_replid"), id("master_replid2")];
            let offset = info.get("master_repl_offset");
            let offset = offset.and_then(|offset| offset.parse().ok());
            let is_followed = |applied: &[Applied]| {
                let mut applied = applied.iter();
                applied.any(|one| replids.contains(&one.replid))
            };
            if !is_followed(&applied) && self.claims.is_some() {
                // A shard that is new since the links were asked for.
                self.know(source).await?;
                applied = self.applied(target).await?;
            }
            match offset {
                Some(offset) if is_followed(&applied) => marks.push(NodeMark {
                    address,
                    replids,
                    offset,
                }),
                _ => return Ok(None),
            }
        }
        Ok(Some(Mark(marks)))
    }

    /// Waits until the target has applied everything up to `mark`, which was taken behind the look `look`. `is_patient`: also
    /// where that takes as long as a checkpoint trails.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn reach(
        &mut self,
        ends: (&End, &mut End),
        (look, mark): (u32, Option<Mark>),
        limit: Duration,
        is_patient: bool,
    ) -> Result<Proof, SyncError> {
        let (source, target) = ends;
        let Some(mark) = mark else {
            return Ok(Proof {
                reached: Reached::Unknown,
                upto: Some(look),
                slots: None,
            });
        };
        if self.is_trailing && !is_patient {
            self.marks.push_back((look, mark));
            return self.trailing(source, target).await;
        }
        let from = Instant::now();
        let mut first = None;
        loop {
            let applied = self.applied(target).await?;
            let behind = behind(&mark, &applied);
            let (reached, upto) = match behind {
                None => (Reached::Unknown, Some(look)),
                Some(0) => {
                    self.is_still = false;
                    (Reached::Yes, Some(look))
                }
                Some(behind) => {
                    let now: u64 = applied.iter().map(|one| one.offset).sum();
                    let has_moved = *first.get_or_insert(now) != now;
                    self.is_still &= !has_moved;
                    if from.elapsed() < limit && !self.is_still {
                        tokio::time::sleep(POLL).await;
                        continue;
                    }
                    self.is_still = !has_moved;
                    match self.is_still {
                        true => (Reached::Still(behind), Some(look)),
                        false => (Reached::Moving(behind), None),
                    }
                }
            };
            let holders = self.holders(target).await?;
            let slots = slots_of(source, &mark, &applied, holders.as_ref());
            return Ok(Proof {
                reached,
                upto,
                slots,
            });
        }
    }

    /// What a checkpoint that trails proves about older looks.
    async fn trailing(&mut self, source: &End, target: &mut End) -> Result<Proof, SyncError> {
        let applied = self.applied(target).await?;
        let now: u64 = applied.iter().map(|one| one.offset).sum();
        let (furthest, since) = *self.moved.get_or_insert((now, Instant::now()));
        if now != furthest {
            self.moved = Some((now, Instant::now()));
        }
        let holders = self.holders(target).await?;
        let (mut upto, mut slots, mut left) = (None, None, 0);
        while let Some((look, mark)) = self.marks.front() {
            match behind(mark, &applied) {
                Some(0) => {}
                None => {
                    let (reached, upto) = (Reached::Unknown, Some(*look));
                    return Ok(Proof {
                        reached,
                        upto,
                        slots: None,
                    });
                }
                Some(behind) => {
                    left = behind;
                    break;
                }
            }
            upto = Some(*look);
            slots = slots_of(source, mark, &applied, holders.as_ref());
            self.marks.pop_front();
        }
        let is_still = left > 0 && now == furthest && since.elapsed() >= TRAILS_STILL;
        let newest = self.marks.back().map(|(look, _)| *look);
        let (reached, upto) = match (left, is_still) {
            (0, _) => (Reached::Yes, upto),
            (_, true) => {
                self.is_still = true;
                (Reached::Still(left), newest)
            }
            (_, false) => (Reached::Moving(left), upto),
        };
        Ok(Proof {
            reached,
            upto,
            slots,
        })
    }

    /// Waits until the target has applied what the source had done to this key at an offset of its history.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn reach_copy(
        &mut self,
        target: &mut End,
        (key, replid, offset): (&[u8], &str, u64),
        limit: Duration,
    ) -> Result<Reached, SyncError> {
        let from = Instant::now();
        let mut first = None;
        loop {
            let applied = self.applied(target).await?;
            if applied.is_empty() {
                return Ok(Reached::Unknown);
            }
            // Of one that does not name the source's history nothing is known; of a cluster's shard, that it does not have the slot.
            let slot = slot_of(key);
            self.wanted = BTreeSet::from([slot.0]);
            let holders = self.holders(target).await?;
            let own = match self.claims {
                None => applied.first(),
                Some(_) => applied
                    .iter()
                    .find(|one| one.replid == replid && holds(one, slot, holders.as_ref())),
            };
            let now = own.map_or(0, |own| own.offset);
            if own.is_some() && now >= offset {
                self.is_still = false;
                return Ok(Reached::Yes);
            }
            let has_moved = *first.get_or_insert(now) != now;
            self.is_still &= !has_moved;
            if from.elapsed() >= limit || self.is_still {
                let behind = offset.saturating_sub(now);
                return Ok(match has_moved {
                    true => Reached::Moving(behind),
                    false => Reached::Still(behind),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Between two clusters: by slot the link that holds it, as the slot itself says, of the keys that are looked at.
    async fn holders(&self, target: &mut End) -> Result<Option<Holders>, SyncError> {
        if self.claims.is_none() || !target.is_cluster() {
            return Ok(None);
        }
        let group = Group::new(self.link.clone());
        let keys: Vec<(u16, String)> = self
            .wanted
            .iter()
            .map(|slot| (*slot, mark_key(Slot(*slot), &group.slots_name())))
            .collect();
        let mut holders = Holders::new();
        for keys in keys.chunks(SLOTS_AT_ONCE) {
            let asked: Vec<Vec<&[u8]>> = keys
                .iter()
                .map(|(_, key)| vec![&b"GET"[..], key.as_bytes()])
                .collect();
            let values = target.ask_here(0, &asked).await?;
            for ((slot, _), value) in keys.iter().zip(values) {
                let text = value
                    .as_bytes()
                    .map(|text| String::from_utf8_lossy(text).into_owned());
                if let Some(id) = text.as_deref().and_then(|text| text.split('|').nth(HOLDER)) {
                    holders.insert(*slot, group.link_name(id));
                }
            }
        }
        Ok(Some(holders))
    }
}

/// Links by the slots that they hold.
type Holders = BTreeMap<u16, String>;
/// The place of the holder in a slot's checkpoint.
const HOLDER: usize = 7;
/// Slots in one round trip.
const SLOTS_AT_ONCE: usize = 1024;

/// How many bytes of what was done up to the mark are not applied; none where a link has gone, or follows something else now.
fn behind(mark: &Mark, applied: &[Applied]) -> Option<u64> {
    let mut sum = 0;
    for node in &mark.0 {
        let own = |one: &&Applied| node.replids.contains(&one.replid);
        // Of several (one of them has ended) the one that is furthest.
        let offset = applied.iter().filter(own).map(|one| one.offset).max()?;
        sum += node.offset.saturating_sub(offset);
    }
    Some(sum)
}

/// Of a source cluster: slots whose link is one that has applied what its node had done, and holds them.
fn slots_of(
    source: &End,
    mark: &Mark,
    applied: &[Applied],
    holders: Option<&Holders>,
) -> Option<SlotSet> {
    let topology = source.topology()?;
    let slots = SlotSet::new();
    for slot in (0..SLOTS).map(Slot) {
        let Some(owner) = topology.owner(slot) else {
            continue;
        };
        let node = mark.0.iter().find(|node| node.address == owner.address);
        let is_held = node.is_some_and(|node| {
            let mut links = applied
                .iter()
                .filter(|one| node.replids.contains(&one.replid));
            links.any(|one| one.offset >= node.offset && holds(one, slot, holders))
        });
        if is_held {
            slots.insert(slot);
        }
    }
    Some(slots)
}

/// Whether the link holds the slot, and has applied what follows what it copied of it: as the slot says, where the target is a
/// cluster, else as the link's checkpoint does.
fn holds(link: &Applied, slot: Slot, holders: Option<&Holders>) -> bool {
    if let Some(holders) = holders {
        return holders.get(&slot.0) == Some(&link.link);
    }
    let Some(held) = &link.checkpoint.slots else {
        return true;
    };
    let mut ranges = held.ranges.iter();
    ranges.any(|(first, last)| (*first..=*last).contains(&slot.0))
        || held
            .copied
            .iter()
            .any(|(copied, from)| *copied == slot.0 && *from <= link.offset)
}

/// What the links of the process behind a status port have applied.
async fn told(address: &str) -> Option<BTreeMap<String, u64>> {
    let answer = ask(address, Request::get("/status")).await.ok()?;
    let status: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let own = status.get("understudy")?;
    let links = match own.get("links").and_then(serde_json::Value::as_array) {
        Some(links) => links.clone(),
        None => vec![own.clone()],
    };
    let offset = |link: &serde_json::Value| {
        // Before it, the number is that of another history.
        let is_stream = link["phase"] == "stream";
        let name = link["link"].as_str()?.to_owned();
        Some((name, link["applied_offset"].as_u64().filter(|_| is_stream)?))
    };
    Some(links.iter().filter_map(offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(replid: char, offset: u64, slots: &str) -> Applied {
        let replid: String = std::iter::repeat_n(replid, 40).collect();
        let text = format!("v1|1|{:016x}|stream|{replid}|{offset}|0|o||{slots}", 7);
        Applied {
            link: format!("base/{}", replid.get(..12).unwrap()),
            replid,
            offset,
            checkpoint: Checkpoint::parse(text.as_bytes()).unwrap(),
        }
    }

    fn mark(nodes: &[(char, u64)]) -> Mark {
        let node = |(replid, offset): &(char, u64)| NodeMark {
            address: replid.to_string(),
            replids: [std::iter::repeat_n(*replid, 40).collect(), "0".repeat(40)],
            offset: *offset,
        };
        Mark(nodes.iter().map(node).collect())
    }

    #[test]
    fn every_shard_counts() {
        let links = [applied('a', 100, "0-9"), applied('b', 40, "10-16383")];
        assert_eq!(behind(&mark(&[('a', 100), ('b', 50)]), &links), Some(10));
        assert_eq!(behind(&mark(&[('a', 90), ('b', 40)]), &links), Some(0));
        assert_eq!(behind(&mark(&[('c', 1)]), &links), None);
    }

    #[test]
    fn a_slot_that_was_copied_is_held_from_there_on() {
        let held = |slot, offset| {
            let link = applied('a', offset, "0-9,20@80,30@200");
            holds(&link, Slot(slot), None)
        };
        assert!(held(9, 1) && held(20, 100) && !held(20, 79));
        assert!(!held(30, 100) && !held(10, 100));
        // Between clusters the slot says it.
        let holders = Holders::from([(30, "base/aaaaaaaaaaaa".to_owned())]);
        let link = applied('a', 100, "0-9");
        assert!(holds(&link, Slot(30), Some(&holders)));
        assert!(!holds(&link, Slot(9), Some(&holders)));
        assert!(!holds(&applied('b', 100, "0-9"), Slot(30), Some(&holders)));
    }

    #[test]
    fn a_proof_is_about_looks_before_it() {
        let proof = |upto, slots| Proof {
            reached: Reached::Yes,
            upto,
            slots,
        };
        let name = (0, bytes::Bytes::from_static(b"a"));
        assert!(proof(Some(3), None).stands(&name, 3));
        assert!(!proof(Some(3), None).stands(&name, 4) && !proof(None, None).stands(&name, 0));
        let slots = SlotSet::new();
        assert!(!proof(Some(3), Some(SlotSet::new())).stands(&name, 0));
        slots.insert(slot_of(b"a"));
        assert!(proof(Some(3), Some(slots)).stands(&name, 0));
    }
}
