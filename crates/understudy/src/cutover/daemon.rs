//! The running sync, by its status port. Of a source cluster it runs a link for each shard; what is told to one is told to all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Config, Secret};
use crate::handover::Stage;
use crate::http::ask::{Request, ask};

/// A hold lasts so long unless it is said again.
const LEASE: Duration = Duration::from_secs(10);

/// The daemon of a link, or of the links of a source cluster.
#[derive(Debug)]
pub(super) struct Daemon {
    address: String,
    token: Option<Secret>,
    /// Its name, or what all their names begin with.
    link: String,
    has_shards: bool,
}

/// Links, each with the offset at which it is held.
pub(super) type Holds = Vec<(String, u64)>;

/// What a daemon tells of the link.
#[derive(Debug, Clone)]
pub(super) struct Told(Value);

impl Daemon {
    /// By the configuration that it runs with.
    ///
    /// # Errors
    /// What is missing there.
    pub(super) fn of(config: &Config) -> Result<Self, String> {
        let http = config.http.as_ref().ok_or(
            "advanced.status_port is not set: sync has to have one, set it and start it again (nothing is lost)",
        )?;
        if http.admin_token.is_none() {
            return Err("advanced.admin_token is not set: cutover tells sync by it where to stop; set it and start sync again (nothing is lost)".to_owned());
        }
        Ok(Self {
            // Bound to every address it is reached by this one.
            address: http.bind.replace("0.0.0.0:", "127.0.0.1:"),
            token: http.admin_token.clone(),
            link: config.link_name.clone(),
            has_shards: config.source.cluster,
        })
    }

    /// Its status; of several links that of all of them as one.
    ///
    /// # Errors
    /// A sentence: nobody answers, or it is not the daemon of this link.
    pub(super) async fn status(&self) -> Result<Told, String> {
        let all = self.links().await?;
        match <[Told; 1]>::try_from(all) {
            Ok([told]) if !self.has_shards => Ok(told),
            Ok(all) => Ok(Told::of_all(&all)),
            Err(all) => Ok(Told::of_all(&all)),
        }
    }

    /// The status of each link.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub(super) async fn links(&self) -> Result<Vec<Told>, String> {
        let (code, body) = self.exchange("GET", "/status", "").await?;
        let strange = || {
            format!(
                "{} answers, but not as an understudy's status port does",
                self.address
            )
        };
        let status: Value = serde_json::from_str(&body).map_err(|_| strange())?;
        let own = status.get("understudy").filter(|_| code == 200);
        let own = own.ok_or_else(strange)?;
        let links = match own.get("links").and_then(Value::as_array) {
            Some(links) => links.clone(),
            None => vec![own.clone()],
        };
        let is_ours = |link: &Value| {
            let name = link["link"].as_str().unwrap_or_default();
            match self.has_shards {
                false => name == self.link,
                true => {
                    let tail = name.strip_prefix(&self.link);
                    tail.is_some_and(|tail| tail.starts_with('/'))
                }
            }
        };
        let ours: Vec<Told> = links.into_iter().filter(is_ours).map(Told).collect();
        match ours.is_empty() {
            false => Ok(ours),
            true => Err(format!(
                "the daemon at {} does not run the link {}",
                self.address, self.link
            )),
        }
    }

    /// The status of one link.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub(super) async fn link(&self, name: &str) -> Result<Told, String> {
        let all = self.links().await?;
        let found = all.into_iter().find(|told| told.name() == name);
        found.ok_or_else(|| format!("the link {name} does not run any more"))
    }

    /// Says how far the switch-over is.
    ///
    /// # Errors
    /// A sentence: nobody answers, or what it says against that.
    pub(super) async fn report(&self, stage: Stage) -> Result<(), String> {
        self.order_all(&json!({ "stage": stage.name() })).await
    }

    /// Nothing of the link behind `offset` is to be applied; to be said again in time.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn close(&self, link: &str, offset: u64) -> Result<(), String> {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let order = json!({ "stage": "closing", "offset": offset, "lease_ms": lease_ms });
        self.order(link, order).await
    }

    /// Says again that these holds are wanted, and how far the switch-over is to those links that are not held yet.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn renew(&self, stage: Stage, holds: &Holds) -> Result<(), String> {
        for (link, offset) in holds {
            self.close(link, *offset).await?;
        }
        for name in self.names().await? {
            if !holds.iter().any(|(link, _)| *link == name) {
                self.order(&name, json!({ "stage": stage.name() })).await?;
            }
        }
        Ok(())
    }

    /// The switch is made.
    ///
    /// # Errors
    /// As [`Self::report`], of the first link; the others are told all the same.
    pub(super) async fn go(&self, places: &Holds, late_writes: &str) -> Result<(), String> {
        let mut done = Ok(());
        for (link, offset) in places {
            let order = json!({ "stage": "go", "offset": offset, "late_writes": late_writes });
            done = done.and(self.order(link, order).await);
        }
        done
    }

    /// All is as before.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn open(&self) -> Result<(), String> {
        self.report(Stage::Replicating).await
    }

    /// Its links are to end.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn stop(&self) -> Result<(), String> {
        self.order_all(&json!({ "stage": "stop" })).await
    }

    /// The links that it runs.
    async fn names(&self) -> Result<Vec<String>, String> {
        match self.has_shards {
            false => Ok(vec![self.link.clone()]),
            true => {
                let all = self.links().await?;
                Ok(all.iter().map(|told| told.name().to_owned()).collect())
            }
        }
    }

    async fn order_all(&self, order: &Value) -> Result<(), String> {
        let mut done = Ok(());
        for name in self.names().await? {
            done = done.and(self.order(&name, order.clone()).await);
        }
        done
    }

    async fn order(&self, link: &str, mut order: Value) -> Result<(), String> {
        order["link"] = link.into();
        let (code, body) = self
            .exchange("POST", "/cutover", &order.to_string())
            .await?;
        if code == 200 {
            return Ok(());
        }
        let said: Value = serde_json::from_str(&body).unwrap_or_default();
        Err(match (code, said["error"].as_str()) {
            (401 | 403, _) => format!(
                "the daemon at {} does not take advanced.admin_token: was it started with this file?",
                self.address
            ),
            (_, Some(error)) => format!("the daemon at {}: {error}", self.address),
            _ => format!(
                "the daemon at {} answers {code}: is it of an older version?",
                self.address
            ),
        })
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, String), String> {
        let request = Request {
            method,
            path,
            body,
            token: self.token.as_ref().map(Secret::reveal),
        };
        let answer = ask(&self.address, request).await.map_err(|error| {
            format!(
                "no running sync at {} ({error}): start `understudy sync` with this file, its advanced.status_port and admin_token",
                self.address
            )
        })?;
        let code = answer.code;
        let code = code.ok_or_else(|| format!("{} answers, but not in HTTP", self.address))?;
        Ok((code, answer.body))
    }
}

