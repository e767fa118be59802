//! `POST /cutover`: how `understudy cutover` tells a link what it is doing, for whoever sends `advanced.admin_token`.
//!
//! ```text
//! {"stage": "gate" | "fenced"}                                     shown, no more
//! {"stage": "closing", "offset": N, "lease_ms": N}                 nothing behind offset N is applied; said again in time
//! {"stage": "go", "offset": N, "late_writes": "hold" | "apply"}    the switch is made
//! {"stage": "replicating"}                                         all is as before
//! {"stage": "stop"}                                                the link ends
//! ```
//! `"link": "<name>"` says which one, where the process runs several. The answer is the object `cutover` of the status, and
//! `applied_offset`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Answer, allowed};
use super::{App, Link};
use crate::handover::Stage;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    stage: String,
    link: Option<String>,
    offset: Option<u64>,
    lease_ms: Option<u64>,
    late_writes: Option<String>,
}

pub(super) async fn cutover(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let links = match allowed(&app, &headers) {
        Ok(links) => links,
        Err(refusal) => return refusal,
    };
    let refuse = |code, what: String| (code, Json(json!({ "error": what })));
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let named = |link: &Arc<Link>| order.link.as_ref().is_none_or(|name| *name == link.name);
    let mut links = links.into_iter().filter(named);
    let link = match (links.next(), links.next()) {
        (Some(link), None) => link,
        (None, _) => return refuse(StatusCode::NOT_FOUND, "no such link".to_owned()),
        (Some(_), Some(_)) => {
            let what = "several links run here: say which one by \"link\"";
            return refuse(StatusCode::BAD_REQUEST, what.to_owned());
        }
    };
    match obey(&link, &order) {
        Ok(()) => (StatusCode::OK, Json(answer(&link))),
        Err(what) => refuse(StatusCode::CONFLICT, what),
    }
}

fn answer(link: &Link) -> Value {
    let mut answer = link.cutover_json();
    answer["applied_offset"] = link.status.applied_offset.get().into();
    answer
}

fn obey(link: &Link, order: &Order) -> Result<(), String> {
    let handover = &link.status.handover;
    let now = handover.state();
    let offset = || order.offset.ok_or("offset is missing".to_owned());
    if order.stage == "stop" {
        tracing::info!(link = link.name, "asked to stop over HTTP");
        handover.stop.request();
        return Ok(());
    }
    let stage =
        Stage::named(&order.stage).ok_or_else(|| format!("there is no stage {:?}", order.stage))?;
    match (stage, now.stage) {
        (Stage::Go, Stage::Closed | Stage::Go) => {
            let (offset, applies) = (offset()?, order.late_writes.as_deref() == Some("apply"));
            if now.hold != Some(offset) {
                return Err("that is not the offset that was closed at".to_owned());
            }
            tracing::info!(
                link = link.name,
                offset,
                applies,
                "the switch is made: the target is the application's"
            );
            handover.go(offset, applies);
        }
        (Stage::Go, _) => return Err("the link is not closed".to_owned()),
        (Stage::Replicating, Stage::Replicating) => {}
        (Stage::Replicating, _) => {
            tracing::info!(link = link.name, "the switch-over is called off: going on");
            handover.open();
        }
        (_, Stage::Go) => return Err("the switch has been made already".to_owned()),
        (Stage::Gate, Stage::Fenced | Stage::Closing | Stage::Closed) => {
            let what = "a cutover is under way; one that has died is forgotten after some seconds";
            return Err(what.to_owned());
        }
        (Stage::Closing | Stage::Closed, _) => {
            let lease = Duration::from_millis(order.lease_ms.unwrap_or(10_000));
            handover.close(offset()?, lease);
        }
        (Stage::Gate | Stage::Fenced, before) => {
            if before != stage {
                tracing::info!(link = link.name, stage = stage.name(), "cutover");
            }
            handover.report(stage);
        }
    }
    Ok(())
}
