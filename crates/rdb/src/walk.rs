//! The raw walk: finds where a value ends without decoding it, and validates it on the way.
//!
//! A stack of places in the [grammar](crate::grammar) stands in for recursion, so the walk can
//! stop at any item and go on when more has arrived. Long strings pass without being gathered.

use crate::container::listpack::BackLengths;
use crate::container::{Form, Packed, Shape};
use crate::error::{ErrorKind, Stop};
use crate::grammar::{self, NamesThen, Piece};
use crate::leaf::reader::{Reader, StringHead};
use crate::leaf::{double, lzf};
use crate::limits::Limits;
use crate::members::Members;
use crate::templates::Templates;
use crate::value::array;
use crate::window::Window;

/// How closely the walk looks at what it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// Finds the end.
    Skip,
    /// Validates what is not compressed.
    Stored,
    /// Validates what is compressed, too.
    Unpacked,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// At the end of the body.
    Whole,
    /// At the end of a body that not every server takes: with a member twice, or out of order.
    Flawed,
    /// The body is larger than wanted.
    TooLarge,
}

/// What the walk needs to know of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) templates: &'a Templates,
}

#[derive(Debug)]
pub(crate) struct Walk {
    stack: Vec<Frame>,
    /// Bytes of a string still to pass.
    skip: u64,
    care: Care,
    bytes_max: u64,
    scratch: Vec<u8>,
    /// Of the listpacks that were looked into.
    back: BackLengths,
    /// Of the value that is walked over or looked into.
    pub(crate) members: Members,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    pieces: &'static [Piece],
    next: usize,
    /// How often the pieces are still to come, this time included.
    left: u64,
}

/// What a piece took and what follows from it.
struct Effect {
    used: usize,
    then: Then,
}

enum Then {
    Next,
    /// The same piece again.
    Again,
    /// That many bytes belong to it.
    Skip(u64),
    SkipAgain(u64),
    /// These pieces come next, that many times.
    Push(&'static [Piece], u64),
}

/// Decompression space above this size is given back at once.
const SCRATCH_KEPT: usize = 1 << 20;

impl Walk {
    pub(crate) const fn new() -> Self {
        Self {
            stack: Vec::new(),
            skip: 0,
            care: Care::Skip,
            bytes_max: 0,
            scratch: Vec::new(),
            back: BackLengths {
                longer: false,
                shorter: false,
            },
            members: Members::new(),
        }
    }

    /// Begins a body of at most `bytes_max` bytes.
    pub(crate) fn start(&mut self, body: &'static [Piece], care: Care, bytes_max: u64) {
        self.stack.clear();
        self.stack.push(Frame {
            pieces: body,
            next: 0,
            left: 1,
        });
        self.skip = 0;
        self.back = BackLengths::default();
        self.members.clear();
        self.care = care;
        self.bytes_max = bytes_max;
    }

    /// Goes on with what is in the window.
    pub(crate) fn run(&mut self, window: &mut Window, around: Around<'_>) -> Result<Walked, Stop> {
        loop {
            if self.skip > 0 {
                self.skip -= window.skip(self.skip);
                if self.skip > 0 {
                    return Err(Stop::Need(1));
                }
            }
            let Some(frame) = self.stack.last_mut() else {
                return Ok(if self.members.is_flawed() {
                    Walked::Flawed
                } else {
                    Walked::Whole
                });
            };
            if frame.next == 0 && frame.left > 1 {
                let room = self.bytes_max.saturating_sub(window.marked_len());
                let used = match RoundOf::new(frame.pieces) {
                    Some(round) => {
                        let mut rounds = Rounds {
                            care: self.care,
                            limits: around.limits,
                            members: &mut self.members,
                        };
                        rounds.pass(frame, round, window.rest(), room)
                    }
                    None => 0,
                };
                window.consume(used);
            }
            let Some(&piece) = frame.pieces.get(frame.next) else {
                frame.left -= 1;
                frame.next = 0;
                if frame.left == 0 {
                    self.stack.pop();
                }
                continue;
            };
            let effect = self.step(piece, window.rest(), around)?;
            window.consume(effect.used);
            let room = self.bytes_max.checked_sub(window.marked_len());
            if !self.apply(effect.then, room) {
                return Ok(Walked::TooLarge);
            }
        }
    }

