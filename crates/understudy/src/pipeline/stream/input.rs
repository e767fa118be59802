//! The frames of the stream, one after the other, out of the feed.
//!
//! A large value is not brought into memory: what stands for it in the frame is a short token, and a [`Hole`] says which
//! bytes of the feed belong there. Only words that nobody looks at on the way are left out like this: see
//! [`is_only_data`]. A command that does not fit into memory without that is an error before its bytes are read.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use resp::CommandDecoder;

use super::stream_limits;
use crate::spool::Feed;

/// What every token begins with.
pub(crate) const TOKEN_MARK: &[u8; 28] = b"understudy:left-in-the-spool";

/// A word from this length on stays in the feed.
const LARGE_BYTES: usize = 1 << 20;

/// A frame that straddles chunks is completed by at least so many bytes at a time.
const STEP_MIN: usize = 256;

/// Stands for a word that is left in the feed.
pub(crate) type Token = [u8; 48];

/// A word of a frame that is left in the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) token: Token,
    /// Position of its first byte.
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// Frames out of the feed.
pub(in crate::pipeline) struct Input {
    decoder: CommandDecoder,
    /// Position of the next byte to read from the feed.
    read_pos: u64,
    /// Position of the next frame.
    pub(in crate::pipeline) frame_pos: u64,
    /// The frame in progress and what follows it: either a slice of a chunk, or a copy where a frame
    /// straddles chunks.
    current: Bytes,
    carry: BytesMut,
    /// The chunk that the frame in `carry` ends in; so many bytes of it are there already.
    chunk: Bytes,
    carried: usize,
    pub(in crate::pipeline) at_ms: u64,
    /// Nothing of the feed is wanted.
    pub(in crate::pipeline) ends: bool,
    /// Most bytes of a frame that are held.
    frame_bytes_max: usize,
    /// A word from this length on stays in the feed.
    large_bytes: usize,
    /// What is left out of the frame in progress.
    holes: Vec<Hole>,
    /// By so much the frame is longer in the feed than here.
    left_out: u64,
    /// Bytes of the feed that are passed over before the next that are read.
    skip: u64,
}

/// Why there is no next frame.
#[derive(Debug)]
pub(in crate::pipeline) enum InputError {
    /// It is no command.
    Resp(resp::Error),
    /// It does not fit into memory; it has at least so many bytes.
    TooLarge(u64),
}

impl Input {
    pub(in crate::pipeline) fn at(pos: u64, frame_bytes_max: usize) -> Self {
        Self {
            decoder: CommandDecoder::new(stream_limits()),
            read_pos: pos,
            frame_pos: pos,
            current: Bytes::new(),
            carry: BytesMut::new(),
            chunk: Bytes::new(),
            carried: 0,
            at_ms: 0,
            ends: false,
            frame_bytes_max,
            large_bytes: LARGE_BYTES,
            holes: Vec::new(),
            left_out: 0,
            skip: 0,
        }
    }

    /// Leaves nothing in the feed: every frame is whole.
    pub(in crate::pipeline) fn whole(self) -> Self {
        Self {
            large_bytes: usize::MAX,
            ..self
        }
    }

    /// Takes the next chunk; false when there is none.
    pub(in crate::pipeline) fn more(&mut self, feed: &Feed) -> std::io::Result<bool> {
        if self.ends {
            return Ok(false);
        }
        if self.carried < self.chunk.len() {
            self.carry_on(self.decoder.wanted().max(STEP_MIN));
            return Ok(true);
        }
        // What is to be passed over need not be read, but it has to be there.
        let passed = self.skip.min(feed.end().saturating_sub(self.read_pos));
        self.skip -= passed;
        self.read_pos += passed;
        let Some(chunk) = feed.read(self.read_pos)? else {
            return Ok(false);
        };
        self.read_pos += chunk.bytes.len() as u64;
        self.at_ms = chunk.at_ms;
        if self.carry.is_empty() && self.current.is_empty() {
            self.current = chunk.bytes;
            return Ok(true);
        }
        self.own();
        self.chunk = chunk.bytes;
        self.carried = 0;
        self.carry_on(self.decoder.wanted().max(STEP_MIN));
        Ok(true)
    }

    /// So many more bytes of the chunk become part of the copy: the frame that it ends in is completed, and the frames
    /// behind that stay where they are.
    fn carry_on(&mut self, bytes: usize) {
        let rest = self.chunk.get(self.carried..).unwrap_or_default();
        let step = rest.get(..bytes).unwrap_or(rest);
        self.carry.extend_from_slice(step);
        self.carried += step.len();
    }

    /// Once the copy has nothing but what is in the chunk too, the window is a slice of that again.
    fn put_down(&mut self) {
        if let Some(from) = self.carried.checked_sub(self.carry.len())
            && !self.chunk.is_empty()
        {
            self.current = std::mem::take(&mut self.chunk).split_off(from);
            self.carried = 0;
            self.carry.clear();
        }
    }

