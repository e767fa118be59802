//! A stream's node: messages in a listpack (`t_stream.c: streamAppendItem`).
//!
//! ```text
//! node    = count  deleted  n  field × n  0  message × (count + deleted)
//! message = flags  ms  seq  (n  (field  value) × n  |  value × n of the node)  size
//! ```
//!
//! Every item is an entry of the listpack; `ms` and `seq` are distances from the node's own id,
//! added with wrap-around. Flag 1: deleted; flag 2: the node's fields, only values follow. `size` is
//! the number of the message's entries before it.

use crate::container::{Entries, Entry, Form, listpack};
use crate::error::ErrorKind;
use crate::event::StreamId;

const DELETED: u64 = 1;
const SAME_FIELDS: u64 = 2;

const NUMBER: ErrorKind = ErrorKind::Corrupt("a stream's number that is none or below zero");
const RUNS_OUT: ErrorKind = ErrorKind::Corrupt("a message that runs past the end of its node");

/// What comes next in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Count,
    Deleted,
    Fields,
    Field { left: u64 },
    Terminator,
    Flags,
    Ms { flags: u64 },
    Seq { flags: u64, ms: u64 },
    FieldCount,
    Text { left: u64 },
    Size,
}

/// What a check found out about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Messages that are not deleted.
    pub(crate) live: u64,
    /// The id of the last message, deleted or not.
    pub(crate) last: Option<StreamId>,
    /// Whether the node's header counts live and deleted messages as their flags do.
    pub(crate) counts_agree: bool,
}

/// Goes over a node entry by entry.
struct Check {
    next: Next,
    /// The node's own id.
    base: StreamId,
    /// Live messages as the header says.
    count: u64,
    /// Messages still to come.
    left: u64,
    /// Fields of the node.
    fields: u64,
    /// Entries of the message so far.
    size: u64,
    live: u64,
    last: Option<StreamId>,
}

/// Validates a node, which follows the message `before`.
pub(crate) fn check(
    blob: &[u8],
    base: StreamId,
    before: Option<StreamId>,
) -> Result<Checked, ErrorKind> {
    let mut check = Check {
        next: Next::Count,
        base,
        count: 0,
        left: 0,
        fields: 0,
        size: 0,
        live: 0,
        last: before,
    };
    if listpack::walk(blob, |_, entry| check.entry(entry))? == 0 {
        return Err(ErrorKind::Corrupt("a container that must not be empty"));
    }
    if check.next != Next::Flags || check.left != 0 {
        return Err(RUNS_OUT);
    }
    Ok(Checked {
        live: check.live,
        last: check.last,
        counts_agree: check.live == check.count,
    })
}

impl Check {
    #[inline]
    fn entry(&mut self, entry: Entry) -> Result<(), ErrorKind> {
        self.size += 1;
        self.next = match self.next {
            Next::Text { left: 1 } => Next::Size,
            Next::Text { left } => Next::Text { left: left - 1 },
            Next::Flags => self.flags(number(entry)?)?,
            Next::Ms { flags } => Next::Seq {
                flags,
                ms: self.base.ms.wrapping_add(distance(entry)?),
            },
            Next::Seq { flags, ms } => {
                let seq = self.base.seq.wrapping_add(distance(entry)?);
                self.id(StreamId { ms, seq }, flags)?
            }
            Next::FieldCount => texts(number(entry)?.saturating_mul(2)),
            Next::Size if number(entry)? + 1 == self.size => Next::Flags,
            Next::Size => return Err(ErrorKind::Corrupt("a message with a wrong size behind it")),
            _ => self.head(entry)?,
        };
        Ok(())
    }

    /// An entry before the first message.
    fn head(&mut self, entry: Entry) -> Result<Next, ErrorKind> {
        Ok(match self.next {
            Next::Count => {
                self.count = number(entry)?;
                Next::Deleted
            }
            Next::Deleted => {
                self.left = self.count.saturating_add(number(entry)?);
                Next::Fields
            }
            Next::Fields => {
                self.fields = number(entry)?;
                fields(self.fields)
            }
            Next::Field { left } => fields(left - 1),
            Next::Terminator if entry == Entry::Int(0) => Next::Flags,
            _ => {
                return Err(ErrorKind::Corrupt(
                    "a stream node whose fields do not end with 0",
                ));
            }
        })
    }

    fn flags(&mut self, flags: u64) -> Result<Next, ErrorKind> {
        self.left = self.left.checked_sub(1).ok_or(ErrorKind::Corrupt(
            "a stream node with more messages than stated",
        ))?;
        if flags > DELETED | SAME_FIELDS {
            return Err(ErrorKind::Corrupt("a message with unknown flags"));
        }
        self.size = 1;
        Ok(Next::Ms { flags })
    }

