//! Sessions as text: what the source says and what time does go in, what the link says comes out.
//!
//! ```text
//! === a title              a session; `[whole]` in it: its errors quote what came together
//! options password=x ..    username, password, psync, capa_eof, rdb_channel, version, ack
//! channel 12               the second connection of an RDB channel: Redis's with the first one's id, or `dual`
//! resume {A} 100 "*1"      instead of a full start
//! < +OK                    the source sends this and \r\n
//! << *1\r\n                the source sends exactly this (\r \n \\ \xHH)
//! @ +10s                   time passes, in ticks of 100 ms
//! join {A} 120 7           where the second connection's snapshot was taken, and its id where it has one
//! snapshot-in              the second connection's snapshot is whole
//! applied 120              the target confirms
//! eof                      the socket ends
//! > REPLCONF ACK 0         the link sends
//! ! Event ..               the link gives
//! ```
//!
//! `{A}` is a replication id of forty `a`, and so on. Lines with `>` and `!` are what is checked:
//! each session runs with the source's bytes at once and one by one, and both must give them.
//! `UPDATE_SCRIPTS=1` writes them down anew; read the difference before believing it.

use std::{fmt::Write as _, fs, path::Path};

use bytes::Bytes;
use replica::{AckMode, Event, Link, Options, Poll, RdbChannel, ReplOffset, SnapshotAt, Start};

#[test]
fn handshake() {
    check("handshake");
}

#[test]
fn psync() {
    check("psync");
}

#[test]
fn channel() {
    check("channel");
}

#[test]
fn snapshot() {
    check("snapshot");
}

#[test]
fn stream() {
    check("stream");
}

#[test]
fn silence() {
    check("silence");
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scripts/{name}.txt"));
    let mut script = fs::read_to_string(&path).unwrap();
    let at_once = play(&script, usize::MAX, |_| true);
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        fs::write(&path, &at_once).unwrap();
        script.clone_from(&at_once);
    }
    assert_same(&script, &at_once, "at once");
    let cut = |title: &str| !title.contains("[whole]");
    for size in [1, 2, 7] {
        let wanted = play(&script, usize::MAX, cut);
        assert_same(
            &wanted,
            &play(&script, size, cut),
            &format!("in pieces of {size}"),
        );
    }
}

fn assert_same(wanted: &str, got: &str, how: &str) {
    let mut title = "";
    for (wanted, got) in wanted.lines().zip(got.lines()) {
        if wanted.starts_with("===") {
            title = wanted;
        }
        assert_eq!(got, wanted, "{how}, in {title}");
    }
    assert_eq!(
        got.lines().count(),
        wanted.lines().count(),
        "{how}, after {title}"
    );
}

/// The script with the link's lines as they are, for the sessions whose title is `chosen`.
fn play(script: &str, piece: usize, chosen: impl Fn(&str) -> bool) -> String {
    let mut out = String::new();
    for session in sessions(script) {
        let title = session.first().copied().unwrap_or_default();
        if !title.starts_with("===") {
            out.extend(session.iter().copied());
        } else if chosen(title) {
            play_session(&session, piece, &mut out);
        }
    }
    out
}

/// The script's lines, session by session; what comes before the first is a group as well.
fn sessions(script: &str) -> Vec<Vec<&str>> {
    let mut groups = vec![Vec::new()];
    for line in script.split_inclusive('\n') {
        if line.starts_with("===") {
            groups.push(Vec::new());
        }
        groups.last_mut().unwrap().push(line);
    }
    groups
}

