//! What stays after a torture: logs, the table of faults, the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::options::Options;
use super::shared::Shared;
use super::{Played, Rig};

/// A folder for one run.
pub(super) struct Evidence {
    folder: PathBuf,
    options: Options,
}

impl Evidence {
    pub(super) fn begin(options: &Options) -> Result<Self, String> {
        let folder = crate::workspace_root()
            .join("target/torture")
            .join(options.seed.to_string());
        let broken = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(broken)?;
        }
        fs::create_dir_all(&folder).map_err(broken)?;
        Ok(Self {
            folder,
            options: options.clone(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps what there is, prints the table, and says what it came to.
    pub(super) fn close(
        self,
        rig: &Rig,
        shared: &Shared,
        played: Played,
        took: Duration,
    ) -> Result<(), String> {
        let violations = shared.violations();
        let mut lines = vec![
            format!(
                "torture of {} to {}: seed {}, {:.1} minutes, {} rounds",
                self.options.source,
                self.options.target,
                self.options.seed,
                took.as_secs_f64() / 60.0,
                played.rounds
            ),
            String::new(),
            "| fault | times |".into(),
            "|---|---|".into(),
        ];
        let faults = shared.faults();
        lines.extend(
            faults
                .iter()
                .map(|(name, count)| format!("| {name} | {count} |")),
        );
        lines.push(format!("| all | {} |", faults.values().sum::<u64>()));
        lines.push(String::new());
        lines.push(format!(
            "{} counted operations, {} commands in all; full syncs {}, partial syncs {}; the daemon had {} MiB at most",
            played.operations,
            played.commands,
            played.full_syncs,
            played.partial_syncs,
            shared.daemon_peak.load(Ordering::SeqCst) >> 20
        ));
        lines.extend(violations.iter().map(|what| format!("VIOLATION: {what}")));
        let verdict = if violations.is_empty() {
            "no write lost, none doubled, every key equal".into()
        } else {
            format!("{} violations", violations.len())
        };
        lines.push(verdict.clone());
        let report = lines.join("\n") + "\n";
        println!("\n{report}");
        self.keep(rig, &report, !violations.is_empty())
            .map_err(|error| format!("{}: {error}", self.folder.display()))?;
        println!("evidence: {}", self.folder.display());
        if violations.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{verdict}; repeat with --seed {}",
                self.options.seed
            ))
        }
    }

    fn keep(&self, rig: &Rig, report: &str, all: bool) -> std::io::Result<()> {
        fs::write(self.folder.join("report.md"), report)?;
        let copy = |from: &Path, name: &str| -> std::io::Result<()> {
            if from.exists() {
                fs::copy(from, self.folder.join(name))?;
            }
            Ok(())
        };
        for (daemon, name) in [(&rig.keeper.daemon, "daemon"), (&rig.keeper.other, "other")] {
            copy(&daemon.folder().join("output.log"), &format!("{name}.log"))?;
            copy(&daemon.folder().join("shake.toml"), &format!("{name}.toml"))?;
            if all && daemon.folder().join("data").exists() {
                copy_all(
                    &daemon.folder().join("data"),
                    &self.folder.join(format!("{name}-data")),
                )?;
            }
        }
        let [first, second] = rig.targets.both();
        for (server, name) in [
            (&rig.source, "source"),
            (first, "target-0"),
            (second, "target-1"),
        ] {
            copy(&server.folder().join("server.log"), &format!("{name}.log"))?;
        }
        Ok(())
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_all(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}
