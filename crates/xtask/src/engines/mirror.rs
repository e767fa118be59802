//! The Debian mirror of this machine, out of apt's own lists in both of their forms.

use std::fs;
use std::path::PathBuf;

/// Where this machine's apt finds Debian.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    pub(crate) fn of_this_machine() -> Result<Self, String> {
        if let Ok(main) = std::env::var("UNDERSTUDY_DEBIAN_MIRROR") {
            return Ok(Self::from_main(main.trim_end_matches('/').into()));
        }
        let mut uris = Vec::new();
        let parts = fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten();
        let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
        files.sort();
        files.insert(0, "/etc/apt/sources.list".into());
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().is_some_and(|end| end == "sources") {
                true => uris.extend(deb822_uris(&text)),
                false => uris.extend(one_line_uris(&text)),
            }
        }
        Self::choose(&uris).ok_or_else(|| {
            "none of this machine's apt sources is a Debian mirror.\n    Name one: \
             UNDERSTUDY_DEBIAN_MIRROR=http://HOST/debian"
                .into()
        })
    }

    fn choose(uris: &[String]) -> Option<Self> {
        let mut uris = uris.iter().map(|uri| uri.trim_end_matches('/'));
        let main = uris
            .clone()
            .find(|uri| uri.ends_with("/debian") || uri.ends_with("debian.list"))?;
        let security = uris
            .find(|uri| uri.ends_with("/debian-security") || uri.ends_with("debian-security.list"));
        let guess = Self::from_main(main.into());
        Some(Self {
            security: security.map_or(guess.security, String::from),
            main: guess.main,
        })
    }

    /// Mirrors carry the security archive beside the main one.
    fn from_main(main: String) -> Self {
        let stem = main.strip_suffix("/debian").unwrap_or(&main);
        Self {
            security: format!("{stem}/debian-security"),
            main,
        }
    }
}

/// `deb [options] URI suite components...`
fn one_line_uris(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("deb "));
    let uris = lines.map(|line| match line.trim().strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(_, rest)| rest),
        None => line,
    });
    uris.filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect()
}

/// `URIs:` fields of stanzas that are not switched off.
fn deb822_uris(text: &str) -> Vec<String> {
    let stanzas = text.split("\n\n").filter(|stanza| {
        !stanza
            .lines()
            .any(|line| line.to_lowercase().replace(' ', "") == "enabled:no")
    });
    let lines = stanzas
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("URIs:"));
    lines
        .flat_map(str::split_whitespace)
        .map(String::from)
        .collect()
}

/// `URI suite` for each part of the archive that a suite's packages come from.
pub(crate) fn sources(suite: &str, mirror: &Mirror) -> Vec<String> {
    let Mirror { main, security } = mirror;
    let mut sources = vec![format!("{main} {suite}")];
    if matches!(suite, "bullseye" | "bookworm" | "trixie") {
        sources.push(format!("{security} {suite}-security"));
    }
    if matches!(suite, "bookworm" | "trixie") {
        sources.push(format!("{main} {suite}-backports"));
    }
    // Experimental holds only what differs from sid.
    if suite == "experimental" {
        sources.push(format!("{main} sid"));
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(main: &str, security: &str) -> Option<Mirror> {
        Some(Mirror {
            main: main.into(),
            security: security.into(),
        })
    }

    #[test]
    fn finds_the_mirror_in_deb822_sources() {
        let text = "Types: deb\nURIs: http://m/x\nEnabled: no\n\nTypes: deb\n# note\nURIs: http://m/debian/\n\
                    Suites: a b\n\nTypes: deb\nURIs: http://s/debian-security\n";
        let uris = deb822_uris(text);
        assert_eq!(uris, ["http://m/debian/", "http://s/debian-security"]);
        assert_eq!(
            Mirror::choose(&uris),
            mirror("http://m/debian", "http://s/debian-security")
        );
    }

    #[test]
    fn finds_the_mirror_in_one_line_sources() {
        let text = "# deb http://no/debian x main\ndeb-src http://no/debian x\n\
                    deb [signed-by=/a b=c] http://m/debian bookworm main\ndeb http://o/tool stable main\n";
        let uris = one_line_uris(text);
        assert_eq!(uris, ["http://m/debian", "http://o/tool"]);
        assert_eq!(
            Mirror::choose(&uris),
            mirror("http://m/debian", "http://m/debian-security")
        );
    }

    #[test]
    fn a_machine_of_another_family_has_no_mirror() {
        assert_eq!(Mirror::choose(&["http://m/ubuntu".into()]), None);
    }
}
