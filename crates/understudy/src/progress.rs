//! Progress for people: a bar on a terminal, a log line per interval elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::human_bytes;
use crate::status::{Phase, Status};

/// The bar, or nothing where there is no terminal.
#[derive(Clone)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar if standard error is a terminal.
    pub(crate) fn for_terminal() -> Self {
        Self(
            std::io::stderr()
                .is_terminal()
                .then(ProgressBar::new_spinner),
        )
    }

    /// Runs `f` with the bar out of the way.
    pub(crate) fn suspended<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }
}

/// The thread that shows progress.
pub(crate) struct Progress {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Ends it, with a last line.
    pub(crate) fn finish(self) {
        // Either end of the channel may be gone already; joining is what counts.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Shows the links, given by name and status, until finished.
pub(crate) fn spawn(
    links: Vec<(String, Arc<Status>)>,
    interval: Duration,
    bar: Bar,
) -> std::io::Result<Progress> {
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("progress".to_owned())
        .spawn(move || {
            let pause = if bar.0.is_some() {
                Duration::from_millis(200)
            } else {
                interval
            };
            let mut lines = Lines::new(links);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let line = lines.next();
                match &bar.0 {
                    Some(bar) => draw(bar, lines.alone(), line),
                    None => tracing::info!("{line}"),
                }
            }
            if let Some(bar) = bar.0 {
                bar.finish_and_clear();
            }
        })?;
    Ok(Progress { stop, thread })
}

/// Shows `line`, with how far the snapshot of a link that is alone has come.
fn draw(bar: &ProgressBar, alone: Option<&Status>, line: String) {
    let snapshot = alone.filter(|status| status.phase() == Phase::Snapshot);
    let sized = snapshot.map(|status| (status, status.snapshot_bytes.get()));
    if let Some((status, total)) = sized.filter(|(_, total)| *total > 0) {
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg} eta {eta}") {
            bar.set_style(style);
        }
        bar.set_length(total);
        bar.set_position(status.snapshot_applied.get());
    } else if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
        bar.tick();
    }
    bar.set_message(line);
}

/// The lines about one link, or about several in a sum.
struct Lines {
    links: Vec<(String, Arc<Status>, Rates)>,
}

impl Lines {
    fn new(links: Vec<(String, Arc<Status>)>) -> Self {
        let links = links.into_iter().map(|(name, status)| {
            let rates = Rates::new(&status);
            (name, status, rates)
        });
        Self {
            links: links.collect(),
        }
    }

    /// The link, if it is the only one.
    fn alone(&self) -> Option<&Status> {
        match self.links.as_slice() {
            [(_, status, _)] => Some(status),
            _ => None,
        }
    }

    fn next(&mut self) -> String {
        if let [(_, status, rates)] = self.links.as_mut_slice() {
            return rates.line(status);
        }
        let mut line = format!("{} links:", self.links.len());
        for phase in Phase::ALL {
            let is_there = |(_, status, _): &&(String, Arc<Status>, Rates)| status.phase() == phase;
            let count = self.links.iter().filter(is_there).count();
            if count > 0 {
                line.push_str(&format!(" {count} {},", phase.name()));
            }
        }
        let mut per_second = 0;
        for (_, status, rates) in &mut self.links {
            let now = Rates::new(status);
            per_second += now.per_second(now.commands, rates.commands, rates);
            *rates = now;
        }
        line.push_str(&format!(" {per_second} commands/s"));
        let lag =
            |(_, status, _): &&(String, Arc<Status>, Rates)| (status.lag_ms(), status.lag_bytes());
        if let Some((name, status, _)) = self.links.iter().max_by_key(lag) {
            line.push_str(&format!(", furthest behind {name}: {}", lag_of(status)));
        }
        line
    }
}

fn lag_of(status: &Status) -> String {
    format!(
        "{} / {:.3} s",
        human_bytes(status.lag_bytes()),
        Duration::from_millis(status.lag_ms()).as_secs_f64()
    )
}

/// What was seen at the last line, to tell rates.
struct Rates {
    at: Instant,
    keys: u64,
    snapshot_bytes: u64,
    commands: u64,
    stream_bytes: u64,
    events: u64,
    scanned: u64,
}

impl Rates {
    fn new(status: &Status) -> Self {
        Self {
            at: Instant::now(),
            keys: status.snapshot_keys_total.get(),
            snapshot_bytes: status.snapshot_applied.get(),
            commands: status.commands.total(),
            stream_bytes: status.applied_offset.get(),
            events: status.scan.events.get(),
            scanned: status.scan.keys.get(),
        }
    }

    /// How fast a number has grown since an earlier look.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    fn per_second(&self, now: u64, before: u64, earlier: &Self) -> u64 {
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-3);
        (now.saturating_sub(before) as f64 / seconds) as u64
    }

    fn line(&mut self, status: &Status) -> String {
        let now = Self::new(status);
        let per_second = |count: u64, before: u64| now.per_second(count, before, self);
        let line = match status.phase() {
            Phase::Snapshot => format!(
                "snapshot: {} of {} applied ({}/s), {} keys ({}/s)",
                human_bytes(now.snapshot_bytes),
                match status.snapshot_bytes.get() {
                    0 => format!("{} so far", human_bytes(status.snapshot_read.get())),
                    total => human_bytes(total),
                },
                human_bytes(per_second(now.snapshot_bytes, self.snapshot_bytes)),
                now.keys,
                per_second(now.keys, self.keys),
            ),
            Phase::Stream => format!(
                "stream: offset {}, lag {}, {} commands/s, {}/s",
                status.applied_offset.get(),
                lag_of(status),
                per_second(now.commands, self.commands),
                human_bytes(per_second(now.stream_bytes, self.stream_bytes)),
            ),
            Phase::Scan => {
                let scan = &status.scan;
                format!(
                    "scan: {} events ({}/s), {} keys put ({}/s), {} dirty, lag {:.3} s, sweep {}: {} of {} keys, {} differed in the last",
                    now.events,
                    per_second(now.events, self.events),
                    now.scanned,
                    per_second(now.scanned, self.scanned),
                    scan.dirty.get(),
                    Duration::from_millis(status.lag_ms()).as_secs_f64(),
                    scan.sweeps.get() + 1,
                    scan.swept_keys.get(),
                    scan.sweep_keys.get(),
                    scan.differences.get(),
                )
            }
            Phase::WaitingBgsave => "waiting for the source's snapshot".to_owned(),
            Phase::Handshaking => "connecting".to_owned(),
            Phase::Stopped => "stopped".to_owned(),
        };
        *self = now;
        line
    }
}
