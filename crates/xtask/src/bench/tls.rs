//! Servers that speak TLS on a second port.

use std::process::Command;

use testkit::client::{items, text};
use testkit::port::Port;
use testkit::{Server, ServerOptions, argv};

use crate::program;

/// A certificate that nobody has signed, for as long as the benchmark runs.
pub(super) struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    /// A new one.
    pub(super) fn new() -> Result<Self, String> {
        let folder = tempfile::TempDir::with_prefix("understudy-bench-tls-")
            .map_err(|error| format!("a folder for the certificate: {error}"))?;
        let mut openssl = Command::new("openssl");
        openssl
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
            .arg("-keyout")
            .arg(folder.path().join("key.pem"))
            .arg("-out")
            .arg(folder.path().join("cert.pem"));
        program::output(&mut openssl)?;
        Ok(Self { folder })
    }

    /// Options of a server that has it.
    pub(super) fn servers(&self) -> ServerOptions {
        let port = Port::reserve().number();
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        ServerOptions::args(&format!(
            "--tls-port {port} --tls-auth-clients no --tls-cert-file {cert} --tls-key-file {key} --tls-ca-cert-file {cert}"
        ))
    }
}

/// How the daemon is to reach such a server. The handshake, which checks the certificate, is not what is measured.
pub(super) fn end(server: &Server) -> String {
    let reply = server.client().command(&argv!["CONFIG", "GET", "tls-port"]);
    let port = items(reply).last().map(text).unwrap_or_default();
    format!("address = \"127.0.0.1:{port}\"\ntls = true\ntls_config.insecure = true\n")
}
