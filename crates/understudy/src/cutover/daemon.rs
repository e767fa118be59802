//! The running sync, by its status port.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Config, Secret};
use crate::handover::Stage;
use crate::http::ask::{Request, ask};

/// A hold lasts so long unless it is said again.
const LEASE: Duration = Duration::from_secs(10);

/// The daemon of a link.
#[derive(Debug)]
pub(super) struct Daemon {
    address: String,
    token: Option<Secret>,
    link: String,
}

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
        })
    }

    /// Its status.
    ///
    /// # Errors
    /// A sentence: nobody answers, or it is not the daemon of this link.
    pub(super) async fn status(&self) -> Result<Told, String> {
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
        let is_ours = |link: &Value| link["link"] == self.link.as_str();
        links.into_iter().find(is_ours).map(Told).ok_or_else(|| {
            format!(
                "the daemon at {} does not run the link {}",
                self.address, self.link
            )
        })
    }

    /// Says how far the switch-over is.
    ///
    /// # Errors
    /// A sentence: nobody answers, or what it says against that.
    pub(super) async fn report(&self, stage: Stage) -> Result<(), String> {
        self.order(json!({ "stage": stage.name() })).await
    }

    /// Nothing behind `offset` is to be applied; to be said again in time.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn close(&self, offset: u64) -> Result<(), String> {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        self.order(json!({ "stage": "closing", "offset": offset, "lease_ms": lease_ms }))
            .await
    }

    /// The switch is made.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn go(&self, offset: u64, late_writes: &str) -> Result<(), String> {
        self.order(json!({ "stage": "go", "offset": offset, "late_writes": late_writes }))
            .await
    }

    /// All is as before.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn open(&self) -> Result<(), String> {
        self.report(Stage::Replicating).await
    }

    /// The link is to end.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub(super) async fn stop(&self) -> Result<(), String> {
        self.order(json!({ "stage": "stop" })).await
    }

    async fn order(&self, mut order: Value) -> Result<(), String> {
        order["link"] = self.link.as_str().into();
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