    /// Notes what follows from a piece; false if that cannot fit into the room left.
    #[inline]
    fn apply(&mut self, then: Then, room: Option<u64>) -> bool {
        let Some(room) = room else { return false };
        let again = matches!(then, Then::Again | Then::SkipAgain(_));
        if let (false, Some(frame)) = (again, self.stack.last_mut()) {
            frame.next += 1;
        }
        match then {
            Then::Next | Then::Again => true,
            Then::Skip(n) | Then::SkipAgain(n) => {
                self.skip = n;
                n <= room
            }
            Then::Push(_, 0) => true,
            Then::Push(pieces, left) => {
                self.stack.push(Frame {
                    pieces,
                    next: 0,
                    left,
                });
                // Every piece takes at least a byte.
                left <= room
            }
        }
    }

    #[inline]
    fn step(&mut self, piece: Piece, bytes: &[u8], around: Around<'_>) -> Result<Effect, Stop> {
        let mut reader = Reader::new(bytes);
        let then = match piece {
            Piece::Text => self.text(&mut reader, around.limits)?,
            Piece::Member => self.member(&mut reader, around.limits)?,
            Piece::Number => reader.number().map(|_| Then::Next)?,
            Piece::Fixed(n) => reader.take(n).map(|_| Then::Next)?,
            Piece::Each(pieces) => Then::Push(pieces, reader.number()?),
            Piece::Packed(packed) => self.packed(packed, &mut reader, around.limits)?.0,
            Piece::BinaryScore => double::binary(&mut reader).map(|_| Then::Next)?,
            Piece::TextScore => double::check_framed_text(&mut reader).map(|()| Then::Next)?,
            Piece::Optional(pieces) => match reader.number()? {
                flag @ 0..=1 => Then::Push(pieces, flag),
                _ => return Err(Stop::corrupt("a flag that is neither 0 nor 1")),
            },
            Piece::QuicklistNode => self.quicklist_node(&mut reader, around.limits)?,
            Piece::TrailingExpiry => match i64::from_le_bytes(reader.array()?) {
                ..-1 => return Err(Stop::corrupt("a field's expiry out of range")),
                -1.. => Then::Next,
            },
            Piece::ModuleParts => self.module_part(&mut reader, around.limits)?,
            Piece::ArrayHead => array_head(&mut reader)?,
            Piece::ArrayValue => self.array_value(&mut reader, around.limits)?,
            Piece::TemplateNames(names) => self.names(names, &mut reader, around.limits)?,
            Piece::TemplateValues => {
                let names = around.templates.names(reader.number()?)?;
                Then::Push(grammar::STRING, names.len() as u64)
            }
        };
        Ok(Effect {
            used: reader.at(),
            then,
        })
    }

    #[inline]
    fn text(&self, reader: &mut Reader<'_>, limits: &Limits) -> Result<Then, Stop> {
        let head = reader.string_head(limits.string_bytes_max)?;
        match head {
            StringHead::Lzf { packed, len } if self.care == Care::Unpacked => {
                lzf::check(reader.take(packed)?, len)?;
                Ok(Then::Next)
            }
            _ => Ok(Then::Skip(head.stored() as u64)),
        }
    }

    /// A string that counts among the value's members. One that cannot fit is not waited for.
    #[inline]
    fn member(&mut self, reader: &mut Reader<'_>, limits: &Limits) -> Result<Then, Stop> {
        let head = reader.string_head(limits.item_bytes_max)?;
        let stored = head.stored() as u64;
        if self.care == Care::Skip || stored > self.bytes_max {
            return Ok(Then::Skip(stored));
        }
        match head {
            StringHead::Int(value) => self.members.int(i64::from(value)),
            StringHead::Plain { len } => self.members.text(reader.take(len)?),
            StringHead::Lzf { packed, .. } if self.care == Care::Stored => {
                return Ok(Then::Skip(packed as u64));
            }
            StringHead::Lzf { packed, len } => {
                let input = reader.rest();
                reader.take(packed)?;
                let mut members = std::mem::take(&mut self.members);
                self.unpacked(input, packed, len, |text| {
                    members.text(text);
                    Ok(())
                })?;
                self.members = members;
            }
        }
        Ok(Then::Next)
    }

