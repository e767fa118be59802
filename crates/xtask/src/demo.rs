//! `cargo xtask demo`: a whole migration on this machine, with proof, without a question.
//!
//! A loaded source, a target that refuses what a managed service refuses, the daemon between them. It is killed on
//! the way and goes on where it was; then the applications switch, and every key is compared. Exits non-zero if one
//! thing differs.

mod cutover;
mod daemon;
mod load;
mod options;
mod proof;
mod screen;
mod setup;
mod summary;
mod target;
mod watch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::{Client, Server};

use crate::children;
use daemon::Daemon;
use load::Load;
use options::Options;
use screen::Screen;
use target::Target;
use watch::{Lag, Watch};

pub(crate) use setup::build;

/// How long the daemon may take for the snapshot, or to catch up, before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nobody replicates after the kill.
const DOWN: Duration = Duration::from_secs(2);

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let Some(options) = Options::parse(args)? else {
        return Ok(());
    };
    children::stop_them_on_signals();
    let folder = crate::workspace_root().join("target/demo");
    let _lock = only_one(&folder)?;
    Demo::set_up(options, folder)?.play()
}

/// A fresh folder for this run; an error while another run has it.
fn only_one(folder: &Path) -> Result<File, String> {
    let broken = |error: std::io::Error| format!("{}: {error}", folder.display());
    let lock = folder.with_extension("lock");
    fs::create_dir_all(folder).map_err(broken)?;
    let lock = File::create(lock).map_err(broken)?;
    if lock.try_lock().is_err() {
        return Err("another demo runs in this checkout".into());
    }
    fs::remove_dir_all(folder).map_err(broken)?;
    fs::create_dir_all(folder).map_err(broken)?;
    Ok(lock)
}

/// Everything that runs.
struct Demo {
    options: Options,
    screen: Screen,
    folder: PathBuf,
    from: Instant,
    /// The first to go at the end, so that its log does not end with lost servers.
    daemon: Daemon,
    source: Server,
    target: Target,
}

/// The figures of the way, for the summary.
struct Figures {
    snapshot: Duration,
    snapshot_keys: u64,
    snapshot_bytes: u64,
    caught_up: Duration,
    highest_lag: Lag,
    back_after: Duration,
    offset_at_start: u64,
}

impl Demo {
    fn play(mut self) -> Result<(), String> {
        let refused = self.show_target()?;
        let load = self.start_load();
        let figures = self.migrate(&load)?;
        let cutover = self.cut_over(load)?;
        let proof = self.prove(&cutover)?;
        if self.options.keep {
            self.keep_logs();
            self.summarize(&figures, &cutover, &proof, refused);
            return self.stay();
        }
        self.finish(&cutover)?;
        self.keep_logs();
        self.summarize(&figures, &cutover, &proof, refused);
        Ok(())
    }

    /// Snapshot, stream, kill, resume.
    fn migrate(&mut self, load: &Load) -> Result<Figures, String> {
        self.screen.step("understudy copies the source, live");
        self.show_config();
        let keys: u64 = self.source.client().keyspace().values().sum();
        let offset_at_start = source_offset(&mut self.source.client());
        self.daemon.start()?;
        let started = Instant::now();
        let mut watch = Watch::new(&self.screen, self.source.client(), load, keys);
        watch.header();
        let done = watch.until(
            "the end of the snapshot",
            PATIENCE,
            &mut self.daemon,
            |at| at.is_streaming(),
        )?;
        let snapshot = started.elapsed();
        watch.until("the stream to catch up", PATIENCE, &mut self.daemon, |at| {
            at.is_caught_up()
        })?;
        let caught_up = started.elapsed();
        let half = Duration::from_secs(self.options.seconds) / 2;
        watch.go_on(half, &mut self.daemon)?;
        let back_after = kill_and_resume(
            &self.screen,
            self.source.client(),
            &mut self.daemon,
            &mut watch,
        )?;
        watch.go_on(half, &mut self.daemon)?;
        let highest_lag = watch.highest_lag();
        watch.settle();
        Ok(Figures {
            snapshot,
            snapshot_keys: done.keys,
            snapshot_bytes: done.snapshot_bytes,
            caught_up,
            highest_lag,
            back_after,
            offset_at_start,
        })
    }

    /// Leaves everything running, with the applications writing to the source again, until Ctrl-C.
    fn stay(mut self) -> Result<(), String> {
        self.screen.step("Everything goes on until Ctrl-C");
        self.screen.fact("source", &self.source.address());
        self.screen.fact("target", &self.target.server.address());
        self.screen.more(&self.target.way_in());
        self.screen.fact("status", &self.daemon.url("/status"));
        self.screen.fact("metrics", &self.daemon.url("/metrics"));
        let load = self.start_load();
        let keys = self.source.client().keyspace().values().sum();
        let mut watch = Watch::new(&self.screen, self.source.client(), &load, keys);
        watch.header();
        loop {
            watch.go_on(Duration::from_secs(3600), &mut self.daemon)?;
        }
    }

    /// The servers' logs lie in folders that go with them.
    fn keep_logs(&self) {
        for (server, name) in [
            (&self.source, "source.log"),
            (&self.target.server, "target.log"),
        ] {
            // A log is a help, not a result: without it the demo has shown the same.
            let _ = fs::copy(server.folder().join("server.log"), self.folder.join(name));
        }
    }
}

/// kill -9 in the stream, a pause, a new start: the source must not have to send its data a second time.
fn kill_and_resume(
    screen: &Screen,
    mut source: Client,
    daemon: &mut Daemon,
    watch: &mut Watch<'_>,
) -> Result<Duration, String> {
    watch.settle();
    screen.step("kill -9, and it goes on where it was");
    let mut syncs = || {
        let info = source.info("stats");
        let of = |field: &str| info.get(field).cloned().unwrap_or_default();
        (of("sync_full"), of("sync_partial_ok"))
    };
    let before = syncs();
    let pid = daemon.kill();
    screen.fact(
        "killed",
        &format!(
            "process {pid}, for {}; the applications go on writing",
            crate::text::seconds(DOWN)
        ),
    );
    watch.header();
    watch.alone(DOWN);
    daemon.start()?;
    let from = Instant::now();
    watch.until("the daemon to come back", PATIENCE, daemon, |at| {
        at.is_streaming() && at.is_caught_up()
    })?;
    let back_after = from.elapsed();
    watch.settle();
    let after = syncs();
    let shown = format!(
        "full syncs at the source: {} before, {} after; resumed: {} before, {} after",
        before.0, after.0, before.1, after.1
    );
    if before.0 != after.0 || before.1 == after.1 {
        return Err(format!(
            "the daemon did not resume: {shown}\n{}",
            daemon.log_tail()
        ));
    }
    screen.good(&shown);
    screen.good(&format!(
        "caught up {} after the start",
        crate::text::seconds(back_after)
    ));
    Ok(back_after)
}

fn source_offset(client: &mut Client) -> u64 {
    u64::try_from(client.info_number("replication", "master_repl_offset")).unwrap_or(0)
}
