//! Where a command goes in a cluster, and what becomes of one whose keys are in several slots.
//!
//! A command that falls apart by key is cut up ([`parts`]). Of the others [`apart`] says what they do to their keys, so that the
//! caller can do it in steps that each stay within one slot: values that are read are copied to the slot of the one that is
//! written.

use resp::{Arg, encode};

use crate::keys::{Words, keys_of};
use crate::slot::{Slot, slot_of};
use crate::table::Command;

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It has no keys.
    Everywhere,
    /// All its keys are in this slot.
    One(Slot),
    /// They are in several, and it falls apart by key.
    Parts,
    /// They are in several, and it does one thing with them.
    Apart,
}

/// What a command of several slots that does one thing does to its keys. The numbers are places of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// `RENAME`: the value and its expiry get another name.
    Rename {
        /// The old name.
        from: usize,
        /// The new one.
        to: usize,
    },
    /// `COPY`, into another database perhaps: [`copy_db`].
    Copy {
        /// What is copied.
        from: usize,
        /// The copy's name.
        to: usize,
    },
    /// `SMOVE`.
    MoveMember {
        /// The set that loses the member.
        from: usize,
        /// The set that gets it.
        to: usize,
        /// The member.
        member: usize,
    },
    /// `LMOVE`, `RPOPLPUSH` and their kin.
    MoveElement {
        /// The list that loses an element.
        from: usize,
        /// The list that gets it.
        to: usize,
        /// It is the first one, not the last.
        from_left: bool,
        /// It becomes the first one, not the last.
        to_left: bool,
    },
    /// `LMOVEM`: some elements; what becomes of the one list does not hang on what is in the other.
    MoveMany {
        /// The list that loses elements.
        from: usize,
        /// The list that gets them.
        to: usize,
    },
    /// One key is written from what the others hold: `SUNIONSTORE`, `BITOP`, `PFMERGE`, `SORT .. STORE` and many more.
    Derive {
        /// The key that is written.
        to: usize,
    },
}

/// One slot's part of a command that falls apart by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it goes.
    pub slot: Slot,
    /// How many bytes it has.
    pub len: usize,
}

/// Where a command goes; the places of its keys are put into `places`.
pub fn route(command: &Command, frame: &[u8], args: &[Arg], places: &mut Vec<usize>) -> Route {
    places.clear();
    keys_of(command, frame, args, places);
    let words = Words { frame, args };
    let mut slots = places.iter().map(|place| slot_of(words.at(*place)));
    let Some(first) = slots.next() else {
        return Route::Everywhere;
    };
    if slots.all(|slot| slot == first) {
        return Route::One(first);
    }
    match by_key(words, places) {
        Some(_) => Route::Parts,
        None => Route::Apart,
    }
}

/// How a command falls apart by key.
#[derive(Debug, Clone, Copy)]
struct ByKey {
    /// So many words belong to each key, itself included.
    words_a_key: usize,
    /// The number of keys stands before the first.
    counted: bool,
    /// What stands behind the last key's words goes with each part.
    tail: usize,
}

fn by_key(words: Words<'_>, places: &[usize]) -> Option<ByKey> {
    let is = |word: &[u8]| words.is(0, word);
    let (words_a_key, counted) = if is(b"del") || is(b"unlink") || is(b"touch") || is(b"exists") {
        (1, false)
    } else if is(b"mset") || is(b"msetnx") {
        (2, false)
    } else if is(b"msetex") {
        (2, true)
    } else if is(b"json.mset") {
        (3, false)
    } else {
        return None;
    };
    let head = 1 + usize::from(counted);
    let tail = head + places.len() * words_a_key;
    let fits = tail <= words.len() && (counted || tail == words.len());
    fits.then_some(ByKey {
        words_a_key,
        counted,
        tail,
    })
}

/// Appends one command for each slot to `out`, the keys of a slot in their order; `None` for a command that does not fall apart
/// by key. It has succeeded at the source: conditions are taken off.
pub fn parts(frame: &[u8], args: &[Arg], places: &[usize], out: &mut Vec<u8>) -> Option<Vec<Part>> {
    let words = Words { frame, args };
    let form = by_key(words, places)?;
    let mut keys: Vec<(Slot, usize)> = places
        .iter()
        .map(|place| (slot_of(words.at(*place)), *place))
        .collect();
    keys.sort_by_key(|(slot, _)| *slot);
    let name: &[u8] = if words.is(0, b"msetnx") {
        b"MSET"
    } else {
        words.at(0)
    };
    let tail: Vec<&[u8]> = (form.tail..words.len())
        .map(|at| words.at(at))
        .filter(|word| !word.eq_ignore_ascii_case(b"nx") && !word.eq_ignore_ascii_case(b"xx"))
        .collect();
    let mut parts = Vec::new();
    for part in keys.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((slot, _)) = part.first() else {
            continue;
        };
        let from = out.len();
        let count = part.len() * form.words_a_key + tail.len();
        encode::command_header(out, 1 + usize::from(form.counted) + count);
        encode::bulk(out, name);
        if form.counted {
            encode::bulk(out, part.len().to_string().as_bytes());
        }
        for (_, place) in part {
            for at in *place..place + form.words_a_key {
                encode::bulk(out, words.at(at));
            }
        }
        tail.iter().for_each(|word| encode::bulk(out, word));
        parts.push(Part {
            slot: *slot,
            len: out.len() - from,
        });
    }
    Some(parts)
}

