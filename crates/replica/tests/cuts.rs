//! However a session's bytes are cut, the events are the same; and a stream may be left and taken
//! up again at any byte.

use bytes::Bytes;
use proptest::prelude::*;
use replica::{Event, Link, Options, Poll, ReplId, ReplOffset, Start};

const MARK: &str = "00112233445566778899aabbccddeeff00112233";

fn replid() -> ReplId {
    ReplId::from_bytes(&[b'a'; 40]).unwrap()
}

/// A session's events, with neighbouring bytes together: what does not depend on cuts.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<Event>,
    snapshot: Vec<u8>,
    stream: Vec<u8>,
    /// The ends of the GETACKs, as the answers show that they were found.
    answers: usize,
    received: ReplOffset,
    partial: Vec<u8>,
}

fn run<'a>(start: Start, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut link = Link::new(Options::default(), start, 0);
    let mut seen = Seen::default();
    for piece in pieces {
        link.feed(Bytes::copy_from_slice(piece));
        while let Poll::Event(event) = link.poll().unwrap() {
            seen.take(event);
        }
        drop(link.output());
    }
    // Each GETACK waits for the target: applied byte by byte, each gets its answer.
    let first = link.received().0 - seen.stream.len() as u64;
    for offset in first..=link.received().0 {
        link.applied(ReplOffset(offset));
        seen.answers += usize::from(link.output().is_some());
    }
    seen.received = link.received();
    seen.partial = link.partial().to_vec();
    seen
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Snapshot(bytes) => self.snapshot.extend_from_slice(&bytes),
            Event::Stream { bytes, .. } => self.stream.extend_from_slice(&bytes),
            Event::FullResync { .. }
            | Event::RdbChannel(_)
            | Event::SnapshotAt(_)
            | Event::Continue { .. }
            | Event::SnapshotStart { .. }
            | Event::SnapshotEnd { .. } => self.events.push(event),
        }
    }
}

/// A stream of commands of many forms, with the places between them.
fn commands() -> (Vec<u8>, Vec<usize>) {
    let long = "v".repeat(300);
    let argvs: [&[&str]; 9] = [
        &["SELECT", "0"],
        &["ping"],
        &["SET", "key", "line\r\nends\n*3\r\n$1\r\n"],
        &["REPLCONF", "GETACK", "*"],
        &["MSET", "a", "", "b", "$0\r\n\r\n", "c", &long],
        &["MULTI"],
        &["replconf", "getack", "*"],
        &["EXEC"],
        &["RPUSH", "l", "\n", "\r", "\r\n", "*", "$"],
    ];
    let (mut stream, mut ends) = (Vec::new(), vec![0]);
    for argv in argvs {
        let argv: Vec<&[u8]> = argv.iter().map(|arg| arg.as_bytes()).collect();
        resp::encode::command(&mut stream, &argv);
        ends.push(stream.len());
    }
    stream.extend_from_slice(b"*0\r\n");
    ends.push(stream.len());
    (stream, ends)
}

/// The stream as a source sends it, with newlines between some of the commands.
fn with_newlines() -> Vec<u8> {
    let (stream, ends) = commands();
    let mut out = Vec::new();
    for (index, pair) in ends.windows(2).enumerate() {
        out.extend(std::iter::repeat_n(b'\n', index % 3));
        out.extend_from_slice(&stream[pair[0]..pair[1]]);
    }
    out.push(b'\n');
    out
}

fn session(body: &str) -> Vec<u8> {
    let mut session = format!("+PONG\r\n+OK\r\n\n\n+FULLRESYNC {} 1000\r\n\n\n", replid());
    session += body;
    [session.as_bytes(), &with_newlines()].concat()
}

fn by_mark() -> Vec<u8> {
    let near = &MARK[..39];
    session(&format!("$EOF:{MARK}\r\nREDIS0011{near}{near}0011{MARK}"))
}

fn by_length() -> Vec<u8> {
    session("$21\r\nREDIS0011\r\n\n*1\r\n$4\r\n\n")
}

/// What every session must come to, however it is cut.
fn assert_whole(seen: &Seen, snapshot: &[u8]) {
    let (stream, _) = commands();
    assert_eq!(seen.snapshot, snapshot);
    assert_eq!(seen.stream, stream);
    assert_eq!(seen.received, ReplOffset(1000 + stream.len() as u64));
    assert_eq!(seen.answers, 2);
    assert_eq!(seen.partial, b"");
    assert_eq!(seen.events.len(), 3, "{:?}", seen.events);
}

#[test]
fn each_form_at_once_and_byte_by_byte() {
    let near = &MARK[..39];
    let snapshots = [
        format!("REDIS0011{near}{near}0011"),
        "REDIS0011\r\n\n*1\r\n$4\r\n\n".to_owned(),
    ];
    for (session, snapshot) in [by_mark(), by_length()].iter().zip(snapshots) {
        for size in [usize::MAX, 1, 2, 3, 39, 40, 41] {
            assert_whole(&run(Start::Full, session.chunks(size)), snapshot.as_bytes());
        }
    }
}

