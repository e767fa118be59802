//! One switch-over from the gate to the end of what comes after GO.

mod undo;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::daemon::{Daemon, Holds, Told};
use super::fence::{self, Change, Fence, Means, Sites};
use super::proof::{self, Proof};
use super::signals::Signals;
use super::steps::Steps;
use super::{CutoverArgs, acl, after, back, gate, hooks, shards};
use crate::client::Client;
use crate::clock::unix_ms;
use crate::compare::Beside;
use crate::config::{CompareExtent, Config, Endpoint, ScanWhen, reversed};
use crate::error::{Class, Side, SyncError};
use crate::handover::Stage;
use crate::handover::mark::{self, Back, Place, Record, Undo};
use crate::shard::survey::Survey;

/// Between two words to the daemon that the hold is still wanted.
const RENEW: Duration = Duration::from_secs(2);
/// What is in the way at first may only be what a moment's lag leaves, or a start.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the hook may take until somebody follows the new server.
const TAKEN_LIMIT: Duration = Duration::from_secs(30);

/// A switch-over.
pub(super) struct Run<'a> {
    config: &'a Config,
    args: &'a CutoverArgs,
    daemon: Daemon,
    steps: Steps,
    source: Endpoint,
    /// The nodes of a source cluster, as they were at the gate.
    survey: Option<Survey>,
    sites: Sites,
    /// The link of the way back, where it is wanted.
    way_back: Option<Config>,
    /// Takes the source's users their right to write, where that comes after the fence.
    seal: Vec<Change>,
    is_sealed: Cell<bool>,
    is_seeded: Cell<bool>,
    /// The offsets at which links are held.
    held: RefCell<Holds>,
    /// The transaction that is the switch was sent: what became of it is for the target to tell.
    is_sent: Cell<bool>,
    /// The source is read by SCAN.
    is_of_scan: bool,
    /// The new server refuses PSYNC: the way back reads it by SCAN, and begins anywhere.
    back_by_scan: bool,
}

impl<'a> Run<'a> {
    /// # Errors
    /// Local: the way back cannot be described.
    pub(super) fn new(
        config: &'a Config,
        args: &'a CutoverArgs,
        daemon: Daemon,
        steps: Steps,
    ) -> Result<Self, SyncError> {
        let way_back = match args.reverse {
            true => Some(reversed(&args.file).map_err(SyncError::local)?),
            false => None,
        };
        Ok(Self {
            config,
            args,
            daemon,
            steps,
            source: fence::endpoint(config),
            survey: None,
            sites: Sites::one(fence::endpoint(config)),
            way_back,
            seal: Vec::new(),
            is_sealed: Cell::default(),
            is_seeded: Cell::default(),
            held: RefCell::default(),
            is_sent: Cell::default(),
            is_of_scan: false,
            back_by_scan: false,
        })
    }

    /// From the gate to the end; gives the exit code.
    pub(super) async fn switch(mut self) -> Result<u8, SyncError> {
        if !self.args.check && !self.steps.can_ask() {
            let what = "nobody is there to be asked: --yes goes on without (and --json needs it)";
            self.steps.tell("gate", false, what, json!({}));
            return Ok(crate::cli::USAGE);
        }
        let mut signals = Signals::new()?;
        let gate = tokio::select! {
            fence = self.gate() => fence?,
            () = signals.asked() => None,
        };
        let Some(fence) = gate else {
            // Nothing was changed; the daemon is told where it can be.
            self.leave_gate().await;
            return Ok(1);
        };
        if self.args.check {
            self.leave_gate().await;
            return Ok(0);
        }
        let question = format!(
            "Hold back writes at {} now ({})?",
            self.source.address,
            fence.words()
        );
        if !self.steps.ask(&question).await {
            self.steps
                .tell("undone", true, "not wanted; nothing was changed", json!({}));
            self.leave_gate().await;
            return Ok(1);
        }
        let made = tokio::select! {
            made = self.held_back(&fence) => made,
            () = signals.asked() => Err("interrupted".to_owned()),
        };
        let (proof, record) = match made {
            Ok(made) => made,
            Err(why) => match self.undo(&fence, &why).await {
                None => return Ok(1),
                // It came too late: the switch was made.
                Some(gone) => gone,
            },
        };
        self.go(&fence, &proof, record, &mut signals).await
    }

