//! Values sent as they stand in the file: `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s | FREQ n]`.

use std::borrow::Cow;

use bytes::Bytes;
use rdb::{Dialect, Event, KeyHead, Want, dump};
use resp::encode;

use super::boundary;
use super::losses::Loss;
use super::write::{self, Expect, Method, Sent};
use super::{
    Current, Existing, Progress, RestoreAs, SnapshotError, SnapshotErrorKind, SnapshotRewriter,
};
use crate::Kind;
use crate::abilities::Fork;
use crate::number::Decimal;
use crate::stream::Losses;
use crate::streams::{self, NotOlder};

/// Key metadata came with RDB 13 of Redis.
const META_VERSION: u16 = 13;

/// Sets, sorted sets (with scores as text or in binary), hashes: one string after another.
const TABLES: [u8; 4] = [2, 3, 4, 5];
/// The type byte and the footer.
const FRAME: u64 = 11;

/// A `RESTORE` up to its payload.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    name: Bytes,
    replace: bool,
    /// The command sets the key's expiry itself.
    in_place: bool,
    expect: Expect,
}

/// A value's bytes, and how they are sent.
type Payload<'a> = (Cow<'a, [u8]>, RestoreAs);

impl SnapshotRewriter {
    pub(super) fn takes_metadata(&self) -> bool {
        let target = &self.options.target;
        target.fork == Fork::Redis && target.rdb_version_max >= META_VERSION
    }

    /// In which form a key's value is wanted, and how its bytes are to be sent.
    pub(super) fn choose(
        &self,
        head: &KeyHead,
    ) -> Result<(Want, Option<RestoreAs>), SnapshotErrorKind> {
        let with_meta = head.meta.is_some() && self.takes_metadata();
        let restore = self.restorable(head.type_id);
        if head.meta.is_some() && (!with_meta || restore.is_none()) {
            self.may_lose(Loss::Metadata)?;
        }
        if head.kind == Kind::String && !with_meta {
            return Ok((Want::Elements, None));
        }
        if self.leases_fields() && head.meta.is_none() && has_field_times(head.type_id) {
            return Ok((Want::Elements, None));
        }
        let builds = self.builds(head);
        let Some(mut restore) = restore else {
            if builds {
                return Ok((Want::Elements, None));
            }
            let (type_id, kind) = (head.type_id, head.kind);
            return Err(SnapshotErrorKind::TypeUnknown { type_id, kind });
        };
        let mut bytes_max = if builds {
            self.body_bytes_max()
        } else {
            u64::MAX
        };
        if with_meta {
            restore.version = restore.version.max(META_VERSION);
            bytes_max = u64::MAX;
        }
        Ok((Want::Raw { bytes_max }, Some(restore)))
    }

    /// Whether expiries of fields are moved. (Those of a value with metadata, which RESTORE alone brings, are not.)
    pub(super) fn leases_fields(&self) -> bool {
        self.options.field_lease.is_some() && self.options.target.hash_field_ttl
    }

    /// Whether commands can build such a value at the target.
    fn builds(&self, head: &KeyHead) -> bool {
        match head.kind {
            Kind::String | Kind::List | Kind::Set | Kind::Zset | Kind::Hash => true,
            Kind::Stream => self.options.target.streams,
            Kind::Array => self.options.target.arrays,
            Kind::Module | Kind::RateLimiter => false,
        }
    }

    /// The largest body that is sent in one piece, where it could also be sent otherwise.
    fn body_bytes_max(&self) -> u64 {
        // The type byte and the footer go with it.
        let room = self.options.target.bulk_bytes_max.saturating_sub(11);
        self.options.restore_bytes_max.min(room)
    }

    /// The type and version under which the target takes a value of this type.
    fn restorable(&self, type_id: u8) -> Option<RestoreAs> {
        let target = &self.options.target;
        let valkey = self.dialect == Dialect::Valkey;
        let as_it_is = target
            .payload_version(type_id, valkey)
            .map(|version| (type_id, version));
        let is_stream = streams::TYPES.contains(&type_id);
        let (type_id, version) =
            as_it_is.or_else(|| target.stream_as(type_id).filter(|_| is_stream))?;
        Some(RestoreAs { type_id, version })
    }

