//! Watches a source cluster: which shards there are, where their masters are, who has which slot.
//!
//! A shard keeps its link, whatever becomes of its nodes. The link is called by the id of the node that was its master when it was
//! seen first; the master is another one after a failover. Were two shards ever taken for each other, the history's name would
//! tell (a new snapshot), and the claims keep their slots apart.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use resp::Value;
use tokio::time::Instant;

use super::Shard;
use super::claims::Claims;
use super::group::{Begun, Follow, Group, Plan};
use super::held::Held;
use super::nodes::View;
use super::slices::{Seat, Slices, Table};
use crate::backoff::Backoff;
use crate::chance;
use crate::checkpoint::Checkpoint;
use crate::client::Client;
use crate::config::{Config, Endpoint, ExistingKeys, HttpConfig};
use crate::error::{Class, Side, SyncError};
use crate::handover::mark::{self, Record};
use crate::target::{self, Found};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// The same while slots move.
const PAUSE_MOVING: Duration = Duration::from_millis(150);
/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A node that did not is left alone for so long.
const AVOIDED: Duration = Duration::from_secs(5);
/// Attempts at the first contact.
const ATTEMPTS: u32 = 6;

/// Watches one cluster.
pub(crate) struct Watcher {
    config: Config,
    group: Arc<Group>,
    members: Vec<Member>,
    /// Addresses of nodes, the one that was given among them.
    known: BTreeSet<String>,
    avoided: BTreeMap<String, Instant>,
    /// Whose replica a node was when it was one.
    replica_of: BTreeMap<String, String>,
    is_moving: bool,
    /// Other processes take shards too, or have.
    is_shared: bool,
    /// A switch-over has been made: shards that come behind it are nobody's.
    switched: Option<Record>,
}

/// The connection to what several processes agree on; made anew when it is lost.
type Agreed = Option<Slices>;

/// Connections to nodes, by address.
type Clients = BTreeMap<String, Client>;

/// A shard.
#[derive(Debug, Clone)]
struct Member {
    /// What its link is called by.
    id: String,
    /// Its master.
    node: String,
    address: String,
    /// Slots that it was seen with last.
    slots: BTreeSet<u16>,
    /// The process that takes it, from 1 on; 0: not known yet.
    slice: u16,
    /// Its link runs here.
    is_begun: bool,
}

impl Member {
    fn new(id: String, node: String, slots: BTreeSet<u16>) -> Self {
        Self {
            id,
            node,
            address: String::new(),
            slots,
            slice: 0,
            is_begun: false,
        }
    }
}