/// Covers the mark split at each of its 40 places and the header split at each of its bytes.
#[test]
fn one_cut_at_each_byte() {
    for session in [by_mark(), by_length()] {
        let whole = run(Start::Full, [&session[..]]);
        for cut in 0..=session.len() {
            let (before, after) = session.split_at(cut);
            assert_eq!(run(Start::Full, [before, after]), whole, "cut at {cut}");
        }
    }
}

#[test]
fn two_cuts_around_the_mark() {
    let session = by_mark();
    let whole = run(Start::Full, [&session[..]]);
    let text = String::from_utf8_lossy(&session);
    let (from, to) = (text.find("REDIS").unwrap(), text.rfind(MARK).unwrap() + 42);
    for first in from..to {
        for second in first..to {
            let pieces = [
                &session[..first],
                &session[first..second],
                &session[second..],
            ];
            assert_eq!(
                run(Start::Full, pieces),
                whole,
                "cuts at {first} and {second}"
            );
        }
    }
}

#[test]
fn a_stream_taken_up_again_at_each_byte() {
    let (stream, ends) = commands();
    let connected = b"+PONG\r\n+OK\r\n+CONTINUE\r\n".as_slice();
    let begin = Start::Resume {
        replid: replid(),
        received: ReplOffset(500),
        partial: Bytes::new(),
    };
    for cut in 0..=stream.len() {
        let first = run(begin.clone(), [connected, &stream[..cut]]);
        let boundary = ends.iter().rev().find(|end| **end <= cut).unwrap();
        assert_eq!(first.partial, &stream[*boundary..cut], "cut at {cut}");
        assert_eq!(first.received, ReplOffset(500 + cut as u64));
        let again = Start::Resume {
            replid: replid(),
            received: first.received,
            partial: first.partial.into(),
        };
        let second = run(again, [connected, &stream[cut..]]);
        assert_eq!(
            [first.stream, second.stream].concat(),
            stream,
            "cut at {cut}"
        );
        assert_eq!(second.received, ReplOffset(500 + stream.len() as u64));
        assert_eq!(first.answers + second.answers, 2, "cut at {cut}");
    }
}

#[test]
fn what_passes_is_a_slice_of_what_came() {
    let mut link = Link::new(Options::default(), Start::Full, 0);
    let id = replid();
    link.feed(format!("+PONG\r\n+OK\r\n+FULLRESYNC {id} 0\r\n$EOF:{MARK}\r\n").into());
    while link.poll().unwrap() != Poll::NeedMore {}
    for chunk in [[b"REDIS", MARK.as_bytes()].concat(), commands().0] {
        let chunk = Bytes::from(chunk);
        link.feed(chunk.clone());
        while let Poll::Event(event) = link.poll().unwrap() {
            if let Event::Snapshot(bytes) | Event::Stream { bytes, .. } = event {
                assert_eq!(bytes.as_ptr(), chunk.as_ptr());
            }
        }
    }
}

#[test]
fn a_partial_command_outlives_its_link() {
    let start = Start::Resume {
        replid: replid(),
        received: ReplOffset(0),
        partial: Bytes::new(),
    };
    let mut link = Link::new(Options::default(), start, 0);
    link.feed(Bytes::from_static(
        b"+PONG\r\n+OK\r\n+CONTINUE\r\n*1\r\n$4\r\nPI",
    ));
    while link.poll().unwrap() != Poll::NeedMore {}
    let error = link.eof();
    assert_eq!(link.poll(), Err(error));
    assert_eq!(
        (&*link.partial(), link.received()),
        (b"*1\r\n$4\r\nPI".as_slice(), ReplOffset(10))
    );
}

proptest! {
    #[test]
    fn random_cuts(cuts in prop::collection::vec(0_usize..2000, 0..40), by_length_form: bool) {
        let session = if by_length_form { by_length() } else { by_mark() };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % session.len()).collect();
        cuts.extend([0, session.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &session[pair[0]..pair[1]]);
        prop_assert_eq!(run(Start::Full, pieces), run(Start::Full, [&session[..]]));
    }

    #[test]
    fn random_streams(
        argvs in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..6), 0..12),
        size in 1_usize..6000,
    ) {
        let mut stream = Vec::new();
        for argv in &argvs {
            let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            resp::encode::command(&mut stream, &argv);
        }
        let start = Start::Resume {
            replid: replid(), received: ReplOffset(0), partial: Bytes::new(),
        };
        let connected = b"+PONG\r\n+OK\r\n+CONTINUE\r\n".as_slice();
        let seen = run(start, std::iter::once(connected).chain(stream.chunks(size)));
        prop_assert!(seen.stream == stream);
        prop_assert_eq!(seen.partial, b"");
    }

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..400)) {
        replica::fuzzing::link(&data);
    }
}