    /// A packed container, and the number of its entries if it was looked into.
    fn packed(
        &mut self,
        packed: Packed,
        reader: &mut Reader<'_>,
        limits: &Limits,
    ) -> Result<(Then, Option<u64>), Stop> {
        let head = reader.string_head(limits.item_bytes_max)?;
        let count = match (head, self.care) {
            (StringHead::Int(_), _) => {
                return Err(Stop::corrupt("an integer where a container must stand"));
            }
            (_, Care::Skip) | (StringHead::Lzf { .. }, Care::Stored) => {
                return Ok((Then::Skip(head.stored() as u64), None));
            }
            (StringHead::Plain { len }, Care::Stored | Care::Unpacked) => {
                look_into(packed, reader.take(len)?, &mut self.back, &mut self.members)?
            }
            (
                StringHead::Lzf {
                    packed: stored,
                    len,
                },
                Care::Unpacked,
            ) => {
                let input = reader.rest();
                reader.take(stored)?;
                let (mut back, mut members) = (self.back, std::mem::take(&mut self.members));
                let count = self.unpacked(input, stored, len, |blob| {
                    look_into(packed, blob, &mut back, &mut members)
                })?;
                (self.back, self.members) = (back, members);
                count
            }
        };
        Ok((Then::Next, Some(count)))
    }

    /// How sizes are written in the listpacks that were looked into since the start.
    pub(crate) const fn back_lengths(&self) -> BackLengths {
        self.back
    }

    /// Decompresses the first `packed` bytes into space that is used again.
    fn unpacked<T>(
        &mut self,
        input: &[u8],
        packed: usize,
        len: usize,
        then: impl FnOnce(&[u8]) -> Result<T, ErrorKind>,
    ) -> Result<T, Stop> {
        // The space that comes back is larger than the string, which is quicker to make so.
        if self.scratch.len() < len + lzf::WIDE {
            self.scratch.resize(len + lzf::WIDE, 0);
        }
        lzf::decompress_within(input, packed, len, &mut self.scratch)?;
        let blob = self.scratch.get(..len).unwrap_or_default();
        let result = then(blob)?;
        if len > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(result)
    }

    fn quicklist_node(&mut self, reader: &mut Reader<'_>, limits: &Limits) -> Result<Then, Stop> {
        let container = reader.number()?;
        match container {
            1 => match reader.clone().string_head(limits.string_bytes_max)? {
                StringHead::Plain { len: 0 } => {
                    Err(Stop::corrupt("a list node without an element"))
                }
                _ => self.text(reader, limits),
            },
            2 => {
                let packed = Packed {
                    form: Form::Listpack,
                    shape: Shape::Items,
                };
                self.packed(packed, reader, limits).map(|(then, _)| then)
            }
            _ => Err(Stop::corrupt("a list node of an unknown container")),
        }
    }

    fn module_part(&self, reader: &mut Reader<'_>, limits: &Limits) -> Result<Then, Stop> {
        match reader.number()? {
            0 => Ok(Then::Next),
            1 | 2 => reader.number().map(|_| Then::Again),
            3 => reader.take(4).map(|_| Then::Again),
            4 => reader.take(8).map(|_| Then::Again),
            5 => match self.text(reader, limits)? {
                Then::Skip(n) => Ok(Then::SkipAgain(n)),
                _ => Ok(Then::Again),
            },
            _ => Err(Stop::corrupt("a module's value of an unknown form")),
        }
    }

    fn array_value(&self, reader: &mut Reader<'_>, limits: &Limits) -> Result<Then, Stop> {
        match reader.number()? {
            0 | 3 => self.text(reader, limits),
            1 | 2 => reader.take(8).map(|_| Then::Next),
            _ => Err(Stop::corrupt("an array's value of an unknown form")),
        }
    }

