//! One run of `understudy sync` that ends with the snapshot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Way;
use crate::{Server, process};

/// Far more than a pair takes.
const LIMIT: Duration = Duration::from_secs(60);
/// So often the target is looked at meanwhile.
const STEP: Duration = Duration::from_millis(500);

/// What the daemon has left out, by its reason; or its error line, without addresses.
pub(super) fn run(
    binary: &Path,
    source: &Server,
    target: &Server,
    losses: &str,
    way: Way,
) -> Result<BTreeMap<String, u64>, String> {
    let folder = TempDir::with_prefix("understudy-compat-").expect("make the daemon's folder");
    let file = |name: &str| folder.path().join(name);
    fs::write(file("shake.toml"), config(source, target, losses, way)).expect("write shake.toml");
    let output = File::create(file("output")).expect("make the output file");
    let mut child = Command::new(binary)
        .args(["sync", "shake.toml"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("share the output file"))
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let status = wait(&mut child, target);
    if status.is_none() {
        // It is ours, and it hangs.
        let _ = child.kill();
        let _ = child.wait();
    }
    let read = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    if status.is_some_and(|status| status.success()) {
        return Ok(left_out(&read("data/shake.log")));
    }
    let output = read("output");
    let mut lines = output.lines();
    let error = lines.find_map(|line| line.strip_prefix("error: "));
    let error = match (status, error) {
        (None, _) => format!("it does not end: {}", process::tail(&file("output"), 3)),
        (_, Some(error)) => error.to_owned(),
        (Some(status), None) => format!("{status}: {}", process::tail(&file("output"), 3)),
    };
    Err(error
        .replace(&source.address(), "SOURCE")
        .replace(&target.address(), "TARGET"))
}

/// Until it ends. A daemon waits for a target that has died; we do not.
fn wait(child: &mut Child, target: &Server) -> Option<ExitStatus> {
    let from = Instant::now();
    loop {
        let status = process::wait(child, STEP);
        if status.is_some() || from.elapsed() > LIMIT || !target.answers() {
            return status;
        }
    }
}

fn config(source: &Server, target: &Server, policy: &str, way: Way) -> String {
    let reader = match way {
        Way::Sync => format!(
            "[sync_reader]\naddress = \"{}\"\nsync_aof = false\n",
            source.address()
        ),
        Way::Rdb => format!(
            "[rdb_reader]\nfilepath = \"{}\"\n",
            source.rdb_file().display()
        ),
    };
    let target = target.address();
    format!(
        "{reader}\
         [redis_writer]\naddress = \"{target}\"\nlosses = \"{policy}\"\n\
         [link]\nname = \"compat\"\n"
    )
}

/// Out of the log's JSON lines.
fn left_out(log: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name));
        let reason = field("left_out").and_then(|reason| reason.as_str());
        let count = field("count").and_then(serde_json::Value::as_u64);
        if let Some((reason, count)) = reason.zip(count) {
            *counts.entry(reason.to_owned()).or_default() += count;
        }
    }
    counts
}
