//! `cargo xtask sbom`: what the program is made of, as SPDX 2.3 in JSON: every crate that is linked into it, with version, licence and
//! checksum, out of Cargo.lock and what cargo knows of it; and the Debian packages of an image, out of its list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program;

const USAGE: &str = "\
usage: cargo xtask sbom [--output FILE] [--packages DIR] [--commit COMMIT]

Prints what understudy is made of as SPDX 2.3 (JSON), or writes it to FILE.

  --packages DIR   also the Debian packages whose control files are there (an image's /var/lib/dpkg/status.d)
  --commit COMMIT  of which commit it tells (default: what git says)";

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let (mut output, mut packages, mut commit) = (None, None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let place = match arg.as_str() {
            "--output" => &mut output,
            "--packages" => &mut packages,
            "--commit" => &mut commit,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(USAGE.into()),
        };
        *place = Some(args.next().ok_or(USAGE)?.clone());
    }
    let mut components = crates()?;
    if let Some(folder) = packages {
        components.extend(debian(Path::new(&folder))?);
    }
    let commit = match commit {
        Some(commit) => commit,
        None => commit_here().unwrap_or_else(|| "unknown".to_owned()),
    };
    let text = format!("{:#}\n", document(&components, &commit));
    match output {
        Some(file) => fs::write(&file, text).map_err(|error| format!("{file}: {error}")),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

fn commit_here() -> Option<String> {
    let mut git = std::process::Command::new("git");
    let commit = program::output(git.args(["rev-parse", "--short=12", "HEAD"])).ok()?;
    Some(commit.trim().to_owned())
}

/// Something that is in the product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Component {
    name: String,
    version: String,
    /// As SPDX writes it; empty if nobody says.
    licence: String,
    /// SHA-256 of what was downloaded; empty for our own.
    sha256: String,
    /// How scanners name it.
    purl: String,
}

/// The crates that are linked into understudy on this platform, ours included.
fn crates() -> Result<Vec<Component>, String> {
    let mut cargo = crate::test::command(&[
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    let text = program::output(&mut cargo)?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let lock = fs::read_to_string("Cargo.lock").map_err(|error| format!("Cargo.lock: {error}"))?;
    linked(&metadata, &checksums(&lock))
}

fn linked(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<Vec<Component>, String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let ours = packages
        .iter()
        .find(|(_, package)| package["name"] == "understudy");
    let (root, _) = ours.ok_or("cargo knows no crate understudy")?;
    let (mut seen, mut open) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let Some(node) = nodes.get(&id) else { continue };
        for dependency in list(&node["deps"]) {
            // Of kind null: neither for tests nor for build scripts.
            let kinds = list(&dependency["dep_kinds"]);
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    let found = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let key = (name.clone(), version.clone());
            Component {
                // An old way to write OR.
                licence: text(&package["license"]).replace('/', " OR "),
                sha256: checksums.get(&key).cloned().unwrap_or_default(),
                purl: format!("pkg:cargo/{name}@{version}"),
                name,
                version,
            }
        });
    Ok(found.collect())
}

/// Checksums of Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            value.map(|value| value.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (field("name"), field("version"), field("checksum"))
        {
            all.insert((name, version), sum);
        }
    }
    all
}

/// The packages whose control files lie in a folder.
fn debian(folder: &Path) -> Result<Vec<Component>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let text = fs::read_to_string(entry.map_err(cannot)?.path()).map_err(cannot)?;
        let field = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        let (name, version, architecture) =
            (field("Package"), field("Version"), field("Architecture"));
        if name.is_empty() || version.is_empty() {
            return Err(format!(
                "{}: a file without Package and Version",
                folder.display()
            ));
        }
        found.push(Component {
            purl: format!(
                "pkg:deb/debian/{name}@{}?arch={architecture}",
                version.replace(':', "%3A")
            ),
            name,
            version,
            licence: String::new(),
            sha256: String::new(),
        });
    }
    found.sort();
    Ok(found)
}

