//! How fast a file passes: `cargo run --release -p rdb --example walk -- FILE [raw|skip|elements] [ROUNDS]`.
//!
//! The file is read into memory first and fed in chunks of 64 KiB, as a socket would. `raw` is how the daemon reads:
//! short strings as records, other values whole and validated up to 512 KiB, in elements above that; the checksum is
//! part of it, and short strings are left as they are stored. Prints the seconds and GB/s of each round: by the clock, and
//! (on Linux) of processor time, which other programs on the machine disturb less.

use std::env;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use rdb::{Decoder, Event, Limits, Poll, Want};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: walk FILE [raw|skip|elements] [ROUNDS]";
    let mut args = env::args().skip(1);
    let file = Bytes::from(std::fs::read(args.next().ok_or(usage)?)?);
    let want = match args.next().as_deref() {
        None | Some("raw") => Want::Raw {
            bytes_max: 512 << 10,
        },
        Some("skip") => Want::Skip,
        Some("elements") => Want::Elements,
        Some(_) => return Err(usage.into()),
    };
    let rounds = args.next().map_or(Ok(5), |rounds| rounds.parse())?;
    for _ in 0..rounds {
        let (begun, spent) = (Instant::now(), processor_seconds());
        let (keys, events) = decode(&file, want)?;
        let seconds = begun.elapsed().as_secs_f64();
        let gigabytes = file.len() as f64 / 1e9;
        print!(
            "{keys} keys, {events} events, {seconds:.3} s, {:.2} GB/s",
            gigabytes / seconds
        );
        if let (Some(before), Some(after)) = (spent, processor_seconds()) {
            let seconds = after - before;
            print!(
                "; processor {seconds:.3} s, {:.2} GB/s",
                gigabytes / seconds
            );
        }
        println!();
    }
    Ok(())
}

/// How long this thread has run; `None` where the system does not tell.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

fn decode(file: &Bytes, want: Want) -> Result<(u64, u64), rdb::Error> {
    let mut decoder = Decoder::new(Limits::default());
    let mut chunks = file.chunks(64 << 10);
    let (mut keys, mut events) = (0, 0);
    loop {
        match decoder.poll()? {
            Poll::Event(event) => {
                events += 1;
                if let Event::Key(_) = event {
                    keys += 1;
                    decoder.want(want);
                }
                std::hint::black_box(event);
                while let Some(record) = decoder.record() {
                    keys += 1;
                    std::hint::black_box(record);
                }
                decoder.elements(|element| {
                    std::hint::black_box(element);
                    ControlFlow::Continue(())
                });
            }
            Poll::NeedMore => match chunks.next() {
                Some(chunk) => decoder.feed(file.slice_ref(chunk)),
                None => decoder.finish()?,
            },
            Poll::End => return Ok((keys, events)),
        }
    }
}