    fn names(
        &mut self,
        then: NamesThen,
        reader: &mut Reader<'_>,
        limits: &Limits,
    ) -> Result<Then, Stop> {
        let (written, names) = match reader.number()? {
            // The number of values hangs on this listpack, so it is looked into in any case.
            0 => (0, self.names_in_listpack(reader, limits)?),
            1 => {
                let names = reader.number()?;
                (names, names)
            }
            _ => return Err(Stop::corrupt("a template's names in an unknown format")),
        };
        if names == 0 {
            return Err(Stop::corrupt("a template without names"));
        }
        let strings = match then {
            NamesThen::Listpack => written,
            NamesThen::Values => written.saturating_add(names),
        };
        Ok(Then::Push(grammar::STRING, strings))
    }

    fn names_in_listpack(&mut self, reader: &mut Reader<'_>, limits: &Limits) -> Result<u64, Stop> {
        let care = std::mem::replace(&mut self.care, Care::Unpacked);
        let packed = Packed {
            form: Form::Listpack,
            shape: Shape::Items,
        };
        let looked = self.packed(packed, reader, limits);
        self.care = care;
        looked.map(|(_, count)| count.unwrap_or_default())
    }
}

/// A round of strings, the first of them a member perhaps, and a binary score behind them perhaps.
#[derive(Debug, Clone, Copy)]
struct RoundOf {
    member: bool,
    /// A second string.
    pair: bool,
    score: bool,
}

impl RoundOf {
    const fn new(pieces: &[Piece]) -> Option<Self> {
        let (member, rest) = match pieces {
            [Piece::Text, rest @ ..] => (false, rest),
            [Piece::Member, rest @ ..] => (true, rest),
            _ => return None,
        };
        let (pair, score) = match rest {
            [] => (false, false),
            [Piece::Text] => (true, false),
            [Piece::BinaryScore] => (false, true),
            _ => return None,
        };
        Some(Self {
            member,
            pair,
            score,
        })
    }
}

/// What rounds need to know.
struct Rounds<'a> {
    care: Care,
    limits: &'a Limits,
    members: &'a mut Members,
}

impl Rounds<'_> {
    /// Passes rounds that are at hand and in the room left; returns their bytes. The last round, and whatever is wrong or
    /// takes more than its end to be found, is left to the pieces one by one.
    fn pass(&mut self, frame: &mut Frame, round: RoundOf, rest: &[u8], room: u64) -> usize {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut reader = Reader::new(rest.get(..room).unwrap_or(rest));
        let mut passed = 0;
        while frame.left > 1 && self.one(round, &mut reader).is_some() {
            passed = reader.at();
            frame.left -= 1;
        }
        passed
    }

    #[inline]
    fn one(&mut self, round: RoundOf, reader: &mut Reader<'_>) -> Option<()> {
        let max = if round.member {
            self.limits.item_bytes_max
        } else {
            self.limits.string_bytes_max
        };
        let (head, stored) = self.string(reader, max)?;
        if round.pair {
            self.string(reader, self.limits.string_bytes_max)?;
        }
        if round.score {
            double::binary(reader).ok()?;
        }
        // Only now: a round that is not passed is begun again.
        if round.member && self.care != Care::Skip {
            match head {
                StringHead::Plain { .. } => self.members.text(stored),
                StringHead::Int(value) => self.members.int(i64::from(value)),
                StringHead::Lzf { .. } => {}
            }
        }
        Some(())
    }

    #[inline]
    fn string<'a>(&self, reader: &mut Reader<'a>, max: u64) -> Option<(StringHead, &'a [u8])> {
        let head = reader.string_head(max).ok()?;
        if self.care == Care::Unpacked && matches!(head, StringHead::Lzf { .. }) {
            return None;
        }
        Some((head, reader.take(head.stored()).ok()?))
    }
}

fn look_into(
    packed: Packed,
    blob: &[u8],
    back: &mut BackLengths,
    members: &mut Members,
) -> Result<u64, ErrorKind> {
    let count = packed.check(blob, Some(members))?;
    if packed.form == Form::Listpack {
        back.note(blob)?;
    }
    Ok(count)
}

fn array_head(reader: &mut Reader<'_>) -> Result<Then, Stop> {
    let (values, _) = array::head(reader)?;
    Ok(Then::Push(grammar::ARRAY_VALUE, values))
}