    /// The daemon is told that nobody looks any more, where that is all that it was told. After a switch, or while another
    /// one is under way, its word is not ours to take back.
    async fn leave_gate(&self) {
        let told = self.daemon.status().await;
        if told.is_ok_and(|told| told.stage() == Some(Stage::Gate)) {
            drop(self.daemon.open().await);
        }
    }

    /// Looks at everything; gives the fence that can be had, if all is well.
    async fn gate(&mut self) -> Result<Option<Fence>, SyncError> {
        let mut all = true;
        let mut note = |steps: &Steps, check: &gate::Check| {
            all &= check.ok;
            steps.tell(
                "gate",
                check.ok,
                &format!("{}: {}", check.name, check.text),
                json!({ "check": check.name }),
            );
        };
        let told = match self.told().await {
            Ok(told) => told,
            Err(why) => {
                self.steps.tell(
                    "gate",
                    false,
                    &format!("sync: {why}"),
                    json!({ "check": "sync" }),
                );
                return Ok(None);
            }
        };
        let clients = told.cutover()["source_clients"].as_u64();
        if let Some(clients) = clients {
            self.steps
                .say(&format!("{clients} clients are connected to the source"));
        }
        note(&self.steps, &gate::daemon(&told));
        self.is_of_scan = told.is_of_scan();
        note(&self.steps, &gate::target(self.config).await);
        if let Some(check) = self.leftovers().await {
            note(&self.steps, &check);
        }
        if let Some(check) = self.shards().await {
            note(&self.steps, &check);
        }
        let fence = self.fence().await;
        let planned = match &fence {
            Ok((fence, words)) => Ok(format!("{}{words}", fence.words())),
            Err(why) => Err(why.clone()),
        };
        note(
            &self.steps,
            &gate::Check {
                name: "fence",
                ok: planned.is_ok(),
                text: planned.unwrap_or_else(|why| why),
            },
        );
        if let Some(check) = self.can_come_back().await {
            note(&self.steps, &check);
        }
        // What takes time comes last, and only where it can help.
        if told.reasons().is_empty() {
            let extent = self.config.cutover.compare;
            // A daemon that hears nothing for long takes us for dead.
            let verified = tokio::select! {
                verified = gate::verification(self.config, &told, extent) => verified,
                why = self.renew(Stage::Gate) => gate::Check { name: "verify", ok: false, text: why },
            };
            note(&self.steps, &verified);
            note(&self.steps, &gate::lag(self.config, &self.daemon).await);
            if self.is_of_scan {
                note(&self.steps, &gate::pass(self.config, &told));
            }
        }
        if !all {
            let text = "the gate is not passed; nothing was changed";
            self.steps.tell("undone", false, text, json!({}));
        }
        Ok(fence.ok().map(|(fence, _)| fence).filter(|_| all))
    }

