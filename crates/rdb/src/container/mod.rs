//! Containers packed into one string.
//!
//! Each is a sequence of entries; what an entry is to the value (a member, a field, a score)
//! is the [`Shape`]. [`Packed::check`] validates a whole container at once, [`Entries`] gives its
//! entries one by one.

use bytes::Bytes;

use crate::error::{ErrorKind, Stop};
use crate::leaf::double;
use crate::members::Members;

pub(crate) mod intset;
pub(crate) mod listpack;
pub(crate) mod stream_node;
pub(crate) mod ziplist;
pub(crate) mod zipmap;

/// The container's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Ziplist,
    Listpack,
    Intset,
    Zipmap,
}

/// What the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Items, of which any may be there twice.
    Items,
    /// Members.
    Members,
    /// Field and value by turns.
    Pairs,
    /// Member and score by turns.
    Scored,
    /// Field, value, expiry by turns.
    Expiring,
}

impl Shape {
    /// Entries to an element.
    pub(crate) const fn entries(self) -> u64 {
        match self {
            Self::Items | Self::Members => 1,
            Self::Pairs | Self::Scored => 2,
            Self::Expiring => 3,
        }
    }
}

/// An entry: a place in the container, or a number written as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Text { start: usize, end: usize },
    Int(i64),
}

/// A container's layout and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) form: Form,
    pub(crate) shape: Shape,
}

/// Expiries are kept in 48 bits.
pub(crate) const EXPIRY_MAX: u64 = (1 << 48) - 1;

impl Packed {
    /// Validates the container; returns the number of its entries. What makes it a value that not
    /// every server takes, a member that comes twice or an intset that does not ascend, is no
    /// error: it is noted in `members`, if anybody cares.
    pub(crate) fn check(
        self,
        blob: &[u8],
        members: Option<&mut Members>,
    ) -> Result<u64, ErrorKind> {
        let entries = self.shape.entries();
        match (self.shape, members) {
            (Shape::Items, _) if self.form == Form::Listpack => self.whole(listpack::count(blob)?),
            (Shape::Items, _) => self.walk(blob, |_, _| Ok(())),
            (Shape::Members, Some(members)) if self.form == Form::Intset => {
                let mut last = None;
                self.walk(blob, |_, entry| {
                    if last
                        .replace(entry)
                        .is_some_and(|last| !ascends(last, entry))
                    {
                        members.flaw();
                    }
                    Ok(())
                })
            }
            (shape, Some(members)) if self.form == Form::Listpack => {
                let first = |entry| members.entry(blob, entry);
                let other = |place, entry| self.check_entry(blob, place, entry);
                // The number of entries is known to the compiler so.
                self.whole(match shape {
                    Shape::Items | Shape::Members => {
                        listpack::walk_elements::<1>(blob, first, other)
                    }
                    Shape::Pairs => listpack::walk_elements::<2>(blob, first, |_, _| Ok(())),
                    Shape::Scored => listpack::walk_elements::<2>(blob, first, other),
                    Shape::Expiring => listpack::walk_elements::<3>(blob, first, other),
                }?)
            }
            (_, Some(members)) => {
                let mut place = 0;
                self.walk(blob, |_, entry| {
                    let this = place;
                    place = if this + 1 == entries { 0 } else { this + 1 };
                    match this {
                        0 => {
                            members.entry(blob, entry);
                            Ok(())
                        }
                        _ => self.check_entry(blob, this, entry),
                    }
                })
            }
            (_, None) => self.walk(blob, |index, entry| {
                self.check_entry(blob, index % entries, entry)
            }),
        }
    }

    /// Validates an entry by its place in its element.
    #[inline]
    fn check_entry(self, blob: &[u8], place: u64, entry: Entry) -> Result<(), ErrorKind> {
        match (self.shape, place, entry) {
            (Shape::Scored, 1, Entry::Text { start, end }) => {
                let text = blob.get(start..end).unwrap_or_default();
                double::check_text(text).map_err(Stop::in_full)
            }
            (Shape::Expiring, 2, entry) => expiry(entry).map(drop),
            _ => Ok(()),
        }
    }

    fn walk(
        self,
        blob: &[u8],
        each: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
    ) -> Result<u64, ErrorKind> {
        let count = match self.form {
            Form::Ziplist => ziplist::walk(blob, each)?,
            Form::Listpack => listpack::walk(blob, each)?,
            Form::Intset => intset::walk(blob, each)?,
            Form::Zipmap => zipmap::walk(blob, each)?,
        };
        self.whole(count)
    }

    /// The entries have to make whole elements.
    fn whole(self, count: u64) -> Result<u64, ErrorKind> {
        if !count.is_multiple_of(self.shape.entries()) {
            return Err(ErrorKind::Corrupt(
                "a container with an incomplete last element",
            ));
        }
        Ok(count)
    }
}

const fn ascends(last: Entry, next: Entry) -> bool {
    matches!((last, next), (Entry::Int(last), Entry::Int(next)) if last < next)
}

/// A field's expiry from its entry; `None` if it has none.
pub(crate) fn expiry(entry: Entry) -> Result<Option<u64>, ErrorKind> {
    match entry {
        Entry::Int(0) => Ok(None),
        Entry::Int(value) => match u64::try_from(value) {
            Ok(at_ms) if at_ms <= EXPIRY_MAX => Ok(Some(at_ms)),
            _ => Err(ErrorKind::Corrupt("a field's expiry out of range")),
        },
        Entry::Text { .. } => Err(ErrorKind::Corrupt("a field's expiry that is no integer")),
    }
}

/// The entries of a container that was checked.
#[derive(Debug)]
pub(crate) struct Entries {
    blob: Bytes,
    form: Form,
    at: usize,
}

impl Entries {
    /// `blob` has passed [`Packed::check`].
    pub(crate) fn new(form: Form, blob: Bytes) -> Self {
        let at = match form {
            Form::Ziplist => ziplist::HEADER,
            Form::Listpack => listpack::HEADER,
            Form::Intset => intset::HEADER,
            Form::Zipmap => zipmap::Place::FIRST,
        };
        Self { blob, form, at }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ErrorKind> {
        let next = match self.form {
            Form::Ziplist => ziplist::entry(&self.blob, self.at)?,
            Form::Listpack => listpack::entry(&self.blob, self.at)?,
            Form::Intset => intset::entry(&self.blob, self.at)?,
            Form::Zipmap => zipmap::entry(&self.blob, self.at)?,
        };
        Ok(next.map(|(entry, after)| {
            self.at = after;
            entry
        }))
    }

    /// The whole container.
    #[inline]
    pub(crate) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The bytes of a text entry.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Bytes {
        self.blob.slice(start..end)
    }
}
