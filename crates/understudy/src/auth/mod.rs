//! How we say who we are to a server: nothing, a password from one of several places, or a token that is signed anew.
//!
//! Every connection asks again, so that a password that was changed in its file, or by its command, is used from the next
//! connection on; a refusal is then tried again instead of being taken for good.

#[cfg(feature = "iam")]
mod iam;
#[cfg(feature = "iam")]
mod sigv4;
#[cfg(feature = "iam")]
mod web;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resp::ErrorCode;
use tokio::io::AsyncReadExt;

use crate::config::Secret;
use crate::error::Class;

/// How long a command that tells a password may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// More than this is no password: a wrong file, or a command that talks.
const PASSWORD_BYTES_MAX: usize = 64 << 10;
/// ElastiCache ends a connection 12 hours after its last IAM token.
pub(crate) const IAM_RENEW: Duration = Duration::from_secs(11 * 3600);

/// Who we are at a server.
#[derive(Debug, Clone)]
pub struct Auth {
    /// ACL user, if any.
    pub username: Option<String>,
    /// What proves it.
    pub proof: Proof,
    /// A connection that has stood for so long says it again.
    pub renew_after: Option<Duration>,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Nothing is sent.
    None,
    /// A password that stands in the configuration.
    Password(Secret),
    /// A file with nothing else in it.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// What this command, run by a shell, prints.
    Command(String),
    /// A token for ElastiCache, signed with AWS credentials.
    Iam(Arc<IamCache>),
}

/// A cache of ElastiCache that is entered with IAM.
#[derive(Debug)]
pub struct IamCache {
    /// Name of the cache or of the replication group, in lower case.
    pub cache: String,
    /// The IAM-enabled user: its id and name, which are the same.
    pub user: String,
    /// AWS region.
    pub region: String,
    /// ElastiCache Serverless.
    pub serverless: bool,
    #[cfg(feature = "iam")]
    pub(crate) chain: iam::Chain,
}

/// The chain of AWS credentials out of this process's environment.
#[cfg(feature = "iam")]
pub(crate) fn standard_chain() -> iam::Chain {
    iam::Chain::standard()
}

/// What AUTH is sent with.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Secret,
}

impl Credentials {
    /// The words of AUTH.
    pub(crate) fn auth(&self) -> Vec<&[u8]> {
        let mut argv: Vec<&[u8]> = vec![b"AUTH"];
        argv.extend(self.username.as_ref().map(String::as_bytes));
        argv.push(self.password.reveal().as_bytes());
        argv
    }
}

impl Auth {
    /// Nobody in particular.
    pub const NONE: Self = Self {
        username: None,
        proof: Proof::None,
        renew_after: None,
    };

    /// What is to be sent now; `None` for nothing.
    ///
    /// # Errors
    /// Where the password comes from and what went wrong there, without a word of the password.
    pub(crate) async fn credentials(&self) -> Result<Option<Credentials>, String> {
        let password = match &self.proof {
            Proof::None => return Ok(None),
            Proof::Password(password) => password.clone(),
            Proof::File(file) => {
                let text = read(file).map_err(|error| {
                    format!("password_file {} cannot be read: {error}", file.display())
                })?;
                one_line(&text, &format!("password_file {}", file.display()))?
            }
            Proof::Variable(name) => {
                let text = std::env::var(name).map_err(|_| {
                    format!("password_env: there is no variable {name} in the environment")
                })?;
                one_line(text.as_bytes(), &format!("password_env {name}"))?
            }
            Proof::Command(command) => run(command).await?,
            Proof::Iam(cache) => cache.token().await?,
        };
        Ok(Some(Credentials {
            username: self.username.clone(),
            password,
        }))
    }

    /// Whether nothing is sent.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.proof, Proof::None)
    }

    /// Whether the next connection may have another password than this one.
    pub(crate) fn may_change(&self) -> bool {
        match self.proof {
            // Nobody can change a variable of a process that runs.
            Proof::None | Proof::Password(_) | Proof::Variable(_) => false,
            Proof::File(_) | Proof::Command(_) | Proof::Iam(_) => true,
        }
    }

    /// What is to be done about an error reply: a refused password that may be another one by now is tried again.
    pub(crate) fn class_of(&self, code: ErrorCode) -> Class {
        match code {
            ErrorCode::NoAuth | ErrorCode::WrongPass if self.may_change() => Class::Reconnect,
            code => crate::client::class_of(code),
        }
    }

    /// Where the password comes from, for an error that says it was refused.
    pub(crate) fn origin(&self) -> Option<String> {
        match &self.proof {
            Proof::None | Proof::Password(_) => None,
            Proof::File(file) => Some(format!("the password is that of {}", file.display())),
            Proof::Variable(name) => Some(format!("the password is that of the variable {name}")),
            Proof::Command(_) => Some("the password is what password_command prints".to_owned()),
            Proof::Iam(cache) => Some(format!(
                "the token is for user {} of cache {} in {}{}: is the user IAM-enabled, in the cache's user group, and may the AWS identity elasticache:Connect to both?",
                cache.user,
                cache.cache,
                cache.region,
                if cache.serverless {
                    " (serverless)"
                } else {
                    ""
                }
            )),
        }
    }
}