    /// The window becomes a copy of its own.
    fn own(&mut self) {
        if !self.current.is_empty() {
            self.carry.extend_from_slice(&self.current);
            self.current = Bytes::new();
        }
    }

    pub(in crate::pipeline) fn poll(&mut self) -> Result<Option<resp::Frame>, InputError> {
        loop {
            let window: &[u8] = if self.carry.is_empty() {
                &self.current
            } else {
                &self.carry
            };
            let found = self.decoder.poll(window).map_err(InputError::Resp)?;
            if found.is_some() || !self.leave_out()? {
                return Ok(found);
            }
        }
    }

    /// Leaves out the word in progress, if it is large; whether there is more in the window behind it.
    fn leave_out(&mut self) -> Result<bool, InputError> {
        let Some(progress) = self.decoder.progress() else {
            return Ok(false);
        };
        let len = progress.body.unwrap_or(0);
        let held = progress.at.saturating_add(len);
        let name = self.decoder.args().first();
        // The name of such a message is made from what is in it.
        let is_hashed = || {
            let mut words = self.decoder.args().iter().take(16);
            words.any(|word| word.of(self.window()).eq_ignore_ascii_case(b"idmpauto"))
        };
        let may_leave_out = len >= self.large_bytes
            && name.is_some_and(|name| {
                is_only_data(name.of(self.window()), self.decoder.args().len())
            })
            && !is_hashed();
        if !may_leave_out {
            if held > self.frame_bytes_max {
                return Err(InputError::TooLarge(held as u64 + self.left_out));
            }
            return Ok(false);
        }
        self.own();
        self.carry_on(usize::MAX);
        self.chunk.clear();
        self.carried = 0;
        let head = self.carry.get(..progress.at).unwrap_or_default();
        let header = head.iter().rposition(|byte| *byte == b'$').unwrap_or(0);
        let at = self.frame_pos + progress.at as u64 + self.left_out;
        let token = token(at);
        let rest = self.carry.split_off(progress.at);
        self.carry.truncate(header);
        self.carry
            .extend_from_slice(format!("${}\r\n", token.len()).as_bytes());
        let body = self.carry.len();
        self.carry.extend_from_slice(&token);
        self.decoder.replace_body(body, token.len());
        let here = len.min(rest.len());
        self.carry
            .extend_from_slice(rest.get(here..).unwrap_or_default());
        self.skip = (len - here) as u64;
        self.left_out += held as u64 - (body + token.len()) as u64;
        self.holes.push(Hole {
            token,
            at,
            len: len as u64,
        });
        Ok(self.skip == 0)
    }

    pub(in crate::pipeline) fn window(&self) -> &[u8] {
        if self.carry.is_empty() {
            &self.current
        } else {
            &self.carry
        }
    }

    /// What lies in the window, if a frame begins there of which nothing was taken yet.
    #[inline]
    pub(in crate::pipeline) fn frames(&self) -> &[u8] {
        if self.decoder.is_between_frames() {
            self.window()
        } else {
            &[]
        }
    }

    /// The words of the frame that was found last.
    pub(in crate::pipeline) fn args(&self) -> &[resp::Arg] {
        self.decoder.args()
    }

    /// What was left out of it.
    pub(in crate::pipeline) fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// The words that are there of a frame that is too large, the first two, to name it.
    pub(in crate::pipeline) fn name(&self) -> String {
        let words = self.decoder.args().iter().take(2);
        let words: Vec<String> = words
            .map(|arg| super::show(arg.of(self.window())))
            .collect();
        words.join(" ")
    }

    /// Where the frame that was found last ends in the feed.
    pub(in crate::pipeline) fn frame_end(&self, len: usize) -> u64 {
        self.frame_pos + len as u64 + self.left_out
    }

    pub(in crate::pipeline) fn advance(&mut self, len: usize) {
        self.frame_pos = self.frame_end(len);
        if self.carry.is_empty() {
            self.current.advance(len);
        } else {
            self.carry.advance(len);
            self.put_down();
        }
        self.left_out = 0;
        self.holes.clear();
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resp(error) => error.fmt(f),
            Self::TooLarge(bytes) => write!(f, "it has {bytes} bytes or more"),
        }
    }
}

/// Another one for each place; no value of anybody's holds it by chance.
pub(crate) fn token(at: u64) -> Token {
    let mut token = [0; size_of::<Token>()];
    if let Some(start) = token.first_chunk_mut() {
        *start = *TOKEN_MARK;
    }
    let digits = format!("{at:020}");
    if let Some(end) = token.last_chunk_mut::<20>() {
        for (place, digit) in end.iter_mut().zip(digits.bytes()) {
            *place = digit;
        }
    }
    token
}

