//! A target that is a cluster: its nodes, who has which slot, and how far each slot is.
//!
//! One connection to each primary. What goes out in one go is a window: a transaction for each slot that it touches, those of a
//! node in one write (`window`). The position of the link is the low-water mark of all slots; each slot has its own checkpoint
//! beside it (`marks`), written in the transaction of its data. What a replaced writer still has on its way comes to nothing
//! (`fence`).

mod ask;
mod empty;
mod fence;
mod group;
mod holders;
mod locate;
mod marks;
mod reach;
mod topology;
mod window;
mod witness;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use resp::{ErrorCode, ErrorReply, Value};
use rewrite::{SLOTS, Slot, slot_of};
use tokio::time::Instant;

use crate::checkpoint::{self, Checkpoint, Names, Phase};
use crate::client::{Client, class_of};
use crate::config::{ClusterConfig, Endpoint, SlotFence, TargetConfig};
use crate::error::{Side, SyncError};
use crate::limits::Limits;
use crate::renew::Renewal;
use crate::status::Nodes;

pub(crate) use ask::Question;
pub(crate) use fence::why_not_kill;
use fence::{
    COMMAND_WORDS_MAX, Fence, Hashes, NARROW_WORDS_MAX, SCRIPT, SCRIPT_BEGIN, SCRIPT_EPOCH,
    SCRIPT_PLAIN,
};
pub(crate) use group::{Group, Inner};
pub(crate) use holders::keys_of_free_slots;
pub(crate) use locate::{connect_all, flush, foreign_keys, locate, redirects, replids};
use locate::{is_serverless, load};
pub(crate) use marks::{Mark, Note, is_of_link, mark_key, temporary};
use marks::{SlotCheckpoint, State, state_key};
pub(crate) use reach::Reach;
pub(crate) use topology::{Topology, address};

/// Pause before a slot that is on its way between two nodes is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Redirections that are followed at once.
const REDIRECTS_MAX: u32 = 4;
/// One that leads nowhere for so long is looked at anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// A slot that cannot be written for so long is spoken of.
const NOTED: Duration = Duration::from_secs(5);

/// A replica that does not follow is not waited for again for so long.
const REPLICA_PAUSE: Duration = Duration::from_secs(1);

/// A cluster that is ours.
pub(crate) struct Cluster {
    endpoint: Endpoint,
    settings: ClusterConfig,
    /// What the slots' checkpoints are called by.
    marks_name: String,
    /// The link's checkpoint.
    key: String,
    /// What our connections are called.
    name: String,
    topology: Topology,
    nodes: BTreeMap<String, Client>,
    fence: Fence,
    /// Nothing that tells of connections, or of replicas, is ever sent there.
    is_serverless: bool,
    epoch: u64,
    owner: u64,
    /// The checkpoint as it was written last.
    written: String,
    pub(crate) state: State,
    /// How far each slot is; `None`: it has no checkpoint, or one of another generation.
    marks: Vec<Option<Mark>>,
    /// What their checkpoints say besides.
    notes: Vec<Note>,
    /// In so many of them keys are named.
    named: usize,
    /// Keys under repair, by slot, where they are to be named in the next checkpoint of it.
    repairs: HashMap<u16, Names>,
    /// The answers to everything before this were looked at.
    seen: u64,
    /// So far of a snapshot all nodes are.
    snapshot_bytes: u64,
    /// Nodes whose replicas did not confirm in time, and when they are waited for again.
    waits_again: BTreeMap<String, Instant>,
    /// What is told of the nodes.
    told: Arc<Nodes>,
    /// When the connections have to say who we are again.
    renewal: Renewal,
    /// Databases that every node has, beside 0.
    dbs: BTreeSet<u32>,
}

impl Cluster {
    /// Whether the connections have to say again who we are.
    pub(crate) fn renewal_is_due(&self) -> bool {
        self.renewal.is_due()
    }

    /// Waits until they have to.
    pub(crate) async fn renewal_due(&self) {
        self.renewal.due().await;
    }

    /// Says it over the connection to every node; nothing is on its way.
    ///
    /// # Errors
    /// Reconnect when one of them broke.
    pub(crate) async fn renew(&mut self) -> Result<(), SyncError> {
        let clients = self.nodes.values_mut();
        self.renewal.renew_all(clients, &self.endpoint).await
    }

