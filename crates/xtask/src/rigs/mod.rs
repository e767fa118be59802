//! `cargo xtask rigs`: the rigs under `docker/`, started on the engine of this machine, put to use, and proved.
//!
//! Each drill has containers, networks, volumes and ports of its own, all of which are gone when it ends.

mod cluster;
mod clusters;
mod compose;
mod elasticache;
mod engine;
mod failover;
mod images;
mod scan;
mod shards;

use std::time::{Duration, Instant};

use compose::Rig;
use images::Images;

const USAGE: &str = "\
usage: cargo xtask rigs [NAMES...] [--keep]

Starts each rig, puts it to use and proves what came of it. Needs root and Docker; the images are made here, from Debian
packages, and the binary is UNDERSTUDY_BIN, else target/release/understudy.

  elasticache   TLS, an ACL user, commands that are gone; compared at the end by understudy itself
  cluster       a cluster into one server, under load, over a kill of the daemon
  clusters      a cluster of six nodes into a cluster of four: slots moved, a primary lost, the daemon killed, compared, and the switch
                made, all under load
  scan          the first migration of docs/first-migration.md: no PSYNC at either end, a switch with its proof under load, a
                client left behind, and all of it taken back; needs cargo xtask engines redis-6.2
  shards        a cluster of six nodes shared by three processes: one killed and begun elsewhere, slots moved from process to process,
                a primary lost, under load
  failover      lines cut, source, daemon and target killed, under load; two oracles at the end

  --keep        leave the containers as they are at the end";

/// How long anything may take that takes a moment on an idle machine.
const LIMIT: Duration = Duration::from_secs(90);

/// What is done with a rig.
type Drill = fn(&Rig) -> Result<String, String>;

const DRILLS: &[(&str, Drill)] = &[
    ("elasticache", elasticache::drill),
    ("failover", failover::drill),
    ("cluster", cluster::drill),
    ("clusters", clusters::drill),
    ("scan", scan::drill),
    ("shards", shards::drill),
];

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let mut keep = false;
    let mut names: Vec<&str> = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--keep" => keep = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            name if DRILLS.iter().any(|(known, _)| *known == name) => names.push(name),
            _ => return Err(USAGE.into()),
        }
    }
    let chosen = DRILLS
        .iter()
        .filter(|(name, _)| names.is_empty() || names.contains(name));
    let failed = drill(chosen, keep)?;
    match failed.len() {
        0 => Ok(()),
        count => Err(format!("{count} rigs have failed")),
    }
}

/// All rigs: how many have passed, and which have failed, and why.
pub(crate) fn check() -> Result<(u64, Vec<String>), String> {
    let failed = drill(DRILLS.iter(), false)?;
    Ok(((DRILLS.len() - failed.len()) as u64, failed))
}

fn drill<'a>(
    drills: impl Iterator<Item = &'a (&'static str, Drill)>,
    keep: bool,
) -> Result<Vec<String>, String> {
    engine::start()?;
    let from = Instant::now();
    let images = Images::make()?;
    println!("images: {:.0} s", from.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for (name, drill) in drills {
        let from = Instant::now();
        let mut rig = Rig::new(name, &images)?;
        let result = rig.up().and_then(|()| drill(&rig));
        let took = from.elapsed().as_secs_f64();
        match result {
            Ok(told) => println!("rig {name}: ok, {told} ({took:.0} s)"),
            Err(error) => {
                let line = format!("rig {name}: FAILED: {error} ({took:.0} s)");
                println!("{line}\n{}", rig.logs());
                failed.push(line);
            }
        }
        if keep {
            rig.keep();
        }
    }
    Ok(failed)
}

/// Tries `done` until it is true.
fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let from = Instant::now();
    while !done() {
        if from.elapsed() > LIMIT {
            return Err(format!("waited {LIMIT:?} in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
