//! The progress bar, where there is a terminal that nothing else is printed on.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or nothing.
#[derive(Clone)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// For a command that prints at its end alone.
    pub(crate) fn beside_a_report() -> Self {
        Self::new(std::io::stderr().is_terminal())
    }

    /// For a command that prints all the while: no bar where both would be on one screen.
    pub(crate) fn beside_output() -> Self {
        Self::new(std::io::stderr().is_terminal() && !std::io::stdout().is_terminal())
    }

    /// For a file that is read beside something that draws a bar itself.
    pub(crate) fn none() -> Self {
        Self::new(false)
    }

    fn new(visible: bool) -> Self {
        let target = if visible {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(ProgressBar::with_draw_target(None, target))
    }

    /// Says how many bytes there are to read, if that is known.
    pub(crate) fn length(&self, bytes: Option<u64>) {
        let template = match bytes {
            Some(_) => {
                "{bar:30} {percent:>3}% {bytes} of {total_bytes} ({bytes_per_sec}) eta {eta}"
            }
            None => "{spinner} {bytes} ({bytes_per_sec}) {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.reset();
        if let Some(bytes) = bytes {
            self.0.set_length(bytes);
        }
        if !self.0.is_hidden() {
            self.0.enable_steady_tick(Duration::from_millis(200));
        }
    }

    /// So many more bytes are read.
    pub(crate) fn advance(&self, bytes: usize) {
        self.0.inc(bytes as u64);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
