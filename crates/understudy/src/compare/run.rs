//! One comparison from its beginning to its report.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use resp::Value;
use rewrite::Db;

use super::functions::{self, Libraries, Library};
use super::lag::{Lag, Proof};
use super::look::{Comparer, Name, Verdict};
use super::progress::Progress;
use super::report::{Difference, Repair, Report, Unclear};
use super::rounds::{LOT, Settled, Suspect, settle};
use super::scan::{self, Choice, SCAN_COST, Walk};
use super::what::{Found, What};
use crate::checkpoint::{Checkpoint, Phase};
use crate::config::{CompareConfig, Config};
use crate::error::{Side, SyncError};
use crate::pipeline::KeySet;

/// Keys that differ at first and are remembered to be looked at again.
const SUSPECTS_MAX: usize = 200_000;
/// How long a link may take to say that the slots of a cluster have got their positions behind a snapshot.
const POSITIONS_LIMIT: Duration = Duration::from_secs(3);

/// A comparison under way.
pub(super) struct Run<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a CompareConfig,
    pub(super) choice: Choice<'a>,
    pub(super) comparer: Comparer,
    pub(super) lag: Lag<'a>,
    pub(super) suspects: Vec<Suspect>,
    /// Keys of the target that none of the source's can be, as they are called there.
    strays: Vec<Name>,
    pub(super) report: Report,
    pub(super) progress: Progress,
    begun: Instant,
}

impl<'a> Run<'a> {
    /// Looks at both ends.
    ///
    /// # Errors
    /// Those of the connections; stop where the target does not hold a copy yet.
    pub(super) async fn begin(
        config: &'a Config,
        options: &'a CompareConfig,
        mut comparer: Comparer,
        progress: Progress,
    ) -> Result<Self, SyncError> {
        let mut lag = Lag::new(config);
        lag.know(&mut comparer.source).await?;
        let mut report = Report {
            source: [
                config.source.endpoint.address.clone(),
                comparer.source.name(),
            ],
            target: [
                config.target.endpoint.address.clone(),
                comparer.target.name(),
            ],
            sample_ppm: options.sample_ppm,
            ..Report::default()
        };
        let stop = |what: &str| {
            let address = &config.target.endpoint.address;
            Err(SyncError::stop(Side::Target, address, what))
        };
        let mut checkpoints = lag.checkpoints(&mut comparer.target).await?;
        let is_snapshot = |(_, one): &(String, Checkpoint)| matches!(one.phase, Phase::Snapshot(_));
        // A cluster's slots get their positions first, and the link says so behind that.
        let from = Instant::now();
        while comparer.target.is_cluster()
            && checkpoints.iter().any(is_snapshot)
            && from.elapsed() < POSITIONS_LIMIT
        {
            tokio::time::sleep(options.pause.min(POSITIONS_LIMIT / 10)).await;
            checkpoints = lag.checkpoints(&mut comparer.target).await?;
        }
        let is_any = |is: fn(&Phase) -> bool| checkpoints.iter().any(|(_, one)| is(&one.phase));
        if checkpoints.iter().any(is_snapshot) {
            return stop(
                "its checkpoint says that a snapshot is being written there: compare when /readyz answers 200",
            );
        }
        if is_any(|phase| matches!(phase, Phase::Diverged(_))) {
            report.notes.push(
                "the target's checkpoint says that it has diverged: a start of sync takes a new snapshot".to_owned(),
            );
        }
        if checkpoints.is_empty() {
            report.notes.push(
                "there is no checkpoint of this link at the target: whether changes are on their way is told by pauses alone".to_owned(),
            );
        }
        Ok(Self {
            config,
            options,
            choice: Choice::new(config, options.sample_ppm),
            comparer,
            lag,
            suspects: Vec::new(),
            strays: Vec::new(),
            report,
            progress,
            begun: Instant::now(),
        })
    }

