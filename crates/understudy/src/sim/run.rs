//! Runs a plan: machines that start the daemon again and again, faults, and in the end the question whether the target
//! has come to be what the source is.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use testkit::rng::Rng;
use tokio::task::LocalSet;

use super::disk::Disk;
use super::load;
use super::oracle::{Oracle, Spoilt, difference};
use super::plan::{Fault, Plan};
use super::process::{Effect, Process};
use super::source::{FullSyncs, Source, replid};
use super::store::Store;
use super::target::Target;
use super::world::{Weather, World};
use super::{cut, target_falls};
use crate::checkpoint;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::status::{Phase, Status};
use crate::stop::Stop;
use crate::supervise;

const LINK: &str = "sim";
/// How long the target may take to catch up once nothing goes wrong any more.
const CALM_MS: u64 = 120_000;

/// Looks, 20 ms apart, that have to find the target in step before the daemons are stopped.
const IN_STEP_LOOKS: u32 = 30;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// Looks that the oracle took at a position in the stream.
    pub(super) looks: u64,
    pub(super) full_syncs: FullSyncs,
    /// What the first machine's first process did.
    pub(super) effects: u64,
    /// How often the daemon was started.
    pub(super) starts: u64,
    pub(super) digest: u64,
    /// How long it took in the world, milliseconds.
    pub(super) took_ms: u64,
}

/// A machine: its disk, and the daemon that runs there.
struct Machine {
    disk: Disk,
    process: RefCell<Option<Rc<Process>>>,
    status: RefCell<Rc<Status>>,
    /// Another machine has taken over for good.
    is_out: Cell<bool>,
    /// Ends the daemon in good order.
    stop: RefCell<Stop>,
    /// It does not start its daemon before this.
    away_until: Cell<u64>,
}

struct Stage {
    world: Rc<World>,
    plan: Plan,
    config: Config,
    machines: Vec<Machine>,
    stop: Stop,
    /// Keys that were spoilt, which are written once more when all is calm.
    spoilt: RefCell<Vec<(u32, String)>>,
    starts: Cell<u64>,
    first_effects: Cell<u64>,
}

/// Runs a plan in a world of its own.
///
/// # Errors
/// What the oracle found, or how it never came to an end.
pub(super) fn run(plan: &Plan, is_loud: bool) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let plan = plan.clone();
    LocalSet::new().block_on(&runtime, async move {
        let stage = Rc::new(Stage::new(plan, is_loud));
        stage.play().await
    })
}

