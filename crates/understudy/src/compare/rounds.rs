//! Keys that differ are looked at again and again, until it is clear whether they do.
//!
//! A key that is equal in one look is equal: what differed was on its way. A key differs when it did so in every look, and
//! the source held the same in two looks in a row between which the target had applied everything that was done at the
//! source before the first of them. That is asked for several times, so that a value which comes and goes is not taken
//! for one that stays. A key that is written so often that this never happens is neither: it is unsettled. Where it is told late
//! what the target has applied (a cluster without a status port to ask), looks go on until it is told of an earlier one.

use std::time::Duration;

use super::lag::{Lag, Proof, Reached};
use super::look::{Comparer, Look, Name, Verdict};
use super::what::What;
use crate::chance;
use crate::config::CompareConfig;
use crate::error::SyncError;

/// How long the target is waited for between two rounds.
const REACH_LIMIT: Duration = Duration::from_secs(30);
/// And between two close looks.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Close looks that a difference has to stand, and those of them that have to prove it.
const CLOSE_LOOKS_MIN: u32 = 8;
const CLOSE_PROOFS_MIN: u32 = 3;
/// So many are taken before a key is unsettled.
const CLOSE_LOOKS_MAX: u32 = 40;
/// The same, and the pause between two, where the checkpoint trails: it takes some ten seconds until a look is proven.
const TRAILING_LOOKS_MAX: u32 = 60;
const TRAILING_PAUSE_MS: u64 = 300;
/// When more differ than this, one close look has to do.
const CLOSE_KEYS_MAX: usize = 20_000;
/// Keys of one look.
pub(super) const LOT: usize = 128;

/// A key that differed in all looks so far.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) name: Name,
    pub(super) look: Look,
    looks: u32,
    proofs: u32,
    /// The source has held the same since this look.
    since: u32,
    /// It was one of the source's keys.
    is_sources: bool,
}

impl Suspect {
    pub(super) fn new(name: Name, look: Look) -> Self {
        Self {
            is_sources: look.found.what != What::Extra,
            name,
            look,
            looks: 0,
            proofs: 0,
            since: 0,
        }
    }
}

/// What became of the suspects.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) differing: Vec<Suspect>,
    pub(super) unsettled: Vec<Suspect>,
    pub(super) unchecked: Vec<(Name, String)>,
    /// Of the source's keys.
    pub(super) equal: u64,
    /// How far behind the target was when it did not go on.
    pub(super) still_behind: Option<u64>,
}

/// Looks at suspects until each of them is one thing or the other.
pub(super) async fn settle(
    comparer: &mut Comparer,
    lag: &mut Lag<'_>,
    mut suspects: Vec<Suspect>,
    config: &CompareConfig,
    mut tell: impl FnMut(&str),
) -> Result<Settled, SyncError> {
    let mut settled = Settled::default();
    lag.begin(suspects.iter().map(|suspect| &suspect.name));
    // The look before was the first.
    let mut look = 0;
    for round in 2..=config.rounds {
        if suspects.is_empty() {
            return Ok(settled);
        }
        tell(&format!("round {round}: {} keys differ", suspects.len()));
        let wait = Wait {
            pause: config.pause,
            limit: REACH_LIMIT,
            is_patient: false,
        };
        let proof = wait.behind(look, comparer, lag).await?;
        look += 1;
        suspects = again(comparer, suspects, look, &proof, &mut settled).await?;
    }
    let has_many = suspects.len() > CLOSE_KEYS_MAX;
    let (looks_min, proofs_min) = match has_many {
        true => (1, 1),
        false => (CLOSE_LOOKS_MIN, CLOSE_PROOFS_MIN),
    };
    for suspect in &mut suspects {
        (suspect.looks, suspect.proofs) = (0, 0);
    }
    let mut limit = REACH_LIMIT;
    for close in 0.. {
        let (looks_max, step_ms) = match lag.is_trailing() {
            false => (CLOSE_LOOKS_MAX, 20),
            true => (TRAILING_LOOKS_MAX, TRAILING_PAUSE_MS),
        };
        if suspects.is_empty() || close >= if has_many { 1 } else { looks_max } {
            break;
        }
        if close == 0 {
            tell(&format!("looking closely at {} keys", suspects.len()));
        }
        let wait = Wait {
            // Not at a beat that the writers might have too.
            pause: Duration::from_millis(step_ms + chance::number() % (3 * step_ms)),
            limit: std::mem::replace(&mut limit, CLOSE_LIMIT),
            is_patient: has_many,
        };
        let proof = wait.behind(look, comparer, lag).await?;
        look += 1;
        suspects = again(comparer, suspects, look, &proof, &mut settled).await?;
        let is_clear =
            |suspect: &Suspect| suspect.looks >= looks_min && suspect.proofs >= proofs_min;
        let (clear, rest) = suspects.into_iter().partition(is_clear);
        settled.differing.extend::<Vec<Suspect>>(clear);
        suspects = rest;
    }
    settled.unsettled = suspects;
    Ok(settled)
}

/// What there is between two looks.
struct Wait {
    pause: Duration,
    limit: Duration,
    /// Also where it is told late what is applied.
    is_patient: bool,
}

impl Wait {
    /// Waits for a while, and until what was done at the source before is applied at the target.
    async fn behind(
        &self,
        look: u32,
        comparer: &mut Comparer,
        lag: &mut Lag<'_>,
    ) -> Result<Proof, SyncError> {
        let mark = lag.mark(&mut comparer.source, &mut comparer.target).await?;
        tokio::time::sleep(self.pause).await;
        let ends = (&comparer.source, &mut comparer.target);
        lag.reach(ends, (look, mark), self.limit, self.is_patient)
            .await
    }
}

/// One more look at all of them.
async fn again(
    comparer: &mut Comparer,
    suspects: Vec<Suspect>,
    number: u32,
    proof: &Proof,
    settled: &mut Settled,
) -> Result<Vec<Suspect>, SyncError> {
    if let Reached::Still(behind) = proof.reached {
        settled.still_behind = Some(behind);
    }
    let mut left = Vec::new();
    let size = comparer.limiter.lot(LOT);
    for lot in suspects.chunks(size) {
        let names: Vec<Name> = lot.iter().map(|suspect| suspect.name.clone()).collect();
        let verdicts = comparer.look(&names).await?;
        for (suspect, verdict) in lot.iter().zip(verdicts) {
            match verdict {
                Verdict::Equal => settled.equal += u64::from(suspect.is_sources),
                Verdict::Unchecked(why) => settled.unchecked.push((suspect.name.clone(), why)),
                Verdict::Differs(look) => {
                    let since = match look.source == suspect.look.source {
                        true => suspect.since,
                        false => number,
                    };
                    let stood = proof.stands(&suspect.name, since);
                    left.push(Suspect {
                        name: suspect.name.clone(),
                        looks: suspect.looks + 1,
                        proofs: suspect.proofs + u32::from(stood),
                        since,
                        is_sources: suspect.is_sources,
                        look,
                    });
                }
            }
        }
    }
    Ok(left)
}
