//! Writes of one kind to one key that follow one another go to the target as one command.
//!
//! `RPUSH k a b` does to `k` what `RPUSH k a` and `RPUSH k b` do in turn, and so it is with every command in [`NAMES`]: its
//! elements are taken one after the other. Whoever fills a list, a hash or a set writes like this. As with SETs
//! ([`super::sets`]), most of what the target pays for each command is saved, above all inside MULTI.
//!
//! Only commands of the same number of words join: what is the same in all of them, from the first byte to the end of the
//! key, is compared as bytes.

use resp::Arg;
use rewrite::{Abilities, CommandId, Table};

/// Words in one command: far below what any target takes.
const WORDS_MAX: u32 = 256;
/// What brings more than this with it gains nothing.
const TAIL_BYTES_MAX: usize = 4 << 10;
/// A command does not grow beyond this much.
const BYTES_MAX: usize = 16 << 10;

/// The commands that grow.
const NAMES: [&str; 9] = [
    "lpush", "rpush", "sadd", "srem", "hset", "hmset", "hdel", "zadd", "zrem",
];

/// Which commands grow at a target.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    ids: Vec<CommandId>,
    zadd: Option<CommandId>,
}

impl Kinds {
    pub(super) fn of(table: &Table, target: &Abilities) -> Self {
        let knows = |name: &&&str| **name != "hset" || target.hset_variadic;
        let ids = NAMES.iter().filter(knows);
        Self {
            ids: ids.filter_map(|name| table.find(name.as_bytes())).collect(),
            zadd: table.find(b"zadd"),
        }
    }

    /// Whether a command of so many words may be followed by others in one.
    pub(super) fn grow(&self, id: CommandId, words: usize) -> bool {
        // Behind the key of a ZADD may be options, which would hold for what joins; not where there is one element.
        let is_plain = self.zadd != Some(id) || words == 4;
        is_plain && self.ids.contains(&id)
    }
}

/// A command that is not written yet, since more join it.
#[derive(Debug, Default)]
pub(super) struct Growing {
    /// What all begin with: the header, the name and the key.
    head: Vec<u8>,
    /// Words behind the key of each.
    words: u32,
    /// What stands behind the key of each, one after the other.
    tails: Vec<u8>,
    count: u32,
}