    /// What the daemon tells: that nothing is in the way, or what has been so for a while.
    async fn told(&self) -> Result<Told, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.daemon.report(Stage::Gate).await?;
            let told = self.daemon.status().await?;
            if told.reasons().is_empty() || Instant::now() > until {
                return Ok(told);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// A source cluster as a whole, and where the fence is to be. A slot that has just come is waited for.
    async fn shards(&mut self) -> Option<gate::Check> {
        let until = Instant::now() + PATIENCE;
        loop {
            let survey = match shards::survey(self.config, &self.daemon).await {
                Ok(survey) => survey?,
                Err(text) => {
                    return Some(gate::Check {
                        name: "shards",
                        ok: false,
                        text,
                    });
                }
            };
            let check = shards::check(self.config, &self.daemon, &survey).await;
            if !check.ok && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(250)).await;
                continue;
            }
            self.sites = Sites::of(&self.source, &survey);
            self.survey = Some(survey);
            return Some(check);
        }
    }

    /// The fence that can be had, and what is said of the seal.
    async fn fence(&mut self) -> Result<(Fence, String), String> {
        let means = Means::look_at(&self.sites)
            .await
            .map_err(|error| error.to_string())?;
        let cutover = &self.config.cutover;
        let mut keep = cutover.acl_keep.clone();
        if self.way_back.is_some() {
            let ours = self.config.source.endpoint.auth.username.clone();
            keep.push(ours.unwrap_or("default".to_owned()));
        }
        let fence = Fence::plan(self.config, cutover.fence, &means, &self.sites, &keep).await?;
        if self.is_of_scan && fence.is_deaf() {
            return Err("the source is read by SCAN, which a pause before 6.2 stops too: fence by acl or min-replicas, where cutover.username may do that, or by cutover.fence_command".to_owned());
        }
        if self.is_of_scan && self.config.scan.prefer_replica {
            return Err("sync reads a replica, which may be behind what the fence has let through: set prefer_replica = false and start sync again".to_owned());
        }
        if self.is_of_scan && cutover.applies_late {
            return Err("late_writes = \"apply\", and the source is read by SCAN: keys would be copied over those of the application; say hold".to_owned());
        }
        let mut words = String::new();
        if fence.kind() == crate::config::FenceKind::Acl {
            words = self.kept(&keep, "past it").await?;
        }
        if cutover.seal && fence.kind() == crate::config::FenceKind::Pause && !fence.is_deaf() {
            if means.may_seal() {
                let planned = self.sites.without_writes(&keep).await;
                self.seal = planned.map_err(|error| error.to_string())?;
            }
            words = match self.seal.len() {
                0 => "; behind it nobody's right to write can be taken: writes of stragglers go on at the old server when the pause ends".to_owned(),
                users => format!(
                    "; behind it {users} users lose the right to write{}",
                    self.kept(&keep, "there behind it").await?
                ),
            };
        }
        Ok((fence, words))
    }

    /// Who keeps the right to write, in words: nothing holds those back, and what they write is at the old server alone.
    async fn kept(&self, keep: &[String], how: &str) -> Result<String, String> {
        if keep.is_empty() {
            return Ok(String::new());
        }
        let mut writers = Vec::new();
        for site in self.sites.primaries() {
            let found = acl::writers(site, keep).await;
            writers.extend(found.map_err(|error| error.to_string())?);
        }
        writers.sort_unstable();
        writers.dedup();
        Ok(match writers.is_empty() {
            true => String::new(),
            false => format!(
                "; BUT these users keep the right (cutover.acl_keep, --reverse) and can write {how}: {}",
                writers.join(", ")
            ),
        })
    }

    /// What a cutover that has died has changed at the source: only its record tells how it was, and another one's would take
    /// that one's place.
    async fn leftovers(&self) -> Option<gate::Check> {
        let text = match mark::read(&self.config.target, &self.config.link_name).await {
            Ok(None) => return None,
            Ok(Some(record)) if record.undo.is_empty() => return None,
            Ok(Some(_)) => {
                "a cutover before this one has changed the source and not taken it back: understudy cutover --undo".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Some(gate::Check {
            name: "leftovers",
            ok: false,
            text,
        })
    }

    /// Whether the new server can be followed.
    async fn can_come_back(&mut self) -> Option<gate::Check> {
        let way_back = self.way_back.as_ref()?;
        let primed = back::prime(&self.config.target).await;
        let key = &way_back.link_name;
        let may_scan = way_back.scan.when == ScanWhen::PsyncRefused;
        self.back_by_scan = matches!(&primed, Err(error) if error.class == Class::Stop) && may_scan;
        Some(gate::Check {
            name: "way back",
            ok: primed.is_ok() || self.back_by_scan,
            text: match primed {
                Ok(()) => format!("the new server can be followed, as the link {key}"),
                Err(_) if self.back_by_scan => format!(
                    "the new server refuses PSYNC: the way back reads it by SCAN and keyspace events, as the link {key}; without a place to begin at, it makes the old server equal to the new one key by key"
                ),
                Err(error) => error.to_string(),
            },
        })
    }

    fn record(&self, stage: &str, undo: Vec<Undo>) -> Record {
        Record {
            v: 1,
            stage: stage.to_owned(),
            at_ms: unix_ms(),
            undo,
            late_writes: self.late_word().to_owned(),
            ..Record::default()
        }
    }

    fn late_word(&self) -> &'static str {
        match self.config.cutover.applies_late {
            true => "apply",
            false => "hold",
        }
    }

    /// Puts the fence up, proves, and makes the switch.
    async fn held_back(&self, fence: &Fence) -> Result<(Proof, Record), String> {
        let words = |error: SyncError| error.to_string();
        let mut record = self.record("fenced", fence.undo.clone());
        // Under some fences nothing can be asked.
        record.removed = self.removed().await;
        let mut target = self.target().await.map_err(words)?;
        self.write(&mut target, &record).await.map_err(words)?;
        self.daemon.report(Stage::Fenced).await?;
        // One node that does not answer keeps the others fenced for no longer than all of it may last.
        let limit = self.config.cutover.fence_limit;
        let env = self.env("fence", None);
        let at = tokio::time::timeout(limit, fence.put_up(&env)).await;
        let at = at.map_err(|_| self.too_long())?.map_err(words)?;
        if fence.kind() == crate::config::FenceKind::Manual {
            let question = "Hold back all writes at the source by your own means. Done?";
            if self.steps.is_unattended() {
                return Err("a fence by hand needs somebody to ask".to_owned());
            }
            if !self.steps.ask(question).await {
                return Err("not wanted".to_owned());
            }
        }
        let facts = json!({
            "fence": fence.words(),
            "undo": fence.undo.iter().map(|undo| &undo.command).collect::<Vec<_>>(),
            "source_offset": at.as_ref().map(|at| at.1),
        });
        self.steps
            .tell("fence", true, &format!("up: {}", fence.words()), facts);
        tokio::select! {
            made = self.prove(fence, record, at) => made,
            lost = fence.keep() => Err(lost.to_string()),
            why = self.renew(Stage::Fenced) => Err(why),
            () = tokio::time::sleep(limit) => Err(self.too_long()),
        }
    }

    fn too_long(&self) -> String {
        format!(
            "writes were held back for {} s, which is cutover.fence_limit",
            self.config.cutover.fence_limit.as_secs()
        )
    }

    /// Says again at which stage we are, or that the hold is wanted.
    async fn renew(&self, stage: Stage) -> String {
        loop {
            tokio::time::sleep(RENEW).await;
            let holds = self.held.borrow().clone();
            if let Err(why) = self.daemon.renew(stage, &holds).await {
                return why;
            }
        }
    }

    async fn prove(
        &self,
        fence: &Fence,
        mut record: Record,
        at: Option<(String, u64)>,
    ) -> Result<(Proof, Record), String> {
        let words = |error: SyncError| error.to_string();
        let at = at.filter(|_| fence.is_deaf());
        let held = &self.held;
        let proof = if self.is_of_scan {
            let (proof, text) = proof::stop_scan(self.config, &self.daemon, held).await?;
            self.steps
                .tell("proof", true, &text, json!({ "by": mark::SCAN }));
            mark::SCAN.clone_into(&mut record.reader);
            proof
        } else {
            let (config, daemon) = (self.config, &self.daemon);
            let proof = match self.survey {
                Some(_) => proof::stop_all(config, daemon, held).await?,
                None => {
                    let (link, source) = (&config.link_name, &self.source);
                    let part = proof::stop_at(config, daemon, link, source, at, held).await?;
                    Proof { parts: vec![part] }
                }
            };
            self.steps
                .tell("proof", true, &proof.words(), proof.facts());
            proof
        };
        self.compare(fence).await?;
        self.note_places(&proof, &mut record, fence).await;
        let mut target = self.target().await.map_err(words)?;
        record.back_by_scan = self.back_by_scan;
        if self.way_back.is_some() && !self.back_by_scan {
            let key = &self.config.link_name;
            record.back = Some(
                back::place(&mut target, key, &record)
                    .await
                    .map_err(words)?,
            );
        }
        if !self.seal.is_empty() {
            record
                .undo
                .extend(self.seal.iter().map(|(_, undo)| undo.clone()));
            // Whoever undoes this has to find it before it is done.
            self.write(&mut target, &record).await.map_err(words)?;
            self.is_sealed.set(true);
            let sealed = fence::change_each(&self.source, &self.seal).await;
            sealed.map_err(words)?;
            let text = format!(
                "{} users of the source may not write any more",
                self.seal.len()
            );
            let commands: Vec<&Vec<String>> =
                self.seal.iter().map(|(_, undo)| &undo.command).collect();
            self.steps
                .tell("seal", true, &text, json!({ "undo": commands }));
        }
        if self.comes_back_before_go(fence) {
            if fence.stops_us() {
                fence.release(&[]).await.map_err(words)?;
            }
            self.begin_way_back(record.back.as_ref()).await?;
        }
        if !self
            .steps
            .ask("GO: the application may write to the target?")
            .await
        {
            return Err("not wanted".to_owned());
        }
        if self.is_of_scan {
            // No offset tells that nothing has come since.
            let told = self.daemon.status().await?;
            if let Some(trouble) = told.cutover()["trouble"].as_str() {
                return Err(trouble.to_owned());
            }
        }
        if !fence.is_deaf() {
            shards::still(self.config, &self.daemon, self.survey.as_ref(), &proof).await?;
        }
        record.stage = "go".to_owned();
        record.at_ms = unix_ms();
        self.is_sent.set(true);
        proof::make(self.config, &proof, &record).await?;
        Ok((proof, record))
    }

    /// The record tells where each link has stopped.
    async fn note_places(&self, proof: &Proof, record: &mut Record, fence: &Fence) {
        if let (None, Some(part)) = (&self.survey, proof.only()) {
            (record.offset, record.replid) = (part.offset, part.replid.clone());
            if !fence.is_deaf() {
                record.removed = self.removed().await.or(record.removed);
            }
            return;
        }
        let removed = proof.parts.iter().map(|part| self.removed_at(&part.source));
        for (part, removed) in proof.parts.iter().zip(join_all(removed).await) {
            let place = Place {
                offset: part.offset,
                replid: part.replid.clone(),
                removed,
            };
            record.links.insert(part.link.clone(), place);
        }
    }

    /// How many keys the source has ended by itself so far, where it tells.
    async fn removed(&self) -> Option<u64> {
        match self.survey {
            Some(_) => None,
            None => self.removed_at(&self.source.address).await,
        }
    }

    async fn removed_at(&self, address: &str) -> Option<u64> {
        let source = Endpoint {
            address: address.to_owned(),
            ..self.source.clone()
        };
        let mut source = Client::connect(&source, Side::Source).await.ok()?;
        let stats = source.info("stats").await.ok()?;
        Some(crate::handover::removed_by_itself(&stats))
    }

    /// Both ends once more, where nothing moves.
    async fn compare(&self, fence: &Fence) -> Result<(), String> {
        let extent = self.config.cutover.compare;
        if extent == CompareExtent::None {
            return Ok(());
        }
        if fence.is_deaf() {
            let text = "not under this fence, which keeps us from reading too";
            self.steps.tell("compare", true, text, json!({}));
            return Ok(());
        }
        let compared = gate::compare(self.config, extent, Beside::Nothing).await?;
        self.steps.tell("compare", true, &compared, json!({}));
        Ok(())
    }

    /// Whether the old server can be written to by us, and by nobody else, before GO.
    fn comes_back_before_go(&self, fence: &Fence) -> bool {
        // Whoever uses our user, or one that keeps its rights, waits at the pause and is not sealed off.
        let user = self.config.source.endpoint.auth.username.as_deref();
        let is_ours_alone =
            user.is_some_and(|user| user != "default") && self.config.cutover.acl_keep.is_empty();
        let is_sealed = self.is_sealed.get() && is_ours_alone;
        self.way_back.is_some() && !self.back_by_scan && (!fence.stops_us() || is_sealed)
    }

    /// Writes the way back's checkpoint at the old server, and has it followed.
    async fn begin_way_back(&self, place: Option<&Back>) -> Result<(), String> {
        if self.back_by_scan {
            self.is_seeded.set(true);
            return self.scan_back().await;
        }
        let (Some(way_back), Some(place)) = (&self.way_back, place) else {
            return Ok(());
        };
        let words = |error: SyncError| error.to_string();
        self.is_seeded.set(true);
        back::seed(way_back, place).await.map_err(words)?;
        let file = self.args.file.display();
        let text = match &self.config.cutover.on_reverse {
            None => format!("can begin: understudy reverse --start {file}"),
            Some(command) => {
                hooks::run("cutover.on_reverse", command, &self.env("reverse", None)).await?;
                self.wait_taken(way_back).await?;
                "the new server is followed".to_owned()
            }
        };
        let facts =
            json!({ "replid": place.replid, "offset": place.offset, "link": way_back.link_name });
        self.steps.tell("way-back", true, &text, facts);
        Ok(())
    }

    async fn wait_taken(&self, way_back: &Config) -> Result<(), String> {
        let taken = async {
            loop {
                let found = back::found(way_back)
                    .await
                    .map_err(|error| error.to_string())?;
                if found.is_some_and(|found| found.owner != back::NOBODY) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(TAKEN_LIMIT, taken).await;
        waited.unwrap_or_else(|_| {
            Err(format!(
                "nobody has begun to follow the new server within {} s of cutover.on_reverse",
                TAKEN_LIMIT.as_secs()
            ))
        })
    }

    /// The switch is made.
    async fn go(
        self,
        fence: &Fence,
        proof: &Proof,
        record: Record,
        signals: &mut Signals,
    ) -> Result<u8, SyncError> {
        // It finds out by itself too, by the record.
        if let Err(why) = self.daemon.go(&proof.holds(), self.late_word()).await {
            self.steps.say(&why);
        }
        let held = fence.age();
        let text = format!(
            "the application may write to {}; writes were held back for {:.3} s",
            self.config.target.endpoint.address,
            held.as_secs_f64()
        );
        let mut facts = json!({
            "fence_seconds": held.as_secs_f64(),
            "target": self.config.target.endpoint.address,
        });
        if let Some(part) = proof.only() {
            facts["offset"] = part.offset.into();
            facts["replid"] = part.replid.as_str().into();
        }
        self.steps.tell("go", true, &text, facts);
        let has_done = Cell::new(false);
        let after = async {
            let done = self.after(fence, proof, &record).await;
            has_done.set(true);
            if done.is_ok() {
                let end = async {
                    match self.steps.is_unattended() {
                        true => tokio::time::sleep(self.config.cutover.watch).await,
                        false => {
                            self.steps
                                .enter("Enter ends this view of the old server.")
                                .await
                        }
                    }
                };
                after::watch(&self.daemon, &self.steps, end).await;
            }
            done
        };
        let keeping = async {
            let lost = fence.keep().await;
            if !fence.is_deaf() {
                self.steps
                    .tell("fence", false, &lost.to_string(), json!({}));
            }
            std::future::pending::<()>().await;
        };
        let done = tokio::select! {
            done = after => done,
            () = keeping => Ok(()),
            () = signals.asked() => match has_done.get() {
                true => Ok(()),
                false => Err("interrupted".to_owned()),
            },
        };
        let ended = match done {
            Ok(()) => self.end(fence, &record).await,
            Err(why) => Err(why),
        };
        if let Err(why) = ended {
            let text = format!(
                "{why}; the switch stands, and the old server stays as it is: mend it, or see `understudy cutover --undo --force`"
            );
            self.steps.tell("after", false, &text, json!({}));
            return Ok(1);
        }
        if let Err(why) = after::show(&self.daemon, &self.steps).await {
            self.steps.say(&why);
        }
        let next = format!(
            "keep the old server for a while; at the end: understudy cutover --finish {}",
            self.args.file.display()
        );
        self.steps.tell("done", true, &next, json!({}));
        Ok(0)
    }

    /// Hooks, connections, and a fence that need not last.
    async fn after(&self, fence: &Fence, proof: &Proof, record: &Record) -> Result<(), String> {
        if let Some(command) = &self.config.cutover.on_go {
            hooks::run("cutover.on_go", command, &self.env("go", Some(proof))).await?;
            self.steps.tell("on_go", true, command, json!({}));
        }
        fence.heard().await;
        if self.config.cutover.kill_clients {
            let killed = self
                .kill_clients()
                .await
                .map_err(|error| error.to_string())?;
            let text = format!("{killed} connections to the old server are ended");
            self.steps
                .tell("kill", true, &text, json!({ "killed": killed }));
        }
        if self.is_sealed.get() {
            // Those who wait are told now that they may not write here.
            fence
                .release(&[])
                .await
                .map_err(|error| error.to_string())?;
        }
        if let Some(time) = self.args.monitor {
            let sites = self.sites.primaries();
            let heard = after::monitor_each(sites, time, &self.steps).await;
            heard.map_err(|error| error.to_string())?;
        }
        let may_write = !fence.stops_us() || (record.back_by_scan && self.is_sealed.get());
        if record.comes_back() && !self.is_seeded.get() && may_write {
            self.begin_way_back(record.back.as_ref()).await?;
        }
        Ok(())
    }

    /// The way back from a server that is read by SCAN: it may begin at any time after GO, and best at once.
    async fn scan_back(&self) -> Result<(), String> {
        let file = self.args.file.display();
        let text = match &self.config.cutover.on_reverse {
            None => format!("can begin, by SCAN: understudy reverse --start {file}"),
            Some(command) => {
                hooks::run("cutover.on_reverse", command, &self.env("reverse", None)).await?;
                "cutover.on_reverse has started it, by SCAN".to_owned()
            }
        };
        self.steps
            .tell("way-back", true, &text, json!({ "by": mark::SCAN }));
        Ok(())
    }

    /// What lasts only as long as this process.
    async fn end(&self, fence: &Fence, record: &Record) -> Result<(), String> {
        if fence.kind() == crate::config::FenceKind::Pause && !self.is_sealed.get() {
            fence
                .release(&[])
                .await
                .map_err(|error| error.to_string())?;
            let text = match self.is_of_scan {
                true => {
                    "the pause has ended: what stragglers write at the old server is done there, and counted"
                }
                false => {
                    "the pause has ended: what stragglers write at the old server is done there, and kept in the spool"
                }
            };
            self.steps.tell("fence", true, text, json!({}));
        }
        if record.comes_back() && !self.is_seeded.get() {
            if fence.kind() == crate::config::FenceKind::MinReplicas {
                fence
                    .release(&[])
                    .await
                    .map_err(|error| error.to_string())?;
            }
            self.begin_way_back(record.back.as_ref()).await?;
        }
        Ok(())
    }

    async fn kill_clients(&self) -> Result<u64, SyncError> {
        let mut killed = 0;
        for site in self.sites.primaries() {
            killed += self.kill_clients_at(site).await?;
        }
        Ok(killed)
    }

    async fn kill_clients_at(&self, site: &Endpoint) -> Result<u64, SyncError> {
        let mut source = Client::connect(site, Side::Source).await?;
        let list = source.call(&[b"CLIENT", b"LIST"]).await?;
        let text = list.as_bytes().map_or_else(String::new, |text| {
            String::from_utf8_lossy(text).into_owned()
        });
        let mut killed = 0;
        for id in crate::handover::straggler_ids(&text) {
            let id = id.to_string();
            let argv: [&[u8]; 4] = [b"CLIENT", b"KILL", b"ID", id.as_bytes()];
            if matches!(source.call(&argv).await?, resp::Value::Int(1)) {
                killed += 1;
            }
        }
        Ok(killed)
    }

    async fn target(&self) -> Result<Client, SyncError> {
        mark::connect(&self.config.target, &self.config.link_name).await
    }

    async fn write(&self, target: &mut Client, record: &Record) -> Result<(), SyncError> {
        let (key, value) = (mark::key(&self.config.link_name), record.text());
        let argv: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
        target.call(&argv).await.map(drop)
    }

    fn env(&self, stage: &str, proof: Option<&Proof>) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("UNDERSTUDY_STAGE", stage.to_owned()),
            ("UNDERSTUDY_LINK", self.config.link_name.clone()),
            (
                "UNDERSTUDY_SOURCE",
                self.config.source.endpoint.address.clone(),
            ),
            (
                "UNDERSTUDY_TARGET",
                self.config.target.endpoint.address.clone(),
            ),
            ("UNDERSTUDY_FILE", self.args.file.display().to_string()),
        ];
        // Each shard of a source cluster has its own.
        if let Some(part) = proof.and_then(Proof::only) {
            env.push(("UNDERSTUDY_OFFSET", part.offset.to_string()));
            env.push(("UNDERSTUDY_REPLID", part.replid.clone()));
        }
        env
    }
}