    /// A value's bytes.
    pub(super) fn raw(
        &mut self,
        body: &[u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let current = self.take()?;
        let module;
        let body = if current.head.kind == Kind::Module {
            let Some(fitted) = self.module_body(&current.head, body, out, sent)? else {
                return Ok(());
            };
            module = fitted;
            &module
        } else {
            body
        };
        match boundary::elements(current.head.type_id, body) {
            Ok(None) => {}
            Ok(Some(events)) => return self.raw_by_commands(current, events, out, sent),
            Err(()) => return Err(Self::malformed(&current.head)),
        }
        let Some((body, restore)) = self.bytes_of(&current, body)? else {
            let events = boundary::decode(current.head.type_id, body);
            let events = events.ok_or_else(|| Self::malformed(&current.head))?;
            return self.raw_by_commands(current, events, out, sent);
        };
        let len = dump::payload_len(current.head.meta.as_deref(), &body);
        let begun = self.restore_begin(&current, len as u64, out, sent)?;
        dump::payload(
            out,
            current.head.meta.as_deref(),
            restore.type_id,
            &body,
            restore.version,
        );
        self.restore_end(&current.head, begun, out, sent);
        Ok(())
    }

    /// No value goes in pieces from now on.
    pub fn without_pieces(&mut self) {
        self.options.restore_pieces_bytes_max = 0;
    }

    /// Up to how many bytes of the last key's value may go as one `RESTORE` in pieces, where more than what is asked for
    /// whole may: tables without anything packed in them, which servers read alike.
    pub fn pieces_max(&self) -> Option<u64> {
        let Current { head, restore, .. } = self.current.as_ref()?;
        let room = self.options.target.bulk_bytes_max.saturating_sub(11);
        let max = self.options.restore_pieces_bytes_max.min(room);
        let as_it_is = restore.is_some_and(|restore| restore.type_id == head.type_id);
        let is_table = TABLES.contains(&head.type_id) && head.meta.is_none();
        (as_it_is && is_table && max > self.body_bytes_max()).then_some(max)
    }

    /// Begins the `RESTORE` of the last key's value, whose body is so long and follows in pieces. The command is open until
    /// all of it was given.
    pub fn pieces(
        &mut self,
        bytes: u64,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        let Some(restore) = current.restore else {
            return Err(Self::out_of_order());
        };
        let begun = self.restore_begin(&current, bytes.saturating_add(FRAME), out, sent)?;
        out.push(restore.type_id);
        current.value = Progress::Pieces {
            left: bytes,
            checksum: dump::checksum(0, &[restore.type_id]),
            begun,
        };
        self.current = Some(current);
        Ok(())
    }

    /// The next bytes of a body that goes in pieces; true at its end.
    pub fn piece(
        &mut self,
        piece: &[u8],
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<bool, SnapshotError> {
        let mut current = self.take()?;
        let (Progress::Pieces { left, checksum, .. }, Some(restore)) =
            (&mut current.value, current.restore)
        else {
            return Err(Self::out_of_order());
        };
        let Some(rest) = left.checked_sub(piece.len() as u64) else {
            return Err(Self::error(&current.head, SnapshotErrorKind::WrongLength));
        };
        out.extend_from_slice(piece);
        (*left, *checksum) = (rest, dump::checksum(*checksum, piece));
        if rest > 0 {
            self.current = Some(current);
            return Ok(false);
        }
        dump::footer(out, *checksum, restore.version);
        if let Progress::Pieces { begun, .. } = current.value {
            self.restore_end(&current.head, begun, out, sent);
        }
        Ok(true)
    }

    /// What stands before a payload of so many bytes.
    fn restore_begin(
        &mut self,
        current: &Current,
        bytes: u64,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<Begun, SnapshotError> {
        self.count_raw_losses(current);
        let head = &current.head;
        let max = self.options.target.bulk_bytes_max;
        let len = usize::try_from(bytes).ok().filter(|_| bytes <= max);
        let Some(len) = len else {
            let kind = SnapshotErrorKind::TooLarge { bytes, max };
            return Err(Self::error(head, kind));
        };
        self.select(head.db, out, sent);
        let at = head.expire_at_ms.unwrap_or_default();
        let target = &self.options.target;
        // Without ABSTTL the time takes a second command, which would strike a key that was there before.
        let in_place = at == 0 || target.restore_absttl;
        let guarded = self.options.existing != Existing::Replace;
        let name = if guarded && !in_place {
            self.build_name(current)
        } else {
            head.key.clone()
        };
        let own_name = name == head.key;
        if !own_name || (!guarded && !target.restore_replace) {
            write::delete(&name, target.unlink, out);
            sent.push(Sent::new(head, Method::Restore, Expect::Int));
        }
        let replace = !guarded && target.restore_replace;
        self.restore_head(head, &name, replace, out);
        encode::bulk_header(out, len);
        Ok(Begun {
            name,
            replace,
            in_place,
            expect: match guarded && own_name {
                true => Expect::OkOrBusyKey,
                false => Expect::Ok,
            },
        })
    }

    /// What stands behind the payload.
    fn restore_end(&self, head: &KeyHead, begun: Begun, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        self.restore_tail(head, begun.replace, out);
        let restored = Sent::new(head, Method::Restore, begun.expect);
        if begun.in_place {
            sent.push(restored.last());
        } else {
            sent.push(restored);
            self.finish(head, &begun.name, Method::Restore, out, sent);
        }
    }

    /// Builds a value by commands whose bytes are at hand.
    fn raw_by_commands(
        &mut self,
        mut current: Current,
        events: Vec<Event>,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if current.head.meta.take().is_some() {
            self.lose(&current.head, Loss::Metadata)?;
        }
        let is_stream = current.head.kind == Kind::Stream;
        self.current = Some(current);
        for event in events.iter().filter(|_| is_stream) {
            self.ahead(event)?;
        }
        for event in events {
            self.write(event, out, sent)?;
        }
        Ok(())
    }

    pub(super) fn malformed(head: &KeyHead) -> SnapshotError {
        let (type_id, kind) = (head.type_id, head.kind);
        Self::error(head, SnapshotErrorKind::TypeUnknown { type_id, kind })
    }

    /// What `RESTORE` into an older layout, or without its hints, leaves behind.
    fn count_raw_losses(&mut self, current: &Current) {
        let Current { head, restore, .. } = current;
        if has_hints(head) && !self.options.target.restore_idle_freq {
            self.count_loss(Loss::UsageHint);
        }
        let older = restore.is_some_and(|restore| restore.type_id < streams::WITH_COUNTERS);
        if head.kind == Kind::Stream && head.type_id >= streams::WITH_COUNTERS && older {
            self.count_loss(Loss::StreamCounters);
        }
    }

    /// The bytes to send: as they are, or a stream's in an older layout. `None`: no older layout can hold it, and commands
    /// come nearer to it.
    fn bytes_of<'a>(
        &mut self,
        current: &Current,
        body: &'a [u8],
    ) -> Result<Option<Payload<'a>>, SnapshotError> {
        let Current { head, restore, .. } = current;
        let restore = restore.ok_or_else(Self::out_of_order)?;
        if restore.type_id == head.type_id {
            return Ok(Some((Cow::Borrowed(body), restore)));
        }
        let older = |keep| streams::older(body, head.type_id, restore.type_id, keep);
        let allowed = self.options.losses == Losses::Allow;
        let body = match older(true) {
            Err(NotOlder::Idempotence) if allowed => {
                self.count_loss(Loss::StreamIdempotence);
                older(false)
            }
            Err(NotOlder::Returned) if allowed => return Ok(None),
            body => body,
        };
        match body {
            Ok(body) => Ok(Some((Cow::Owned(body), restore))),
            Err(NotOlder::Malformed) => Err(Self::malformed(head)),
            Err(why @ (NotOlder::Idempotence | NotOlder::Returned)) => Err(Self::error(
                head,
                SnapshotErrorKind::TargetLacks { what: why.what() },
            )),
        }
    }

    /// Whether the time goes into the `RESTORE` itself.
    fn timed(&self, head: &KeyHead) -> Option<i64> {
        let at = head.expire_at_ms.filter(|at| *at != 0);
        at.filter(|_| self.options.target.restore_absttl)
    }

    fn restore_head(&self, head: &KeyHead, name: &[u8], replace: bool, out: &mut Vec<u8>) {
        let timed = self.timed(head);
        let hints = if self.hint(head).is_some() { 2 } else { 0 };
        encode::command_header(
            out,
            4 + usize::from(replace) + usize::from(timed.is_some()) + hints,
        );
        encode::bulk(out, b"RESTORE");
        encode::bulk(out, name);
        encode::bulk(out, Decimal::new(timed.unwrap_or_default()).text());
    }

    fn restore_tail(&self, head: &KeyHead, replace: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        if replace {
            encode::bulk(out, b"REPLACE");
        }
        if self.timed(head).is_some() {
            encode::bulk(out, b"ABSTTL");
        }
        if let Some((word, number)) = self.hint(head) {
            encode::bulk(out, word);
            encode::bulk(out, Decimal::new(number).text());
        }
    }

    /// How long the key was not used, or how often it is.
    fn hint(&self, head: &KeyHead) -> Option<(&'static [u8], i64)> {
        if !self.options.target.restore_idle_freq {
            return None;
        }
        if let Some(freq) = head.freq {
            return Some((b"FREQ", i64::from(freq)));
        }
        let idle = i64::try_from(head.idle_seconds?).ok()?;
        Some((b"IDLETIME", idle))
    }
}

/// Whether fields of a value of this type may have expiries: they may in both forks' hashes under these numbers.
pub(crate) fn has_field_times(type_id: u8) -> bool {
    (22..=25).contains(&type_id)
}

/// Whether the file says how the key is used.
pub(super) fn has_hints(head: &KeyHead) -> bool {
    head.freq.is_some() || head.idle_seconds.is_some()
}
