//! What can go wrong in the daemon: which side, what, and what is to be done about it.

use std::fmt;
use std::io;

/// Whose trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server we read from.
    Source,
    /// The server we write to.
    Target,
    /// This machine: disk, files, ports.
    Local,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Local => "local",
        })
    }
}

/// What the supervisor does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Connect again, with backoff.
    Reconnect,
    /// The history is lost: a new snapshot.
    Resync,
    /// Somebody has to look: stop.
    Stop,
}

/// An error with its side, its place and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{side}{}: {what}", place(.address))]
pub struct SyncError {
    /// Whose trouble.
    pub side: Side,
    /// The server's address; empty for local trouble.
    pub address: String,
    /// What happened, and the mend where there is one.
    pub what: String,
    /// What the supervisor does.
    pub class: Class,
}

fn place(address: &str) -> String {
    if address.is_empty() {
        String::new()
    } else {
        format!(" {address}")
    }
}

impl SyncError {
    /// Trouble that a new connection may mend.
    pub fn reconnect(side: Side, address: &str, what: impl fmt::Display) -> Self {
        Self {
            side,
            address: address.to_owned(),
            what: what.to_string(),
            class: Class::Reconnect,
        }
    }

    /// Trouble that needs somebody.
    pub fn stop(side: Side, address: &str, what: impl fmt::Display) -> Self {
        Self {
            side,
            address: address.to_owned(),
            what: what.to_string(),
            class: Class::Stop,
        }
    }

    /// The source's history is lost.
    pub fn resync(side: Side, address: &str, what: impl fmt::Display) -> Self {
        Self {
            side,
            address: address.to_owned(),
            what: what.to_string(),
            class: Class::Resync,
        }
    }

    /// Trouble on this machine.
    pub fn local(what: impl fmt::Display) -> Self {
        Self::stop(Side::Local, "", what)
    }

    /// The exit code of the contract: 3 source, 4 target, 5 local.
    pub fn exit_code(&self) -> u8 {
        match self.side {
            Side::Source => 3,
            Side::Target => 4,
            Side::Local => 5,
        }
    }
}

/// Says an I/O error in the words of its cause.
pub(crate) fn io_word(error: &io::Error) -> String {
    if let Some(word) = crate::tls::word(error) {
        return word;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is the server running, and is the port right?".to_owned()
        }
        io::ErrorKind::TimedOut => {
            "timed out; is the host right, and is a firewall in between?".to_owned()
        }
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words() {
        let error = SyncError::stop(Side::Target, "db:1", "refused");
        assert_eq!(error.to_string(), "target db:1: refused");
        assert_eq!(error.exit_code(), 4);
        assert_eq!(SyncError::local("full").to_string(), "local: full");
        assert_eq!(SyncError::local("full").exit_code(), 5);
    }
}
