//! A switch-over that does not come to GO: everything is taken back.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::Run;
use crate::cutover::back;
use crate::cutover::fence::{self, Fence};
use crate::cutover::proof::Proof;
use crate::cutover::take_back::remove_record;
use crate::error::SyncError;
use crate::handover::mark::{self, Record, Undo};

/// How long the target is asked whether the switch was made, where that is not known, and how often.
const SURE_LIMIT: Duration = Duration::from_secs(20);
const SURE_AGAIN: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Takes everything back. Where the switch was made before that, tells it instead; where nobody can tell whether it was,
    /// nothing is taken back.
    pub(super) async fn undo(&self, fence: &Fence, why: &str) -> Option<(Proof, Record)> {
        match self.record_there(fence).await {
            Ok(Some(record)) if record.is_go() => {
                self.steps
                    .say(&format!("{why}, but the switch was made already"));
                return Some((Proof::of(&record, &self.config.link_name), record));
            }
            Err(error) if self.is_sent.get() => {
                let text = format!(
                    "{why}; WHETHER THE SWITCH WAS MADE IS NOT KNOWN: {error}. Nothing is taken back: sync applies nothing until the target tells, and a pause of the source's clients ends by itself. When the target answers: understudy cutover --undo, which tells; without it: --undo --force"
                );
                let facts = json!({ "reason": why });
                self.steps.tell("unknown", false, &text, facts);
                return None;
            }
            Ok(_) | Err(_) => {}
        }
        let mut failed = Vec::new();
        let mut note = |done: Result<(), String>| failed.extend(done.err());
        if let (true, Some(way_back)) = (self.is_seeded.get(), &self.way_back) {
            note(
                back::unseed(way_back)
                    .await
                    .map_err(|error| error.to_string()),
            );
        }
        if self.is_sealed.get() {
            let undo: Vec<Undo> = self.seal.iter().map(|(_, undo)| undo.clone()).collect();
            note(
                fence::undo(&self.source, &undo)
                    .await
                    .map_err(|error| error.to_string()),
            );
        }
        let released = fence.release(&self.env("undo", None)).await;
        note(released.map_err(|error| error.to_string()));
        let opened = remove_record(self.config).await;
        note(opened.map_err(|error| error.to_string()));
        note(self.daemon.open().await);
        let text = match failed.is_empty() {
            true => format!(
                "{why}; all is as before, after {:.3} s",
                fence.age().as_secs_f64()
            ),
            false => format!(
                "{why}; NOT ALL IS AS BEFORE: {}; say `understudy cutover --undo`",
                failed.join("; ")
            ),
        };
        let facts =
            json!({ "reason": why, "fence_seconds": fence.age().as_secs_f64(), "failed": failed });
        self.steps.tell("undone", false, &text, facts);
        None
    }

    /// The record as the target has it. If that may be the switch, it is waited for under the fence.
    async fn record_there(&self, fence: &Fence) -> Result<Option<Record>, SyncError> {
        let (target, link) = (&self.config.target, &self.config.link_name);
        if !self.is_sent.get() {
            return mark::read(target, link).await;
        }
        let until = Instant::now() + SURE_LIMIT;
        let asking = async {
            loop {
                // What was sent may still be on its way: without the record it comes to nothing.
                match mark::withdraw(target, link).await {
                    Err(error) if Instant::now() < until => {
                        tracing::debug!(%error, "the record is asked for again");
                        tokio::time::sleep(SURE_AGAIN).await;
                    }
                    read => return read,
                }
            }
        };
        let keeping = async {
            let lost = fence.keep().await;
            self.steps.say(&lost.to_string());
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            read = asking => read,
            never = keeping => match never {},
        }
    }
}
