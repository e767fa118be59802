//! What the chain of AWS credentials needs of the world: files, commands, and a few requests over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use reqsign_core::{CommandExecute, CommandOutput, Error, FileRead, HttpSend, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The instance's own address answers at once, or there is nobody.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Files of this machine.
#[derive(Debug)]
pub(super) struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        std::fs::read(path).map_err(|error| Error::config_invalid(format!("{path}: {error}")))
    }
}

/// Commands of this machine: `credential_process` of a profile.
#[derive(Debug)]
pub(super) struct Commands;

impl CommandExecute for Commands {
    async fn command_execute(&self, program: &str, args: &[&str]) -> Result<CommandOutput> {
        let output = tokio::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Error::config_invalid(format!("{program}: {error}")))?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            // It would be part of an error, and nobody knows what is in it.
            stderr: Vec::new(),
        })
    }
}

/// One request a connection, plain or TLS.
#[derive(Debug)]
pub(super) struct Http;

impl HttpSend for Http {
    async fn http_send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let other = std::env::var(STS_ENDPOINT).unwrap_or_default();
        let request = to_endpoint(request, &other)?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let failed = |what: &dyn std::fmt::Display| Error::unexpected(format!("{host}: {what}"));
        let is_tls = request.uri().scheme_str() == Some("https");
        let port = match request.uri().port_u16() {
            Some(port) => port,
            None if is_tls => 443,
            None => 80,
        };
        let address = (host.trim_matches(['[', ']']), port);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let tcp = connected
            .map_err(|_| failed(&"no connection"))?
            .map_err(|error| failed(&error))?;
        let answer = async {
            if is_tls {
                let tls = crate::tls::https(&host, tcp).await;
                exchange(tls.map_err(|error| failed(&error))?, request).await
            } else {
                exchange(tcp, request).await
            }
            .map_err(|error| failed(&error))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| failed(&"no answer"))?
    }
}

/// Requests to STS go to this address instead, where there is one: an endpoint inside of a VPC, say. The name is that of AWS's own
/// tools.
const STS_ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";

fn to_endpoint(mut request: Request<Bytes>, other: &str) -> Result<Request<Bytes>> {
    let host = request.uri().host().unwrap_or_default();
    if other.is_empty() || !host.starts_with("sts.") {
        return Ok(request);
    }
    let bad = |why: &dyn std::fmt::Display| {
        Error::config_invalid(format!("{STS_ENDPOINT} is {other:?}: {why}"))
    };
    let base: Uri = other.parse().map_err(|error| bad(&error))?;
    let mut parts = base.into_parts();
    if parts.scheme.is_none() || parts.authority.is_none() {
        return Err(bad(&"http://host:port is needed"));
    }
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| bad(&error))?;
    Ok(request)
}

/// Sends `request` over `io` and reads the answer. What an answer holds is in no error.
async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
) -> std::result::Result<Response<Bytes>, String> {
    let word = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(word)?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(by_path(request)?).await.map_err(word)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("its answer broke off: {error}"))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
    .await;
    driver.abort();
    answer
}

/// HTTP/1.1 names the path in its first line, and the host in a header.
fn by_path(request: Request<Bytes>) -> std::result::Result<Request<Full<Bytes>>, String> {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        let host = authority.as_str().parse();
        head.headers
            .insert(header::HOST, host.map_err(|_| "a bad host".to_owned())?);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(|_| "a bad path".to_owned())?;
    Ok(Request::from_parts(head, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(uri: &str, other: &str) -> Result<String> {
        let request = Request::builder().uri(uri).body(Bytes::new()).unwrap();
        to_endpoint(request, other).map(|request| request.uri().to_string())
    }

    #[test]
    fn sts_may_be_elsewhere() {
        let sts = "https://sts.eu-central-1.amazonaws.com/";
        assert_eq!(sent(sts, "").unwrap(), sts);
        assert_eq!(
            sent(sts, "http://10.0.0.1:80").unwrap(),
            "http://10.0.0.1:80/"
        );
        let other = "http://169.254.169.254/latest";
        assert_eq!(sent(other, "http://10.0.0.1:80").unwrap(), other);
        assert!(sent(sts, "10.0.0.1").is_err() && sent(sts, "http://").is_err());
    }
}
