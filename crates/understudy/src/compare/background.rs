//! Comparing inside `sync`, all the while and slowly: key by key at the source, then at the target, and again.
//!
//! What is found is counted (`compare_keys_total{result}`) and said in the log; nothing is changed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use super::lag::Lag;
use super::look::{Comparer, Name, Verdict};
use super::rounds::{LOT, Suspect, settle};
use super::scan::{self, Choice, SCAN_COST, Walk};
use super::what::What;
use crate::config::{CompareConfig, Config};
use crate::error::SyncError;
use crate::rdb::names::printable;
use crate::status::{Phase, Status};

/// Between two looks at whether there is a copy to compare.
const IDLE: Duration = Duration::from_secs(1);
/// After trouble with one of both ends.
const RETRY: Duration = Duration::from_secs(10);
/// Differences of one pass that the log names.
const TOLD_MAX: u64 = 100;

/// Compares as long as the link runs, if it is asked for.
pub(crate) async fn verify_forever(config: &Config, status: &Status) -> Infallible {
    if config.compare.background_qps == 0 {
        return std::future::pending().await;
    }
    let mut said = String::new();
    loop {
        if status.phase() != Phase::Stream {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        match Box::pin(Pass::run(config, status)).await {
            Ok(found) => {
                status.compare_passes.add(1);
                status.compare_found.set(found);
                said.clear();
                // An empty source would be asked without a pause.
                tokio::time::sleep(IDLE).await;
            }
            Err(error) => {
                let what = error.to_string();
                if said != what {
                    tracing::warn!(%error, "source and target are compared later");
                    said = what;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Once through all keys of both ends.
struct Pass<'a> {
    status: &'a Status,
    options: &'a CompareConfig,
    comparer: Comparer,
    config: &'a Config,
    lag: Lag<'a>,
    told: u64,
}

impl<'a> Pass<'a> {
    /// Gives how many keys differed.
    async fn run(config: &'a Config, status: &'a Status) -> Result<u64, SyncError> {
        let options = &config.compare;
        let mut pass = Self {
            status,
            options,
            comparer: super::connect(config, options, options.background_qps).await?,
            config,
            lag: Lag::inside(config, status),
            told: 0,
        };
        let choice = Choice::new(config, options.sample_ppm);
        let mut walk = Walk::begin(&mut pass.comparer.source, config).await?;
        while let Some(found) = walk.next(&mut pass.comparer.source, &choice).await? {
            pass.comparer.limiter.take(SCAN_COST).await;
            pass.look(found.into()).await?;
        }
        let mut walk = Walk::begin(&mut pass.comparer.target, config).await?;
        while let Some(found) = walk.next(&mut pass.comparer.target, &choice).await? {
            let cost = SCAN_COST + found.len().div_ceil(4);
            pass.comparer.limiter.take(cost).await;
            for (db, key) in walk.strays.drain(..) {
                pass.status.compared.add("extra", 1);
                pass.tell(
                    db,
                    &key,
                    What::Extra,
                    "redis_writer.db_map gives this name to no key of the source",
                );
            }
            let extra = scan::absent(&mut pass.comparer.source, &found).await?;
            pass.look(extra.into()).await?;
        }
        Ok(pass.told)
    }

    /// Compares keys, and looks at once whether those that differ go on to do so.
    async fn look(&mut self, mut names: VecDeque<Name>) -> Result<(), SyncError> {
        let size = self.comparer.limiter.lot(LOT);
        while !names.is_empty() {
            let lot: Vec<Name> = names.drain(..size.min(names.len())).collect();
            let verdicts = self.comparer.look(&lot).await?;
            let (mut equal, mut suspects) = (0, Vec::new());
            for (name, verdict) in lot.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Equal => equal += 1,
                    Verdict::Unchecked(_) => self.status.compared.add("unchecked", 1),
                    Verdict::Differs(look) if look.is_left_out(self.config) => {}
                    Verdict::Differs(look) => suspects.push(Suspect::new(name, look)),
                }
            }
            if !suspects.is_empty() {
                equal += self.settle(suspects).await?;
            }
            if equal > 0 {
                self.status.compared.add("equal", equal);
            }
        }
        Ok(())
    }

    /// Gives how many of them are equal.
    async fn settle(&mut self, suspects: Vec<Suspect>) -> Result<u64, SyncError> {
        let settled = settle(
            &mut self.comparer,
            &mut self.lag,
            suspects,
            self.options,
            |_| {},
        );
        let settled = settled.await?;
        for suspect in settled.differing {
            let found = suspect.look.found;
            let result = match found.what {
                What::Missing => "missing",
                What::Extra => "extra",
                _ => "different",
            };
            self.status.compared.add(result, 1);
            let (db, key) = &suspect.name;
            self.tell(*db, key, found.what, &found.detail);
        }
        for (result, count) in [
            ("unsettled", settled.unsettled.len()),
            ("unchecked", settled.unchecked.len()),
        ] {
            if count > 0 {
                self.status.compared.add(result, count as u64);
            }
        }
        Ok(settled.equal)
    }

    fn tell(&mut self, db: u32, key: &[u8], what: What, detail: &str) {
        self.told += 1;
        if self.told <= TOLD_MAX {
            tracing::warn!(
                db,
                key = printable(key),
                difference = what.name(),
                detail,
                "a key of the target differs from the source's: somebody else writes there? `understudy compare --repair` mends it"
            );
        }
    }
}
