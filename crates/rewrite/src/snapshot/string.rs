//! Strings: `SET key value [PXAT ms] [NX]`, in parts where they are large.

use bytes::Bytes;
use resp::encode;

use super::write::{self, Expect, Method, Sent};
use super::{Current, Existing, Progress, SnapshotError, SnapshotErrorKind, SnapshotRewriter};
use crate::number::Decimal;

impl SnapshotRewriter {
    /// A string that is there as a whole.
    pub(super) fn string(
        &mut self,
        value: Bytes,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let current = self.take()?;
        self.select(current.head.db, out, sent);
        if !self.fits(&current, value.len() as u64) {
            let name = self.build_name(&current);
            let mut current = Current {
                value: Progress::Append {
                    name,
                    begun: false,
                    held: value,
                },
                ..current
            };
            return self.string_built(&mut current, out, sent);
        }
        self.set_head(&current, value.len(), out);
        out.extend_from_slice(&value);
        self.set_tail(&current, out, sent);
        Ok(())
    }

    /// A string that comes in parts.
    pub(super) fn string_start(
        &mut self,
        len: Option<u64>,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        self.select(current.head.db, out, sent);
        current.value = match len.and_then(|len| Some((len, usize::try_from(len).ok()?))) {
            Some((left, bytes)) if self.fits(&current, left) => {
                self.set_head(&current, bytes, out);
                Progress::Bulk { left }
            }
            Some(_) | None => Progress::Append {
                name: self.build_name(&current),
                begun: false,
                held: Bytes::new(),
            },
        };
        self.current = Some(current);
        Ok(())
    }

    pub(super) fn string_part(
        &mut self,
        part: Bytes,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        match &mut current.value {
            Progress::Bulk { left } => {
                let Some(rest) = left.checked_sub(part.len() as u64) else {
                    return Err(Self::error(&current.head, SnapshotErrorKind::WrongLength));
                };
                *left = rest;
                out.extend_from_slice(&part);
            }
            Progress::Append { .. } => self.append(&mut current, part, out, sent),
            _ => return Err(Self::out_of_order()),
        }
        self.current = Some(current);
        Ok(())
    }

    /// The end of a string that came in parts.
    pub(super) fn string_end(
        &self,
        current: &mut Current,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        match current.value {
            Progress::Bulk { left: 0 } => {
                self.set_tail(current, out, sent);
                Ok(())
            }
            Progress::Bulk { .. } => {
                Err(Self::error(&current.head, SnapshotErrorKind::WrongLength))
            }
            Progress::Append { .. } => self.string_built(current, out, sent),
            _ => Err(Self::out_of_order()),
        }
    }

    /// Whether one `SET` does it: the target takes as much, and no second command has to be guarded.
    fn fits(&self, current: &Current, len: u64) -> bool {
        let one = self.options.target.set_pxat
            || current.head.expire_at_ms.is_none()
            || self.options.existing == Existing::Replace;
        one && len <= self.options.target.bulk_bytes_max
    }

    /// `SET key` and the head of the value.
    fn set_head(&self, current: &Current, len: usize, out: &mut Vec<u8>) {
        let timed = self.in_set(current).is_some();
        let guarded = self.options.existing != Existing::Replace;
        encode::command_header(out, 3 + 2 * usize::from(timed) + usize::from(guarded));
        encode::bulk(out, b"SET");
        encode::bulk(out, &current.head.key);
        encode::bulk_header(out, len);
    }

    /// The time that goes into the `SET` itself.
    fn in_set(&self, current: &Current) -> Option<i64> {
        current
            .head
            .expire_at_ms
            .filter(|_| self.options.target.set_pxat)
    }

    /// What follows the value.
    fn set_tail(&self, current: &Current, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        let head = &current.head;
        out.extend_from_slice(b"\r\n");
        if let Some(at) = self.in_set(current) {
            encode::bulk(out, b"PXAT");
            encode::bulk(out, Decimal::new(at).text());
        }
        let expect = match self.options.existing {
            Existing::Replace => Expect::Ok,
            Existing::Fail | Existing::Skip => {
                encode::bulk(out, b"NX");
                Expect::NilMeansExists
            }
        };
        let set = Sent::new(head, Method::Set, expect);
        match head.expire_at_ms {
            Some(at) if !self.options.target.set_pxat => {
                sent.push(set);
                write::expire(&head.key, at, out);
                sent.push(Sent::new(head, Method::Set, Expect::Int).last());
            }
            Some(_) | None => sent.push(set.last()),
        }
    }

    /// Writes the part that waits, in pieces that the target takes: `SET` of the first, `APPEND` of the others. The next
    /// part waits then.
    fn append(&self, current: &mut Current, part: Bytes, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        let Progress::Append { name, begun, held } = &mut current.value else {
            return;
        };
        let max = usize::try_from(self.options.target.bulk_bytes_max)
            .unwrap_or(usize::MAX)
            .max(1);
        for piece in std::mem::replace(held, part).chunks(max) {
            let (command, expect) = if *begun {
                (&b"APPEND"[..], Expect::Int)
            } else {
                (&b"SET"[..], Expect::Ok)
            };
            encode::command(out, &[command, name, piece]);
            sent.push(Sent::new(&current.head, Method::Commands, expect));
            *begun = true;
        }
    }

    fn string_built(
        &self,
        current: &mut Current,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        self.append(current, Bytes::new(), out, sent);
        let Progress::Append { name, begun, .. } = &current.value else {
            return Err(Self::out_of_order());
        };
        if !begun {
            encode::command(out, &[b"SET", name, b""]);
            sent.push(Sent::new(&current.head, Method::Commands, Expect::Ok));
        }
        let name: Bytes = name.clone();
        self.finish(&current.head, &name, Method::Commands, out, sent);
        Ok(())
    }
}
