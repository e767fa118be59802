//! TLS: whom we trust, who we are, and in plain words why a handshake came to nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError};

use crate::config::TlsConfig;
use crate::error::{Side, SyncError, io_word};

/// Why a handshake failed, for the name `expected` in the server's certificate.
pub(crate) fn failed(error: &io::Error, side: Side, address: &str, expected: &str) -> SyncError {
    let what = match cause(error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            "tls = true, but the server does not speak TLS on this port; set tls = false or use its TLS port".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(reason)) => not_trusted(reason, expected),
        Some(rustls::Error::AlertReceived(alert)) => refused_by_peer(*alert),
        Some(rustls::Error::PeerIncompatible(reason)) => format!(
            "the server and we have no version or cipher of TLS in common ({reason:?}); we speak TLS 1.2 and 1.3, see tls_config.min_version"
        ),
        Some(other) => format!("TLS failed: {other}"),
        // A plain server that sees a TLS hello may close the connection without a word; so does one that is going down.
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            let what = "the server closed the connection during the TLS handshake; does it speak TLS on this port?";
            return SyncError::reconnect(side, address, what);
        }
        None => {
            let what = format!("TLS failed: {}", io_word(error));
            return SyncError::reconnect(side, address, what);
        }
    };
    SyncError::stop(side, address, what)
}

/// What TLS says about an error on a connection that stands, if it is about TLS. With TLS 1.3 a server looks at our
/// certificate when we think that all is done.
pub(crate) fn word(error: &io::Error) -> Option<String> {
    match cause(error)? {
        rustls::Error::AlertReceived(alert) => Some(refused_by_peer(*alert)),
        other => Some(format!("TLS failed: {other}")),
    }
}

/// Whether the server does not accept our certificate, or the lack of one.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        cause(error),
        Some(rustls::Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        ))
    )
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// Why we do not accept the server's certificate, and the mend.
fn not_trusted(reason: &CertificateError, expected: &str) -> String {
    let why = match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "it has expired{}; renew it at the server, and look at this machine's clock",
            since(reason)
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; look at this machine's clock".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "nobody whom we trust has signed it (it is self-signed, or of a CA of your own); set tls_config.ca_cert to the PEM file of that CA".to_owned()
        }
        CertificateError::NotValidForName => format!(
            "it is not for the name \"{expected}\"; set tls_config.server_name to the name in it"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "it is not for the name \"{expected}\" but for {}; set tls_config.server_name to a name in it, or use that name in the address",
            names(presented)
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers (extended key usage); give the server one with serverAuth".to_owned()
        }
        CertificateError::Revoked => "it has been revoked".to_owned(),
        CertificateError::BadSignature => {
            "its signature does not verify: the CA that we trust has the name of the one that signed it, but another key; set tls_config.ca_cert to the PEM file of that CA".to_owned()
        }
        // A certificate that has signed itself and is trusted as a CA.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is a CA's own certificate, used as a server's; give the server one that this CA has signed, without CA:TRUE".to_owned()
        }
        other => other.to_string(),
    };
    format!("the server's certificate is not accepted: {why}")
}

/// How long ago a certificate ended.
fn since(reason: &CertificateError) -> String {
    match reason {
        CertificateError::ExpiredContext { time, not_after } => {
            let hours = time.as_secs().saturating_sub(not_after.as_secs()) / 3600;
            match hours {
                0..48 => format!(" {hours} hours ago"),
                _ => format!(" {} days ago", hours / 24),
            }
        }
        _ => String::new(),
    }
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all (it has no subjectAltName)".to_owned();
    }
    presented.join(", ")
}

/// What the server has told us with an alert.
fn refused_by_peer(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired => {
            "it wants a certificate of ours (mutual TLS): set tls_config.cert and tls_config.key"
        }
        AlertDescription::UnknownCA => {
            "it does not know the CA of our certificate: set tls_config.cert and tls_config.key to one that it trusts"
        }
        AlertDescription::CertificateExpired => {
            "our certificate has expired: renew the one that tls_config.cert names"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate: look at tls_config.cert and tls_config.key"
        }
        AlertDescription::HandshakeFailure => {
            "no common cipher, or it wants a certificate of ours: set tls_config.cert and tls_config.key"
        }
        AlertDescription::ProtocolVersion => {
            "no common version of TLS: we speak 1.2 and 1.3, see tls_config.min_version"
        }
        AlertDescription::UnrecognisedName => {
            "it does not know the name that we asked for: set tls_config.server_name"
        }
        _ => return format!("the server ended TLS with the alert {alert:?}"),
    };
    format!("the server refused TLS: {why}")
}

/// TLS to a web server that the system's roots vouch for.
#[cfg(feature = "iam")]
pub(crate) async fn https(
    host: &str,
    tcp: tokio::net::TcpStream,
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, String> {
    let config = client_config(&TlsConfig {
        ca_cert: None,
        identity: None,
        server_name: None,
        insecure: false,
        only_1_3: false,
    })?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| io_word(&error))
}

pub(crate) fn client_config(tls: &TlsConfig) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = if tls.only_1_3 {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    /// A server in a failover, or behind a balancer, ends connections at any moment: that is not what the file says.
    #[test]
    fn a_handshake_that_is_cut_off_is_tried_again_and_a_refusal_is_not() {
        let class = |error: &io::Error| failed(error, Side::Target, "db:6379", "db").class;
        for kind in [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
        ] {
            assert_eq!(class(&kind.into()), Class::Reconnect, "{kind:?}");
        }
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        for error in [unknown, plain] {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(class(&error), Class::Stop, "{error}");
        }
    }
}
