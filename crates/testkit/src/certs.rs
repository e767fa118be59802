//! Certificates for tests of TLS: a CA of one's own, and certificates that it has signed, good ones and bad ones.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// A CA, and a folder with its files.
#[derive(Debug)]
pub struct Ca {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// PEM file of the certificate.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

impl Ca {
    /// A new CA.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("understudy-certs-").expect("make a folder");
        let mut params = params(&[]);
        params
            .distinguished_name
            .push(DnType::CommonName, folder.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("make a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("sign the CA");
        let ca = Self { folder, issuer };
        fs::write(ca.file(), ca.issuer.pem()).expect("write the CA's file");
        ca
    }

    /// PEM file of the CA's certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server's certificate for these names or IP addresses.
    pub fn server(&self, names: &[&str]) -> Certificate {
        self.sign(&format!("server-{}", names.join("-")), params(names))
    }

    /// One that was good until some years ago.
    pub fn expired(&self, names: &[&str]) -> Certificate {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign("expired", params)
    }

    /// A client's certificate.
    pub fn client(&self, name: &str) -> Certificate {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&format!("client-{name}"), params)
    }

    /// One that nobody has signed but itself.
    pub fn self_signed(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().expect("make a key");
        let cert = params(names).self_signed(&key).expect("sign it");
        self.write("self-signed", &cert.pem(), &key)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("make a key");
        let cert = params.signed_by(&key, &self.issuer).expect("sign it");
        self.write(name, &cert.pem(), &key)
    }

    fn write(&self, name: &str, cert: &str, key: &KeyPair) -> Certificate {
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let files = Certificate {
            cert: path("pem"),
            key: path("key"),
        };
        fs::write(&files.cert, cert).expect("write a certificate");
        fs::write(&files.key, key.serialize_pem()).expect("write a key");
        files
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
    CertificateParams::new(names).expect("names for a certificate")
}

/// Words for the command line of a server that speaks TLS on `port` beside its plain port. `clients`: `no`, `optional`
/// or `yes`, as `tls-auth-clients` has it.
pub fn server_words(port: u16, files: &Certificate, ca: &Path, clients: &str) -> String {
    format!(
        "--tls-port {port} --tls-auth-clients {clients} --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {}",
        files.cert.display(),
        files.key.display(),
        ca.display()
    )
}
