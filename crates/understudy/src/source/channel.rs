//! A snapshot on a connection of its own, where the source offers that: what is written meanwhile comes on the first
//! connection, and waits in the spool instead of the source's memory. What is said is in `replica`.

use replica::{Event, Link, Options, Poll, RdbChannel};

use super::{Conn, Opened, TICK, broken, link_error};
use crate::config::{Endpoint, SourceConfig};
use crate::error::{Side, SyncError};
use crate::net;

/// Makes the second connection to where the first one is, and has both come as far as their data.
///
/// # Errors
/// Whatever happens: the source may be as good as ever on one connection.
pub(super) async fn open(
    config: &SourceConfig,
    endpoint: &Endpoint,
    options: Options,
    mut first: Conn,
    channel: RdbChannel,
) -> Result<Opened, SyncError> {
    let link = Link::on_rdb_channel(options, channel, 0);
    let mut second = Conn::connect(endpoint, link).await?;
    let at = match second.event(config).await? {
        Event::SnapshotAt(at) => at,
        other => return Err(unexpected(config, &other)),
    };
    first.link.join(&at);
    match first.event(config).await? {
        Event::Continue { replid, .. } if replid == at.replid => {}
        other => return Err(unexpected(config, &other)),
    }
    tracing::info!(
        form = channel.name(),
        "the source sends the snapshot on a connection of its own; what is written meanwhile goes to the spool"
    );
    first.snapshot = Some(Box::new(second));
    Ok(Opened::Full {
        conn: first,
        replid: at.replid,
        offset: at.offset,
    })
}

fn unexpected(config: &SourceConfig, event: &Event) -> SyncError {
    let what = match event {
        Event::FullResync { .. } => {
            "it no longer has what was written since the snapshot began".to_owned()
        }
        Event::Continue { replid, .. } => format!("its history has another name, {replid}"),
        other => format!("it gave {other:?}"),
    };
    let what = format!("{what}, and it does not fit what was asked");
    SyncError::reconnect(Side::Source, &config.endpoint.address, what)
}

impl Conn {
    /// The next event, however long the source takes for it within the limits of the link.
    ///
    /// # Errors
    /// The connection's end.
    pub(super) async fn event(&mut self, config: &SourceConfig) -> Result<Event, SyncError> {
        let fail = |error: &replica::Error| link_error(error, config);
        let mut tick = tokio::time::interval(TICK);
        loop {
            if let Poll::Event(event) = self.link.poll().map_err(|error| fail(&error))? {
                return Ok(event);
            }
            while let Some(out) = self.link.output() {
                net::send(&mut self.stream, &out)
                    .await
                    .map_err(|error| broken(&error, config))?;
            }
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    let now = self.now_ms();
                    self.link.tick(now).map_err(|error| fail(&error))?;
                }
                read = self.read(None) => match read {
                    Ok(0) => return Err(fail(&self.link.eof())),
                    Ok(_) => self.feed(),
                    Err(error) => return Err(broken(&error, config)),
                },
            }
        }
    }
}

/// Which connection was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The stream's, and the snapshot's where there is no other.
    First,
    /// The snapshot's own.
    Second,
}

/// Reads from those connections that may be read from, the one that is not `last` before the other, so that neither fills
/// up at the source while the other has always more.
pub(super) async fn read_either(
    first: Option<&mut Conn>,
    second: Option<&mut Conn>,
    last: Turn,
    bytes_max: Option<u64>,
) -> (Turn, std::io::Result<usize>) {
    let first = async {
        match first {
            Some(conn) => conn.read(bytes_max).await,
            None => std::future::pending().await,
        }
    };
    let second = async {
        match second {
            Some(conn) => conn.read(bytes_max).await,
            None => std::future::pending().await,
        }
    };
    match last {
        Turn::Second => tokio::select! {
            biased;
            read = first => (Turn::First, read),
            read = second => (Turn::Second, read),
        },
        Turn::First => tokio::select! {
            biased;
            read = second => (Turn::Second, read),
            read = first => (Turn::First, read),
        },
    }
}