/// What a command does to its keys, which are at `places`. `None`: that cannot be said of it.
pub fn apart(frame: &[u8], args: &[Arg], places: &[usize]) -> Option<Apart> {
    let words = Words { frame, args };
    let mut name = [0_u8; 24];
    let name = name.get_mut(..words.at(0).len())?;
    name.copy_from_slice(words.at(0));
    name.make_ascii_lowercase();
    let side = |at: usize| match (words.is(at, b"left"), words.is(at, b"right")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    Some(match &*name {
        b"rename" | b"renamenx" => Apart::Rename { from: 1, to: 2 },
        b"copy" => Apart::Copy { from: 1, to: 2 },
        b"smove" => Apart::MoveMember {
            from: 1,
            to: 2,
            member: 3,
        },
        b"rpoplpush" | b"brpoplpush" => Apart::MoveElement {
            from: 1,
            to: 2,
            from_left: false,
            to_left: true,
        },
        b"lmove" | b"blmove" => Apart::MoveElement {
            from: 1,
            to: 2,
            from_left: side(3)?,
            to_left: side(4)?,
        },
        b"lmovem" => Apart::MoveMany { from: 1, to: 2 },
        b"sunionstore" | b"sinterstore" | b"sdiffstore" | b"zunionstore" | b"zinterstore"
        | b"zdiffstore" | b"zrangestore" | b"pfmerge" | b"geosearchstore" | b"cms.merge"
        | b"tdigest.merge" => Apart::Derive { to: 1 },
        b"bitop" => Apart::Derive { to: 2 },
        b"georadius" | b"georadiusbymember" => Apart::Derive {
            to: *places.last()?,
        },
        // What stands in other keys is found by patterns, which a server does not look up in a cluster.
        b"sort" if !looks_elsewhere(words) => Apart::Derive {
            to: *places.last()?,
        },
        _ => return None,
    })
}

/// The database that a `COPY` names for the copy.
pub fn copy_db<'f>(frame: &'f [u8], args: &[Arg]) -> Option<&'f [u8]> {
    let word = |at: usize| args.get(at).map(|arg| arg.of(frame));
    let named = (3..args.len()).find(|at| {
        let word = word(*at).unwrap_or_default();
        word.eq_ignore_ascii_case(b"db")
    });
    word(named? + 1)
}