    /// Looks at every key of the source.
    pub(super) async fn source_keys(&mut self) -> Result<(), SyncError> {
        let mut walk = Walk::begin(&mut self.comparer.source, self.config).await?;
        self.progress.begin("source", walk.keys);
        let mut waiting: Vec<Name> = Vec::new();
        let size = self.comparer.limiter.lot(LOT);
        while let Some(found) = walk.next(&mut self.comparer.source, &self.choice).await? {
            self.comparer.limiter.take(SCAN_COST).await;
            waiting.extend(found);
            while waiting.len() >= size {
                let rest = waiting.split_off(size);
                let lot = std::mem::replace(&mut waiting, rest);
                self.look(&lot).await?;
            }
        }
        for lot in std::mem::take(&mut waiting).chunks(size) {
            self.look(lot).await?;
        }
        self.note_moves(&walk, Side::Source);
        Ok(())
    }

    fn note_moves(&mut self, walk: &Walk, side: Side) {
        if walk.is_unsure() {
            self.report.notes.push(format!(
                "slots of the {side} moved from node to node all the while: a key on its way may not have been looked at; compare again when they are where they belong"
            ));
        }
    }

    /// Compares keys of the source.
    pub(super) async fn look(&mut self, lot: &[Name]) -> Result<(), SyncError> {
        let verdicts = self.comparer.look(lot).await?;
        self.report.source_keys += lot.len() as u64;
        self.progress.advance(lot.len());
        self.judge(lot, verdicts);
        Ok(())
    }

    pub(super) fn judge(&mut self, lot: &[Name], verdicts: Vec<Verdict>) {
        for (name, verdict) in lot.iter().zip(verdicts) {
            match verdict {
                Verdict::Equal => self.report.equal += 1,
                Verdict::Unchecked(why) => self.unchecked(name.clone(), why),
                Verdict::Differs(look) if look.is_left_out(self.config) => {}
                Verdict::Differs(look) if self.suspects.len() < SUSPECTS_MAX => {
                    self.suspects.push(Suspect::new(name.clone(), look));
                }
                Verdict::Differs(_) => self.report.beyond += 1,
            }
        }
    }

    pub(super) fn unchecked(&mut self, (db, key): Name, why: String) {
        self.report.unchecked.push(Unclear { db, key, why });
    }

    /// Looks for keys of the target that the source does not have.
    /// Those that are `known` need not be asked for there.
    pub(super) async fn target_keys(&mut self, known: Option<&KeySet>) -> Result<(), SyncError> {
        let mut walk = Walk::begin(&mut self.comparer.target, self.config).await?;
        self.progress.begin("target", walk.keys);
        while let Some(mut found) = walk.next(&mut self.comparer.target, &self.choice).await? {
            self.report.target_keys += found.len() as u64;
            self.progress.advance(found.len());
            for stray in walk.strays.drain(..) {
                self.report.target_keys += 1;
                match self.strays.len() < SUSPECTS_MAX {
                    true => self.strays.push(stray),
                    false => self.report.beyond += 1,
                }
            }
            if let Some(known) = known {
                let is_known = |(db, key): &Name| known.contains(*db, key);
                let target = &self.comparer.target;
                found.retain(|name| !is_known(name) && !target.siblings(name).iter().any(is_known));
            }
            // Asking for it alone is a small part of comparing.
            let cost = SCAN_COST + found.len().div_ceil(4);
            self.comparer.limiter.take(cost).await;
            let extra = scan::absent(&mut self.comparer.source, &found).await?;
            self.look_at_extra(&extra).await?;
        }
        self.note_moves(&walk, Side::Target);
        Ok(())
    }

    /// Keys of the target that the source did not have a moment ago.
    async fn look_at_extra(&mut self, extra: &[Name]) -> Result<(), SyncError> {
        let size = self.comparer.limiter.lot(LOT);
        for lot in extra.chunks(size) {
            let verdicts = self.comparer.look(lot).await?;
            let equal = self.report.equal;
            self.judge(lot, verdicts);
            // They are none of the source's keys, of which that counts.
            self.report.equal = equal;
        }
        Ok(())
    }

