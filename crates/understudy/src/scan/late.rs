//! What is written at a source after the switch, where it is read by SCAN: its keyspace events are all that tells of it.
//!
//! An event names no client, and none tells of a transaction. The way back writes there too, its checkpoint last in each
//! transaction: what was heard a moment before an event of that is taken for its.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::checkpoint::KEY_PREFIX;
use crate::compare::Name;
use crate::handover::Handover;
use crate::pipeline::prefix_of;

/// A transaction's events arrive within this time.
const TOGETHER: Duration = Duration::from_millis(50);
/// So many events wait for that at most; the way back's transactions are no longer.
const RECENT_MAX: usize = 10_000;

/// Events that the server itself raises, or beside another one of the same command.
const BESIDE: [&[u8]; 8] = [
    b"expired",
    b"evicted",
    b"hexpired",
    b"keymiss",
    b"new",
    b"overwritten",
    b"type_changed",
    b"loaded",
];

/// Whether this is an event of a client's write.
pub(super) fn is_write(key: &[u8], event: &[u8]) -> bool {
    !key.starts_with(b"understudy:") && !BESIDE.contains(&event)
}

/// Events since the switch.
#[derive(Debug, Default)]
pub(super) struct LateEvents {
    recent: VecDeque<(Instant, String)>,
    last: Option<Name>,
    /// The way back has been seen at work.
    is_back: bool,
}

impl LateEvents {
    /// One has been heard.
    pub(super) fn event(
        &mut self,
        handover: &Handover,
        db: u32,
        key: &[u8],
        event: &[u8],
        now: Instant,
    ) {
        self.settle(handover, now);
        if key.starts_with(KEY_PREFIX.as_bytes()) {
            self.recent.clear();
            self.is_back = true;
            return;
        }
        // The way back sets expiries outside of its transactions too.
        if !is_write(key, event) || (self.is_back && event == b"expire") {
            return;
        }
        // SET .. EX has two, as has a command that empties a list.
        let is_same = self
            .last
            .as_ref()
            .is_some_and(|(of, last)| *of == db && last.as_ref() == key);
        let is_second = is_same && matches!(event, b"expire" | b"del");
        if is_second {
            self.last = None;
            return;
        }
        // A copy: a slice would keep the buffer that it was read into.
        self.last = Some((db, bytes::Bytes::copy_from_slice(key)));
        if self.recent.len() >= RECENT_MAX {
            self.count_first(handover);
        }
        self.recent.push_back((now, prefix_of(key)));
    }

    /// Counts what cannot be the way back's any more.
    pub(super) fn settle(&mut self, handover: &Handover, now: Instant) {
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > TOGETHER)
        {
            self.count_first(handover);
        }
    }

    fn count_first(&mut self, handover: &Handover) {
        if let Some((_, prefix)) = self.recent.pop_front() {
            handover.late(|late| late.wrote(&[prefix]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_from_what_the_server_and_the_way_back_do() {
        let (handover, mut late, mut now) =
            (Handover::default(), LateEvents::default(), Instant::now());
        let mut hear = |key: &'static str, event: &str, ms: u64| {
            now += Duration::from_millis(ms);
            late.event(&handover, 0, key.as_bytes(), event.as_bytes(), now);
        };
        hear("cart:1", "set", 0);
        hear("cart:1", "expire", 0);
        hear("cart:2", "expire", 1);
        hear("cart:3", "expired", 1);
        hear("cart:4", "keymiss", 1);
        // The way back's.
        hear("user:1", "set", 200);
        hear("user:2", "hset", 1);
        hear("understudy:checkpoint:e2e-back", "set", 1);
        hear("count:1", "incrby", 1);
        hear("understudy:checkpoint:e2e-back", "set", 200);
        late.settle(&handover, now + Duration::from_secs(1));
        let found = handover.json(&[])["late_writes"].clone();
        assert_eq!(found["total"], 3);
        let expected = serde_json::json!({ "cart:": 2, "count:": 1 });
        assert_eq!(found["by_prefix"], expected);
    }
}