/// Whether a SORT goes by the values of other keys, or gives them back.
fn looks_elsewhere(words: Words<'_>) -> bool {
    let mut at = 2;
    while at < words.len() {
        if words.is(at, b"limit") {
            at += 3;
        } else if words.is(at, b"store") {
            at += 2;
        } else if words.is(at, b"by") || words.is(at, b"get") {
            let pattern = words.at(at + 1);
            if memchr::memchr(b'*', pattern).is_some() {
                return true;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use resp::{CommandDecoder, Limits};

    use super::*;
    use crate::table::{self, Flags};

    fn frame(text: &str) -> (Vec<u8>, Vec<Arg>) {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let mut frame = Vec::new();
        encode::command(&mut frame, &words);
        let mut decoder = CommandDecoder::new(Limits::default());
        decoder.poll(&frame).unwrap().unwrap();
        let args = decoder.args().to_vec();
        (frame, args)
    }

    fn routed(text: &str) -> Route {
        let (frame, args) = frame(text);
        let command = table::lookup(text.split(' ').next().unwrap().as_bytes()).unwrap();
        route(command, &frame, &args, &mut Vec::new())
    }

    fn cut(text: &str) -> Vec<String> {
        let (frame, args) = frame(text);
        let command = table::lookup(text.split(' ').next().unwrap().as_bytes()).unwrap();
        let mut places = Vec::new();
        route(command, &frame, &args, &mut places);
        let mut out = Vec::new();
        let found = parts(&frame, &args, &places, &mut out).unwrap();
        let mut decoder = CommandDecoder::new(Limits::default());
        let mut rest = out.as_slice();
        let mut texts = Vec::new();
        for part in found {
            let frame = decoder.poll(rest).unwrap().unwrap();
            assert_eq!(frame.len, part.len);
            let words: Vec<_> = decoder
                .args()
                .iter()
                .map(|arg| String::from_utf8_lossy(arg.of(rest)).into_owned())
                .collect();
            texts.push(format!("{}: {}", part.slot.0, words.join(" ")));
            rest = &rest[frame.len..];
        }
        assert!(rest.is_empty());
        texts
    }

    #[test]
    fn commands_go_to_the_slot_of_their_keys() {
        assert_eq!(routed("SET foo 1"), Route::One(Slot(12182)));
        assert_eq!(routed("MSET {foo}a 1 foo 2"), Route::One(Slot(12182)));
        assert_eq!(routed("FLUSHALL"), Route::Everywhere);
        assert_eq!(routed("DEL foo bar"), Route::Parts);
        assert_eq!(routed("RENAME foo bar"), Route::Apart);
        assert_eq!(routed("SORT foo STORE bar"), Route::Apart);
    }

    #[test]
    fn what_falls_apart_by_key_is_cut_up_in_the_keys_order() {
        assert_eq!(
            cut("DEL foo bar {foo}x"),
            ["5061: DEL bar", "12182: DEL foo {foo}x"]
        );
        assert_eq!(
            cut("MSETNX foo 1 bar 2 foo 3"),
            ["5061: MSET bar 2", "12182: MSET foo 1 foo 3"]
        );
        assert_eq!(
            cut("MSETEX 2 foo 1 bar 2 NX PXAT 9"),
            [
                "5061: MSETEX 1 bar 2 PXAT 9",
                "12182: MSETEX 1 foo 1 PXAT 9"
            ]
        );
    }

    #[test]
    fn what_goes_by_other_keys_is_not_said_to_be_known() {
        let known = |text: &str| {
            let (frame, args) = frame(text);
            let command = table::lookup(text.split(' ').next().unwrap().as_bytes()).unwrap();
            let mut places = Vec::new();
            route(command, &frame, &args, &mut places);
            apart(&frame, &args, &places)
        };
        assert_eq!(known("SORT a ALPHA STORE b"), Some(Apart::Derive { to: 4 }));
        assert_eq!(
            known("SORT a BY nosort GET # STORE b"),
            Some(Apart::Derive { to: 7 })
        );
        assert_eq!(known("SORT a BY w_* STORE b"), None);
        assert_eq!(known("SORT a GET v_*->f STORE b"), None);
        let copy = Some(Apart::Copy { from: 1, to: 2 });
        assert_eq!(known("COPY a b DB 3 REPLACE"), copy);
        let db_of = |text: &str| {
            let (frame, args) = frame(text);
            copy_db(&frame, &args).map(<[u8]>::to_vec)
        };
        assert_eq!(db_of("COPY a db REPLACE DB 3"), Some(b"3".to_vec()));
        assert_eq!(db_of("COPY a b REPLACE"), None);
        assert_eq!(
            known("LMOVE a b LEFT RIGHT").map(|apart| match apart {
                Apart::MoveElement {
                    from_left, to_left, ..
                } => (from_left, to_left),
                other => panic!("{other:?}"),
            }),
            Some((true, false))
        );
    }

    /// A command that writes and can have keys in several slots has a row here, or comes in another form in a stream.
    #[test]
    fn every_write_command_with_several_keys_is_known() {
        let in_another_form = [
            // As pops of one key, each.
            "blmovem",
            "blmpop",
            "bzmpop",
            "lmpop",
            "zmpop",
            "blpop",
            "brpop",
            "bzpopmin",
            "bzpopmax",
            // As what they do.
            "migrate",
            "xreadgroup",
            "eval",
            "evalsha",
            "fcall",
        ];
        let known = [
            "bitop",
            "blmove",
            "brpoplpush",
            "copy",
            "del",
            "geosearchstore",
            "georadius",
            "georadiusbymember",
            "lmove",
            "lmovem",
            "mset",
            "msetex",
            "msetnx",
            "pfmerge",
            "rename",
            "renamenx",
            "rpoplpush",
            "sdiffstore",
            "sinterstore",
            "smove",
            "sort",
            "sunionstore",
            "unlink",
            "zdiffstore",
            "zinterstore",
            "zrangestore",
            "zunionstore",
        ];
        let several = |command: &&table::Command| {
            use crate::table::Find;
            let keys = &command.keys;
            keys.len() > 1
                || keys.iter().any(|spec| match spec.find {
                    Find::Range(last, ..) => last != 0,
                    Find::Counted(..) => true,
                    Find::Unknown => false,
                })
        };
        for command in table::all()
            .iter()
            .filter(|command| command.flags.has(Flags::WRITE))
            .filter(several)
        {
            let name: &str = &command.name;
            assert!(
                known.contains(&name) || in_another_form.contains(&name),
                "{name}: say what becomes of it where its keys are in several slots"
            );
        }
    }
}
