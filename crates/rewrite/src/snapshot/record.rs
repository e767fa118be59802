//! Short strings that come with their keys: one `SET`, written without a detour.

use rdb::Record;
use resp::encode;

use super::losses::Loss;
use super::write::{self, Sent};
use super::{Existing, SnapshotRewriter};
use crate::Kind;
use crate::number::Decimal;

impl SnapshotRewriter {
    /// A key with a short string, for callers that look at no replies: its `SET` is appended to `out`, and not noted in
    /// `sent` (a `SELECT` before it is). False if that is not how this key goes to the target, and nothing was done: it is
    /// to be given to [`Self::key`] and [`Self::event`] then.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>, sent: &mut Vec<Sent>) -> bool {
        let target = &self.options.target;
        if self.options.existing != Existing::Replace
            || (record.expire_at_ms.is_some() && !target.set_pxat)
            || record.value.len() as u64 > target.bulk_bytes_max
        {
            return false;
        }
        self.current = None;
        self.abandoned = false;
        let (db, key) = (record.db, record.key);
        if self.is_left_out(db, key, Kind::String, record.expire_at_ms) {
            return true;
        }
        if record.freq.is_some() || record.idle_seconds.is_some() {
            self.count_loss(Loss::UsageHint);
        }
        if self.selected != Some(db) {
            self.selected = Some(db);
            write::select(db, out, sent);
        }
        out.extend_from_slice(match record.expire_at_ms {
            None => b"*3\r\n$3\r\nSET\r\n",
            Some(_) => b"*5\r\n$3\r\nSET\r\n",
        });
        encode::bulk(out, key);
        encode::bulk_header(out, record.value.len());
        record.value.append_to(out);
        out.extend_from_slice(b"\r\n");
        if let Some(at_ms) = record.expire_at_ms {
            out.extend_from_slice(b"$4\r\nPXAT\r\n");
            encode::bulk(out, Decimal::new(at_ms).text());
        }
        true
    }
}
