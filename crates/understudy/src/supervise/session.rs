//! Both halves of a session, receiver and applier, until one of them ends.

use tokio::time::Instant;

use super::{Next, Supervisor};
use crate::error::{Class, SyncError};
use crate::source::{Opened, spool_error};
use crate::spool::{Feed, Log};
use crate::status;

impl Supervisor<'_> {
    /// Runs both halves of a session until one of them ends, or a stop is asked for.
    pub(super) async fn session(
        &self,
        receiver: impl Future<Output = Result<Opened, SyncError>>,
        applier: impl Future<Output = Result<(), SyncError>>,
        feed: &Feed,
    ) -> Result<Next, SyncError> {
        let mut applier = std::pin::pin!(applier);
        let ended = {
            let receiver = std::pin::pin!(receiver);
            tokio::select! {
                biased;
                () = self.stop.requested() => Ended::Asked,
                received = receiver => Ended::Received(received.map(Box::new)),
                applied = &mut applier => Ended::Applied(applied),
            }
        };
        let result = match ended {
            Ended::Asked => {
                tracing::info!("asked to stop: applying what is in flight");
                self.stopping_since.set(Some(Instant::now()));
                match self.drain(applier, feed).await {
                    // The target has fallen back. No other session begins but the last one, which leaves it in good order.
                    Err(error) if error.class == Class::Resync => {
                        tracing::warn!(%error, "asked to stop while the target was looked for");
                        Ok(Next::Again)
                    }
                    drained => drained.map(|()| Next::Done),
                }
            }
            Ended::Received(Ok(answer)) => Ok(Next::NewHistory(answer)),
            Ended::Received(Err(error)) if error.class == Class::Resync => {
                if self.status.phase() == status::Phase::Stream {
                    tracing::warn!(%error, "asking the source anew");
                } else {
                    tracing::warn!(%error, "the snapshot broke off; asking for another one");
                }
                self.status.reconnects.add("source", 1);
                Ok(Next::Again)
            }
            Ended::Received(Err(error)) => {
                // What was received before it failed is still good.
                let _ = self.drain(applier, feed).await;
                Err(error)
            }
            Ended::Applied(Ok(())) => Ok(Next::Done),
            Ended::Applied(Err(error)) if error.class == Class::Resync => {
                tracing::warn!(%error, "beginning again from the target's checkpoint");
                Ok(Next::Again)
            }
            Ended::Applied(Err(error)) => Err(error),
        };
        feed.with_log(Log::flush).map_err(spool_error)?;
        result
    }

    /// Lets the applier work off what was received, as long as the configuration allows.
    async fn drain(
        &self,
        applier: impl Future<Output = Result<(), SyncError>>,
        feed: &Feed,
    ) -> Result<(), SyncError> {
        if self.status.phase() != status::Phase::Stream {
            return Ok(());
        }
        feed.close();
        match tokio::time::timeout(self.config.shutdown_timeout, applier).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(
                    unapplied_bytes = feed.unapplied_bytes(),
                    "not everything received could be applied in time; it is in the spool, and the checkpoint tells from where to go on"
                );
                Ok(())
            }
        }
    }
}

enum Ended {
    Asked,
    Received(Result<Box<Opened>, SyncError>),
    Applied(Result<(), SyncError>),
}
