//! Short strings that come with their keys: one `SET`, written without a detour.

use rdb::Record;
use resp::encode;

use super::losses::Loss;
use super::write::{self, Sent};
use super::{Existing, SnapshotRewriter};
use crate::Kind;
use crate::number::Decimal;

/// What became of a key with a short string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainSet {
    /// It is a plain `SET`, and its key and value were appended.
    Appended,
    /// It does not pass.
    LeftOut,
    /// It takes more than that, or another db: nothing was done, it is to be given to [`SnapshotRewriter::key`].
    Other,
}

/// A string above this goes the usual way.
const PAIR_BYTES_MAX: usize = 4 << 10;

impl SnapshotRewriter {
    /// A key with a short string that is a plain `SET` in the db that is selected: key and value are appended to `out`
    /// as they stand in a command, for callers that join such commands.
    #[inline]
    pub fn plain_set(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> PlainSet {
        let len = record.value.len();
        if self.options.existing != Existing::Replace
            || self.options.db_map.is_some()
            || record.expire_at_ms.is_some()
            || self.selected != Some(record.db)
            || record.key.len() + len > PAIR_BYTES_MAX
            || len as u64 > self.options.target.bulk_bytes_max
        {
            return PlainSet::Other;
        }
        self.current = None;
        self.abandoned = false;
        if self.is_left_out(record.db, record.key, Kind::String, None) {
            return PlainSet::LeftOut;
        }
        if record.freq.is_some() || record.idle_seconds.is_some() {
            self.count_loss(Loss::UsageHint);
        }
        write_pair(record, len, out);
        PlainSet::Appended
    }

    /// A key with a short string, for callers that look at no replies: its `SET` is appended to `out`, and not noted in
    /// `sent` (a `SELECT` before it is). False if that is not how this key goes to the target, and nothing was done: it is
    /// to be given to [`Self::key`] and [`Self::event`] then.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>, sent: &mut Vec<Sent>) -> bool {
        let target = &self.options.target;
        if self.options.existing != Existing::Replace
            || self.options.db_map.is_some()
            || (record.expire_at_ms.is_some() && !target.set_pxat)
            || record.value.len() as u64 > target.bulk_bytes_max
        {
            return false;
        }
        self.current = None;
        self.abandoned = false;
        let db = record.db;
        if self.is_left_out(db, record.key, Kind::String, record.expire_at_ms) {
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
        write_pair(record, record.value.len(), out);
        if let Some(at_ms) = record.expire_at_ms {
            out.extend_from_slice(b"$4\r\nPXAT\r\n");
            encode::bulk(out, Decimal::new(at_ms).text());
        }
        true
    }
}

/// Key and value, which has `len` bytes, as they stand in a command.
#[inline]
fn write_pair(record: &Record<'_>, len: usize, out: &mut Vec<u8>) {
    encode::bulk(out, record.key);
    encode::bulk_header(out, len);
    record.value.append_to(out);
    out.extend_from_slice(b"\r\n");
}
