//! Sockets: connecting with the options a long-lived link needs, plain or TLS.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Endpoint, TlsConfig};
use crate::error::{Side, SyncError, io_word};

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
    let Some(tls) = &endpoint.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let config = client_config(tls)
        .map_err(|what| SyncError::local(format!("TLS of the {side}: {what}")))?;
    let name = tls
        .server_name
        .as_deref()
        .unwrap_or(endpoint.host())
        .to_owned();
    let name = ServerName::try_from(name).map_err(|error| {
        SyncError::stop(
            side,
            address,
            format!("not a name for TLS: {error}; set tls_config.server_name"),
        )
    })?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    // A plain server waits for the end of a line that a TLS hello does not have.
    match tokio::time::timeout(TLS_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(tls_error(&error, side, address)),
        Err(_) => {
            let what = format!(
                "tls = true, but the server did not answer the TLS handshake within {} s; does it speak TLS on this port? Set tls = false, or use its TLS port",
                TLS_TIMEOUT.as_secs()
            );
            Err(SyncError::stop(side, address, what))
        }
    }
}

fn tls_error(error: &io::Error, side: Side, address: &str) -> SyncError {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => SyncError::stop(
            side,
            address,
            "tls = true, but the server does not speak TLS on this port; set tls = false or use its TLS port",
        ),
        Some(rustls::Error::InvalidCertificate(reason)) => SyncError::stop(
            side,
            address,
            format!(
                "the server's certificate is not accepted: {reason:?}; set tls_config.ca_cert or tls_config.server_name"
            ),
        ),
        Some(other) => SyncError::stop(side, address, format!("TLS failed: {other}")),
        // A plain server that sees a TLS hello closes the connection without a word.
        None if error.kind() == io::ErrorKind::UnexpectedEof
            || error.kind() == io::ErrorKind::ConnectionReset =>
        {
            SyncError::stop(
                side,
                address,
                "the server closed the connection during the TLS handshake; does it speak TLS on this port?",
            )
        }
        None => SyncError::reconnect(side, address, format!("TLS failed: {}", io_word(error))),
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

fn client_config(tls: &TlsConfig) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if tls.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(tls.ca_cert.as_deref())?)
    };
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| error.to_string())
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn roots(ca: Option<&Path>) -> Result<rustls::RootCertStore, String> {
    let mut store = rustls::RootCertStore::empty();
    let certificates = match ca {
        Some(file) => certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(certificates);
    match (added, ca) {
        (0, Some(file)) => Err(format!("{}: no certificate in it", file.display())),
        (0, None) => Err("no root certificates on this system; set tls_config.ca_cert".to_owned()),
        _ => Ok(store),
    }
}

/// Accepts any certificate: only for `tls_config.insecure`.
#[derive(Debug)]
struct AcceptAny(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
