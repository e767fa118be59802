//! The Docker engine of this machine: asked whether it is there, started where we may.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long an engine may take to start.
const LIMIT: Duration = Duration::from_secs(30);

/// Sees to it that an engine answers.
///
/// # Errors
/// None answers, and none can be started.
pub(super) fn start() -> Result<(), String> {
    if answers() {
        return Ok(());
    }
    if !is_root() {
        return Err("no Docker engine answers, and only root can start one".to_owned());
    }
    println!("no Docker engine answers: starting dockerd");
    let mut dockerd = Command::new("dockerd");
    dockerd
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It outlives us, as a service would.
    std::os::unix::process::CommandExt::process_group(&mut dockerd, 0);
    let mut child = dockerd.spawn().map_err(|error| {
        format!("no Docker engine answers, and dockerd cannot be started: {error}; apt-get install docker.io docker-compose (.ci/run does)")
    })?;
    let from = Instant::now();
    while !answers() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!(
                "dockerd ended with {status}: run it by hand to see why"
            ));
        }
        if from.elapsed() > LIMIT {
            // Nothing of ours is left behind.
            let _ = child.kill();
            return Err(format!("dockerd does not answer within {LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn answers() -> bool {
    let mut docker = Command::new("docker");
    docker.args(["version", "--format", "{{.Server.Version}}"]);
    docker
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    docker.status().is_ok_and(|status| status.success())
}

/// Whether this process may do all that root may.
fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}
