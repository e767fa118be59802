//! Plain SETs that follow one another go to the target as one MSET.
//!
//! `MSET k v ...` does to the keys what `SET k v` does to each in turn: it replaces whatever is there, takes away an
//! expiry, and tells keyspace subscribers of a `set`. It costs the target a good part less, most of all inside MULTI, where
//! every command is queued. Only a SET without options qualifies, and only its neighbours in the same database.

/// Keys in one MSET: a unit's for a near target, and far below what any target takes in one command.
pub(super) const PAIRS_MAX: u32 = 192;
/// A pair above this gains nothing.
const PAIR_BYTES_MAX: usize = 4 << 10;
/// An MSET does not grow beyond this much.
const BYTES_MAX: usize = 32 << 10;

const SET: &[u8] = resp::PlainSet::HEAD;

/// A run of SETs that is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    /// Key and value of each as they stand in a command, one after the other.
    pairs: Vec<u8>,
    count: u32,
}

impl Sets {
    /// The key and the value of a `frame` that is a plain SET, as they stand in it; `None` for everything else, and for
    /// what is too large to gain from company.
    pub(crate) fn pair(frame: &[u8]) -> Option<&[u8]> {
        let (head, pair) = frame.split_at_checked(SET.len())?;
        let is_set = head.eq_ignore_ascii_case(SET) && Self::is_small(pair);
        is_set.then_some(pair)
    }

    /// Whether a pair gains from company.
    pub(crate) fn is_small(pair: &[u8]) -> bool {
        pair.len() <= PAIR_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// SETs in the run.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the run.
    pub(crate) fn bytes(&self) -> usize {
        self.pairs.len()
    }

    /// Whether one more may join.
    pub(crate) fn has_room(&self, pair: &[u8]) -> bool {
        self.has_room_for(pair.len())
    }

    /// Whether one more of so many bytes may join.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.count < PAIRS_MAX && self.pairs.len() + bytes <= BYTES_MAX
    }

    /// One more joins.
    pub(crate) fn push(&mut self, pair: &[u8]) {
        self.pairs.extend_from_slice(pair);
        self.count += 1;
    }

    /// One more joins, if `write` appends one: it says so.
    pub(crate) fn push_by(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let joins = write(&mut self.pairs);
        self.count += u32::from(joins);
        joins
    }

    /// Writes the run as one command, and begins a new one. An empty run writes nothing.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        match self.count {
            0 => return,
            1 => out.extend_from_slice(SET),
            count => {
                resp::encode::command_header(out, 1 + 2 * count as usize);
                resp::encode::bulk(out, b"MSET");
            }
        }
        out.extend_from_slice(&self.pairs);
        self.clear();
    }

    /// Forgets the run.
    pub(crate) fn clear(&mut self) {
        self.pairs.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_set_has_a_pair() {
        let pair = |frame: &str| Sets::pair(frame.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(
            pair("*3\r\n$3\r\nset\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap(),
            b"$1\r\na\r\n$1\r\n1\r\n"
        );
        for other in [
            "*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\n1\r\n",
            "*5\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\nEX\r\n$1\r\n9\r\n",
            "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n",
            "*3\r\n$3\r\n",
        ] {
            assert_eq!(pair(other), None, "{other}");
        }
        let large = format!(
            "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000\r\n{}\r\n",
            "x".repeat(5000)
        );
        assert_eq!(pair(&large), None);
    }

    #[test]
    fn a_run_is_written_as_one_command() {
        let mut sets = Sets::default();
        let mut out = Vec::new();
        sets.write(&mut out);
        assert!(out.is_empty());
        sets.push(b"$1\r\na\r\n$1\r\n1\r\n");
        sets.write(&mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
        out.clear();
        sets.push(b"$1\r\na\r\n$1\r\n1\r\n");
        sets.push(b"$1\r\na\r\n$1\r\n2\r\n");
        assert_eq!(sets.count(), 2);
        sets.write(&mut out);
        assert_eq!(
            out,
            b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n2\r\n"
        );
        assert!(sets.is_empty());
    }

    #[test]
    fn a_run_has_an_end() {
        let mut sets = Sets::default();
        let pair = b"$1\r\na\r\n$1\r\n1\r\n";
        while sets.has_room(pair) {
            sets.push(pair);
        }
        assert_eq!(sets.count(), PAIRS_MAX);
        let pair = vec![b'x'; PAIR_BYTES_MAX];
        sets.clear();
        while sets.has_room(&pair) {
            sets.push(&pair);
        }
        assert_eq!(sets.bytes(), BYTES_MAX);
    }
}
