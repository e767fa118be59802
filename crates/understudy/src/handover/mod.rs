//! The switch-over of a link, as the daemon sees it: what `understudy cutover` has asked for, whether it may begin, who is
//! still connected to the old server, and what is still written there.

mod clients;
mod hold;
pub(crate) mod mark;
mod ready;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

pub(crate) use clients::{removed_by_itself, straggler_ids, watch_clients_forever};
pub(crate) use hold::{Over, admit, look_for_the_switch, obey};
pub(crate) use ready::reasons;

use self::clients::Straggler;
use crate::clock::unix_ms;
use crate::stop::Stop;

/// A stage that is reported lasts so long unless it is said again.
const REPORT_MS: u64 = 10_000;
/// Clients that the status names.
const NAMED_MAX: usize = 100;
/// Prefixes of keys that are told apart.
const PREFIXES_MAX: usize = 1_000;
/// What stands for those beyond.
const OTHERS: &str = "(others)";

/// How far the switch-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    /// Nobody has asked for one.
    #[default]
    Replicating,
    /// What has to be so beforehand is looked at.
    Gate,
    /// Writes are held back at the source.
    Fenced,
    /// What is left up to an offset is being applied, and nothing behind it.
    Closing,
    /// The target is what the source was at that offset, and stays it.
    Closed,
    /// The application may write to the target.
    Go,
}

impl Stage {
    pub(crate) const ALL: [Self; 6] = [
        Self::Replicating,
        Self::Gate,
        Self::Fenced,
        Self::Closing,
        Self::Closed,
        Self::Go,
    ];

    /// Its name in the status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Replicating => "replicating",
            Self::Gate => "gate",
            Self::Fenced => "fenced",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Go => "go",
        }
    }

    /// The stage of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// What is in force.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    /// Nothing behind this offset is applied.
    pub(crate) hold: Option<u64>,
    /// Whoever asked for that says so again before this, Unix milliseconds.
    until_ms: u64,
    /// Writes are held back since then.
    fenced_ms: Option<u64>,
    /// How long they were, until the application was let go.
    fence_ms: u64,
    /// What is written at the source after that is applied all the same.
    pub(crate) applies_late: bool,
    /// The last hold came too late: the stream had been applied beyond its offset.
    has_passed: bool,
}

impl State {
    /// Nothing more of this link is applied, for good.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Go && !self.applies_late
    }

    /// Whoever asked for the hold has not been heard of for too long.
    pub(crate) fn is_forgotten(&self) -> bool {
        !matches!(self.stage, Stage::Replicating | Stage::Go) && unix_ms() > self.until_ms
    }
}

/// What was written at the source after the switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Late {
    writes: u64,
    by_prefix: BTreeMap<String, u64>,
    /// Keys removed one by one: by clients, or because their time was over.
    removals: u64,
    removals_by_prefix: BTreeMap<String, u64>,
    /// Keys (and fields) that the source has removed by itself meanwhile.
    by_itself: u64,
    /// Those that it had removed by then.
    removed_before: Option<u64>,
}

impl Late {
    /// A command that writes, with the prefixes of its keys.
    pub(crate) fn wrote(&mut self, prefixes: &[String]) {
        self.writes += 1;
        count(&mut self.by_prefix, prefixes);
    }

    /// One that removes a key.
    pub(crate) fn removed(&mut self, prefixes: &[String]) {
        self.removals += 1;
        count(&mut self.removals_by_prefix, prefixes);
    }

    /// How many keys (and fields) the source has removed by itself since it was started, as it tells now; before the switch,
    /// or behind it. What it had removed at the switch is known by the record of it, or by the last look before it. Where
    /// neither is there, counting begins here: rather an expiry is taken for a write than a write for an expiry.
    pub(crate) fn removed_by_itself(&mut self, removed: u64, is_over: bool) {
        match is_over {
            false => self.removed_before = Some(removed),
            true => {
                let before = *self.removed_before.get_or_insert(removed);
                self.by_itself = removed.saturating_sub(before);
            }
        }
    }

    /// As the record of the switch has it.
    pub(crate) fn removed_before(&mut self, removed: Option<u64>) {
        self.removed_before = removed.or(self.removed_before);
    }