    fn id(&mut self, id: StreamId, flags: u64) -> Result<Next, ErrorKind> {
        if self.last >= Some(id) {
            return Err(ErrorKind::Corrupt("messages whose ids do not ascend"));
        }
        self.last = Some(id);
        self.live += u64::from(flags & DELETED == 0);
        Ok(if flags & SAME_FIELDS == 0 {
            Next::FieldCount
        } else {
            texts(self.fields)
        })
    }
}

const fn fields(left: u64) -> Next {
    match left {
        0 => Next::Terminator,
        _ => Next::Field { left },
    }
}

const fn texts(left: u64) -> Next {
    match left {
        0 => Next::Size,
        _ => Next::Text { left },
    }
}

fn number(entry: Entry) -> Result<u64, ErrorKind> {
    match entry {
        Entry::Int(value) => u64::try_from(value).map_err(|_| NUMBER),
        Entry::Text { .. } => Err(NUMBER),
    }
}

fn distance(entry: Entry) -> Result<u64, ErrorKind> {
    match entry {
        Entry::Int(value) => Ok(value.cast_unsigned()),
        Entry::Text { .. } => Err(ErrorKind::Corrupt("a message's id that is no number")),
    }
}

/// The live messages of a node that was checked.
#[derive(Debug)]
pub(crate) struct Messages {
    entries: Entries,
    base: StreamId,
    left: u64,
    /// The node's fields.
    fields: Vec<Entry>,
    /// Of the message given last: the fields still to come, and whether they are the node's.
    pairs_left: u64,
    own_fields: bool,
}

/// A live message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) id: StreamId,
    pub(crate) fields: u64,
}

impl Messages {
    /// `blob` has passed [`check`].
    pub(crate) fn new(blob: bytes::Bytes, base: StreamId) -> Result<Self, ErrorKind> {
        let mut entries = Entries::new(Form::Listpack, blob);
        let left = next_number(&mut entries)?.saturating_add(next_number(&mut entries)?);
        let mut fields = Vec::new();
        for _ in 0..next_number(&mut entries)? {
            fields.push(next(&mut entries)?);
        }
        next(&mut entries)?;
        Ok(Self {
            entries,
            base,
            left,
            fields,
            pairs_left: 0,
            own_fields: false,
        })
    }

    /// The next message that is not deleted; its pairs have to be taken before the one after it.
    pub(crate) fn message(&mut self) -> Result<Option<Message>, ErrorKind> {
        while self.left > 0 {
            self.left -= 1;
            let flags = next_number(&mut self.entries)?;
            let ms = distance(next(&mut self.entries)?)?;
            let seq = distance(next(&mut self.entries)?)?;
            self.own_fields = flags & SAME_FIELDS == 0;
            self.pairs_left = if self.own_fields {
                next_number(&mut self.entries)?
            } else {
                self.fields.len() as u64
            };
            if self.pairs_left == 0 {
                // The size behind the message, which else goes with its last pair.
                next(&mut self.entries)?;
            }
            if flags & DELETED == 0 {
                let fields = self.pairs_left;
                let id = StreamId {
                    ms: self.base.ms.wrapping_add(ms),
                    seq: self.base.seq.wrapping_add(seq),
                };
                return Ok(Some(Message { id, fields }));
            }
            while self.pair()?.is_some() {}
        }
        Ok(None)
    }

    /// The next field and value of the message.
    #[inline]
    pub(crate) fn pair(&mut self) -> Result<Option<(Entry, Entry)>, ErrorKind> {
        let Some(left) = self.pairs_left.checked_sub(1) else {
            return Ok(None);
        };
        let field = if self.own_fields {
            next(&mut self.entries)?
        } else {
            let index = self.fields.len() as u64 - self.pairs_left;
            let field = usize::try_from(index)
                .ok()
                .and_then(|at| self.fields.get(at));
            *field.ok_or(RUNS_OUT)?
        };
        let value = next(&mut self.entries)?;
        self.pairs_left = left;
        if left == 0 {
            next(&mut self.entries)?;
        }
        Ok(Some((field, value)))
    }

    /// What the entries are in.
    pub(crate) const fn entries(&self) -> &Entries {
        &self.entries
    }
}

fn next(entries: &mut Entries) -> Result<Entry, ErrorKind> {
    entries.next()?.ok_or(RUNS_OUT)
}

fn next_number(entries: &mut Entries) -> Result<u64, ErrorKind> {
    number(next(entries)?)
}
