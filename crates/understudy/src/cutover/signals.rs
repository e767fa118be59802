//! What ends a switch-over from outside.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::SyncError;

/// Ctrl-C, SIGTERM, and a terminal that is closed.
pub(super) struct Signals {
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// # Errors
    /// Local: they cannot be watched.
    pub(super) fn new() -> Result<Self, SyncError> {
        let failed =
            |error: std::io::Error| SyncError::local(format!("cannot watch signals: {error}"));
        Ok(Self {
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
