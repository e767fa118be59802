//! Commands about streams, for targets that lack some of their words: counters came with 7.0, consumers without messages
//! with 6.2.

use resp::encode;

use super::{Done, Work};

impl Work<'_> {
    /// `XGROUP CREATE | SETID key group id [MKSTREAM] [ENTRIESREAD n]`, `XGROUP CREATECONSUMER key group consumer`.
    pub(super) fn stream_group(mut self) -> Done {
        let words = self.words;
        let creates = words.is(1, b"CREATECONSUMER") && words.len() == 5;
        if creates && !self.options.target.stream_consumers {
            // Reading one's own pending messages makes a consumer, and changes nothing else.
            let [key, group, consumer] = [words.at(2), words.at(3), words.at(4)];
            self.emit(&[
                b"XREADGROUP",
                b"GROUP",
                group,
                consumer,
                b"COUNT",
                b"1",
                b"STREAMS",
                key,
                b"0",
            ]);
            return Done::Rewritten(1);
        }
        if words.is(1, b"CREATE") || words.is(1, b"SETID") {
            return self.without(5, &[b"ENTRIESREAD"]);
        }
        Done::Forward
    }

    /// `XSETID key id [ENTRIESADDED n] [MAXDELETEDID id]`
    pub(super) fn stream_set_id(self) -> Done {
        self.without(3, &[b"ENTRIESADDED", b"MAXDELETEDID"])
    }

    /// The command without these options, each of which has a value; they stand from a place on.
    fn without(self, from: usize, options: &[&[u8]]) -> Done {
        let words = self.words;
        let (mut kept, mut at) = (Vec::with_capacity(words.len()), 0);
        while at < words.len() {
            if at >= from && options.iter().any(|name| words.is(at, name)) {
                at += 2;
                continue;
            }
            kept.push(words.at(at));
            at += 1;
        }
        if kept.len() == words.len() {
            return Done::Forward;
        }
        encode::command(self.out, &kept);
        Done::Rewritten(1)
    }
}
