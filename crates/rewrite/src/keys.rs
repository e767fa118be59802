//! Which arguments of a command are keys.
//!
//! By the specifications in the table, and by hand for the six commands whose options they cannot describe
//! (`db.c: sortGetKeys`, `georadiusGetKeys`, `migrateGetKeys`, `xreadGetKeys`).

use resp::Arg;

use crate::table::{self, Begin, Command, Find, KeySpec, Shape};

/// Longer than the longest `container|subcommand` that has keys.
const SUBCOMMAND_BYTES_MAX: usize = 64;

/// Appends the indexes of the arguments that are keys (argument 0 is the name). A command that does not have the form
/// its specification asks for has no keys, as for a real server.
pub fn keys_of(command: &Command, frame: &[u8], args: &[Arg], out: &mut Vec<usize>) {
    let words = Words { frame, args };
    match command.shape {
        Shape::Specs => by_specs(&command.keys, words, out),
        Shape::Container => {
            if let Some(subcommand) = subcommand_of(command, words) {
                by_specs(&subcommand.keys, words, out);
            }
        }
        Shape::Sort => sort(words, out),
        Shape::GeoRadius => geo_radius(command, words, out),
        Shape::Migrate => migrate(words, out),
        Shape::Xread => xread(words, out),
        Shape::Xreadgroup => xread(words, out),
    }
}

/// A command's words.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) args: &'a [Arg],
}

impl<'a> Words<'a> {
    pub(crate) fn len(self) -> usize {
        self.args.len()
    }

    /// The word at this place; an empty one beyond the end.
    #[inline]
    pub(crate) fn at(self, index: usize) -> &'a [u8] {
        self.args.get(index).map_or(&[], |arg| arg.of(self.frame))
    }

    pub(crate) fn is(self, index: usize, word: &[u8]) -> bool {
        self.at(index).eq_ignore_ascii_case(word)
    }
}

/// The subcommand's own row, if it has one.
fn subcommand_of(container: &Command, words: Words<'_>) -> Option<&'static Command> {
    let (name, word) = (container.name.as_bytes(), words.at(1));
    let mut buffer = [0; SUBCOMMAND_BYTES_MAX];
    let len = name.len() + 1 + word.len();
    let full = buffer.get_mut(..len)?;
    let (head, tail) = full.split_at_mut(name.len() + 1);
    head.get_mut(..name.len())?.copy_from_slice(name);
    *head.last_mut()? = b'|';
    tail.copy_from_slice(word);
    table::lookup(full)
}

fn by_specs(specs: &[KeySpec], words: Words<'_>, out: &mut Vec<usize>) {
    let start = out.len();
    for spec in specs.iter().filter(|spec| !spec.access.is_not_key()) {
        let found = begin(spec.begin, words).and_then(|first| find(spec.find, first, words, out));
        if found.is_none() {
            // One that does not fit makes a server refuse the command; an optional word may be missing.
            if matches!(spec.begin, Begin::At(_)) {
                out.truncate(start);
                return;
            }
        }
    }
}

fn begin(begin: Begin, words: Words<'_>) -> Option<usize> {
    match begin {
        Begin::At(index) => Some(usize::from(index)).filter(|index| *index < words.len()),
        Begin::After(word, from) => {
            let far = usize::from(from.unsigned_abs());
            if from >= 0 {
                (far..words.len())
                    .find(|index| words.is(*index, word.as_bytes()))
                    .map(|at| at + 1)
            } else {
                let last = words.len().checked_sub(far)?;
                (1..=last)
                    .rev()
                    .find(|index| words.is(*index, word.as_bytes()))
                    .map(|at| at + 1)
            }
        }
        Begin::Nowhere => None,
    }
}

fn find(find: Find, first: usize, words: Words<'_>, out: &mut Vec<usize>) -> Option<()> {
    let (first, last, step) = match find {
        Find::Range(last, step, limit) => (first, last_of(last, limit, first, words)?, step),
        Find::Counted(count_at, key_at, step) => {
            let count = count(words.at(first + usize::from(count_at)))?;
            let key = first + usize::from(key_at);
            if count == 0 {
                return Some(());
            }
            let last = count
                .checked_sub(1)?
                .checked_mul(usize::from(step))?
                .checked_add(key)?;
            (key, last, step)
        }
        Find::Unknown => return None,
    };
    if last >= words.len() || last < first {
        return None;
    }
    out.extend((first..=last).step_by(usize::from(step.max(1))));
    Some(())
}

fn last_of(last: i8, limit: u8, first: usize, words: Words<'_>) -> Option<usize> {
    let far = usize::from(last.unsigned_abs());
    if last >= 0 {
        first.checked_add(far)
    } else if limit <= 1 {
        words.len().checked_sub(far)
    } else {
        let share = (words.len().checked_sub(first)?) / usize::from(limit);
        (first + share).checked_sub(far)
    }
}

fn count(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// `SORT key ... [STORE destination]`; of several the last one counts.
fn sort(words: Words<'_>, out: &mut Vec<usize>) {
    if words.len() < 2 {
        return;
    }
    let mut store = None;
    let mut at = 2;
    while at < words.len() {
        at += if words.is(at, b"limit") {
            3
        } else if words.is(at, b"get") || words.is(at, b"by") {
            2
        } else if words.is(at, b"store") && at + 1 < words.len() {
            store = Some(at + 1);
            2
        } else {
            1
        };
    }
    out.push(1);
    out.extend(store);
}

/// `GEORADIUS key ... [STORE | STOREDIST destination]`; of several the last one counts.
fn geo_radius(command: &Command, words: Words<'_>, out: &mut Vec<usize>) {
    if words.len() < usize::from(command.arity.unsigned_abs()) {
        return;
    }
    let mut store = None;
    let mut at = 5;
    while at + 1 < words.len() {
        at += 1;
        if words.is(at - 1, b"store") || words.is(at - 1, b"storedist") {
            store = Some(at);
            at += 1;
        }
    }
    out.push(1);
    out.extend(store);
}

/// `MIGRATE host port key|"" db timeout ... [KEYS key...]`.
fn migrate(words: Words<'_>, out: &mut Vec<usize>) {
    if words.len() < 6 {
        return;
    }
    if !words.at(3).is_empty() {
        out.push(3);
        return;
    }
    let mut at = 6;
    while at < words.len() {
        at += if words.is(at, b"auth") {
            2
        } else if words.is(at, b"auth2") {
            3
        } else if words.is(at, b"keys") {
            out.extend(at + 1..words.len());
            return;
        } else {
            1
        };
    }
}

/// `XREAD ... STREAMS key... id...`, `XREADGROUP GROUP group consumer ... STREAMS key... id...`: the options are walked,
/// because a group or a consumer may be called "streams".
fn xread(words: Words<'_>, out: &mut Vec<usize>) {
    let mut at = 1;
    while at < words.len() {
        at += if words.is(at, b"block") || words.is(at, b"count") || words.is(at, b"claim") {
            2
        } else if words.is(at, b"group") {
            3
        } else if words.is(at, b"noack") {
            1
        } else if words.is(at, b"streams") {
            let rest = words.len() - at - 1;
            if rest > 0 && rest.is_multiple_of(2) {
                out.extend(at + 1..at + 1 + rest / 2);
            }
            return;
        } else {
            return;
        };
    }
}