impl Watcher {
    /// Looks at the cluster, and at the target with it. Gives the links of its shards.
    ///
    /// # Errors
    /// Those of the first contact with either.
    pub(crate) async fn open(config: &Config) -> Result<(Self, Vec<Config>), SyncError> {
        let group = Arc::new(Group::new(config.link_name.clone()));
        let mut watcher = Self {
            config: config.clone(),
            group,
            members: Vec::new(),
            known: BTreeSet::from([config.source.endpoint.address.clone()]),
            avoided: BTreeMap::new(),
            replica_of: BTreeMap::new(),
            is_moving: false,
            is_shared: config.slice.is_part(),
            switched: None,
        };
        let mut backoff = Backoff::default();
        loop {
            match watcher.begin().await {
                Err(error)
                    if error.class == Class::Reconnect && backoff.attempts() + 1 < ATTEMPTS =>
                {
                    let pause = backoff.pause();
                    tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "no contact yet");
                    tokio::time::sleep(pause).await;
                }
                Err(error) => {
                    return Err(SyncError {
                        class: Class::Stop,
                        ..error
                    });
                }
                Ok(()) => break,
            }
        }
        let links = watcher.own_links(false);
        if links.is_empty() {
            tracing::info!(
                shards = %config.slice,
                "the source has no shard for this process; waiting for one"
            );
        }
        Ok((watcher, links))
    }

    /// The status port, if one is wanted.
    pub(crate) fn http(&self) -> Option<&HttpConfig> {
        self.config.http.as_ref()
    }

    async fn begin(&mut self) -> Result<(), SyncError> {
        // The node that is configured may be gone since an earlier run.
        let mut claims = Claims::connect(&self.config, self.group.claims_key()).await?;
        self.known.extend(claims.nodes().await?);
        let view = self.look(&mut Clients::new()).await?;
        self.look_for_the_switch().await?;
        if self.switched.is_none() {
            let begun = self.look_at_target().await?;
            // It may be set by an attempt before.
            let _ = self.group.begun.set(begun);
            claims.set_nodes(self.known.iter()).await?;
        }
        let prefix = format!("{}/", self.group.base);
        for (link, slots) in claims.all().await? {
            let Some(id) = link.strip_prefix(&prefix) else {
                continue;
            };
            let node = view.nodes().find(|node| node.id.starts_with(id));
            let node = node.map_or_else(|| id.to_owned(), |node| node.id.clone());
            if !self.members.iter().any(|member| member.id == id) {
                self.members.push(Member::new(id.to_owned(), node, slots));
            }
        }
        let mut agreed = Agreed::default();
        let known = self.written(&mut agreed).await?;
        self.is_shared |= known.of != 0;
        self.learn(&known, &view);
        self.assign(&view, true);
        self.allot(&mut agreed, true).await?;
        if self.switched.is_none() {
            self.retire(&view, &mut claims, &mut agreed).await?;
        }
        if self.members.is_empty() {
            let address = &self.config.source.endpoint.address;
            let what = "no node of the cluster has slots";
            return Err(SyncError::reconnect(Side::Source, address, what));
        }
        tracing::info!(shards = self.members.len(), slice = %self.config.slice, "the source is a cluster");
        Ok(())
    }

    /// Shards that are gone have left claims behind: their links are taken over, so that nobody writes for them any more, and let
    /// all slots go.
    async fn retire(
        &mut self,
        view: &View,
        claims: &mut Claims,
        agreed: &mut Agreed,
    ) -> Result<(), SyncError> {
        // Those of other processes may be at work there.
        let is_gone = |member: &Member| {
            view.node(&member.node).is_none() && member.slice == self.config.slice.index
        };
        let gone: Vec<Member> = self
            .members
            .iter()
            .filter(|member| is_gone(member))
            .cloned()
            .collect();
        for member in &gone {
            let link = self.group.link_name(&member.id);
            let mut config = self.config.target.clone();
            if let Some(cluster) = &mut config.cluster {
                let shard = Shard::new(self.group.clone(), usize::MAX, &member.id, false);
                cluster.shard = Some(Arc::new(shard));
            }
            let mut visit = target::visit(&config, &link).await?;
            let owner = chance::number();
            while let Found::Checkpoint(found) = &visit.found {
                let next = Checkpoint {
                    epoch: found.epoch + 1,
                    owner,
                    slots: Some(Held::default()),
                    ..found.clone()
                };
                match visit.take(next).await? {
                    Ok(mut taken) => {
                        if let Some(cluster) = &mut taken.cluster {
                            cluster.free_all(&config).await?;
                        }
                        break;
                    }
                    Err(again) => visit = again,
                }
            }
            let slots: Vec<u16> = member.slots.iter().copied().collect();
            claims.release(&link, &slots, owner).await?;
            tracing::info!(
                shard = member.id,
                slots = slots.len(),
                "a shard of the source is gone; its slots are free"
            );
        }
        if gone.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = gone.into_iter().map(|member| member.id).collect();
        self.members.retain(|member| !ids.contains(&member.id));
        self.assign(view, true);
        if self.is_shared {
            self.slices(agreed).await?.forget(&ids).await?;
        }
        Ok(())
    }

    /// How the first snapshots are to be written, given what the target holds.
    async fn look_at_target(&self) -> Result<Begun, SyncError> {
        let mut claims = Claims::connect(&self.config, self.group.claims_key()).await?;
        if let Some(begun) = claims.begun().await? {
            // An earlier run has written there.
            return Ok(Begun {
                sweeps: begun.owned,
                ..begun
            });
        }
        let target = &self.config.target;
        let applies = self.config.source.sync_rdb;
        let mut visit = target::visit(target, &self.group.base).await?;
        if target.empty_before && target.cluster.is_some() {
            tracing::warn!("advanced.empty_db_before_sync: FLUSHALL at the target");
            visit.flush().await?;
        } else if target.empty_before {
            tracing::warn!("advanced.empty_db_before_sync: FLUSHALL at the target");
            let begun = Begun {
                owned: applies,
                sweeps: false,
            };
            if claims.flush_as_first(begun).await? {
                return Ok(begun);
            }
        }
        let foreign = visit.foreign_keys().await?;
        // Another process writes there only behind this.
        if let Some(begun) = claims.begun().await? {
            return Ok(Begun {
                sweeps: begun.owned,
                ..begun
            });
        }
        if !target.mirror && applies {
            if target.existing == ExistingKeys::Fail {
                target::refuse_foreign(target, &foreign)?;
            }
            if !foreign.is_empty() {
                let what = "the target holds keys already, and slots of a source cluster are handed over only where every key of them is the source's: empty the target, or set redis_writer.existing_keys = \"mirror\" (keys that are gone at the source are removed); nothing was written";
                return Err(SyncError::stop(
                    Side::Target,
                    &target.endpoint.address,
                    what,
                ));
            }
        }
        let owned = (foreign.is_empty() || target.mirror) && applies;
        let begun = Begun {
            owned,
            sweeps: owned && !foreign.is_empty(),
        };
        claims.set_begun(begun).await?;
        // Whoever came first has said it.
        let first = claims.begun().await?.unwrap_or(begun);
        Ok(Begun {
            sweeps: first.sweeps || (first != begun && first.owned),
            ..first
        })
    }

    /// Looks again and again, and tells `begins` of every shard that was not there before.
    ///
    /// # Errors
    /// Stop, where this process is not to go on beside others.
    pub(crate) async fn follow(
        mut self,
        mut begins: impl FnMut(Config),
    ) -> Result<Infallible, SyncError> {
        let mut clients = Clients::new();
        let mut said = String::new();
        let mut agreed = Agreed::default();
        loop {
            let pause = if self.is_moving { PAUSE_MOVING } else { PAUSE };
            tokio::time::sleep(pause).await;
            let before = self.known.clone();
            match self.look(&mut clients).await {
                Ok(view) => {
                    if self.known != before
                        && let Err(error) = self.note_nodes().await
                    {
                        tracing::debug!(%error, "the nodes of the source are noted later");
                        self.known = before;
                    }
                    match self.agree(&view, &mut agreed).await {
                        Ok(None) => said.clear(),
                        Ok(Some(others)) => return Err(others),
                        Err(error) => {
                            let what = error.to_string();
                            if what != said {
                                tracing::warn!(%error, "what is agreed with the other processes of this source is not known; asking again");
                            }
                            said = what;
                        }
                    }
                    if self.has_news() {
                        // Each link asks again, behind having taken the target.
                        if let Err(error) = self.look_for_the_switch().await {
                            tracing::warn!(%error, "a new shard waits: whether the switch was made is not known");
                            continue;
                        }
                        self.own_links(true).into_iter().for_each(&mut begins);
                    }
                }
                Err(error) => tracing::warn!(%error, "the source cluster cannot be looked at"),
            }
        }
    }

    /// Learns of the shards that other processes have seen, and tells them of those that are new here.
    /// Gives the reason why this process cannot go on beside them.
    async fn agree(
        &mut self,
        view: &View,
        agreed: &mut Agreed,
    ) -> Result<Option<SyncError>, SyncError> {
        if !self.is_shared {
            self.assign(view, true);
            return self.allot(agreed, false).await.map(|()| None);
        }
        let known = self.written(agreed).await;
        let slice = self.config.slice;
        if let Ok(known) = &known {
            if known.is_of_others(slice) {
                let address = &self.config.target.endpoint.address;
                let what = format!(
                    "shards is \"{slice}\" here, and another understudy of this source has begun as one of {}: start all with the same number",
                    known.of
                );
                return Ok(Some(SyncError::stop(Side::Target, address, what)));
            }
            self.learn(known, view);
        }
        // A shard is not called by two names: without what is written down none is new.
        self.assign(view, known.is_ok());
        known?;
        self.allot(agreed, false).await.map(|()| None)
    }

    /// The connection to what the processes agree on.
    async fn slices<'s>(&self, agreed: &'s mut Agreed) -> Result<&'s mut Slices, SyncError> {
        let slices = match agreed.take() {
            Some(slices) => slices,
            None => Slices::connect(&self.config, self.group.slices_key()).await?,
        };
        Ok(agreed.insert(slices))
    }

    /// What is written down of the shards.
    async fn written(&self, agreed: &mut Agreed) -> Result<Table, SyncError> {
        if self.config.target.cluster.is_some() {
            // Shards are not shared there.
            return Ok(Table::default());
        }
        let read = self.slices(agreed).await?.read();
        let read = tokio::time::timeout(TIMEOUT, read).await;
        let read = read.unwrap_or_else(|_| {
            let address = &self.config.target.endpoint.address;
            let what = "it does not answer HGETALL";
            Err(SyncError::reconnect(Side::Target, address, what))
        });
        if read.as_ref().is_err_and(Slices::is_lost) {
            *agreed = None;
        }
        read
    }

    /// Takes over what is written down, where it is news.
    fn learn(&mut self, known: &Table, view: &View) {
        let owners: BTreeSet<&str> = view.owners().into_iter().flatten().collect();
        for (id, entry) in &known.shards {
            let is_free = !self.members.iter().any(|member| member.node == entry.node);
            let Some(member) = self.members.iter_mut().find(|member| member.id == *id) else {
                let (id, node) = (id.clone(), entry.node.clone());
                self.members.push(Member::new(id, node, BTreeSet::new()));
                continue;
            };
            // Another process has seen a failover that this one has not, or that was over before this one began.
            let is_better =
                owners.contains(entry.node.as_str()) && !owners.contains(member.node.as_str());
            if is_free && is_better {
                member.node.clone_from(&entry.node);
            }
        }
    }

    /// Makes sure that every shard is written down, and who takes it. `begins`: as many processes as this one says.
    async fn allot(&mut self, agreed: &mut Agreed, begins: bool) -> Result<(), SyncError> {
        let slice = self.config.slice;
        if !self.is_shared {
            for member in &mut self.members {
                member.slice = slice.index;
            }
            return Ok(());
        }
        let seats: Vec<Seat> = self
            .members
            .iter()
            .map(|member| Seat {
                id: member.id.clone(),
                node: member.node.clone(),
                first: member.slots.first().copied(),
            })
            .collect();
        let allotted = self.slices(agreed).await?;
        let allotted = allotted.allot(slice, &seats, begins).await;
        if allotted.as_ref().is_err_and(Slices::is_lost) {
            *agreed = None;
        }
        let table = allotted?;
        for member in &mut self.members {
            member.slice = table.shards.get(&member.id).map_or(0, |entry| entry.slice);
        }
        Ok(())
    }

    /// Asks the target whether the switch was made.
    async fn look_for_the_switch(&mut self) -> Result<(), SyncError> {
        let record = mark::read(&self.config.target, &self.group.base).await?;
        self.switched = record.filter(Record::is_go);
        Ok(())
    }

    /// Whether there are shards of this process whose links have not begun.
    fn has_news(&self) -> bool {
        let own = self.config.slice.index;
        let mut members = self.members.iter();
        members.any(|member| member.slice == own && !member.is_begun)
    }

    /// Marks shards as known whose links are not to begin: the switch was made without them.
    fn pass_over_new(&mut self) {
        let Some(record) = &self.switched else { return };
        for member in &mut self.members {
            let link = self.group.link_name(&member.id);
            if !member.is_begun && record.place(&link).is_none() {
                tracing::warn!(
                    shard = member.id,
                    "a shard of the source has come behind the switch: it is not followed, and what is written there is not known"
                );
                member.is_begun = true;
            }
        }
    }

    /// The links of this process that have not begun yet.
    fn own_links(&mut self, is_late: bool) -> Vec<Config> {
        self.pass_over_new();
        let own = self.config.slice.index;
        let news: Vec<usize> = (0..)
            .zip(&self.members)
            .filter(|(_, member)| member.slice == own && !member.is_begun)
            .map(|(index, _)| index)
            .collect();
        for index in &news {
            if let Some(member) = self.members.get_mut(*index) {
                member.is_begun = true;
            }
        }
        news.into_iter()
            .map(|index| self.link(index, is_late))
            .collect()
    }

    async fn note_nodes(&self) -> Result<(), SyncError> {
        let mut claims = Claims::connect(&self.config, self.group.claims_key()).await?;
        claims.set_nodes(self.known.iter()).await
    }

    /// Asks every master that answers, and all nodes if none does.
    async fn look(&mut self, clients: &mut Clients) -> Result<View, SyncError> {
        let mut view = View::default();
        let mut failed = None;
        let now = Instant::now();
        self.avoided.retain(|_, until| *until > now);
        let masters: Vec<String> = self
            .members
            .iter()
            .map(|member| member.address.clone())
            .collect();
        let others = self
            .known
            .iter()
            .filter(|address| !masters.contains(address))
            .cloned();
        let all: Vec<String> = masters.iter().cloned().chain(others).collect();
        let mut answers = 0;
        for (at, address) in all.iter().enumerate() {
            if address.is_empty() || (at >= masters.len() && answers > 0 && !masters.is_empty()) {
                continue;
            }
            if self.avoided.contains_key(address) && answers > 0 {
                continue;
            }
            match self.ask(clients, address).await {
                Ok(text) => {
                    let added = view.add(&text, address);
                    added.map_err(|what| SyncError::stop(Side::Source, address, what))?;
                    answers += 1;
                }
                // Any other address may be somebody else's by now.
                Err(error)
                    if error.class == Class::Stop
                        && *address == self.config.source.endpoint.address =>
                {
                    return Err(error);
                }
                Err(error) => {
                    clients.remove(address);
                    self.avoided.insert(address.clone(), now + AVOIDED);
                    failed = failed.or(Some(error));
                }
            }
        }
        if answers == 0 {
            let nobody = || {
                let address = &self.config.source.endpoint.address;
                SyncError::reconnect(Side::Source, address, "no node of the cluster answers")
            };
            return Err(failed.unwrap_or_else(nobody));
        }
        // Others than those that were asked: masters that are new are asked at once.
        let new: Vec<String> = view
            .nodes()
            .filter(|node| node.master.is_none() && !node.has_failed)
            .map(|node| node.address.clone())
            .filter(|address| !all.contains(address))
            .collect();
        for address in new {
            if let Ok(text) = self.ask(clients, &address).await {
                let added = view.add(&text, &address);
                added.map_err(|what| SyncError::stop(Side::Source, &address, what))?;
            }
        }
        let given = self.config.source.endpoint.address.clone();
        self.known = view
            .nodes()
            .filter(|node| !node.has_failed)
            .map(|node| node.address.clone())
            .collect();
        self.known.insert(given);
        Ok(view)
    }

    async fn ask(&self, clients: &mut Clients, address: &str) -> Result<String, SyncError> {
        let endpoint = Endpoint {
            address: address.to_owned(),
            ..self.config.source.endpoint.clone()
        };
        let late =
            || SyncError::reconnect(Side::Source, address, "it does not answer CLUSTER NODES");
        if !clients.contains_key(address) {
            let client = Client::connect_plainly(&endpoint, Side::Source);
            let client = tokio::time::timeout(TIMEOUT, client)
                .await
                .map_err(|_| late())??;
            clients.insert(address.to_owned(), client);
        }
        let Some(client) = clients.get_mut(address) else {
            return Err(late());
        };
        let argv: [&[u8]; 2] = [b"CLUSTER", b"NODES"];
        let reply = tokio::time::timeout(TIMEOUT, client.ask(&argv))
            .await
            .map_err(|_| late())??;
        match reply {
            Value::Error(error) if error.text.ends_with(b"cluster support disabled") => {
                let what = "this is not a cluster: set sync_reader.cluster = false";
                Err(SyncError::stop(Side::Source, address, what))
            }
            Value::Error(error) => Err(client.refused(&argv, &error)),
            reply => {
                let text = reply.as_bytes().cloned().unwrap_or_default();
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }

    /// Which shard is where, and has which slots. `has_news`: those that nobody knows are new.
    fn assign(&mut self, view: &View, has_news: bool) {
        let owners = view.owners();
        let mut slots: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        for (slot, owner) in (0_u16..).zip(&owners) {
            if let Some(owner) = owner {
                slots.entry(owner).or_default().insert(slot);
            }
        }
        self.succeed(view, &slots);
        for (node, own) in &slots {
            if !has_news || self.members.iter().any(|member| member.node == *node) {
                continue;
            }
            tracing::info!(node, slots = own.len(), "a shard of the source");
            let id = node.get(..12).unwrap_or(node).to_owned();
            let member = Member::new(id, (*node).to_owned(), BTreeSet::new());
            self.members.push(member);
        }
        for node in view.nodes() {
            match &node.master {
                Some(master) => self.replica_of.insert(node.id.clone(), master.clone()),
                None => None,
            };
        }
        for member in &mut self.members {
            if let Some(node) = view.node(&member.node) {
                node.address.clone_into(&mut member.address);
            }
            if let Some(own) = slots.get(member.node.as_str()) {
                member.slots.clone_from(own);
            }
        }
        let moving = view.moving();
        // Were a shard ever called by two names, all processes mean the same one.
        let place = |node: &str| {
            let members = (0..).zip(&self.members);
            let called = members.filter(|(_, member)| member.node == node);
            called
                .min_by_key(|(_, member)| &member.id)
                .map(|(at, _)| at)
        };
        let plan: Vec<Option<usize>> = (0_u16..)
            .zip(&owners)
            .map(|(slot, owner)| owner.filter(|_| !moving.contains(&slot)).and_then(place))
            .collect();
        let addresses = self.members.iter().map(|member| member.address.clone());
        let ids = self.members.iter().map(|member| member.id.clone());
        let plan = Plan::new(&plan, addresses.collect(), ids.collect());
        self.is_moving = self.group.set_plan(plan) || !moving.is_empty();
    }

    /// Another master has taken over where one has failed, or was made a replica.
    fn succeed(&mut self, view: &View, slots: &BTreeMap<&str, BTreeSet<u16>>) {
        for at in 0..self.members.len() {
            let Some(member) = self.members.get(at).cloned() else {
                continue;
            };
            let node = view.node(&member.node);
            let is_free = |id: &str| !self.members.iter().any(|other| other.node == id);
            let demoted_to = node.and_then(|node| node.master.clone());
            let demoted_to = demoted_to.filter(|id| is_free(id) && slots.contains_key(id.as_str()));
            let is_lost = node.is_none_or(|node| node.has_failed || node.master.is_some());
            let has_none = !slots.contains_key(member.node.as_str());
            let heirs = slots.iter().filter(|(id, own)| {
                let was_replica = self.replica_of.get(**id) == Some(&member.node);
                is_free(id)
                    && own.intersection(&member.slots).next().is_some()
                    && (is_lost || was_replica)
            });
            let heir = heirs.max_by_key(|(_, own)| own.intersection(&member.slots).count());
            let heir = heir.filter(|_| has_none).map(|(id, _)| (*id).to_owned());
            let Some(next) = demoted_to.or(heir) else {
                continue;
            };
            tracing::info!(
                shard = member.id,
                from = member.node,
                to = next,
                "a shard of the source has another master"
            );
            if let Some(member) = self.members.get_mut(at) {
                member.node = next;
            }
        }
    }

    /// The link of a shard; `is_late`: others have held its slots before.
    fn link(&self, index: usize, is_late: bool) -> Config {
        let id = self
            .members
            .get(index)
            .map(|member| member.id.clone())
            .unwrap_or_default();
        let sweeps = is_late || self.group.begun.get().is_some_and(|begun| begun.sweeps);
        let shard = Arc::new(Shard::new(self.group.clone(), index, &id, sweeps));
        let mut config = self.config.clone();
        if let Some(cluster) = &mut config.target.cluster {
            cluster.shard = Some(shard.clone());
        }
        config.target.group = Some(self.group.base.clone());
        config.link_name = self.group.link_name(&id);
        config.spool = config.spool.of_link(&config.link_name);
        config.filter.only(shard.applied.clone());
        config.shard = Some(shard);
        config.source.endpoint.follow = Some(Arc::new(Follow::new(self.group.clone(), index)));
        if let Some(member) = self.members.get(index) {
            member
                .address
                .clone_into(&mut config.source.endpoint.address);
        }
        let own = |member: &&Member| member.slice == self.config.slice.index;
        let links = self.members.iter().filter(own).count().max(1);
        config.memory_bytes /= links as u64;
        config.spool.tail_bytes = (config.spool.tail_bytes / links).max(1 << 20);
        config
    }
}