impl Growing {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Commands that have become one.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.tails.len()
    }

    /// `frame` is the first, if what stands `behind` it in the stream begins alike and it is small enough to gain from company:
    /// whether it is. One that stays alone is copied once, by whoever asks. Nothing else waits.
    pub(super) fn begin(&mut self, frame: &[u8], args: &[Arg], behind: &[u8]) -> bool {
        let Some(key) = args.get(1) else {
            return false;
        };
        let Some((head, tail)) = frame.split_at_checked(key.end as usize + 2) else {
            return false;
        };
        let words = u32::try_from(args.len() - 2).unwrap_or(u32::MAX);
        let is_small = frame.len() <= TAIL_BYTES_MAX && words <= WORDS_MAX / 4;
        if !is_small || words == 0 || !behind.starts_with(head) {
            return false;
        }
        self.head.extend_from_slice(head);
        self.words = words;
        self.tails.extend_from_slice(tail);
        self.count = 1;
        true
    }

    /// The command at the start of `bytes` joins, if it is one more of the same and there is room: its length.
    #[inline]
    pub(super) fn join(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.count == 0 || (self.count + 1) * self.words > WORDS_MAX {
            return None;
        }
        let rest = bytes.strip_prefix(self.head.as_slice())?;
        let len = resp::plain_bulks(rest, self.words)?;
        let has_room = len <= TAIL_BYTES_MAX && self.tails.len() + len <= BYTES_MAX;
        let tail = rest.get(..len).filter(|_| has_room)?;
        self.tails.extend_from_slice(tail);
        self.count += 1;
        Some(self.head.len() + len)
    }

    /// Writes the command, and none waits any more. Nothing, where none does.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        let header = self.head.iter().position(|byte| *byte == b'\n');
        resp::encode::command_header(out, (2 + self.words * self.count) as usize);
        let name_and_key = self.head.get(header.map_or(0, |at| at + 1)..);
        out.extend_from_slice(name_and_key.unwrap_or_default());
        out.extend_from_slice(&self.tails);
        self.clear();
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.tails.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use rewrite::{Fork, Version};

    use super::*;

    fn frame(words: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        resp::encode::command(&mut out, &words);
        out
    }

    fn begun(words: &str) -> Growing {
        let frame = frame(words);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).unwrap().unwrap();
        let mut growing = Growing::default();
        assert!(growing.begin(&frame, decoder.args(), &frame));
        growing
    }

    fn written(growing: &mut Growing) -> String {
        let mut out = Vec::new();
        growing.write(&mut out);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        let found = decoder.poll(&out).unwrap().unwrap();
        assert_eq!(found.len, out.len(), "one command");
        let words = decoder.args().iter();
        let words: Vec<_> = words
            .map(|arg| String::from_utf8_lossy(arg.of(&out)).into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn one_that_stays_alone_is_written_as_it_came() {
        let mut out = Vec::new();
        begun("LPUSH k a").write(&mut out);
        assert_eq!(out, frame("LPUSH k a"));
        out.clear();
        Growing::default().write(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn one_that_nothing_like_it_follows_does_not_begin() {
        let (first, other) = (frame("LPUSH k a"), frame("LPUSH kk a"));
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&first).unwrap().unwrap();
        for behind in [&b""[..], &other, &first[..10]] {
            let mut growing = Growing::default();
            assert!(!growing.begin(&first, decoder.args(), behind));
            assert!(growing.is_empty() && growing.bytes() == 0);
        }
    }

    #[test]
    fn more_of_the_same_joins_and_nothing_else() {
        let mut growing = begun("HSET k f 1");
        let next = [frame("HSET k g 2"), frame("PING")].concat();
        let len = frame("HSET k g 2").len();
        for cut in 0..len {
            assert_eq!(growing.join(&next[..cut]), None, "cut at {cut}");
        }
        assert_eq!(growing.join(&next), Some(len));
        for other in [
            "HSET kk g 2",
            "HSET l g 2",
            "HSET k g 2 h 3",
            "HDEL k g",
            "HMSET k g 2",
            "hset k g 2",
        ] {
            assert_eq!(growing.join(&frame(other)), None, "{other}");
        }
        assert_eq!(growing.count(), 2);
        assert_eq!(written(&mut growing), "HSET k f 1 g 2");
        assert!(growing.is_empty() && growing.join(&next).is_none());
    }

    #[test]
    fn it_grows_to_a_bound() {
        let mut growing = begun("RPUSH k 0");
        while growing.join(&frame("RPUSH k 1")).is_some() {}
        assert_eq!(growing.count(), WORDS_MAX);
        let large = format!("RPUSH k {}", "x".repeat(TAIL_BYTES_MAX - 100));
        let mut growing = begun(&large);
        while growing.join(&frame(&large)).is_some() {}
        assert!(growing.tails.len() <= BYTES_MAX && growing.count() == 4);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        let large = frame(&format!("RPUSH k {}", "x".repeat(TAIL_BYTES_MAX)));
        decoder.poll(&large).unwrap().unwrap();
        let begins = growing.begin(&large, decoder.args(), &large);
        assert!(!begins, "too large to gain");
    }

    #[test]
    fn what_grows_depends_on_the_target() {
        let table = Table::new();
        let kinds = |major, minor| {
            let version = Version::new(major, minor, 0);
            Kinds::of(&table, &Abilities::from_version(Fork::Redis, version))
        };
        let id = |name: &str| table.find(name.as_bytes()).unwrap();
        assert!(kinds(7, 0).grow(id("hset"), 4) && !kinds(3, 2).grow(id("hset"), 4));
        assert!(kinds(3, 2).grow(id("hmset"), 4) && kinds(3, 2).grow(id("lpush"), 9));
        assert!(kinds(7, 0).grow(id("zadd"), 4) && !kinds(7, 0).grow(id("zadd"), 5));
        for name in ["set", "incr", "xadd", "zincrby", "lpushx", "rpoplpush"] {
            assert!(!kinds(7, 0).grow(id(name), 3), "{name}");
        }
    }
}
