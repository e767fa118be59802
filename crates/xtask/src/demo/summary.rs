//! The last words: what happened, where it lies, what to do next.

use std::path::Path;

use super::cutover::Cutover;
use super::proof::Proof;
use super::{DOWN, Demo, Figures};
use crate::text::{bytes, count, seconds};

impl Demo {
    pub(super) fn summarize(
        &self,
        figures: &Figures,
        cutover: &Cutover,
        proof: &Proof,
        refused: usize,
    ) {
        let screen = &self.screen;
        screen.heading("In short");
        let (source, target) = (self.source.engine(), self.target.server.engine());
        screen.fact(
            "moved",
            &format!(
                "{} keys in {} databases, {} -> {}",
                count(proof.keys),
                proof.dbs,
                source.version,
                target.version
            ),
        );
        let types: Vec<String> = proof
            .by_type
            .iter()
            .map(|(kind, keys)| format!("{kind} {}", count(*keys)))
            .collect();
        screen.more(&types.join(", "));
        screen.fact(
            "snapshot",
            &format!(
                "{} keys, {} in {}; up to date after {}",
                count(figures.snapshot_keys),
                bytes(figures.snapshot_bytes),
                seconds(figures.snapshot),
                seconds(figures.caught_up)
            ),
        );
        let stream = cutover.offset.saturating_sub(figures.offset_at_start);
        screen.fact(
            "stream",
            &format!(
                "{} of changes, from over {} writes by the applications",
                bytes(stream),
                count(cutover.written)
            ),
        );
        screen.fact(
            "highest lag",
            &format!(
                "{}, {} behind, under that load",
                seconds(figures.highest_lag.time),
                bytes(figures.highest_lag.bytes)
            ),
        );
        screen.fact(
            "kill -9",
            &format!(
                "down {}, up to date {} later, without a second full sync",
                seconds(DOWN),
                seconds(figures.back_after)
            ),
        );
        screen.fact(
            "switch",
            &format!("{} without writes", seconds(cutover.pause)),
        );
        screen.fact(
            "exactness",
            "not one write was lost, not one applied twice:",
        );
        screen.more(&format!(
            "{} counters and {} numbered list and stream entries, checked",
            proof.counters,
            count(proof.entries)
        ));
        screen.fact(
            "target",
            &format!("refuses {refused} commands, REPLICAOF and PSYNC among them"),
        );
        let time = seconds(self.from.elapsed());
        screen.fact("time", &format!("{time}, servers and build not counted"));
        self.where_and_next();
    }

    fn where_and_next(&self) {
        let screen = &self.screen;
        let program = short(self.daemon.binary());
        let config = short(&self.daemon.config_file());
        screen.heading("Where things are");
        screen.fact("program", &program);
        screen.fact("shake.toml", &config);
        screen.fact("logs", &short(&self.daemon.log_file()));
        screen.more(&short(&self.folder.join("source.log")));
        screen.more(&short(&self.folder.join("target.log")));
        screen.heading("Next, with servers of your own");
        screen.fact(
            "write",
            &format!("cp {config} . # and put your addresses into it"),
        );
        screen.fact("try", &format!("{program} ping shake.toml"));
        screen.fact("run", &format!("{program} sync shake.toml"));
        screen.fact("settings", &format!("{program} config"));
    }
}

/// As one types it in the workspace's folder.
fn short(path: &Path) -> String {
    let root = crate::workspace_root();
    path.strip_prefix(&root)
        .unwrap_or(path)
        .display()
        .to_string()
}