    /// Looks at what differed until it is clear whether it does.
    pub(super) async fn settle(&mut self) -> Result<(), SyncError> {
        let mut suspects = std::mem::take(&mut self.suspects);
        // A walk may come to a key more than once.
        let mut seen = HashSet::new();
        suspects.retain(|suspect| seen.insert(suspect.name.clone()));
        drop(seen);
        let progress = &self.progress;
        let settled = settle(
            &mut self.comparer,
            &mut self.lag,
            suspects,
            self.options,
            |line| progress.tell(line),
        );
        let Settled {
            differing,
            unsettled,
            unchecked,
            equal,
            still_behind,
        } = settled.await?;
        self.report.equal += equal;
        for (name, why) in unchecked {
            self.unchecked(name, why);
        }
        self.report
            .differences
            .extend(differing.into_iter().map(|suspect| Difference {
                at_target: self.comparer.target.name_of(&suspect.name),
                db: Some(suspect.name.0),
                key: suspect.name.1,
                found: suspect.look.found,
                repair: Repair::None,
                is_stray: false,
            }));
        self.settle_strays().await?;
        self.report
            .unsettled
            .extend(unsettled.into_iter().map(|suspect| Unclear {
                db: suspect.name.0,
                key: suspect.name.1,
                why: "it was written at the source between all looks".to_owned(),
            }));
        if let Some(behind) = still_behind {
            self.report.notes.push(format!(
                "the target is {behind} bytes behind the source and does not go on: is sync running? What differs may be on its way"
            ));
        }
        Ok(())
    }

    /// What none of the source's keys can be, and is there still. Nothing of it is on its way.
    async fn settle_strays(&mut self) -> Result<(), SyncError> {
        let mut strays = std::mem::take(&mut self.strays);
        strays.sort_unstable();
        strays.dedup();
        for lot in strays.chunks(LOT) {
            for (db, key) in lot {
                let target = &mut self.comparer.target;
                match target.one_here(*db, &[b"EXISTS", key]).await? {
                    Value::Int(0) => continue,
                    Value::Int(_) => {}
                    other => return Err(target.strange("EXISTS", &other)),
                }
                self.report.differences.push(Difference {
                    db: Some(*db),
                    key: key.clone(),
                    at_target: Some((*db, key.clone())),
                    found: Found {
                        what: What::Extra,
                        kind: "",
                        detail: "redis_writer.db_map gives this name to no key of the source"
                            .to_owned(),
                    },
                    repair: Repair::None,
                    is_stray: true,
                });
            }
        }
        Ok(())
    }

    /// Libraries of functions; gives those that differ.
    pub(super) async fn functions(&mut self) -> Result<Vec<Library>, SyncError> {
        let table = rewrite::Table::new();
        let is_blocked = table
            .lookup(b"function")
            .is_some_and(|command| self.config.filter.table_command(command).is_err());
        if is_blocked || !self.config.filter.db(Db(0)) {
            return Ok(Vec::new());
        }
        let mut last: Option<Vec<Library>> = None;
        for _ in 0..2 {
            let found = match functions::differing(&mut self.comparer).await? {
                Libraries::Differing(found) => found,
                Libraries::Lacking => return Ok(Vec::new()),
                Libraries::Refused { side, reply } => {
                    self.report.notes.push(format!(
                        "libraries of functions were not compared: the {} refuses FUNCTION LIST ({reply}); +function|list allows it",
                        side
                    ));
                    return Ok(Vec::new());
                }
            };
            self.report.functions = true;
            if found.is_empty() || last.as_ref() == Some(&found) {
                return Ok(found);
            }
            last = Some(found);
            let mark = self
                .lag
                .mark(&mut self.comparer.source, &mut self.comparer.target);
            let mark = mark.await?;
            tokio::time::sleep(self.options.pause).await;
            let limit = Duration::from_secs(30);
            let ends = (&self.comparer.source, &mut self.comparer.target);
            let _: Proof = self.lag.reach(ends, (0, mark), limit, true).await?;
        }
        let Libraries::Differing(mut found) = functions::differing(&mut self.comparer).await?
        else {
            return Ok(Vec::new());
        };
        found.retain(|library| last.as_ref().is_some_and(|last| last.contains(library)));
        Ok(found)
    }

    /// The report.
    pub(super) fn end(mut self) -> Report {
        self.progress.end();
        if self.report.beyond > 0 {
            self.report.notes.push(format!(
                "{} more keys differed at first; with so many they were not looked at again",
                self.report.beyond
            ));
        }
        if self.choice.is_sample() && self.report.exit_code() == 0 {
            self.report
                .notes
                .push("no difference in the sample; the other keys were not looked at".to_owned());
        }
        self.report.elapsed = self.begun.elapsed();
        self.report
    }
}