    /// From now on tells of its nodes there.
    pub(crate) fn report_to(&mut self, told: Arc<Nodes>) {
        let slots = self.topology.slots().into_iter();
        told.set_slots(
            &slots
                .map(|(address, slots)| (address, slots.len() as u64))
                .collect(),
        );
        self.told = told;
    }

    /// Waits until the target may be sent something; says again who we are meanwhile, if it is time.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub(crate) async fn until_open(&mut self, limits: &Limits) -> Result<(), SyncError> {
        loop {
            tokio::select! {
                biased;
                () = limits.open() => return Ok(()),
                () = self.renewal.due() => self.renew().await?,
            }
        }
    }

    /// Opens the cluster for whoever has just written `checkpoint` into it: keeps all others out, and reads how far each slot is.
    ///
    /// # Errors
    /// Reconnect when a node cannot be reached, or the link was taken meanwhile; stop when neither way of keeping others out is allowed.
    pub(crate) async fn open(
        config: &TargetConfig,
        link_name: &str,
        topology: Topology,
        checkpoint: &Checkpoint,
    ) -> Result<Self, SyncError> {
        let Some(settings) = config.cluster.clone() else {
            let what = "redis_writer.cluster is not set";
            return Err(SyncError::stop(
                Side::Target,
                &config.endpoint.address,
                what,
            ));
        };
        let prefix = fence::name_prefix(link_name);
        let mut cluster = Self {
            endpoint: config.endpoint.clone(),
            marks_name: holders::marks_name(Some(&settings), link_name),
            settings,
            key: checkpoint::key(link_name),
            name: format!("{prefix}{:016x}.{}", checkpoint.owner, checkpoint.epoch),
            topology,
            nodes: BTreeMap::new(),
            fence: Fence::Kill,
            is_serverless: is_serverless(config),
            epoch: checkpoint.epoch,
            owner: checkpoint.owner,
            written: checkpoint.to_string(),
            state: State::default(),
            marks: vec![None; usize::from(SLOTS)],
            notes: vec![Note::default(); usize::from(SLOTS)],
            named: 0,
            repairs: HashMap::new(),
            seen: 0,
            snapshot_bytes: 0,
            waits_again: BTreeMap::new(),
            told: Arc::default(),
            renewal: Renewal::new(&config.endpoint),
            dbs: BTreeSet::new(),
        };
        let may_kill = fence::may_be_by_kill(config);
        cluster.choose_fence(may_kill, &prefix).await?;
        for address in cluster.topology.primaries() {
            cluster.connect(&address).await?;
        }
        cluster.check_owner().await?;
        cluster.read_state().await?;
        if let Some(shard) = cluster.settings.shard.clone() {
            cluster.find_held(config, &shard, checkpoint).await?;
            return Ok(cluster);
        }
        if matches!(checkpoint.phase, Phase::Stream(_)) {
            cluster.read_marks().await?;
        }
        match &checkpoint.phase {
            Phase::Snapshot(progress) => cluster.begin_snapshot(progress.rdb_bytes).await?,
            // Put by plain commands, as a snapshot is, which has no position.
            Phase::Scan(_) => cluster.begin_snapshot(0).await?,
            Phase::Stream(_) | Phase::Diverged(_) => {}
        }
        Ok(cluster)
    }

    /// Finds out which way of keeping others out the target allows, and ends their connections. `may_kill`: whether that is wanted.
    async fn choose_fence(&mut self, mut may_kill: bool, prefix: &str) -> Result<(), SyncError> {
        let primaries = self.topology.primaries();
        let mut clients = Vec::new();
        for address in primaries.iter().filter(|_| may_kill) {
            clients.push(self.connect_plain(address).await?);
        }
        if may_kill {
            for client in &mut clients {
                may_kill &= fence::may_kill(client).await?;
            }
        }
        if !may_kill {
            if self.settings.shard.is_some() {
                let what = "the source is a cluster, and the target does not allow CLIENT LIST, CLIENT KILL and CLIENT SETNAME, which keep a replaced link out there: give the user +client|list +client|kill +client|setname";
                return Err(self.refused(what));
            }
            if self.settings.fence == SlotFence::Kill {
                let what = "redis_writer.slot_fence is \"kill\", but the target does not allow CLIENT LIST, CLIENT KILL and CLIENT SETNAME: give the user +client|list +client|kill +client|setname, or set it to \"lua\"";
                return Err(self.refused(what));
            }
            self.fence = Fence::Lua(Hashes::default());
            return Ok(());
        }
        let mut killed = 0;
        for client in &mut clients {
            killed += fence::kill_all(client, prefix).await?;
        }
        // A replica may be a primary before long, and a node without slots may get some: nobody's connections stay there
        // either. One that is not there has none.
        let others = locate::all_nodes(&mut clients, &self.topology).await;
        for address in others.iter().filter(|address| !primaries.contains(address)) {
            if let Ok(mut client) = self.connect_plain(address).await {
                killed += fence::kill_all(&mut client, prefix).await?;
            }
        }
        if killed > 0 {
            tracing::info!(killed, "ended connections of an earlier run of this link");
        }
        Ok(())
    }

    fn at(&self, address: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            ..self.endpoint.clone()
        }
    }

    async fn connect_plain(&self, address: &str) -> Result<Client, SyncError> {
        Client::connect(&self.at(address), Side::Target).await
    }

    /// A connection that others can tell as this link's.
    async fn connect(&mut self, address: &str) -> Result<(), SyncError> {
        let mut client = self.connect_plain(address).await?;
        match &self.fence {
            Fence::Kill => {
                client
                    .call(&[b"CLIENT", b"SETNAME", self.name.as_bytes()])
                    .await?;
            }
            Fence::Lua(_) => {
                if !self.is_serverless {
                    // For people; it may not be allowed.
                    client
                        .ask(&[b"CLIENT", b"SETNAME", self.name.as_bytes()])
                        .await?;
                }
                self.fence = Fence::Lua(Hashes {
                    script: load(&mut client, SCRIPT).await?,
                    plain: load(&mut client, SCRIPT_PLAIN).await?,
                });
            }
        }
        for db in &self.dbs {
            ask::has_db(&mut client, *db).await?;
        }
        self.nodes.insert(address.to_owned(), client);
        Ok(())
    }

    /// Connects to a node that keys are on their way to, if there is no connection yet.
    async fn connect_late(&mut self, address: &str) -> Result<(), SyncError> {
        if self.nodes.contains_key(address) {
            return Ok(());
        }
        self.connect(address).await?;
        Box::pin(self.check_owner()).await
    }

    /// Whether the link is still ours: asked once all connections have their names.
    async fn check_owner(&mut self) -> Result<(), SyncError> {
        let (key, slot) = (self.key.clone(), self.own_slot());
        let value = self.call(slot, &[b"GET", key.as_bytes()]).await?;
        match value.as_bytes().map(|value| Checkpoint::parse(value)) {
            // Its epoch may be one that we have raised it to since.
            Some(Ok(found))
                if found.owner == self.owner
                    && (found.epoch == self.epoch || found.to_string() == self.written) =>
            {
                Ok(())
            }
            _ => Err(self.lost("the link was taken over meanwhile; looking again")),
        }
    }

    fn own_slot(&self) -> Slot {
        slot_of(self.key.as_bytes())
    }

    async fn read_state(&mut self) -> Result<(), SyncError> {
        let (key, slot) = (state_key(&self.key), self.own_slot());
        let value = self.call(slot, &[b"GET", key.as_bytes()]).await?;
        self.state = match &value {
            Value::Bulk(text) => State::parse(text).map_err(|why| {
                self.refused(&format!(
                    "{key} cannot be read: {why}; delete {} to begin anew",
                    self.key
                ))
            })?,
            _ => State::default(),
        };
        Ok(())
    }

    /// Reads how far each slot is. Behind the script's fence every slot gets our epoch first.
    async fn read_marks(&mut self) -> Result<(), SyncError> {
        let is_lua = matches!(self.fence, Fence::Lua(_));
        let epoch = self.epoch.to_string();
        let mut questions = Vec::with_capacity(self.marks.len());
        for slot in (0..SLOTS).map(Slot) {
            let key = mark_key(slot, &self.marks_name);
            let mut frame = Vec::new();
            if is_lua {
                let words: [&[u8]; 5] = [
                    b"EVAL",
                    SCRIPT_EPOCH.as_bytes(),
                    b"1",
                    key.as_bytes(),
                    epoch.as_bytes(),
                ];
                resp::encode::command(&mut frame, &words);
            } else {
                resp::encode::command(&mut frame, &[b"GET", key.as_bytes()]);
            }
            questions.push((slot, frame));
        }
        let slots: Vec<Slot> = questions.iter().map(|(slot, _)| *slot).collect();
        let answers = self.ask_slots(questions).await?;
        for (slot, value) in slots.into_iter().zip(answers) {
            let found = match &value {
                Value::Bulk(text) => SlotCheckpoint::parse(text).map(Some).map_err(|why| {
                    let key = mark_key(slot, &self.marks_name);
                    self.refused(&format!(
                        "the checkpoint {key} cannot be read: {why}; delete {} to begin anew",
                        self.key
                    ))
                })?,
                Value::Error(error) => return Err(self.refusal_of("GET", error)),
                _ => None,
            };
            let found = found.filter(|found| found.generation == self.state.generation);
            let at = usize::from(slot.0);
            if let (Some(mark), Some(note)) = (self.marks.get_mut(at), self.notes.get_mut(at)) {
                *mark = found.as_ref().map(|found| found.mark);
                *note = found.map(|found| Note::of(&found)).unwrap_or_default();
            }
        }
        for (slot, note) in (0_u16..).zip(&self.notes) {
            if let Some(names) = &note.repairs {
                self.named += 1;
                self.repairs.insert(slot, (**names).clone());
            }
        }
        Ok(())
    }

    /// An error that ends the connection, or the link.
    pub(crate) fn refusal_of(&self, name: &str, error: &ErrorReply) -> SyncError {
        if error.text.starts_with(b"STALE") {
            return self.lost(&format!("a slot was written by somebody else: {error}"));
        }
        SyncError {
            class: class_of(error.code),
            ..self.refused(&format!("{name} was refused: {error}"))
        }
    }

    /// How far a slot is.
    pub(crate) fn mark(&self, slot: Slot) -> Option<Mark> {
        self.marks.get(usize::from(slot.0)).copied().flatten()
    }

    /// How far all slots are.
    pub(crate) fn marks(&self) -> &[Option<Mark>] {
        &self.marks
    }

    /// A snapshot is to be applied, or goes on. What the witnesses have of it is kept; behind the script's fence its commands look at
    /// their slots' checkpoints too, so that all of them say whose snapshot it is.
    async fn begin_snapshot(&mut self, told: u64) -> Result<(), SyncError> {
        let witnesses = self.state.witnesses.iter().copied().map(Slot);
        let questions = witnesses.filter(|_| told > 0).map(|slot| {
            let key = mark_key(slot, &self.marks_name);
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, &[b"GET", key.as_bytes()]);
            (slot, frame)
        });
        let answers = self.ask_slots(questions.collect()).await?;
        let generation = self.state.generation;
        let marks = answers.iter().map(|value| {
            let found = SlotCheckpoint::parse(value.as_bytes()?).ok()?;
            (found.generation == generation).then_some(found.mark)
        });
        // What the least of them has, all nodes have; without any, nothing is known.
        let marks = marks.collect::<Option<Vec<Mark>>>().unwrap_or_default();
        let least = marks.into_iter().min().unwrap_or_default();
        self.snapshot_bytes = least.offset.min(told);
        if self.snapshot_bytes == 0 {
            self.state = State {
                generation: crate::chance::number(),
                ..State::default()
            };
        }
        if self.is_lua() {
            let slots: Vec<Slot> = (0..SLOTS).map(Slot).collect();
            let mark = Mark {
                offset: self.snapshot_bytes,
                part: 0,
            };
            self.set_marks(&slots, mark).await?;
        }
        Ok(())
    }

    /// All nodes have what lies before this byte of the snapshot that they had last.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes
    }

    /// Every slot of the link begins at `mark`, in a new generation: a snapshot is applied to its end.
    pub(crate) async fn begin(&mut self, generation: u64, mark: Mark) -> Result<(), SyncError> {
        self.state = State {
            generation,
            ..State::default()
        };
        let slots = self.held();
        self.set_marks(&slots, mark).await
    }

    /// Writes the checkpoints of slots that hold no data which would depend on them.
    pub(crate) async fn set_marks(&mut self, slots: &[Slot], mark: Mark) -> Result<(), SyncError> {
        let mut questions = Vec::with_capacity(slots.len());
        for slot in slots {
            let (key, value) = (
                mark_key(*slot, &self.marks_name),
                self.value_of(mark, 0, self.repairs.get(&slot.0)),
            );
            let mut frame = Vec::new();
            if self.is_lua() {
                let epoch = self.epoch.to_string();
                let words: [&[u8]; 6] = [
                    b"EVAL",
                    SCRIPT_BEGIN.as_bytes(),
                    b"1",
                    key.as_bytes(),
                    epoch.as_bytes(),
                    value.as_bytes(),
                ];
                resp::encode::command(&mut frame, &words);
            } else {
                resp::encode::command(&mut frame, &[b"SET", key.as_bytes(), value.as_bytes()]);
            }
            questions.push((*slot, frame));
        }
        let answers = self.ask_slots(questions).await?;
        if let Some(error) = answers.iter().find_map(Value::as_error) {
            return Err(self.refusal_of("a slot's checkpoint", error));
        }
        for slot in slots {
            self.set_mark(*slot, mark, 0);
        }
        Ok(())
    }

    /// The slot's checkpoint says so now.
    fn set_mark(&mut self, slot: Slot, mark: Mark, unseen: u64) {
        let at = usize::from(slot.0);
        let repairs = self.repairs.get(&slot.0).cloned().map(Box::new);
        if let (Some(place), Some(note)) = (self.marks.get_mut(at), self.notes.get_mut(at)) {
            *place = Some(mark);
            self.named -= usize::from(note.repairs.is_some());
            self.named += usize::from(repairs.is_some());
            *note = Note { unseen, repairs };
        }
    }

    /// So many bytes before `mark` nobody will have looked at when it is written.
    fn unseen_before(&self, mark: Mark) -> u64 {
        mark.offset.saturating_sub(self.seen)
    }

    /// The value of a slot's checkpoint.
    fn value_of(&self, mark: Mark, unseen: u64, repairs: Option<&Names>) -> String {
        let checkpoint = SlotCheckpoint {
            epoch: self.epoch,
            generation: self.state.generation,
            mark,
            unseen,
            repairs: repairs.map(Names::for_checkpoint).unwrap_or_default(),
            holder: holders::holder(Some(&self.settings)).to_owned(),
        };
        checkpoint.text()
    }

    /// The value that the slot's checkpoint has.
    fn value_now(&self, slot: Slot) -> String {
        let at = usize::from(slot.0);
        let note = self.notes.get(at).cloned().unwrap_or_default();
        let mark = self.mark(slot).unwrap_or_default();
        self.value_of(mark, note.unseen, note.repairs.as_deref())
    }

    /// What the slots' checkpoints say beside how far they are.
    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The answers to everything before this offset were looked at.
    pub(crate) fn set_seen(&mut self, offset: u64) {
        self.seen = offset;
    }

    /// These keys of the source are under repair from here on, and no others.
    pub(crate) fn set_repairs(&mut self, config: &TargetConfig, names: &Names) {
        self.repairs.clear();
        for (db, key) in names.iter() {
            let slot = config.slot_of(db, key);
            let names = self.repairs.entry(slot.0).or_default();
            names.insert(db, key.clone());
        }
    }

    /// Slots whose checkpoints do not name the keys that are under repair now.
    fn untold(&self) -> Vec<Slot> {
        let named = |note: &Note| note.repairs.as_deref().map(Names::for_checkpoint);
        let differs = |(slot, note): &(u16, &Note)| {
            named(note) != self.repairs.get(slot).map(Names::for_checkpoint)
        };
        if self.repairs.is_empty() && self.named == 0 {
            return Vec::new();
        }
        let slots = (0_u16..).zip(&self.notes).filter(differs);
        slots.map(|(slot, _)| Slot(slot)).collect()
    }

    /// Makes the slots' checkpoints name the keys that are under repair now. Nothing is on its way.
    pub(crate) async fn tell_repairs(&mut self, config: &TargetConfig) -> Result<(), SyncError> {
        let slots = self.untold();
        self.write_again(config, slots).await
    }

    /// Makes the checkpoints of all slots that are beyond `offset` say that every answer was looked at.
    pub(crate) async fn tell_seen(
        &mut self,
        config: &TargetConfig,
        offset: u64,
    ) -> Result<(), SyncError> {
        let is_unseen = |(mark, note): (&Option<Mark>, &Note)| {
            note.unseen > 0 && mark.is_some_and(|mark| mark.offset > offset)
        };
        let slots = (0_u16..).zip(self.marks.iter().zip(&self.notes));
        let slots: Vec<Slot> = slots
            .filter(|(_, slot)| is_unseen(*slot))
            .map(|(slot, _)| Slot(slot))
            .collect();
        self.write_again(config, slots).await
    }

    /// Writes checkpoints of slots anew where they are, with what is to be said besides.
    async fn write_again(
        &mut self,
        config: &TargetConfig,
        slots: Vec<Slot>,
    ) -> Result<(), SyncError> {
        let groups = slots.into_iter().filter_map(|slot| {
            let mark = self.mark(slot)?;
            Some(Group::new(slot, Some(mark)))
        });
        let groups: Vec<Group> = groups.collect();
        if !groups.is_empty() {
            self.run(config, groups, None).await?;
        }
        Ok(())
    }

    /// Writes the link's checkpoint, if nobody has changed it.
    ///
    /// # Errors
    /// Reconnect when somebody has, or its slot is on its way between two nodes.
    pub(crate) async fn write_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
    ) -> Result<(), SyncError> {
        let value = checkpoint.to_string();
        let (key, state) = (self.key.clone(), state_key(&self.key));
        let text = self.state.text();
        let address = self.owner(self.own_slot())?;
        let written = self.written.clone();
        let client = self.node(&address)?;
        let written = async {
            if !ask::begin_watched(client, &key, &written).await? {
                return Ok(None);
            }
            let commands = [
                vec![&b"SET"[..], key.as_bytes(), value.as_bytes()],
                vec![b"SET", state.as_bytes(), text.as_bytes()],
                vec![b"EXEC"],
            ];
            client.ask_all(&commands).await.map(Some)
        };
        let Some(replies) = ask::in_time(&address, ask::ANSWER, written).await? else {
            return Err(self.lost("its checkpoint was changed by somebody else"));
        };
        let client = self.node(&address)?;
        if let Some(error) = replies.iter().find_map(Value::as_error) {
            return Err(client.refused(&[b"EXEC"], error));
        }
        if !matches!(replies.last(), Some(Value::Array(_))) {
            return Err(self.lost("its checkpoint was changed by somebody else"));
        }
        self.written = value;
        Ok(())
    }

    /// Carries a command without keys out at every primary; gives the errors.
    pub(crate) async fn everywhere(
        &mut self,
        config: &TargetConfig,
        command: &[u8],
    ) -> Result<Vec<ErrorReply>, SyncError> {
        let mut errors = Vec::new();
        for address in self.topology.primaries() {
            let replies = self.ask_patiently(config, &address, command, 1).await?;
            errors.extend(replies.iter().filter_map(Value::as_error).cloned());
        }
        Ok(errors)
    }

    /// Where a redirection leads: an address for ASK, nothing where the slot has moved for good.
    async fn follow(
        &mut self,
        slot: Slot,
        error: &ErrorReply,
        asked: &str,
    ) -> Result<Option<String>, SyncError> {
        let Some(to) = error.redirect() else {
            return Err(self.lost(&format!("a redirection that cannot be read: {error}")));
        };
        let address = topology::address(to.host, to.port, asked);
        if error.code == ErrorCode::Ask {
            self.connect_late(&address).await?;
            return Ok(Some(address));
        }
        // Another primary that is known: the slot was moved there, with all its keys. One that is not known may have been a
        // replica, which need not have all that the other had: everything is looked at anew.
        let before = self.owner(slot).unwrap_or_default();
        if self.nodes.contains_key(&address) && self.topology.moved(slot, &address) {
            self.told.moved(&before, &address);
            return Ok(None);
        }
        Err(self.lost(&format!(
            "slot {} is now at {address}: looking at the cluster anew",
            slot.0
        )))
    }

    fn owner(&self, slot: Slot) -> Result<String, SyncError> {
        match self.topology.owner(slot) {
            Some(owner) => Ok(owner.address.clone()),
            None => Err(self.lost(&format!(
                "no node has slot {}; is the cluster whole?",
                slot.0
            ))),
        }
    }

    fn node(&mut self, address: &str) -> Result<&mut Client, SyncError> {
        match self.nodes.get_mut(address) {
            Some(client) => Ok(client),
            None => Err(SyncError::reconnect(
                Side::Target,
                address,
                "not connected to it",
            )),
        }
    }

    /// Waits a moment until a replica of the slot's node has what was written: what cannot be done again is not to be lost with
    /// its primary. Nobody is waited for where there is no replica, or none that keeps up.
    pub(crate) async fn wait_for_replica(&mut self, slot: Slot) -> Result<(), SyncError> {
        let now = Instant::now();
        let address = self.owner(slot)?;
        let has_replica = self
            .topology
            .owner(slot)
            .is_some_and(|owner| !owner.replicas.is_empty());
        if !has_replica
            || self.is_serverless
            || self.waits_again.get(&address).is_some_and(|at| *at > now)
        {
            return Ok(());
        }
        let wait: [&[u8]; 3] = [b"WAIT", b"1", b"100"];
        let reply = ask::in_time(&address, ask::ANSWER, self.node(&address)?.ask(&wait)).await?;
        if !matches!(reply, Value::Int(count) if count > 0) {
            self.waits_again.insert(address, now + REPLICA_PAUSE);
        }
        Ok(())
    }

    /// Keys of all nodes that are not ours, in one database or in all of them.
    pub(crate) async fn foreign_keys(
        &self,
        config: &TargetConfig,
        of: Option<u32>,
    ) -> Result<u64, SyncError> {
        let all = foreign_keys(config, &self.topology).await?;
        let wanted = all.iter().filter(|(db, _)| of.is_none_or(|of| of == *db));
        Ok(wanted.map(|(_, keys)| keys).sum())
    }

    /// How many keys of ours all nodes have together: the link's, and those of its slots that are there.
    pub(crate) async fn count_own_keys(&mut self) -> Result<u64, SyncError> {
        let questions = (0..SLOTS).map(Slot).map(|slot| {
            let key = mark_key(slot, &self.marks_name);
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, &[b"EXISTS", key.as_bytes()]);
            (slot, frame)
        });
        let answers = self.ask_slots(questions.collect()).await?;
        let there = answers.iter().filter(|answer| **answer == Value::Int(1));
        // The checkpoint, and what is kept beside it.
        Ok(2 + there.count() as u64)
    }

    /// Asks any node, whatever it answers.
    pub(crate) async fn ask_any(&mut self, argv: &[&[u8]]) -> Result<Value, SyncError> {
        let address = self.owner(self.own_slot())?;
        self.node(&address)?.ask(argv).await
    }

    /// Slots by the addresses of their primaries.
    pub(crate) fn slots(&self) -> BTreeMap<String, Vec<Slot>> {
        self.topology.slots()
    }

    /// Whether a node may be asked about libraries of functions.
    pub(crate) fn has_functions(&self) -> bool {
        !self.is_serverless
    }

    pub(crate) fn emulates(&self) -> bool {
        self.settings.emulates
    }

    /// Whether slots' commands go by the script.
    pub(crate) fn is_lua(&self) -> bool {
        matches!(self.fence, Fence::Lua(_))
    }

    /// The most words of a command, of which a target of this kind would take `args_max`.
    pub(crate) fn args_max(&self, args_max: u64) -> u64 {
        let most = match args_max < COMMAND_WORDS_MAX as u64 {
            true => NARROW_WORDS_MAX,
            false => COMMAND_WORDS_MAX,
        };
        match self.is_lua() {
            true => args_max.min(most as u64),
            false => args_max,
        }
    }

    pub(crate) fn lost(&self, what: &str) -> SyncError {
        SyncError::reconnect(Side::Target, &self.endpoint.address, what)
    }

    pub(crate) fn refused(&self, what: &str) -> SyncError {
        SyncError::stop(Side::Target, &self.endpoint.address, what)
    }
}