/// A password without the line's end that editors leave behind it.
fn one_line(text: &[u8], origin: &str) -> Result<Secret, String> {
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "{origin}: more than {PASSWORD_BYTES_MAX} bytes are no password"
        ));
    }
    let text = std::str::from_utf8(text).map_err(|_| format!("{origin}: it is not UTF-8"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    match text {
        "" => Err(format!("{origin}: it is empty")),
        text if text.contains('\n') => Err(format!("{origin}: it has more than one line")),
        text => Ok(Secret::new(text)),
    }
}

/// A file, no further than a password goes.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = std::fs::File::open(file)?;
    std::io::Read::take(file, PASSWORD_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// What a command prints. What it says on standard error is not repeated: nobody knows what is in it.
async fn run(command: &str) -> Result<Secret, String> {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("password_command cannot run: {error}"))?;
    let talk = async {
        let mut printed = Vec::new();
        if let Some(out) = child.stdout.take() {
            let mut out = out.take(PASSWORD_BYTES_MAX as u64 + 1);
            out.read_to_end(&mut printed).await?;
        }
        // One that goes on talking ends with its reader.
        Ok::<_, std::io::Error>((child.wait().await?, printed))
    };
    let (status, printed) = match tokio::time::timeout(COMMAND_TIMEOUT, talk).await {
        Ok(ended) => ended.map_err(|error| format!("password_command cannot run: {error}"))?,
        Err(_) => {
            let seconds = COMMAND_TIMEOUT.as_secs();
            return Err(format!("password_command did not end within {seconds} s"));
        }
    };
    if printed.len() <= PASSWORD_BYTES_MAX && !status.success() {
        return Err(format!("password_command failed: {status}"));
    }
    one_line(&printed, "password_command")
}

#[cfg(not(feature = "iam"))]
impl IamCache {
    #[expect(
        clippy::unused_async,
        reason = "the same with the feature and without it"
    )]
    async fn token(&self) -> Result<Secret, String> {
        Err("this build has no IAM: it was made without the feature \"iam\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn password(proof: Proof) -> Result<String, String> {
        let auth = Auth {
            username: None,
            proof,
            renew_after: None,
        };
        let credentials = auth.credentials().await?;
        Ok(credentials.map_or_else(String::new, |found| found.password.reveal().to_owned()))
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let missing = password(Proof::File(file.clone())).await.unwrap_err();
        assert!(missing.contains("password_file") && missing.contains("cannot be read"));
        std::fs::write(&file, "one\n").unwrap();
        assert_eq!(password(Proof::File(file.clone())).await.unwrap(), "one");
        std::fs::write(&file, "two two\r\n").unwrap();
        assert_eq!(
            password(Proof::File(file.clone())).await.unwrap(),
            "two two"
        );
        for (text, why) in [("\n", "empty"), ("a\nb\n", "more than one line")] {
            std::fs::write(&file, text).unwrap();
            let error = password(Proof::File(file.clone())).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        std::fs::write(&file, vec![b'x'; PASSWORD_BYTES_MAX + 1]).unwrap();
        let error = password(Proof::File(file)).await.unwrap_err();
        assert!(error.contains("no password"), "{error}");
    }

    #[tokio::test]
    async fn a_command_tells_a_password_or_says_why_not() {
        let tell = |command: &str| password(Proof::Command(command.to_owned()));
        assert_eq!(tell("echo a-secret").await.unwrap(), "a-secret");
        let error = tell("echo a-secret >&2; exit 3").await.unwrap_err();
        assert!(
            error.contains("3") && !error.contains("a-secret"),
            "{error}"
        );
        assert!(tell("true").await.unwrap_err().contains("empty"));
        // One that never ends is not read to its end.
        assert!(tell("yes").await.unwrap_err().contains("no password"));
    }

    #[tokio::test]
    async fn a_variable_has_to_be_there() {
        let error = password(Proof::Variable("NO_SUCH_VARIABLE_HERE".to_owned())).await;
        assert!(error.unwrap_err().contains("NO_SUCH_VARIABLE_HERE"));
        let path = password(Proof::Variable("PATH".to_owned())).await.unwrap();
        assert_eq!(path, std::env::var("PATH").unwrap());
    }

    #[test]
    fn only_what_may_change_is_tried_again() {
        let class = |proof| {
            let auth = Auth {
                username: None,
                proof,
                renew_after: None,
            };
            auth.class_of(ErrorCode::WrongPass)
        };
        assert_eq!(class(Proof::Password(Secret::new("x"))), Class::Stop);
        assert_eq!(class(Proof::Variable("X".to_owned())), Class::Stop);
        assert_eq!(class(Proof::File("x".into())), Class::Reconnect);
    }
}
