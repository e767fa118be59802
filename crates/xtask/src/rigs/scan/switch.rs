//! One `understudy cutover` in a container, with the application moved at GO.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::super::compose::Rig;

/// What the command of `--on-go` waits for: the application has its new address.
const MOVED: &str = "/var/lib/understudy/moved";

/// Gates that do not open on a machine that is busy just then.
const ATTEMPTS: u32 = 5;

/// A switch.
pub(super) struct Switch<'a> {
    pub(super) rig: &'a Rig,
    pub(super) service: &'a str,
    pub(super) file: &'a str,
    pub(super) arguments: &'a [&'a str],
}

impl Switch<'_> {
    /// Makes it; `move_on` gives the application its new address. Tells how it was proved, and for how long writes were
    /// held back.
    pub(super) fn make(&self, move_on: impl Fn()) -> Result<String, String> {
        for _ in 1..ATTEMPTS {
            match self.attempt(&move_on)? {
                Some(told) => return Ok(told),
                None => println!("  the gate is not open: once more, as an operator would"),
            }
        }
        let made = self.attempt(&move_on)?;
        made.ok_or_else(|| format!("the gate has not opened in {ATTEMPTS} attempts"))
    }

    /// `None` where the gate did not open, and nothing was done.
    fn attempt(&self, move_on: &impl Fn()) -> Result<Option<String>, String> {
        let shell = |line: &str| self.rig.inside(self.service, &["/bin/sh", "-c", line]);
        shell(&format!("echo no >{MOVED}"))?;
        let on_go = format!(
            "read said <{MOVED}; while [ \"$said\" != yes ]; do read said <{MOVED} || said=; done"
        );
        let mut docker = Command::new("docker");
        docker.args(["exec", &self.rig.container(self.service)]);
        docker.args(["understudy", "cutover", self.file, "--yes", "--json"]);
        docker.args(["--kill-clients", "--watch", "0s", "--on-go", &on_go]);
        docker.args(self.arguments);
        let child = docker
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| format!("docker: {error}"))?;
        let mut steps: Vec<Value> = Vec::new();
        let mut failed = Ok(());
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            let line = line.map_err(|error| error.to_string())?;
            let Ok(step) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if step["step"] == "go" {
                move_on();
                failed = shell(&format!("echo yes >{MOVED}")).map(drop);
            }
            steps.push(step);
        }
        let ended = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        failed?;
        let shown: Vec<String> = steps
            .iter()
            .map(|step| {
                let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
                format!("    {:<10} {} {}", text("step"), step["ok"], text("text"))
            })
            .collect();
        println!("{}", shown.join("\n"));
        if !ended.status.success() {
            let is = |step: &Value, name: &str| step["step"] == name && step["ok"] == false;
            let failed = steps.iter().find(|step| step["ok"] == false);
            if failed.is_some_and(|step| is(step, "gate")) {
                return Ok(None);
            }
            let said = String::from_utf8_lossy(&ended.stderr);
            let why = failed.map_or_else(String::new, |step| step["text"].to_string());
            return Err(format!("the switch was not made: {why} {said}"));
        }
        let step = |name: &str| steps.iter().find(|step| step["step"] == name);
        let (Some(proof), Some(go)) = (step("proof"), step("go")) else {
            return Err("there was no proof".to_owned());
        };
        if proof["by"] != "scan" || proof["ok"] != true {
            return Err(format!("that is no proof: {proof}"));
        }
        let (by, held) = (
            proof["text"].as_str().unwrap_or_default(),
            &go["fence_seconds"],
        );
        Ok(Some(format!("{by}; writes were held back for {held} s")))
    }
}