impl Told {
    /// Several links as one: nothing is in the way of it that is not in the way of one of them, and it is as far as the last.
    fn of_all(all: &[Self]) -> Self {
        let mut told = all.first().map(|one| one.0.clone()).unwrap_or_default();
        let stages = all.iter().filter_map(Self::stage);
        let stage = stages.min_by_key(|stage| Stage::ALL.iter().position(|one| one == stage));
        let reasons: Vec<String> = all
            .iter()
            .flat_map(|one| {
                let reasons = one.reasons().into_iter();
                reasons.map(|reason| format!("{}: {reason}", one.name()))
            })
            .collect();
        let clients = all
            .iter()
            .map(|one| one.cutover()["source_clients"].as_u64());
        let stragglers: Vec<&Value> = all
            .iter()
            .filter_map(|one| one.cutover()["stragglers"].as_array())
            .flatten()
            .collect();
        let (mut total, mut expired) = (0, 0);
        let mut by_prefix = serde_json::Map::new();
        for one in all {
            let late = &one.cutover()["late_writes"];
            total += late["total"].as_u64().unwrap_or(0);
            expired += late["expired"].as_u64().unwrap_or(0);
            for (prefix, count) in late["by_prefix"].as_object().into_iter().flatten() {
                let sum = by_prefix.get(prefix).and_then(Value::as_u64).unwrap_or(0);
                let sum = sum + count.as_u64().unwrap_or(0);
                by_prefix.insert(prefix.clone(), sum.into());
            }
        }
        told["cutover"] = json!({
            "reasons": reasons,
            "stage": stage.map(Stage::name),
            "source_clients": clients.collect::<Option<Vec<u64>>>().map(|all| all.iter().sum::<u64>()),
            "stragglers": stragglers,
            "late_writes": { "total": total, "expired": expired, "by_prefix": by_prefix },
        });
        let least = |field: &str| all.iter().map(|one| one.number(field)).min();
        told["compare_passes"] = least("compare_passes").into();
        let found: u64 = all.iter().map(|one| one.number("compare_found")).sum();
        told["compare_found"] = found.into();
        let goes_on = all.iter().find(|one| one.value("phase") != "stopped");
        if let Some(one) = goes_on {
            told["phase"] = one.value("phase").clone();
        }
        Self(told)
    }

    /// The link's name.
    pub(super) fn name(&self) -> &str {
        self.0["link"].as_str().unwrap_or_default()
    }

    /// A number of the link.
    pub(super) fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or(0)
    }

    /// The link itself, as it is in the status.
    pub(super) fn value(&self, field: &str) -> &Value {
        &self.0[field]
    }

    /// Whether the source is read by SCAN.
    pub(super) fn is_of_scan(&self) -> bool {
        self.0["phase"] == "scan"
    }

    /// The object `cutover`.
    pub(super) fn cutover(&self) -> &Value {
        &self.0["cutover"]
    }

    /// How far the daemon takes the switch-over to be.
    pub(super) fn stage(&self) -> Option<Stage> {
        Stage::named(self.cutover()["stage"].as_str()?)
    }

    /// Why it would not begin.
    pub(super) fn reasons(&self) -> Vec<String> {
        let reasons = self.cutover()["reasons"].as_array();
        let texts = reasons.into_iter().flatten();
        texts
            .filter_map(|reason| reason.as_str().map(str::to_owned))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_of_as_one() {
        let link = |name: &str, stage: &str, late: u64| {
            Told(json!({ "link": name, "phase": "stream", "cutover": {
                "stage": stage, "reasons": [format!("r{late}")], "source_clients": late,
                "stragglers": [name], "late_writes": { "total": late, "by_prefix": { "a:": late } },
            } }))
        };
        let told = Told::of_all(&[link("x/1", "closed", 2), link("x/2", "closing", 3)]);
        assert_eq!(told.stage(), Some(Stage::Closing));
        assert_eq!(told.reasons(), ["x/1: r2", "x/2: r3"]);
        let cutover = told.cutover();
        assert_eq!(cutover["source_clients"], 5);
        assert_eq!(cutover["late_writes"]["by_prefix"], json!({ "a:": 5 }));
        assert_eq!(cutover["stragglers"], json!(["x/1", "x/2"]));
    }
}
