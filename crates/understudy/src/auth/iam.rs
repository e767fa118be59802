//! Tokens for ElastiCache: the URL of a `connect` request, presigned with AWS Signature Version 4, without its scheme.
//!
//! ```text
//! <cache>/?Action=connect&User=<user>[&ResourceType=ServerlessCache]&X-Amz-Algorithm=AWS4-HMAC-SHA256&...
//! ```
//! A token opens a connection for 15 minutes; the connection then stands for 12 hours. Nothing is asked of the network for
//! one but for the credentials, which come from the standard chain: environment, profile, web identity, container, instance.

use std::time::Duration;

use reqsign_aws_v4::{Credential, DefaultCredentialProvider};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, OsEnv, ProvideCredential};
use tokio::sync::Mutex;

use super::sigv4::{EMPTY, Presign};
use super::{IamCache, web};
use crate::config::Secret;

/// How long a token may be used to open a connection.
const TOKEN_LIFE_S: u64 = 900;
/// Credentials with less than this to live are asked for anew.
const CREDENTIAL_LIFE_MIN: Duration = Duration::from_secs(300);
/// How long the whole chain may take. (Where nobody answers at the instance's address, a connection takes long to fail.)
const CHAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The chain of AWS credentials, and what it gave last.
pub(crate) struct Chain {
    context: Context,
    provider: DefaultCredentialProvider,
    last: Mutex<Option<Credential>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain")
    }
}

impl Chain {
    /// The standard chain, out of this process's environment.
    pub(crate) fn standard() -> Self {
        Self::new(
            Context::new()
                .with_env(OsEnv)
                .with_file_read(web::Files)
                .with_http_send(web::Http)
                .with_command_execute(web::Commands),
        )
    }

    fn new(context: Context) -> Self {
        Self {
            context,
            provider: DefaultCredentialProvider::new(),
            last: Mutex::new(None),
        }
    }

    async fn credential(&self) -> Result<Credential, String> {
        let mut last = self.last.lock().await;
        if let Some(found) = last.as_ref().filter(|found| lasts(found)) {
            return Ok(found.clone());
        }
        let asked = self.provider.provide_credential(&self.context);
        let found = match tokio::time::timeout(CHAIN_TIMEOUT, asked).await {
            Ok(found) => found.map_err(|error| format!("AWS credentials: {}", cause(&error)))?,
            Err(_) => {
                let seconds = CHAIN_TIMEOUT.as_secs();
                return Err(format!("no AWS credentials within {seconds} s"));
            }
        };
        let found = found.ok_or(
            "no AWS credentials: not in the environment, a profile, a web identity, the container or the instance",
        )?;
        *last = Some(found.clone());
        Ok(found)
    }
}

/// Whether a credential will be good for a while. One that names no end is asked for each time: a file may be written anew.
fn lasts(credential: &Credential) -> bool {
    credential
        .expires_in
        .is_some_and(|end| end > Timestamp::now() + CREDENTIAL_LIFE_MIN)
}

/// What an error of the chain says; its sources may hold answers with secrets, and are left out.
fn cause(error: &reqsign_core::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    // An answer that cannot be read is quoted by whoever tried to.
    match line.find(['"', '`']).filter(|_| line.contains("parse")) {
        Some(quote) => format!("{}...", line.get(..quote).unwrap_or_default()),
        None => line.to_owned(),
    }
}

impl IamCache {
    /// A token that opens a connection within the next 15 minutes.
    pub(crate) async fn token(&self) -> Result<Secret, String> {
        let credential = self.chain.credential().await?;
        Ok(self.sign(&credential, Timestamp::now()))
    }

    fn sign(&self, credential: &Credential, at: Timestamp) -> Secret {
        let mut query = vec![("Action", "connect"), ("User", &*self.user)];
        if self.serverless {
            query.push(("ResourceType", "ServerlessCache"));
        }
        // A token does not outlive the credentials that sign it.
        let left_s = credential.expires_in.map_or(TOKEN_LIFE_S, |end| {
            u64::try_from(end.as_second() - at.as_second()).unwrap_or(0)
        });
        let presign = Presign {
            host: &self.cache,
            path: "/",
            query: &query,
            region: &self.region,
            service: "elasticache",
            payload: EMPTY,
            at,
            life_s: TOKEN_LIFE_S.min(left_s),
        };
        Secret::new(&presign.url(credential))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(serverless: bool) -> IamCache {
        IamCache {
            cache: "my-cache".to_owned(),
            user: "mover".to_owned(),
            region: "eu-central-1".to_owned(),
            serverless,
            chain: Chain::standard(),
        }
    }

    fn token(serverless: bool, ends: Option<&str>) -> String {
        let credential = Credential {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
            expires_in: ends.map(|end| end.parse().unwrap()),
        };
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        cache(serverless).sign(&credential, at).reveal().to_owned()
    }

    #[test]
    fn a_token_is_a_connect_request_without_its_scheme() {
        let token = token(false, None);
        assert!(
            token.starts_with(
                "my-cache/?Action=connect&User=mover&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260102%2Feu-central-1%2Felasticache%2Faws4_request&X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature="
            ),
            "{token}"
        );
    }

    #[test]
    fn only_credentials_with_an_end_are_kept() {
        let credential = |ends: Option<Timestamp>| Credential {
            expires_in: ends,
            ..Credential::default()
        };
        let in_an_hour = Timestamp::now() + Duration::from_secs(3600);
        assert!(lasts(&credential(Some(in_an_hour))));
        assert!(!lasts(&credential(Some(Timestamp::now()))));
        assert!(!lasts(&credential(None)));
    }

    /// A process that prints something else than it should may print the secret.
    #[tokio::test]
    async fn what_a_process_prints_is_in_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let (script, config) = (folder.path().join("tell"), folder.path().join("config"));
        for (body, word) in [
            ("echo '{\"Version\": \"hush\"}'", "parse"),
            ("echo hush >&2; exit 3", "failed"),
        ] {
            std::fs::write(&script, body).unwrap();
            let text = format!("[default]\ncredential_process = sh {}\n", script.display());
            std::fs::write(&config, text).unwrap();
            let env = reqsign_core::StaticEnv {
                home_dir: None,
                envs: [("AWS_CONFIG_FILE", config.to_str().unwrap())]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            };
            let context = Context::new()
                .with_env(env)
                .with_file_read(web::Files)
                .with_command_execute(web::Commands);
            let provider = reqsign_aws_v4::ProcessCredentialProvider::new();
            let error = provider.provide_credential(&context).await.unwrap_err();
            let said = cause(&error);
            assert!(said.contains(word) && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn serverless_says_so_and_short_credentials_make_short_tokens() {
        let token = token(true, Some("2026-01-02T03:09:05Z"));
        assert!(token.contains("Action=connect&ResourceType=ServerlessCache&User=mover&"));
        assert!(token.contains("X-Amz-Expires=300&"), "{token}");
    }
}