impl Stage {
    fn new(plan: Plan, is_loud: bool) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let base = rng.below(1 << 30);
        let source = Source::new(
            load::first_store(plan.keys, plan.expiries),
            base,
            plan.backlog_bytes,
        );
        let target = Target::new(replid(u64::MAX), Oracle::new(LINK));
        let world = World::new(rng, plan.weather, source, target, is_loud);
        world.named_max.set(plan.named_max);
        let machines = plan
            .machines
            .iter()
            .map(|_| Machine {
                disk: Disk::default(),
                process: RefCell::default(),
                status: RefCell::default(),
                is_out: Cell::new(false),
                stop: RefCell::default(),
                away_until: Cell::new(0),
            })
            .collect();
        Self {
            config: config(&plan),
            world,
            plan,
            machines,
            stop: Stop::default(),
            spoilt: RefCell::default(),
            starts: Cell::new(0),
            first_effects: Cell::new(0),
        }
    }

    async fn play(self: Rc<Self>) -> Result<Report, String> {
        let (world, plan) = (self.world.clone(), &self.plan);
        world.say(|| format!("{plan:?}"));
        let nature = tokio::task::spawn_local({
            let world = world.clone();
            async move { world.go_on().await }
        });
        load::keep_writing(&world, plan.writes, plan.gap_ms, plan.keys, plan.expiries);
        load::keep_house(&world, 0);
        for (at_ms, fault) in plan.faults.clone() {
            let stage = self.clone();
            world.then(at_ms, move |_| stage.strike(fault));
        }
        let lives: Vec<_> = (0..self.machines.len())
            .map(|machine| tokio::task::spawn_local(self.clone().live(machine)))
            .collect();
        let result = self.watch().await;
        let (epoch, at) = {
            let target = world.target.borrow();
            let found = target.oracle.checkpoint(&target.store);
            let epoch = found.and_then(Result::ok).map_or(0, |found| found.epoch);
            (epoch, target.oracle.position(&target.store))
        };
        self.stop.request();
        for machine in &self.machines {
            machine.stop.borrow().request();
        }
        let mut ended = Ok(());
        for life in lives {
            let life = tokio::time::timeout(Duration::from_secs(100), life).await;
            if life.is_err() {
                ended = Err("a daemon does not stop".to_owned());
            }
        }
        nature.abort();
        let report = result?;
        ended?;
        world.wrong().map_or(Ok(()), Err)?;
        let (source, target) = (world.source.borrow(), world.target.borrow());
        let now_ms = world.unix_ms() as i64;
        let left = target.oracle.checkpoint(&target.store);
        let mut excepted = Spoilt::new();
        if let Some(Ok(left)) = &left {
            // A target that was lost, and is found only after the stop, is seen to once more, but without what the source
            // has to say meanwhile: what is in doubt there, the next run repairs.
            if left.epoch != epoch {
                let names = left.repairs.iter();
                excepted.extend(names.map(|(db, key)| (db, key.to_vec())));
            } else if !left.repairs.is_empty() || left.unseen.is_some() {
                return Err(format!("after a stop in good order: {left}"));
            }
        }
        // What was in the spool still, and is in no history that the source has now, was applied: a new history is the next
        // run's affair.
        let now_at = target.oracle.position(&target.store);
        let moved_to = now_at.filter(|now_at| Some(now_at.offset) != at.map(|at| at.offset));
        let expected = moved_to.and_then(|at| source.truth.at(at.replid, at.offset.0));
        let expected = expected.unwrap_or(&source.store);
        match difference(expected, &target.store, now_ms, true, &excepted) {
            Some(difference) => Err(format!("after a stop in good order: {difference}")),
            None => Ok(report),
        }
    }

    /// Waits until the target is what the source is.
    async fn watch(&self) -> Result<Report, String> {
        let world = &self.world;
        let calm_from = self
            .plan
            .end_ms()
            .max(self.plan.writes * (self.plan.gap_ms + 1));
        let (mut is_calm, mut in_step) = (false, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(wrong) = world.wrong() {
                return Err(wrong);
            }
            let now = world.now();
            if now >= calm_from && !is_calm {
                is_calm = true;
                world.say(|| "calm from here on".to_owned());
                load::write_spoilt(world, &self.spoilt.borrow());
                world.weather.set(Weather::CALM);
                for machine in &self.machines {
                    machine
                        .process
                        .borrow()
                        .iter()
                        .for_each(|process| process.spare());
                }
            }
            in_step = if is_calm && self.is_in_step() {
                in_step + 1
            } else {
                0
            };
            if in_step > IN_STEP_LOOKS {
                break;
            }
            if now > calm_from + CALM_MS {
                return Err(format!("not in step {CALM_MS} ms after the last fault"));
            }
        }
        let (source, target) = (world.source.borrow(), world.target.borrow());
        Ok(Report {
            looks: target.oracle.looks,
            full_syncs: source.full_syncs,
            effects: self.first_effects.get().max(self.effects_now()),
            starts: self.starts.get(),
            digest: world.digest(),
            took_ms: world.now(),
        })
    }

    fn effects_now(&self) -> u64 {
        match (self.starts.get(), &*self.machines[0].process.borrow()) {
            (1, Some(process)) => process.effects(),
            _ => 0,
        }
    }

    fn is_in_step(&self) -> bool {
        let mut machines = self.machines.iter().filter(|machine| !machine.is_out.get());
        if !machines.all(|machine| machine.status.borrow().phase() == Phase::Stream) {
            return false;
        }
        let (source, target) = (self.world.source.borrow(), self.world.target.borrow());
        let now_ms = self.world.unix_ms() as i64;
        let position = target.oracle.position(&target.store);
        let checkpoint = target.oracle.checkpoint(&target.store).and_then(Result::ok);
        position.is_some_and(|at| at.offset.0 == source.offset())
            && checkpoint.is_some_and(|found| found.repairs.is_empty())
            && difference(&source.store, &target.store, now_ms, false, &Spoilt::new()).is_none()
    }

    /// A machine starts its daemon, and again when it has ended.
    async fn live(self: Rc<Self>, index: usize) {
        tokio::time::sleep(Duration::from_millis(self.plan.machines[index])).await;
        let (world, machine) = (&self.world, &self.machines[index]);
        let mut death = self.plan.death.filter(|_| index == 0);
        while !self.stop.is_requested() && world.wrong().is_none() {
            let process = Process::new(world.clone(), machine.disk.clone(), index, death.take());
            let process = Rc::new(process);
            *machine.process.borrow_mut() = Some(process.clone());
            self.starts.set(self.starts.get() + 1);
            world.say(|| format!("machine {index} starts its daemon"));
            let status = Rc::new(Status::new(rewrite::Table::new().len()));
            *machine.status.borrow_mut() = status.clone();
            let stop = Stop::default();
            *machine.stop.borrow_mut() = stop.clone();
            let daemon = supervise::run(&self.config, &status, &stop);
            let ended = process.clone().run(daemon).await;
            status.set_phase(Phase::Stopped);
            if self.first_effects.get() == 0 && index == 0 {
                self.first_effects.set(process.effects());
            }
            world.say(|| format!("machine {index}: the daemon has ended: {ended:?}"));
            let pause = match ended {
                None => {
                    if process.has_no_power() {
                        machine.disk.lose_power(&mut world.rng.borrow_mut());
                    }
                    world.below(2_000)
                }
                Some(Ok(())) if self.stop.is_requested() => return,
                Some(Ok(())) => 1,
                Some(Err(error)) => {
                    if error.what.contains("another understudy has taken over") {
                        machine.is_out.set(true);
                        return;
                    }
                    if self.is_rightly_asked(&error) {
                        // The operator accepts the smaller source, as the error says.
                        world.say(|| "the target is emptied".to_owned());
                        world.target.borrow_mut().be_emptied(world);
                    } else if !self.is_to_be_expected(&error) {
                        world.blame(format!("the daemon stopped: {error}"));
                    }
                    500
                }
            };
            let away_ms = machine.away_until.get().saturating_sub(world.now());
            tokio::time::sleep(Duration::from_millis(pause.max(away_ms))).await;
        }
    }

    /// Whether a daemon may stop for this: service managers start it again.
    fn is_to_be_expected(&self, error: &SyncError) -> bool {
        if error.what.contains("our checkpoint is gone") {
            // It may have fallen back to before there was one, and another daemon begun anew since.
            return self.has_no_checkpoint() || self.machines.len() > 1;
        }
        if error.what.contains("the target holds keys already") {
            // Two daemons may both find nothing.
            return self.machines.len() > 1;
        }
        match error.side {
            Side::Local => self.plan.has_disk_trouble(),
            // The first contact is tried a few times, no more.
            Side::Source | Side::Target => [
                "cannot connect",
                "was refused",
                "closed the connection",
                "reset",
                "broken pipe",
                "this is a replica",
            ]
            .iter()
            .any(|word| error.what.to_ascii_lowercase().contains(word)),
        }
    }

    /// Whether the daemon stopped for a source that has lost its keys, and it has: its snapshot holds less than half of
    /// what the target does.
    fn is_rightly_asked(&self, error: &SyncError) -> bool {
        if !error.what.contains("has the source lost its data?") {
            return false;
        }
        let (source, target) = (self.world.source.borrow(), self.world.target.borrow());
        let Some(Ok(found)) = target.oracle.checkpoint(&target.store) else {
            return false;
        };
        let checkpoint::Phase::Snapshot(at) = found.phase else {
            return false;
        };
        let count = |store: &Store| store.databases().map(|(_, keys)| keys.len()).sum::<usize>();
        let snapshot = source.truth.at(at.replid, at.offset.0).map(count);
        // The checkpoint is one of the target's.
        snapshot.is_some_and(|held| held * 2 < count(&target.store) - 1)
    }

    fn has_no_checkpoint(&self) -> bool {
        let target = self.world.target.borrow();
        target.oracle.checkpoint(&target.store).is_none()
    }

    fn strike(&self, fault: Fault) {
        let world = &self.world;
        world.say(|| format!("{fault:?}"));
        let process = |machine: usize| self.machines[machine].process.borrow().clone();
        match fault {
            Fault::Kill { machine, after } => {
                if let Some(process) = process(machine) {
                    let effect =
                        [Effect::None, Effect::Half, Effect::Whole][world.below(3) as usize];
                    process.kill_after(after, effect);
                }
            }
            Fault::Away {
                machine,
                in_good_order,
                for_ms,
            } => {
                let away = &self.machines[machine];
                away.away_until.set(world.now() + for_ms);
                if in_good_order {
                    away.stop.borrow().request();
                } else if let Some(process) = process(machine) {
                    process.kill();
                }
            }
            Fault::PowerLoss { machine } => {
                if let Some(process) = process(machine) {
                    process.lose_power();
                }
            }
            Fault::Cut(place) => cut(world, place),
            Fault::TargetFalls { lost, down_ms } => target_falls(world, lost, down_ms),
            Fault::TargetTrouble { trouble, for_ms } => {
                world.target.borrow_mut().set_trouble(Some(trouble));
                world.then(for_ms, |world| {
                    world.target.borrow_mut().set_trouble(None);
                });
            }
            Fault::SourceRestarts { down_ms }
            | Fault::SourceFails { down_ms, .. }
            | Fault::SourceForgets { down_ms } => {
                world.source.borrow_mut().go_down(world);
                match fault {
                    Fault::SourceFails { lost, .. } => {
                        world.source.borrow_mut().fail_over(lost, world);
                    }
                    Fault::SourceForgets { .. } => {
                        world.source.borrow_mut().forget_history(world);
                    }
                    _ => {}
                }
                world.then(down_ms, |world| world.source.borrow_mut().come_up());
            }
            Fault::Spoil { db, n } => {
                let keys = load::spoil(world, db, n);
                world.say(|| format!("others write {keys:?}"));
                if n < self.plan.keys {
                    // Nobody can overlook it in the end.
                    self.spoilt.borrow_mut().extend(keys);
                } else {
                    // Nobody else writes them: this once a command fails, and never again.
                    load::write_spoilt(world, &keys);
                }
            }
            Fault::BacklogShrinks => world.source.borrow_mut().shrink_backlog(),
            Fault::Disk {
                machine,
                trouble,
                for_ms,
            } => {
                let disk = self.machines[machine].disk.clone();
                disk.set_trouble(Some(trouble));
                world.then(for_ms, move |_| disk.set_trouble(None));
            }
        }
    }
}

fn config(plan: &Plan) -> Config {
    let text = format!(
        "[sync_reader]\naddress = \"source:1\"\n[redis_writer]\naddress = \"target:1\"\n[link]\nname = \"{LINK}\"\n"
    );
    let mut config = Config::parse(Path::new("sim.toml"), &text).expect("a good configuration");
    config.target.batch_commands = plan.batch_commands;
    config.target.inflight_bytes = plan.inflight_bytes;
    config.target.bulk_bytes_max = if plan.restore { 512 << 20 } else { 0 };
    config.spool.dir = PathBuf::from("/spool");
    config.spool.tail_bytes = plan.tail_bytes;
    config.spool.retain_bytes = plan.retain_bytes;
    config.spool.unseen_bytes_max = plan.unseen_bytes_max;
    config.source.diskless = true;
    config
}