    /// What a transaction has done, once it is known whose it was.
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.removals += other.removals;
        merge(&mut self.by_prefix, &other.by_prefix);
        merge(&mut self.removals_by_prefix, &other.removals_by_prefix);
    }

    /// Commands of clients.
    pub(crate) fn total(&self) -> u64 {
        self.writes + self.removals.saturating_sub(self.by_itself)
    }

    fn json(&self) -> Value {
        let mut by_prefix = self.by_prefix.clone();
        if self.removals > self.by_itself {
            for (prefix, removals) in &self.removals_by_prefix {
                *by_prefix.entry(prefix.clone()).or_default() += removals;
            }
        }
        json!({
            "total": self.total(),
            "by_prefix": by_prefix,
            "expired": self.removals.min(self.by_itself),
        })
    }
}

fn count(counts: &mut BTreeMap<String, u64>, prefixes: &[String]) {
    for prefix in prefixes {
        count_more(counts, prefix, 1);
    }
}

fn merge(counts: &mut BTreeMap<String, u64>, others: &BTreeMap<String, u64>) {
    for (prefix, more) in others {
        count_more(counts, prefix, *more);
    }
}

fn count_more(counts: &mut BTreeMap<String, u64>, prefix: &str, more: u64) {
    let has_room = counts.len() < PREFIXES_MAX || counts.contains_key(prefix);
    let name = if has_room { prefix } else { OTHERS };
    *counts.entry(name.to_owned()).or_default() += more;
}

/// Who is connected to the source.
#[derive(Debug, Clone, Default)]
struct Clients {
    /// All of them; none where the source does not tell.
    count: Option<u64>,
    named: Vec<Straggler>,
}

/// The switch-over of one link: written by the status port's thread and the link's, read by both.
#[derive(Debug, Default)]
pub struct Handover {
    state: Mutex<State>,
    changed: Notify,
    went: Notify,
    clients: Mutex<Clients>,
    late: Mutex<Late>,
    /// Why the link cannot stop at the hold of this number.
    trouble: Mutex<Option<(u64, String)>>,
    /// Asked to stop when all is done.
    pub(crate) stop: Stop,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handover {
    pub(crate) fn state(&self) -> State {
        *lock(&self.state)
    }

    /// Waits until it is another one than at the last wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_one();
    }

    /// How far `cutover` is; not a hold, nor its end.
    pub(crate) fn report(&self, stage: Stage) {
        self.change(|state| {
            let fenced_ms = state.fenced_ms.or(Some(unix_ms()));
            state.stage = stage;
            state.hold = None;
            state.until_ms = unix_ms() + REPORT_MS;
            state.fenced_ms = fenced_ms.filter(|_| stage == Stage::Fenced);
            state.has_passed = false;
        });
    }

    /// Nothing behind `offset` is to be applied, for so long unless it is said again.
    pub(crate) fn close(&self, offset: u64, lease: Duration) {
        self.change(|state| {
            if state.hold != Some(offset) {
                state.stage = Stage::Closing;
                state.hold = Some(offset);
                state.has_passed = false;
            }
            state.fenced_ms.get_or_insert_with(unix_ms);
            state.until_ms = unix_ms() + u64::try_from(lease.as_millis()).unwrap_or(u64::MAX / 2);
        });
    }

    /// Everything up to the hold is applied.
    pub(crate) fn is_closed(&self) {
        self.change(|state| {
            if state.stage == Stage::Closing {
                state.stage = Stage::Closed;
            }
        });
    }

    /// Not everything up to the hold is applied any more.
    fn is_closing(&self) {
        self.change(|state| {
            if state.stage == Stage::Closed {
                state.stage = Stage::Closing;
            }
        });
    }

    /// The stream was applied beyond the offset already.
    fn has_passed(&self) {
        self.change(|state| {
            state.stage = Stage::Fenced;
            state.hold = None;
            state.has_passed = true;
        });
    }

    /// The link cannot stop at the hold of this number.
    pub(crate) fn trouble(&self, hold: u64, why: &str) {
        *lock(&self.trouble) = Some((hold, why.to_owned()));
    }

    /// All is as before.
    pub(crate) fn open(&self) {
        self.change(|state| *state = State::default());
        *lock(&self.late) = Late::default();
    }

    /// The application writes to the target from now on, which is the source as it was at `offset`.
    pub(crate) fn go(&self, offset: u64, applies_late: bool) {
        self.change(|state| {
            let now_ms = unix_ms();
            let fenced_ms = state.fenced_ms.take();
            state.fence_ms = fenced_ms.map_or(state.fence_ms, |since| now_ms.saturating_sub(since));
            state.stage = Stage::Go;
            state.hold = Some(offset);
            state.applies_late = applies_late;
        });
        self.went.notify_one();
    }

