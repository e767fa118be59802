//! Completions and man pages know every command.

use std::fs;
use std::process::Command;

use e2e::run_file;
use tempfile::TempDir;
use testkit::daemon;

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = run_file(&["--help"], None).stdout;
    let list = help.split("Commands:").nth(1).expect("a list of commands");
    let lines = list.lines().skip(1).take_while(|line| !line.is_empty());
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(
        names.len() >= 8 && names.contains(&"sync".to_owned()),
        "{names:?}"
    );
    names
}

#[test]
fn completions_know_every_command() {
    let commands = commands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run_file(&["completions", shell], None);
        assert_eq!(script.code, 0, "{}", script.stderr);
        for name in &commands {
            assert!(script.stdout.contains(name.as_str()), "{shell}: {name}");
        }
        assert!(script.stdout.contains("log-format"), "{shell}");
    }
    let refused = run_file(&["completions", "csh"], None);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
}

/// A shell completes with it.
#[test]
fn bash_completes_with_them() {
    let folder = TempDir::new().expect("a folder");
    let script = folder.path().join("completions");
    fs::write(&script, run_file(&["completions", "bash"], None).stdout).expect("write");
    let asked = format!(
        "source {}; COMP_WORDS=(understudy com); COMP_CWORD=1; _understudy understudy com understudy; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let bash = Command::new("bash")
        .args(["-c", &asked])
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&bash.stdout).into_owned();
    assert!(
        said.contains("compare") && said.contains("completions"),
        "{said}{bash:?}"
    );
    assert!(!said.contains("sync"), "{said}");
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let folder = TempDir::new().expect("a folder");
    let pages = folder.path().join("share/man1");
    let done = Command::new(daemon::binary())
        .arg("man")
        .arg(&pages)
        .output()
        .expect("run");
    assert!(done.status.success(), "{done:?}");
    let page = |name: &str| {
        fs::read_to_string(pages.join(format!("{name}.1")))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let of_all = page("understudy");
    for name in commands() {
        let text = page(&format!("understudy-{name}"));
        assert!(
            text.contains(".TH") && text.contains("Example"),
            "{name}: {text}"
        );
        assert!(of_all.contains(&name.replace('-', "\\-")), "{name}");
    }
    assert!(page("understudy-rdb-verify").contains(".SH SYNOPSIS"));
    let file = folder.path().join("file");
    fs::write(&file, "").expect("write");
    let refused = run_file(&["man", &file.join("man1").to_string_lossy()], None);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.error().contains("man1"), "{}", refused.error());
}
