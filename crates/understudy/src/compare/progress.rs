//! How far a comparison has come: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::logging;
use crate::rdb::names::grouped;

/// What is shown.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    interval: Duration,
    what: &'static str,
    keys: u64,
    of: u64,
    told: Instant,
}

impl Progress {
    /// A bar if standard error is a terminal.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            bar: std::io::stderr()
                .is_terminal()
                .then(ProgressBar::new_spinner),
            interval,
            what: "",
            keys: 0,
            of: 0,
            told: Instant::now(),
        }
    }

    /// So many keys of the source, or of the target, are to come.
    pub(super) fn begin(&mut self, what: &'static str, of: u64) {
        (self.what, self.keys, self.of) = (what, 0, of);
        if let Some(bar) = &self.bar {
            let template = match of {
                0 => "{msg}: {pos} ({per_sec})",
                _ => "{msg}: {bar:30} {pos} of {len} ({per_sec}) eta {eta}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.reset();
            bar.set_length(of);
            bar.set_message(format!("keys of the {what}"));
        }
    }

    pub(super) fn advance(&mut self, keys: usize) {
        self.keys += keys as u64;
        match &self.bar {
            Some(bar) => bar.inc(keys as u64),
            None if self.told.elapsed() >= self.interval => {
                self.told = Instant::now();
                let of = match self.of {
                    0 => String::new(),
                    of => format!(" of {}", grouped(of)),
                };
                let keys = grouped(self.keys);
                logging::tell(format_args!("keys of the {}: {keys}{of}", self.what));
            }
            None => {}
        }
    }

    /// Says something in between.
    pub(super) fn tell(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => logging::tell(line),
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