fn document(components: &[Component], commit: &str) -> Value {
    let id = |component: &Component| {
        let name = format!("{}-{}", component.name, component.version);
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let kind = if component.purl.starts_with("pkg:deb") {
            "deb"
        } else {
            "crate"
        };
        format!(
            "SPDXRef-{kind}-{}",
            name.chars().map(plain).collect::<String>()
        )
    };
    let packages = components.iter().map(|component| {
        let licence = match component.licence.as_str() {
            "" => "NOASSERTION",
            licence => licence,
        };
        let mut package = json!({
            "SPDXID": id(component),
            "name": component.name,
            "versionInfo": component.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence,
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl,
            }],
        });
        if !component.sha256.is_empty() {
            package["checksums"] =
                json!([{ "algorithm": "SHA256", "checksumValue": component.sha256 }]);
        }
        package
    });
    let ours = components
        .iter()
        .find(|component| component.name == "understudy")
        .map(&id);
    let ours = ours.unwrap_or_else(|| "SPDXRef-DOCUMENT".to_owned());
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": ours,
    })];
    relations.extend(components.iter().filter(|one| one.name != "understudy").map(|one| {
        json!({ "spdxElementId": ours, "relationshipType": "CONTAINS", "relatedSpdxElement": id(one) })
    }));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "understudy",
        "documentNamespace": format!("urn:understudy:sbom:{commit}"),
        "creationInfo": { "creators": ["Tool: cargo xtask sbom"], "created": now() },
        "packages": packages.collect::<Vec<_>>(),
        "relationships": relations,
    })
}

/// `2026-11-28T17:05:09Z`; SOURCE_DATE_EPOCH where a build has to be the same again.
fn now() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_default();
    let at = if given.is_empty() {
        "now".to_owned()
    } else {
        format!("@{given}")
    };
    let mut date = std::process::Command::new("date");
    let text = program::output(date.args(["--utc", "--date", &at, "+%Y-%m-%dT%H:%M:%SZ"]));
    text.map_or_else(
        |_| "1970-01-01T00:00:00Z".to_owned(),
        |text| text.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_told_and_what_is_for_tests_is_not() {
        let dep = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let package = |id: &str, licence: Value| json!({ "id": id, "name": id, "version": "1.0.0", "license": licence });
        let metadata = json!({
            "packages": [
                package("understudy", "MIT OR Apache-2.0".into()), package("used", "MIT/Apache-2.0".into()),
                package("deep", Value::Null), package("tests", "MIT".into()), package("builds", "MIT".into()),
            ],
            "resolve": { "nodes": [
                { "id": "understudy", "deps": [dep("used", Value::Null), dep("tests", "dev".into()), dep("builds", "build".into())] },
                { "id": "used", "deps": [dep("deep", Value::Null)] },
                { "id": "deep", "deps": [dep("used", Value::Null)] },
            ] },
        });
        let lock = "[[package]]\nname = \"used\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\n";
        let found = linked(&metadata, &checksums(lock)).unwrap();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["deep", "understudy", "used"]);
        assert_eq!(found[2].licence, "MIT OR Apache-2.0");
        assert_eq!(
            (found[2].sha256.as_str(), found[0].sha256.as_str()),
            ("abc", "")
        );
        let document = document(&found, "c0ffee");
        let ids: BTreeSet<String> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| package["SPDXID"].to_string())
            .collect();
        assert_eq!(ids.len(), 3);
        for relation in document["relationships"].as_array().unwrap() {
            assert!(
                ids.contains(&relation["relatedSpdxElement"].to_string()),
                "{relation}"
            );
        }
        assert_eq!(document["packages"][0]["licenseDeclared"], "NOASSERTION");
    }

    #[test]
    fn debian_packages_have_names_that_scanners_know() {
        let folder = tempfile::TempDir::new().unwrap();
        let control =
            "Package: libssl3\nSource: openssl\nVersion: 1:3.0.22-1\nArchitecture: amd64\n";
        fs::write(folder.path().join("libssl3"), control).unwrap();
        let found = debian(folder.path()).unwrap();
        assert_eq!(
            found[0].purl,
            "pkg:deb/debian/libssl3@1%3A3.0.22-1?arch=amd64"
        );
        fs::write(folder.path().join("other"), "nothing").unwrap();
        assert!(debian(folder.path()).is_err());
    }
}
