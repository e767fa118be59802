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

/// Shows `status` until finished.
pub(crate) fn spawn(
    status: Arc<Status>,
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
            let mut rates = Rates::new(&status);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let line = rates.line(&status);
                match &bar.0 {
                    Some(bar) => draw(bar, &status, line),
                    None => tracing::info!("{line}"),
                }
            }
            if let Some(bar) = bar.0 {
                bar.finish_and_clear();
            }
        })?;
    Ok(Progress { stop, thread })
}

fn draw(bar: &ProgressBar, status: &Status, line: String) {
    let total = status.snapshot_bytes.get();
    if status.phase() == Phase::Snapshot && total > 0 {
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

/// What was seen at the last line, to tell rates.
struct Rates {
    at: Instant,
    keys: u64,
    snapshot_bytes: u64,
    commands: u64,
    stream_bytes: u64,
}

impl Rates {
    fn new(status: &Status) -> Self {
        Self {
            at: Instant::now(),
            keys: status.snapshot_keys_total.get(),
            snapshot_bytes: status.snapshot_applied.get(),
            commands: status.commands.total(),
            stream_bytes: status.applied_offset.get(),
        }
    }

    fn line(&mut self, status: &Status) -> String {
        let now = Self::new(status);
        let seconds = (now.at - self.at).as_secs_f64().max(1e-3);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for people"
        )]
        let per_second =
            |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
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
                "stream: offset {}, lag {} / {:.3} s, {} commands/s, {}/s",
                status.applied_offset.get(),
                human_bytes(status.lag_bytes()),
                Duration::from_millis(status.lag_ms()).as_secs_f64(),
                per_second(now.commands, self.commands),
                human_bytes(per_second(now.stream_bytes, self.stream_bytes)),
            ),
            Phase::WaitingBgsave => "waiting for the source's snapshot".to_owned(),
            Phase::Handshaking => "connecting".to_owned(),
            Phase::Stopped => "stopped".to_owned(),
        };
        *self = now;
        line
    }
}
