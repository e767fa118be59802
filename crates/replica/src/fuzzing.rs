//! The body of the fuzz target: any bytes, cut anywhere, with ticks and applied offsets between.

use bytes::Bytes;

use crate::{
    AckMode, Event, Link, Options, Poll, RdbChannel, ReplId, ReplOffset, SnapshotAt, Start,
};

/// Runs a link over `data`. Its first bytes choose the start, the ACK mode and the cuts; the rest
/// is what the source says. Panics when an invariant does not hold.
///
/// # Panics
///
/// When the link breaks one of its promises.
#[expect(clippy::panic, reason = "a fuzzer finds broken promises by panics")]
pub fn link(data: &[u8]) {
    let Some((&[flags, cut, step], said)) = data.split_first_chunk::<3>() else {
        return;
    };
    let mut link = match flags >> 5 {
        1 => Link::on_rdb_channel(options(flags), RdbChannel::DualChannel, 0),
        2 => {
            let channel = RdbChannel::RdbChannel { client_id: 7 };
            Link::on_rdb_channel(options(flags), channel, 0)
        }
        _ => Link::new(options(flags), start(flags), 0),
    };
    let mut now_ms = 0;
    let mut last = link.received();
    for piece in said.chunks(usize::from(cut).max(1)) {
        link.feed(Bytes::copy_from_slice(piece));
        loop {
            match link.poll() {
                Ok(Poll::NeedMore) => break,
                Ok(Poll::Event(Event::RdbChannel(channel))) => {
                    let at = joined(channel);
                    link.join(&at);
                    last = at.offset;
                }
                Ok(Poll::Event(event)) => check(&event, &mut last, &link),
                Err(error) => {
                    assert_eq!(link.poll(), Err(error), "an error stays");
                    assert_eq!(link.output(), None, "and ends the output");
                    return;
                }
            }
        }
        assert!(link.partial().len() as u64 <= link.received().0 || flags & 2 != 0);
        now_ms += u64::from(step) * 100;
        link.applied(ReplOffset(
            link.received().0.saturating_sub(u64::from(step)),
        ));
        drop(link.output());
        if link.tick(now_ms).is_err() {
            return;
        }
    }
    let error = link.eof();
    if link.poll() != Err(error) {
        panic!("the end of the socket is the end of the link");
    }
}

fn options(flags: u8) -> Options {
    Options {
        password: (flags & 1 != 0).then(|| "secret".to_owned()),
        rdb_channel: flags & 16 != 0,
        version: (flags & 4 != 0).then(|| "9.0.0".to_owned()),
        ack: if flags & 8 != 0 {
            AckMode::Zero
        } else {
            AckMode::Applied
        },
        ..Options::default()
    }
}

fn start(flags: u8) -> Start {
    match ReplId::from_bytes(&[b'a'; ReplId::LEN]) {
        Some(replid) if flags & 2 != 0 => Start::Resume {
            replid,
            received: ReplOffset(1000),
            partial: Bytes::from_static(b"*2\r\n$3\r\nfo"),
        },
        Some(_) | None => Start::Full,
    }
}

/// What a second connection may say.
fn joined(channel: RdbChannel) -> SnapshotAt {
    SnapshotAt {
        replid: ReplId::from_bytes(&[b'c'; ReplId::LEN]).unwrap_or_else(|| unreachable!()),
        offset: ReplOffset(77),
        client_id: (channel == RdbChannel::DualChannel).then_some(7),
    }
}

fn check(event: &Event, last: &mut ReplOffset, link: &Link) {
    match event {
        Event::FullResync { offset, .. } => *last = *offset,
        Event::SnapshotAt(at) => *last = at.offset,
        Event::Stream { bytes, end } => {
            assert!(!bytes.is_empty());
            assert_eq!(last.after(bytes.len()), *end, "each byte is one offset");
            *last = *end;
        }
        Event::Snapshot(bytes) => assert!(!bytes.is_empty()),
        Event::RdbChannel(_)
        | Event::Continue { .. }
        | Event::SnapshotStart { .. }
        | Event::SnapshotEnd { .. } => {}
    }
    assert_eq!(link.received(), *last);
}

#[cfg(test)]
mod tests {
    use super::link;

    #[test]
    fn seeds_pass() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");
        let mut count = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            link(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 9, "the seeds are gone");
    }

    #[test]
    fn sessions_of_each_form_pass() {
        let id = "b".repeat(40);
        let full = format!("+PONG\r\n+OK\r\n+OK\r\n\n+FULLRESYNC {id} 9\r\n\n");
        let channels = [
            "+PONG\r\n+OK\r\n+DUALCHANNELSYNC\r\n+OK\r\n+CONTINUE\r\n*1\r\n$4\r\nPING\r\n"
                .to_owned(),
            "+PONG\r\n+OK\r\n+RDBCHANNELSYNC 4\r\n*1\r\n$4\r\nPING\r\n".to_owned(),
            format!("+PONG\r\n+OK\r\n$ENDOFF:9 {id} -1 8\r\n+FULLRESYNC {id} 9\r\n$3\r\nabcd"),
            format!("+PONG\r\n+OK\r\n+FULLRESYNC {id} 9\r\n$EOF:{id}\r\nREDIS{id}"),
        ];
        for said in channels {
            for flags in [16, 20, 24, 32, 36, 64, 68] {
                link(&[&[flags, 1, 1], said.as_bytes()].concat());
                link(&[&[flags, 255, 1], said.as_bytes()].concat());
            }
        }
        let tails = [
            "$3\r\nabc*1\r\n$4\r\nPING\r\n\n".to_owned(),
            format!("$EOF:{id}\r\nREDIS{id}*3\r\n$8\r\nREPLCONF\r\n$6\r\ngetack\r\n$1\r\n*\r\n"),
            "-ERR no\r\n".to_owned(),
        ];
        for tail in tails {
            for flags in 0..16 {
                for cut in [1, 3, 255] {
                    link(&[&[flags, cut, 1], full.as_bytes(), tail.as_bytes()].concat());
                    link(
                        &[
                            &[flags, cut, 1],
                            b"+PONG\r\n+OK\r\n+CONTINUE\r\no\r\n".as_slice(),
                        ]
                        .concat(),
                    );
                }
            }
        }
    }
}
