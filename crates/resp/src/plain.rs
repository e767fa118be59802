//! The quick way for the command that most streams consist of.

use crate::command::{Arg, is_ended, short_bulk};
use crate::number::number;

/// A plain SET at the start of a buffer: no options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainSet {
    /// Where its key stands.
    pub key: Arg,
    /// How many bytes it takes; the next frame begins there.
    pub len: usize,
}

impl PlainSet {
    /// What it begins with, whatever the case of its letters; behind it stand the key's and the value's headers and bytes.
    pub const HEAD: &[u8] = b"*3\r\n$3\r\nSET\r\n";
}

/// The `SET key value` at the start of `buf`, if that is what stands there and all of it does. For everything else, what
/// is malformed included, `None`: a [`crate::CommandDecoder`] tells what it is.
#[inline]
pub fn plain_set(buf: &[u8]) -> Option<PlainSet> {
    // In two pieces, each as wide as a register: this is looked at for every command of a stream.
    let (head, rest) = buf.split_first_chunk::<8>()?;
    let name = rest.first_chunk::<5>()?;
    let is_set = head == b"*3\r\n$3\r\n"
        && matches!(name, [b'S' | b's', b'E' | b'e', b'T' | b't', b'\r', b'\n']);
    if !is_set {
        return None;
    }
    let (start, end) = bulk(buf, PlainSet::HEAD.len())?;
    let (_, value_end) = bulk(buf, end + 2)?;
    Some(PlainSet {
        key: Arg {
            start: u32::try_from(start).ok()?,
            end: u32::try_from(end).ok()?,
        },
        len: value_end + 2,
    })
}

/// How many bytes the `count` bulk strings at the start of `buf` take, if all of them stand there whole.
#[inline]
pub fn plain_bulks(buf: &[u8], count: u32) -> Option<usize> {
    (0..count).try_fold(0, |at, _| bulk(buf, at).map(|(_, end)| end + 2))
}

/// Where the bytes of the bulk string at `at` begin and end, if it is there with its line end.
#[inline]
fn bulk(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    if let Some(place) = short_bulk(buf, at) {
        return Some(place);
    }
    if buf.get(at) != Some(&b'$') {
        return None;
    }
    let header = number(buf, at + 1).ok()??;
    let end = header
        .next
        .checked_add(usize::try_from(header.value).ok()?)?;
    is_ended(buf, end).then_some((header.next, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{CommandDecoder, Limits};

    fn frame(argv: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::encode::command(&mut out, argv);
        out
    }

    #[test]
    fn what_is_no_plain_set_is_left_to_the_decoder() {
        let whole = frame(&[b"seT", b"key", b"a value"]);
        let set = plain_set(&whole).unwrap();
        assert_eq!((set.key.of(&whole), set.len), (&b"key"[..], whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(plain_set(&whole[..cut]), None, "cut at {cut}");
        }
        for other in [
            &b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\n1\r\n"[..],
            b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\nNX\r\n",
            b"*3\r\n$3\r\nSET\r\n$-1\r\n$1\r\n1\r\n",
            b"*3\r\n$3\r\nSET\r\n$01\r\na\r\n$1\r\n1\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\nab\r\n$1\r\n1\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n:1\r\n",
            b"*3\r\n$3\r\nSET\r\n$9223372036854775807\r\na\r\n$1\r\n1\r\n",
        ] {
            assert_eq!(plain_set(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn strings_are_counted_when_they_are_whole() {
        let two = b"$1\r\na\r\n$0\r\n\r\n";
        assert_eq!(plain_bulks(two, 2), Some(two.len()));
        assert_eq!(plain_bulks(two, 1), Some(7));
        assert_eq!(plain_bulks(two, 0), Some(0));
        for cut in 0..two.len() {
            assert_eq!(plain_bulks(&two[..cut], 2), None, "cut at {cut}");
        }
        assert_eq!(plain_bulks(b"$1\r\na\r\n:1\r\n", 2), None);
        assert_eq!(plain_bulks(b"$2\r\na\r\n", 1), None);
    }

    proptest! {
        #[test]
        fn it_says_what_the_decoder_says(
            argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..130), 2..5),
            is_set in any::<bool>(),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            if is_set {
                argv[0] = b"SET";
            }
            let mut bytes = frame(&argv);
            if let Some((place, byte)) = damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
            let mut decoder = CommandDecoder::new(Limits::default());
            let found = decoder.poll(&bytes).ok().flatten().filter(|_| {
                let args = decoder.args();
                bytes[0] == b'*' && args.len() == 3 && args[0].of(&bytes).eq_ignore_ascii_case(b"set")
            });
            let set = plain_set(&bytes);
            prop_assert_eq!(set.map(|set| set.len), found.map(|frame| frame.len));
            prop_assert_eq!(set.map(|set| set.key), found.map(|_| decoder.args()[1]));
        }
    }
}