/// Whether nobody looks at the word `at` of a command of this name on its way to the target: it is no key, and what is
/// done to the command does not hang on it.
fn is_only_data(name: &[u8], at: usize) -> bool {
    let mut lower = [0_u8; 9];
    let Some(lower) = lower.get_mut(..name.len()) else {
        return false;
    };
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    match &*lower {
        b"set" | b"setnx" | b"getset" | b"append" => at == 2,
        b"setex" | b"psetex" | b"setrange" | b"lset" | b"lrem" => at == 3,
        b"mset" | b"msetnx" => at >= 2 && at.is_multiple_of(2),
        b"lpush" | b"rpush" | b"lpushx" | b"rpushx" | b"sadd" | b"srem" => at >= 2,
        b"hset" | b"hmset" | b"hsetnx" => at >= 2,
        b"linsert" => at >= 3,
        b"zadd" | b"xadd" => at >= 4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use replica::ReplId;

    use super::*;
    use crate::spool::{Keep, Log};

    const MAX: usize = 4 << 20;

    /// The words of every command of a stream, each hole filled with what the feed has there.
    fn read(stream: &[u8], step: usize) -> (Vec<Vec<Vec<u8>>>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep {
            tail_bytes: 1 << 20,
            retain_bytes: u64::MAX,
        };
        let replid: ReplId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let start = 1_000_u64;
        let feed = Feed::new(Log::create(folder.path(), "stream", replid, start, keep).unwrap());
        let mut input = Input::at(start, MAX);
        let (mut commands, mut held) = (Vec::new(), 0);
        for chunk in stream.chunks(step) {
            feed.append(Bytes::copy_from_slice(chunk), 1).unwrap();
            loop {
                held = held.max(input.window().len());
                let Some(frame) = input.poll().unwrap() else {
                    if input.more(&feed).unwrap() {
                        continue;
                    }
                    break;
                };
                let words = input.args().iter().map(|arg| {
                    let word = arg.of(input.window());
                    let hole = input.holes().iter().find(|hole| hole.token == word);
                    hole.map_or_else(|| word.to_vec(), |hole| at(&feed, hole))
                });
                commands.push(words.collect());
                input.advance(frame.len);
            }
        }
        assert_eq!(input.frame_pos, start + stream.len() as u64);
        (commands, held)
    }

    fn at(feed: &Feed, hole: &Hole) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < hole.len {
            let chunk = feed.read(hole.at + bytes.len() as u64).unwrap().unwrap();
            bytes.extend_from_slice(&chunk.bytes);
        }
        bytes.truncate(hole.len as usize);
        bytes
    }

    #[test]
    fn large_values_stay_in_the_feed_however_it_is_cut() {
        let value = |fill: u8, len: usize| vec![fill; len];
        let (large, larger) = (value(b'$', LARGE_BYTES), value(b'\r', 3 * LARGE_BYTES + 7));
        let commands: Vec<Vec<Vec<u8>>> = vec![
            vec![b"SET".to_vec(), b"a".to_vec(), large.clone()],
            vec![b"incr".to_vec(), b"n".to_vec()],
            vec![
                b"mset".to_vec(),
                b"a".to_vec(),
                larger.clone(),
                b"b".to_vec(),
                b"small".to_vec(),
                b"c".to_vec(),
                large.clone(),
            ],
            vec![
                b"RPUSH".to_vec(),
                b"l".to_vec(),
                larger.clone(),
                larger.clone(),
                b"".to_vec(),
            ],
            // Its only word behind the name is a key, so it is held.
            vec![b"DEL".to_vec(), large],
            vec![b"SET".to_vec(), b"a".to_vec(), larger, b"KEEPTTL".to_vec()],
        ];
        let mut stream = Vec::new();
        for argv in &commands {
            let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            resp::encode::command(&mut stream, &words);
        }
        for step in [4_099, 100_000, 262_144, stream.len()] {
            let (found, held) = read(&stream, step);
            assert!(found == commands, "pieces of {step}");
            let limit = (2 * LARGE_BYTES).max(step + LARGE_BYTES);
            assert!(held <= limit, "{held} held with pieces of {step}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_before_it_comes() {
        let mut input = Input::at(0, MAX);
        let head = format!(
            "*3\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n${}\r\n",
            MAX + 1
        );
        input.current = Bytes::from(head.replace("*3", "*5"));
        assert!(matches!(input.poll(), Err(InputError::TooLarge(bytes)) if bytes > MAX as u64));
        assert_eq!(input.name(), "RESTORE k");
        let mut input = Input::at(0, MAX);
        input.current = Bytes::from(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 1 << 30));
        assert!(matches!(input.poll(), Ok(None)));
    }
}
