//! Keyspace events: `PSUBSCRIBE __keyevent@*__:*` on a connection of its own, each event a mark in the dirty set.
//!
//! ```text
//! pmessage  __keyevent@*__:*  __keyevent@3__:hset  user:17
//! ```
//! Events are sent once and forgotten: what is published while nobody listens, or beyond the subscriber's output buffer,
//! is lost. Whenever the connection was lost, all is in doubt until a sweep has been through.

use std::time::Duration;

use resp::{Limits, Value, ValueDecoder};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::dirty::Marked;
use super::shared::Shared;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::config::Endpoint;
use crate::error::{Class, Side, SyncError, io_word};
use crate::net;

/// How often a silent subscription is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A subscription that has said nothing for so long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// So long it may take until a subscription is answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A subscription that has stood for so long did not fail because it was asked for too soon.
const LASTING: Duration = Duration::from_secs(10);
/// Where subscribing is refused, how soon it is tried again.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// What the names of our keys begin with.
const OURS: &[u8] = b"understudy:";
/// Events that are worked off before others have a turn on this thread.
const TURN: usize = 1024;

/// The subscription of one server.
pub(super) struct Watch<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) endpoint: Endpoint,
    /// Which of the source's servers it is.
    pub(super) place: usize,
}

/// How a subscription ended.
enum Ended {
    /// The server does not let us.
    Refused(String),
    Lost(SyncError),
}