    /// Waits until the switch is made.
    pub(crate) async fn went(&self) {
        self.went.notified().await;
    }

    /// What is written at the source after the switch.
    pub(crate) fn late(&self, note: impl FnOnce(&mut Late)) {
        note(&mut lock(&self.late));
    }

    /// Commands that clients have written at the source after the switch.
    pub(crate) fn late_writes(&self) -> u64 {
        lock(&self.late).total()
    }

    /// Clients at the source, where they are known.
    pub(crate) fn source_clients(&self) -> Option<u64> {
        lock(&self.clients).count
    }

    pub(crate) fn set_clients(&self, count: Option<u64>, mut named: Vec<Straggler>) {
        // Those that write first, then those that were active last.
        named.sort_by_key(|one| (std::cmp::Reverse(one.writes), one.idle_seconds));
        named.truncate(NAMED_MAX);
        *lock(&self.clients) = Clients { count, named };
    }

    /// The object `cutover` of the status.
    pub(crate) fn json(&self, reasons: &[String]) -> Value {
        let state = self.state();
        let fence_ms = state
            .fenced_ms
            .map_or(state.fence_ms, |since| unix_ms().saturating_sub(since));
        let clients = lock(&self.clients).clone();
        let trouble = lock(&self.trouble).clone();
        let trouble = trouble.filter(|(hold, _)| Some(*hold) == state.hold);
        json!({
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "stage": state.stage.name(),
            "offset": state.hold,
            "passed": state.has_passed,
            "trouble": trouble.map(|(_, why)| why),
            "applies_late_writes": state.applies_late,
            "fence_seconds": (fence_ms > 0).then(|| Duration::from_millis(fence_ms).as_secs_f64()),
            "source_clients": clients.count,
            "stragglers": clients.named,
            "late_writes": lock(&self.late).json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_said_again_and_forgotten() {
        let handover = Handover::default();
        handover.report(Stage::Fenced);
        handover.close(7, Duration::from_secs(10));
        handover.is_closed();
        handover.close(7, Duration::from_secs(10));
        let state = handover.state();
        assert_eq!((state.stage, state.hold), (Stage::Closed, Some(7)));
        assert!(!state.is_forgotten() && !state.is_over());
        lock(&handover.state).until_ms = 1;
        assert!(handover.state().is_forgotten());
        handover.go(7, false);
        assert!(handover.state().is_over() && !handover.state().is_forgotten());
        handover.open();
        assert_eq!(handover.json(&[])["stage"], "replicating");
    }

    #[test]
    fn expiries_are_counted_from_the_switch_on() {
        // A run that was there before it.
        let mut late = Late::default();
        late.removed_by_itself(70, false);
        late.removed_by_itself(73, true);
        assert_eq!(late.by_itself, 3);
        // One that was started behind it, with and without a record that tells.
        let mut late = Late::default();
        late.removed_before(Some(71));
        late.removed_by_itself(73, true);
        assert_eq!(late.by_itself, 2);
        let mut late = Late::default();
        late.removed_before(None);
        late.removed_by_itself(73, true);
        late.removed_by_itself(74, true);
        assert_eq!(late.by_itself, 1);
    }

    #[test]
    fn prefixes_of_a_transaction_are_bounded() {
        let mut late = Late::default();
        for number in 0..PREFIXES_MAX + 7 {
            late.wrote(&[format!("p{number}:")]);
        }
        assert_eq!(late.by_prefix.len(), PREFIXES_MAX + 1);
        assert_eq!(late.by_prefix[OTHERS], 7);
        let mut all = Late::default();
        all.wrote(&["else:".to_owned()]);
        all.add(&late);
        assert_eq!(all.total(), PREFIXES_MAX as u64 + 8);
        assert_eq!(all.by_prefix.values().sum::<u64>(), all.total());
        assert!(all.by_prefix.len() <= PREFIXES_MAX + 1);
    }

    #[test]
    fn what_the_source_removes_by_itself_is_no_late_write() {
        let mut late = Late::default();
        let prefix = ["user:".to_owned()];
        late.removed(&prefix);
        late.by_itself = 1;
        assert_eq!((late.total(), &late.json()["by_prefix"]), (0, &json!({})));
        late.removed(&prefix);
        late.wrote(&["cart:".to_owned()]);
        assert_eq!(late.total(), 2);
        assert_eq!(late.json()["by_prefix"], json!({"cart:": 1, "user:": 2}));
    }
}
