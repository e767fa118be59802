//! Being asked to stop: SIGTERM or SIGINT, from any thread.

use tokio::sync::watch;

/// Tells whether a stop was asked for.
#[derive(Debug, Clone)]
pub struct Stop {
    receiver: watch::Receiver<bool>,
    sender: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        let (sender, receiver) = watch::channel(false);
        Self { receiver, sender }
    }
}

impl Stop {
    /// Asks for a stop.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether one was asked for.
    pub fn is_requested(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Waits until one is asked for.
    pub async fn requested(&self) {
        let mut receiver = self.receiver.clone();
        // The sender lives in self, so the channel cannot close while we wait.
        let _ = receiver.wait_for(|asked| *asked).await;
    }
}
