//! What ElastiCache is like: the copy goes through TLS as an ACL user, nothing that is gone there is asked for, and understudy's own
//! comparison, run in its container, finds no difference.

use serde_json::Value;
use testkit::argv;

use super::compose::Rig;
use super::wait;

const SOURCE_PASSWORD: &str = "rig-source";
const KEYS: usize = 200;

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let mut client =
        testkit::Client::try_connect(&rig.source()).map_err(|error| error.to_string())?;
    client.command(&argv!["AUTH", SOURCE_PASSWORD]);
    for key in 0..KEYS {
        client.commands(&[
            argv!["SET", format!("string:{key}"), key],
            argv!["HSET", format!("hash:{key}"), "field", key],
            argv!["XADD", format!("stream:{key}"), "*", "n", key],
            argv!["SADD", format!("set:{key}"), "a", key],
        ]);
    }
    let written = client.info_number("replication", "master_repl_offset");
    wait("everything to be applied", || {
        let status = rig
            .get("/status")
            .and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
        let applied = status.and_then(|status| status["understudy"]["applied_offset"].as_i64());
        applied >= Some(written)
    })?;
    let file = "/etc/understudy/shake.toml";
    let compared = rig.inside("understudy", &["understudy", "compare", file])?;
    let equal = format!("equal {}, different 0", 4 * KEYS);
    if !compared.contains(&equal) {
        return Err(format!("not {equal}: {compared}"));
    }
    rig.inside("understudy", &["understudy", "check", file])?;
    rig.wait_healthy("understudy")?;
    let page = rig.inside("understudy", &["understudy", "status", "--once", file])?;
    if !page.contains("stream, ready") {
        return Err(page);
    }
    is_hardened(rig)?;
    wait("Prometheus to see the link", || {
        let query = "/api/v1/query?query=understudy_phase%7Bphase%3D%22stream%22%7D%20%3D%3D%201";
        let answer = rig.ask_prometheus(query);
        answer.is_some_and(|(_, body)| body.contains("\"target:6379\""))
    })?;
    Ok(format!("{} keys equal through TLS", 4 * KEYS))
}

/// The image is what it promises: nobody special, nothing to write but the spool, and it tells what it is made of.
fn is_hardened(rig: &Rig) -> Result<(), String> {
    let shell = |line: &str| rig.inside("understudy", &["/bin/sh", "-c", line]);
    for (line, why) in [
        ("echo x > /etc/x", "the root can be written to"),
        (
            "echo x > /usr/local/bin/understudy",
            "the program can be written to",
        ),
    ] {
        if shell(line).is_ok() {
            return Err(why.to_owned());
        }
    }
    let status = shell("while read -r line; do echo \"$line\"; done < /proc/self/status")?;
    for line in ["Uid:\t10001", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        if !status.contains(line) {
            return Err(format!("no {line:?} in {status}"));
        }
    }
    let sbom = shell(
        "while read -r line; do echo \"$line\"; done < /usr/share/understudy/sbom.spdx.json",
    )?;
    let sbom: Value = serde_json::from_str(&sbom).map_err(|error| format!("its SBOM: {error}"))?;
    match sbom["packages"].as_array().map_or(0, Vec::len) {
        0..50 => Err("its SBOM names hardly anything".to_owned()),
        _ => Ok(()),
    }
}
