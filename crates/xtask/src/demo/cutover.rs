//! The switch: the applications pause, the target catches up with the last byte, the applications go on there.

use std::time::{Duration, Instant};

use testkit::client::{bytes, items};
use testkit::{Counters, Ledger, argv};

use super::load::Load;
use super::{Demo, source_offset};
use crate::text::{count, seconds};

/// How long the last bytes may take.
const LAST_BYTES: Duration = Duration::from_secs(60);
/// How long the applications are shown to write to the target.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// How it went.
pub(super) struct Cutover {
    /// From the last write at the source until the target had it.
    pub(super) pause: Duration,
    pub(super) offset: u64,
    /// Answered by the source until shortly before the switch.
    pub(super) written: u64,
    pub(super) ledger: Ledger,
}

impl Demo {
    /// Stops the writes and waits until the target has the last one.
    pub(super) fn cut_over(&mut self, load: Load) -> Result<Cutover, String> {
        self.screen.step("The switch");
        let written = load.written();
        let from = Instant::now();
        let ledger = load.stop();
        let offset = self.wait_for_last_byte()?;
        let pause = from.elapsed();
        self.screen.good(&format!(
            "the applications stop, after {} writes",
            count(written)
        ));
        self.screen.good(&format!(
            "applied offset {0} = the source's offset {0}",
            count(offset)
        ));
        self.screen.good(&format!(
            "{} from the last write to a target that may take over",
            seconds(pause)
        ));
        Ok(Cutover {
            pause,
            offset,
            written,
            ledger,
        })
    }

    /// The offset at which both are.
    fn wait_for_last_byte(&mut self) -> Result<u64, String> {
        let mut source = self.source.client();
        let from = Instant::now();
        loop {
            self.daemon.check()?;
            let status = self.daemon.status().unwrap_or_default();
            let applied = status.applied_offset;
            // Asked after the daemon: if it is the same, nothing came in between.
            let offset = source_offset(&mut source);
            if applied == offset && status.ready {
                return Ok(offset);
            }
            if from.elapsed() > LAST_BYTES {
                return Err(format!(
                    "the target stays behind: applied offset {applied}, the source's {offset}, ready: {}\n{}",
                    status.ready,
                    self.daemon.log_tail()
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the daemon, takes its key away, and lets the applications write to the target.
    pub(super) fn finish(&mut self, cutover: &Cutover) -> Result<(), String> {
        self.screen.step("The applications go on at the target");
        self.daemon.terminate()?;
        self.screen.good("the daemon stops on SIGTERM, exit code 0");
        let keys = self.remove_own_keys()?;
        self.screen
            .good(&format!("its checkpoint is removed: {}", keys.join(", ")));
        let address = self.target.address();
        let wrong = cutover.ledger.check(&address);
        if !wrong.is_empty() {
            return Err(format!(
                "stopping has changed counters:\n{}",
                wrong.join("\n")
            ));
        }
        let counters = Counters::start(&address, 8, 0);
        std::thread::sleep(AFTERWARDS);
        let ledger = counters.stop();
        let wrong = ledger.check(&address);
        if !wrong.is_empty() || ledger.total() <= cutover.ledger.total() {
            return Err(format!(
                "writing to the target went wrong: {}",
                wrong.join("\n")
            ));
        }
        self.screen
            .good("the counters go on from where they were, at the target");
        Ok(())
    }

    /// Deletes what is ours at the target; an error if there was nothing.
    fn remove_own_keys(&self) -> Result<Vec<String>, String> {
        let mut client = self.target.client()?;
        let mut removed = Vec::new();
        for db in client.keyspace().into_keys() {
            client.select(db);
            for key in items(client.command(&argv!["KEYS", "*understudy*"])) {
                let key = bytes(key);
                client.command(&argv!["DEL", key]);
                removed.push(String::from_utf8_lossy(&key).into_owned());
            }
        }
        if removed.is_empty() {
            return Err("there was no checkpoint at the target".into());
        }
        Ok(removed)
    }
}
