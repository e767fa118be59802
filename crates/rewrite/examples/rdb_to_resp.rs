//! Turns an RDB file into commands on stdout, for `redis-cli --pipe`. A tool for developers.
//!
//! ```text
//! cargo run -p rewrite --example rdb_to_resp -- dump.rdb [--target redis:7.0.15] [--existing skip]
//!     [--restore-bytes-max N] [--chunk-items N] [--chunk-bytes N] [--bulk-bytes-max N] [--losses allow] | redis-cli --pipe
//! ```

use std::io::{Read, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdb::{Decoder, Event, Limits, Poll};
use rewrite::{Abilities, Existing, Fork, Losses, SnapshotOptions, SnapshotRewriter};

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let file = args
        .first()
        .ok_or("usage: rdb_to_resp FILE [--target FORK:VERSION] ...")?;
    let mut file = std::fs::File::open(file)?;
    let mut rewriter = SnapshotRewriter::new(options(&args)?);
    let mut decoder = Decoder::new(Limits::default());
    let (mut out, mut sent, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    let mut stdout = std::io::stdout().lock();
    let start = Instant::now();
    loop {
        match decoder.poll()? {
            Poll::NeedMore => {
                let mut buffer = vec![0; 256 << 10];
                let len = file.read(&mut buffer)?;
                if len == 0 {
                    return Err("the file ends too early".into());
                }
                buffer.truncate(len);
                decoder.feed(Bytes::from(buffer));
            }
            Poll::Event(Event::Key(head)) => match rewriter.key(&head) {
                Ok(want) => decoder.want(want),
                Err(error) => {
                    eprintln!("{error}");
                    decoder.want(rdb::Want::Skip);
                }
            },
            Poll::Event(event) => rewriter.event(event, &mut out, &mut sent)?,
            Poll::End => break,
        }
        if out.len() > 256 << 10 {
            bytes += out.len();
            stdout.write_all(&out)?;
            out.clear();
            commands += sent.len();
            sent.clear();
        }
    }
    stdout.write_all(&out)?;
    (commands, bytes) = (commands + sent.len(), bytes + out.len());
    let elapsed = start.elapsed();
    eprintln!(
        "{commands} commands, {bytes} bytes, {elapsed:?}; left out: {:?}",
        rewriter.counts()
    );
    Ok(())
}

fn options(args: &[String]) -> Result<SnapshotOptions, Failed> {
    let value = |name: &str| {
        let place = args.iter().position(|arg| arg == name)?;
        args.get(place + 1).map(String::as_str)
    };
    let (fork, version) = value("--target")
        .unwrap_or("redis:7.0.15")
        .split_once(':')
        .ok_or("FORK:VERSION")?;
    let fork = if fork == "valkey" {
        Fork::Valkey
    } else {
        Fork::Redis
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let target = Abilities::from_version(fork, version.parse()?);
    let mut options = SnapshotOptions::new(target, u64::try_from(now)?);
    options.existing = match value("--existing") {
        None | Some("replace") => Existing::Replace,
        Some("skip") => Existing::Skip,
        Some(other) => return Err(format!("--existing {other}").into()),
    };
    if value("--losses") == Some("allow") {
        options.losses = Losses::Allow;
    }
    if let Some(number) = value("--restore-bytes-max") {
        options.restore_bytes_max = number.parse()?;
    }
    if let Some(number) = value("--chunk-items") {
        options.chunk_items = number.parse()?;
    }
    if let Some(number) = value("--chunk-bytes") {
        options.chunk_bytes = number.parse()?;
    }
    if let Some(number) = value("--bulk-bytes-max") {
        options.target.bulk_bytes_max = number.parse()?;
    }
    Ok(options)
}
