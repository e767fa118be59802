//! Sockets: connecting with the options a long-lived link needs, plain or TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Endpoint;
use crate::error::{Side, SyncError, io_word};
use crate::tls;

/// How long a connection may take to stand, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the TLS handshake on a connection that stands may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// Which way the bulk of the bytes goes: that direction gets the large socket buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bulk {
    /// We mostly read.
    Reading,
    /// We mostly write.
    Writing,
}

/// A connection to a server.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    #[cfg(test)]
    Simulated(crate::sim::wire::Wire),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}

/// Writes all of `bytes`, through TLS too.
pub(crate) async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    send_to(stream, bytes).await
}

/// The same for one half of a stream.
pub(crate) async fn send_to(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS keeps a record that the socket did not take; a plain socket has nothing to flush.
    stream.flush().await
}

/// Connects to `endpoint`.
///
/// # Errors
/// Class reconnect for what may pass (refused, timed out), stop for what will not (a name that does
/// not resolve to anything, a certificate that does not verify, files that cannot be read).
pub(crate) async fn connect(
    endpoint: &Endpoint,
    side: Side,
    bulk: Bulk,
) -> Result<Stream, SyncError> {
    let address = endpoint.address.as_str();
    match tokio::time::timeout(CONNECT_TIMEOUT, connect_now(endpoint, side, bulk)).await {
        Ok(result) => result,
        Err(_) => Err(SyncError::reconnect(
            side,
            address,
            format!(
                "no connection within {} s; is the host right, and is a firewall in between?",
                CONNECT_TIMEOUT.as_secs()
            ),
        )),
    }
}

async fn connect_now(endpoint: &Endpoint, side: Side, bulk: Bulk) -> Result<Stream, SyncError> {
    let address = endpoint.address.as_str();
    #[cfg(test)]
    if let Some(attempt) = crate::sim::wire::connect(address) {
        let wire = attempt.await;
        return wire.map(Stream::Simulated).map_err(|error| {
            let what = format!("cannot connect: {}", io_word(&error));
            SyncError::reconnect(side, address, what)
        });
    }
    let tcp = TcpStream::connect(address).await.map_err(|error| {
        SyncError::reconnect(
            side,
            address,
            format!("cannot connect: {}", io_word(&error)),
        )
    })?;
    tune(&tcp, bulk).map_err(|error| {
        SyncError::reconnect(side, address, format!("cannot set socket options: {error}"))
    })?;
    let Some(wanted) = &endpoint.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let config = tls::client_config(wanted)
        .map_err(|what| SyncError::local(format!("TLS of the {side}: {what}")))?;
    let name = wanted
        .server_name
        .as_deref()
        .unwrap_or(endpoint.host())
        .to_owned();
    let expected = name.clone();
    let name = ServerName::try_from(name).map_err(|error| {
        SyncError::stop(
            side,
            address,
            format!("not a name for TLS: {error}; set tls_config.server_name"),
        )
    })?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    // A plain server waits for the end of a line that a TLS hello does not have; one that is busy answers later.
    match tokio::time::timeout(TLS_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(tls::failed(&error, side, address, &expected)),
        Err(_) => {
            let what = format!(
                "tls = true, but the server did not answer the TLS handshake within {} s; does it speak TLS on this port? Set tls = false, or use its TLS port",
                TLS_TIMEOUT.as_secs()
            );
            Err(SyncError::reconnect(side, address, what))
        }
    }
}

/// Half-open connections are found in half a minute; small writes are never held back.
fn tune(tcp: &TcpStream, bulk: Bulk) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5))
            .with_retries(3),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    match bulk {
        // The kernel caps it at net.core.rmem_max; what it grants is enough.
        Bulk::Reading => socket.set_recv_buffer_size(8 << 20)?,
        Bulk::Writing => {}
    }
    Ok(())
}