impl Watch<'_> {
    /// Listens, over as many connections as it takes.
    pub(super) async fn run(&self) -> std::convert::Infallible {
        let mut backoff = Backoff::default();
        loop {
            let from = Instant::now();
            match self.listen().await {
                Ended::Refused(text) => {
                    self.shared.listeners.refused(self.place, &text);
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Ended::Lost(error) => {
                    let has_lasted = from.elapsed() >= LASTING;
                    if has_lasted {
                        backoff = Backoff::default();
                    }
                    if self.shared.listeners.is_on(self.place) {
                        let hint = match has_lasted {
                            true => "",
                            false => {
                                "it did not last: is client-output-buffer-limit pubsub of the source too small, or does what stands in between close it?"
                            }
                        };
                        tracing::warn!(%error, hint, "lost the subscription to keyspace events: a sweep will look at every key");
                        self.shared.status.reconnects.add("source", 1);
                        self.shared.status.scan.hears_events.set(0);
                        self.shared.raise("subscription_lost");
                    }
                    self.shared.listeners.lost(self.place, &error);
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    async fn listen(&self) -> Ended {
        let lost = |error: &std::io::Error| {
            Ended::Lost(SyncError::reconnect(
                Side::Source,
                &self.endpoint.address,
                io_word(error),
            ))
        };
        let mut client = match Client::connect(&self.endpoint, Side::Source).await {
            Ok(client) => client,
            Err(error) => return Ended::Lost(error),
        };
        let patterns = self.shared.patterns();
        let mut words: Vec<&[u8]> = vec![b"PSUBSCRIBE"];
        words.extend(patterns.iter().map(String::as_bytes));
        match tokio::time::timeout(ANSWER_TIMEOUT, client.ask(&words)).await {
            Ok(Ok(Value::Error(error))) => {
                return Ended::Refused(String::from_utf8_lossy(&error.text).into_owned());
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.class == Class::Reconnect => return Ended::Lost(error),
            Ok(Err(error)) => return Ended::Refused(error.what),
            Err(_) => {
                let what = format!(
                    "PSUBSCRIBE was not answered for {} s",
                    ANSWER_TIMEOUT.as_secs()
                );
                let address = &self.endpoint.address;
                return Ended::Lost(SyncError::reconnect(Side::Source, address, what));
            }
        }
        let (stream, buffer) = client.parts();
        let mut pending = std::mem::take(buffer);
        let mut decoder = ValueDecoder::new(Limits::default());
        let mut answers = patterns.len() - 1;
        if answers == 0 {
            self.stands();
        }
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.reset();
        loop {
            let mut taken = 0;
            loop {
                match decoder.poll(&mut pending) {
                    Ok(Some(value)) => {
                        if answers > 0 {
                            answers -= 1;
                            if answers == 0 {
                                self.stands();
                            }
                        } else {
                            self.take(&value);
                        }
                        taken += 1;
                        if taken % TURN == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let what = format!("what comes on the subscription is not RESP: {error}");
                        let address = &self.endpoint.address;
                        return Ended::Lost(SyncError::reconnect(Side::Source, address, what));
                    }
                }
            }
            self.shared.show_dirty();
            pending.reserve(64 << 10);
            tokio::select! {
                biased;
                () = self.shared.listeners.asked(self.place) => {
                    self.shared.listeners.pinged(self.place);
                    if let Err(error) = ping(stream).await {
                        return lost(&error);
                    }
                }
                read = stream.read_buf(&mut pending) => match read {
                    Ok(0) => {
                        let what = "the server closed the subscription";
                        let address = &self.endpoint.address;
                        return Ended::Lost(SyncError::reconnect(Side::Source, address, what));
                    }
                    Ok(_) => heard = Instant::now(),
                    Err(error) => return lost(&error),
                },
                _ = tick.tick() => {
                    let silent = heard.elapsed();
                    if silent > SILENCE_MAX && self.shared.listeners.answers_pings(self.place) {
                        let what = format!("the subscription was silent for {} s", silent.as_secs());
                        let address = &self.endpoint.address;
                        return Ended::Lost(SyncError::reconnect(Side::Source, address, what));
                    }
                    self.shared.listeners.pinged(self.place);
                    if let Err(error) = ping(stream).await {
                        return lost(&error);
                    }
                }
            }
        }
    }

    /// The subscription stands. What a sweep has seen while it did not was perhaps changed behind it.
    fn stands(&self) {
        if self.shared.listeners.on(self.place) {
            self.shared.raise("subscribed");
        }
    }

    fn take(&self, value: &Value) {
        let Value::Array(words) = value else {
            // A server that answers PING here as it does elsewhere.
            self.shared.listeners.ponged(self.place);
            return;
        };
        match words.as_slice() {
            [Value::Bulk(what), _, Value::Bulk(channel), Value::Bulk(key)]
                if *what == "pmessage" =>
            {
                if let Some((db, event)) = parts_of(channel) {
                    self.event(db, event, key);
                }
            }
            [Value::Bulk(what), ..] if *what == "pong" => self.shared.listeners.ponged(self.place),
            _ => {}
        }
    }

    fn event(&self, db: u32, event: &[u8], key: &[u8]) {
        let shared = self.shared;
        shared.status.scan.events.add(1);
        // A look for a key that is not there changes nothing.
        let (takes, is_ours) = (shared.choice.takes(db, key), key.starts_with(OURS));
        if event == b"keymiss" || !(takes || is_ours) {
            return;
        }
        // A switch-over wants to know of the way back's checkpoint too.
        if shared.hold.event(shared, db, key, event) || is_ours {
            return;
        }
        let marked = shared.dirty.borrow_mut().mark(db, key, Instant::now());
        match marked {
            Marked::New => shared.marked.notify_one(),
            Marked::Again => {}
            Marked::Full => shared.overflowed(),
        }
    }
}

async fn ping(stream: &mut net::Stream) -> std::io::Result<()> {
    net::send(stream, b"*1\r\n$4\r\nPING\r\n").await
}

/// Database and name of an event, out of `__keyevent@<db>__:<event>`.
fn parts_of(channel: &[u8]) -> Option<(u32, &[u8])> {
    let rest = channel.strip_prefix(b"__keyevent@")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (db, rest) = rest.split_at_checked(digits)?;
    let event = rest.strip_prefix(b"__:")?;
    Some((std::str::from_utf8(db).ok()?.parse().ok()?, event))
}

/// The patterns that name the events of these databases; of all, where none is named.
pub(super) fn patterns(dbs: &[u32]) -> Vec<String> {
    if dbs.is_empty() {
        return vec!["__keyevent@*__:*".to_owned()];
    }
    let one = |db: &u32| format!("__keyevent@{db}__:*");
    dbs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_taken_apart() {
        let parts = |channel: &'static str| parts_of(channel.as_bytes());
        assert_eq!(parts("__keyevent@0__:set"), Some((0, &b"set"[..])));
        assert_eq!(parts("__keyevent@15__:a:b"), Some((15, &b"a:b"[..])));
        for other in [
            "__keyspace@0__:set",
            "__keyevent@__:set",
            "__keyevent@1_:set",
            "",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn each_database_has_a_pattern_of_its_own() {
        assert_eq!(patterns(&[]), ["__keyevent@*__:*"]);
        assert_eq!(
            patterns(&[1, 10]),
            ["__keyevent@1__:*", "__keyevent@10__:*"]
        );
    }
}