fn play_session(lines: &[&str], piece: usize, out: &mut String) {
    let mut session = Session {
        piece,
        ..Session::default()
    };
    for &line in lines {
        let text = line.trim_end_matches('\n');
        if text.starts_with(['>', '!']) {
            continue;
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        // What was said belongs behind the line it answers, before the next.
        let begins = !matches!(word, "===" | "options" | "resume" | "channel" | "#" | "");
        if begins && session.link.is_none() {
            session.begin();
            out.push_str(&session.said());
        }
        out.push_str(line);
        match word {
            "===" | "#" | "" => {}
            "options" => session.options = options(rest),
            "resume" => session.start = Some(resume(rest)),
            "channel" => session.channel = Some(rdb_channel(rest)),
            "<" => session.feed(format!("{}\r\n", expand(rest)).as_bytes()),
            "<<" => session.feed(&unescape(&expand(rest))),
            "@" => session.pass(milliseconds(rest)),
            "join" => session.join(&snapshot_at(rest)),
            "snapshot-in" => session.snapshot_is_in(),
            "applied" => session.apply(rest.parse().unwrap()),
            "eof" => session.end(),
            _ => panic!("unknown line: {text}"),
        }
        out.push_str(&session.said());
    }
}

#[derive(Default)]
struct Session {
    piece: usize,
    options: Options,
    start: Option<Start>,
    channel: Option<RdbChannel>,
    link: Option<Link>,
    now_ms: u64,
    failed: bool,
    events: Vec<Event>,
    ends: Vec<String>,
    sent: Vec<(String, u32)>,
}

impl Session {
    fn begin(&mut self) {
        let start = self.start.take().unwrap_or(Start::Full);
        let options = self.options.clone();
        self.link = Some(match self.channel {
            Some(channel) => Link::on_rdb_channel(options, channel, 0),
            None => Link::new(options, start, 0),
        });
        self.drain();
    }

    fn link(&mut self) -> &mut Link {
        self.link.as_mut().unwrap()
    }

    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            self.link().feed(Bytes::copy_from_slice(piece));
            self.drain();
        }
        // Of two ACKs due in one read, one is sent; in two reads, two.
        self.sent.iter_mut().for_each(|(_, times)| *times = 1);
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            let now_ms = self.now_ms;
            if let Err(error) = self.link().tick(now_ms) {
                self.failed(&error);
            }
            self.drain();
        }
    }

    fn apply(&mut self, offset: u64) {
        self.link().applied(ReplOffset(offset));
        self.drain();
    }

    fn join(&mut self, at: &SnapshotAt) {
        self.link().join(at);
        self.drain();
    }

    fn snapshot_is_in(&mut self) {
        self.link().snapshot_is_in();
        self.drain();
    }

    fn end(&mut self) {
        let error = self.link().eof();
        self.failed(&error);
    }

    fn failed(&mut self, error: &replica::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            self.ends.push(format!("{:?}: {error}", error.class()));
        }
    }

    fn drain(&mut self) {
        loop {
            match self.link().poll() {
                Ok(Poll::NeedMore) => break,
                Ok(Poll::Event(event)) => self.merge(event),
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
        while let Some(bytes) = self.link().output() {
            let sent = argv(&bytes);
            match self.sent.last_mut() {
                Some((last, times)) if *last == sent => *times += 1,
                _ => self.sent.push((sent, 1)),
            }
        }
    }

    /// How the bytes were cut is not part of what is said.
    fn merge(&mut self, event: Event) {
        match (self.events.last_mut(), event) {
            (Some(Event::Snapshot(before)), Event::Snapshot(bytes)) => {
                *before = [&before[..], &bytes].concat().into();
            }
            (Some(Event::Stream { bytes: before, end }), Event::Stream { bytes, end: new }) => {
                *before = [&before[..], &bytes].concat().into();
                *end = new;
            }
            (_, event) => self.events.push(event),
        }
    }

    /// The lines for what happened since the last call.
    fn said(&mut self) -> String {
        let mut lines = String::new();
        for event in self.events.drain(..) {
            writeln!(lines, "! {}", shown(&event)).unwrap();
        }
        for end in self.ends.drain(..) {
            writeln!(lines, "! {end}").unwrap();
        }
        for (sent, times) in self.sent.drain(..) {
            match times {
                1 => writeln!(lines, "> {sent}").unwrap(),
                _ => writeln!(lines, "> {sent} ({times} times)").unwrap(),
            }
        }
        contract(&lines)
    }
}

fn shown(event: &Event) -> String {
    match event {
        Event::FullResync { replid, offset } => format!("FullResync {replid} {offset}"),
        Event::RdbChannel(RdbChannel::DualChannel) => "RdbChannel dual".to_owned(),
        Event::RdbChannel(RdbChannel::RdbChannel { client_id }) => {
            format!("RdbChannel {client_id}")
        }
        Event::SnapshotAt(at) => {
            let id = at.client_id.map_or(String::new(), |id| format!(" {id}"));
            format!("SnapshotAt {} {}{id}", at.replid, at.offset)
        }
        Event::Continue {
            replid,
            changed: true,
        } => format!("Continue {replid}, changed"),
        Event::Continue {
            replid,
            changed: false,
        } => format!("Continue {replid}"),
        Event::SnapshotStart { len: Some(len) } => format!("SnapshotStart {len}"),
        Event::SnapshotStart { len: None } => "SnapshotStart".to_owned(),
        Event::Snapshot(bytes) => format!("Snapshot \"{}\"", bytes.escape_ascii()),
        Event::SnapshotEnd { bytes } => format!("SnapshotEnd {bytes}"),
        Event::Stream { bytes, end } => format!("Stream \"{}\" {end}", bytes.escape_ascii()),
    }
}

/// The words of the commands in `bytes`, which must be whole.
fn argv(bytes: &[u8]) -> String {
    let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
    let (mut rest, mut commands) = (bytes, Vec::new());
    while !rest.is_empty() {
        let frame = decoder
            .poll(rest)
            .unwrap()
            .expect("the link sends whole commands");
        let words = decoder
            .args()
            .iter()
            .map(|arg| arg.of(rest).escape_ascii().to_string());
        commands.push(words.collect::<Vec<_>>().join(" "));
        rest = &rest[frame.len..];
    }
    commands.join("; ")
}

fn options(text: &str) -> Options {
    let mut options = Options::default();
    for (key, value) in text.split(' ').map(|word| word.split_once('=').unwrap()) {
        match (key, value) {
            ("username", _) => options.username = Some(value.to_owned()),
            ("password", _) => options.password = Some(value.to_owned()),
            ("psync", _) => options.psync_command = value.to_owned(),
            ("capa_eof", _) => options.capa_eof = value.parse().unwrap(),
            ("rdb_channel", _) => options.rdb_channel = value.parse().unwrap(),
            ("version", _) => options.version = Some(value.to_owned()),
            ("ack", "zero") => options.ack = AckMode::Zero,
            ("ack", "applied") => options.ack = AckMode::Applied,
            _ => panic!("unknown option {key}={value}"),
        }
    }
    options
}

fn rdb_channel(text: &str) -> RdbChannel {
    match text {
        "dual" => RdbChannel::DualChannel,
        id => RdbChannel::RdbChannel {
            client_id: id.parse().unwrap(),
        },
    }
}

fn snapshot_at(text: &str) -> SnapshotAt {
    let text = expand(text);
    let mut words = text.split(' ');
    SnapshotAt {
        replid: words.next().unwrap().parse().unwrap(),
        offset: ReplOffset(words.next().unwrap().parse().unwrap()),
        client_id: words.next().map(|id| id.parse().unwrap()),
    }
}

fn resume(text: &str) -> Start {
    let text = expand(text);
    let mut words = text.splitn(3, ' ');
    let replid = words.next().unwrap().parse().unwrap();
    let received = ReplOffset(words.next().unwrap().parse().unwrap());
    let partial = words
        .next()
        .map(|quoted| unescape(quoted.trim_matches('"')));
    Start::Resume {
        replid,
        received,
        partial: partial.unwrap_or_default().into(),
    }
}

fn milliseconds(text: &str) -> u64 {
    let number = text.trim_start_matches('+');
    match number.strip_suffix("ms") {
        Some(ms) => ms.parse().unwrap(),
        None => number.strip_suffix('s').unwrap().parse::<u64>().unwrap() * 1000,
    }
}

/// `{A}` is forty `a`.
fn expand(text: &str) -> String {
    ('A'..='Z').fold(text.to_owned(), |text, letter| {
        text.replace(
            &format!("{{{letter}}}"),
            &letter.to_ascii_lowercase().to_string().repeat(40),
        )
    })
}

/// Forty `a` are `{A}`.
fn contract(text: &str) -> String {
    ('a'..='z').fold(text.to_owned(), |text, letter| {
        text.replace(
            &letter.to_string().repeat(40),
            &format!("{{{}}}", letter.to_ascii_uppercase()),
        )
    })
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut chars) = (Vec::new(), text.bytes());
    while let Some(byte) = chars.next() {
        bytes.push(match byte {
            b'\\' => match chars.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [chars.next().unwrap(), chars.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}
