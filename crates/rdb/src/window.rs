//! The bytes between what was fed and what was decoded.
//!
//! ```text
//!   held pieces | head: mark <= pos <= len | queue of chunks | loose
//!   ------------+--------------------------+-----------------+------
//!   since mark    consumed    at hand        waiting           small chunks being gathered
//! ```
//!
//! Items are slices of the chunks that were fed; only an item that straddles two chunks is
//! copied. With a mark set, consumed bytes are kept, so that a value can be taken whole or gone
//! back to. The checksum is taken in the largest pieces possible, when a head is given up.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::checksum::Running;

/// Chunks below this size are joined while they wait, so that a peer that sends single bytes
/// does not cost a queue entry each.
const LOOSE_CHUNK: usize = 4096;
/// Joined chunks are queued at this size.
const LOOSE_FULL: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Window {
    head: Bytes,
    pos: usize,
    /// Offset in the input of the head's first byte.
    head_at: u64,
    queue: VecDeque<Bytes>,
    loose: BytesMut,
    /// Bytes in `queue` and `loose`.
    queued: usize,
    mark: Option<usize>,
    held: Vec<Bytes>,
    /// The end of what is held, where it came in small chunks.
    held_loose: BytesMut,
    /// Bytes in `held` and `held_loose`.
    held_len: usize,
    sum: Running,
    /// Everything before this offset is in the sum (going back does not take it out again), or
    /// is not wanted there.
    summed: u64,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            head: Bytes::new(),
            pos: 0,
            head_at: 0,
            queue: VecDeque::new(),
            loose: BytesMut::new(),
            queued: 0,
            mark: None,
            held: Vec::new(),
            held_loose: BytesMut::new(),
            held_len: 0,
            sum: Running::new(),
            summed: 0,
        }
    }

    /// A window over the same bytes from the place of this one on, which sums nothing.
    pub(crate) fn fork(&self) -> Self {
        Self {
            head: self.head.slice(self.pos..),
            head_at: self.offset(),
            queue: self.queue.clone(),
            loose: self.loose.clone(),
            queued: self.queued,
            summed: u64::MAX,
            ..Self::new()
        }
    }

    pub(crate) fn feed(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let waiting = self.queued > 0;
        self.queued += chunk.len();
        if waiting && chunk.len() < LOOSE_CHUNK {
            self.loose.extend_from_slice(&chunk);
            if self.loose.len() >= LOOSE_FULL {
                self.settle();
            }
        } else {
            self.settle();
            self.queue.push_back(chunk);
        }
    }

    /// Moves the loose bytes into the queue.
    fn settle(&mut self) {
        if !self.loose.is_empty() {
            self.queue.push_back(self.loose.split().freeze());
        }
    }

    /// The bytes at hand.
    #[inline]
    pub(crate) fn rest(&self) -> &[u8] {
        self.head.get(self.pos..).unwrap_or_default()
    }

    /// Offset in the input of the next byte.
    #[inline]
    pub(crate) fn offset(&self) -> u64 {
        self.head_at + self.pos as u64
    }

    /// Whether all that was fed is consumed.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0 && self.pos == self.head.len()
    }

    /// Bytes fed and not consumed, and bytes kept since the mark.
    pub(crate) fn buffered(&self) -> usize {
        let kept = self
            .mark
            .map_or(0, |mark| self.held_len + (self.pos - mark));
        self.head.len() - self.pos + self.queued + kept
    }

    /// Takes `n` bytes at hand as consumed.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        debug_assert!(
            n <= self.head.len() - self.pos,
            "consumes only what is at hand"
        );
        self.pos += n;
    }

    /// A part of [`rest`](Self::rest), without copying it.
    #[inline]
    pub(crate) fn slice(&self, start: usize, end: usize) -> Bytes {
        self.head.slice(self.pos + start..self.pos + end)
    }

    /// The last `n` bytes that were consumed and all at hand behind them, if the head still has them.
    #[inline]
    pub(crate) fn behind(&self, n: usize) -> &[u8] {
        let from = self.pos.checked_sub(n);
        from.and_then(|from| self.head.get(from..))
            .unwrap_or_default()
    }

    /// Consumes up to `n` bytes of those at hand; returns how many.
    pub(crate) fn skip(&mut self, n: u64) -> u64 {
        let at_hand = self.head.len() - self.pos;
        let taken = usize::try_from(n).map_or(at_hand, |n| n.min(at_hand));
        self.pos += taken;
        taken as u64
    }

    /// Brings `n` bytes to hand if that many have arrived.
    pub(crate) fn ensure(&mut self, n: usize) -> bool {
        let at_hand = self.head.len() - self.pos;
        if at_hand >= n {
            return true;
        }
        if at_hand + self.queued < n {
            return false;
        }
        self.give_up_head();
        self.settle();
        if self.head.is_empty() {
            self.head = self.pop();
        }
        if self.head.len() < n {
            self.gather(n);
        }
        true
    }

    fn pop(&mut self) -> Bytes {
        let chunk = self.queue.pop_front().unwrap_or_default();
        self.queued -= chunk.len();
        chunk
    }

    /// Joins exactly `n` bytes into a new head: what follows stays a slice of its own chunk.
    fn gather(&mut self, n: usize) {
        let mut joined = Vec::with_capacity(n);
        joined.extend_from_slice(&self.head);
        while joined.len() < n {
            let mut chunk = self.pop();
            if chunk.is_empty() {
                break;
            }
            let part = chunk.split_to(chunk.len().min(n - joined.len()));
            joined.extend_from_slice(&part);
            if !chunk.is_empty() {
                self.queued += chunk.len();
                self.queue.push_front(chunk);
            }
        }
        self.head = Bytes::from(joined);
    }

    /// Drops the consumed part of the head: into the sum, and to the held pieces if marked.
    fn give_up_head(&mut self) {
        self.sum_up();
        if let Some(mark) = self.mark {
            self.hold(self.head.slice(mark..self.pos));
            self.mark = Some(0);
        }
        self.head_at += self.pos as u64;
        self.head = self.head.slice(self.pos..);
        self.pos = 0;
    }

    fn hold(&mut self, piece: Bytes) {
        self.held_len += piece.len();
        if piece.len() < LOOSE_CHUNK {
            self.held_loose.extend_from_slice(&piece);
        } else {
            self.settle_held();
            self.held.push(piece);
        }
    }

    /// Moves the loose end into the held pieces.
    fn settle_held(&mut self) {
        if !self.held_loose.is_empty() {
            self.held.push(self.held_loose.split().freeze());
        }
    }

    fn sum_up(&mut self) {
        let from = usize::try_from(self.summed.saturating_sub(self.head_at)).unwrap_or(usize::MAX);
        if let Some(bytes) = self.head.get(from..self.pos) {
            self.sum.update(bytes);
        }
        self.summed = self.summed.max(self.offset());
    }

    /// The checksum of everything consumed.
    pub(crate) fn checksum(&mut self) -> u64 {
        self.sum_up();
        self.sum.value()
    }

    /// Begins to keep what is consumed from here on.
    pub(crate) fn mark(&mut self) {
        debug_assert!(self.mark.is_none(), "one value is kept at a time");
        self.mark = Some(self.pos);
    }

    /// How much was consumed since the mark.
    pub(crate) fn marked_len(&self) -> u64 {
        self.mark
            .map_or(0, |mark| (self.held_len + (self.pos - mark)) as u64)
    }

    /// Everything since the mark, and the mark is gone.
    pub(crate) fn take_marked(&mut self) -> Bytes {
        let Some(mark) = self.mark.take() else {
            return Bytes::new();
        };
        let last = self.head.slice(mark..self.pos);
        self.settle_held();
        if self.held.is_empty() {
            return last;
        }
        let mut whole = Vec::with_capacity(self.held_len + last.len());
        for piece in self.held.drain(..) {
            whole.extend_from_slice(&piece);
        }
        self.held_len = 0;
        whole.extend_from_slice(&last);
        Bytes::from(whole)
    }

    /// Goes back to the mark, and the mark is gone.
    pub(crate) fn rewind(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        self.settle_held();
        if self.held.is_empty() {
            self.pos = mark;
            return;
        }
        self.sum_up();
        let last = self.head.slice(mark..);
        self.head = Bytes::new();
        self.pos = 0;
        self.head_at -= self.held_len as u64;
        self.queued += self.held_len + last.len();
        if !last.is_empty() {
            self.queue.push_front(last);
        }
        while let Some(piece) = self.held.pop() {
            self.queue.push_front(piece);
        }
        self.held_len = 0;
    }

    /// Everything not consumed.
    pub(crate) fn leftover(&mut self) -> Bytes {
        self.give_up_head();
        self.settle();
        let mut pieces = vec![std::mem::take(&mut self.head)];
        pieces.extend(self.queue.drain(..));
        pieces.retain(|piece| !piece.is_empty());
        self.queued = 0;
        let left = match pieces.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        };
        self.head_at += left.len() as u64;
        self.summed = self.head_at;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(chunks: &[&'static [u8]]) -> Window {
        let mut window = Window::new();
        chunks
            .iter()
            .for_each(|chunk| window.feed(Bytes::from_static(chunk)));
        window
    }

    #[test]
    fn joins_exactly_what_is_needed() {
        let mut window = fed(&[b"abc", b"defgh"]);
        assert!(window.ensure(2));
        assert_eq!(window.rest(), b"abc", "the chunk as it came");
        window.consume(1);
        assert!(window.ensure(4));
        assert_eq!(window.rest(), b"bcde");
        window.consume(4);
        assert!(window.ensure(1));
        assert_eq!(window.rest(), b"fgh", "what follows was not copied");
        assert_eq!((window.offset(), window.buffered()), (5, 3));
        assert!(!window.ensure(4));
    }

    #[test]
    fn takes_or_goes_back_to_what_is_marked() {
        for take in [true, false] {
            let mut window = fed(&[b"ab", b"cd", b"ef"]);
            assert!(window.ensure(1));
            window.consume(1);
            window.mark();
            window.consume(1);
            assert!(window.ensure(3));
            window.consume(3);
            assert_eq!((window.marked_len(), window.buffered()), (4, 5));
            if take {
                assert_eq!(window.take_marked(), "bcde");
                assert_eq!((window.offset(), window.leftover()), (5, Bytes::from("f")));
            } else {
                window.rewind();
                assert_eq!((window.offset(), window.buffered()), (1, 5));
                assert!(window.ensure(5));
                assert_eq!(window.rest(), b"bcdef");
            }
        }
    }

    #[test]
    fn sums_once_what_is_read_twice() {
        let mut window = fed(&[b"1234", b"56789"]);
        assert!(window.ensure(1));
        window.mark();
        window.consume(4);
        assert!(window.ensure(1));
        window.consume(2);
        window.rewind();
        assert!(window.ensure(9));
        window.consume(9);
        assert_eq!(window.checksum(), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn single_bytes_are_joined_while_they_wait_and_while_they_are_held() {
        let mut window = Window::new();
        for byte in 0..=255_u8 {
            window.feed(Bytes::copy_from_slice(&[byte]));
        }
        assert!(window.queue.len() <= 2, "{} entries", window.queue.len());
        assert!(window.ensure(1));
        window.mark();
        for byte in 0..=255_u8 {
            assert!(window.ensure(1));
            assert_eq!(window.rest().first(), Some(&byte));
            window.consume(1);
        }
        assert!(window.held.len() <= 2, "{} pieces", window.held.len());
        assert_eq!(window.take_marked().len(), 256);
    }
}
