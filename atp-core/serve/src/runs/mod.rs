//! Runs: begun, followed, ended early, resumed, and kept in the store.
//!
//! What a client is shown comes from the store. So it is there after the service was killed, and a client that reads slowly
//! delays nothing.

mod drive;
mod events;
mod junit;
mod kept;
mod lines;
mod progress;
mod resume;
mod share;
mod start;

use std::sync::Arc;

use atp_api::serve::{OutcomePage, Role, RunState, RunSummary};
use atp_api::{ErrorKind, PlanReport, RunRequest, StopReason};
use atp_executor::Plan;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::auth::{Access, Caller};
use crate::body::{Path, Query, answer};
use crate::plans::with_plan;
use crate::problem::Refusal;
use crate::route::{Content, Route};
use crate::sse;
use crate::state::Service;
use crate::store::{Change, OutcomesRead, RunRow};

use kept::Active;
pub(crate) use kept::Runs;

/// The most runs of a list, and outcomes of a page.
const PAGE: i64 = 1000;

/// Holds a run among those that are active.
#[derive(Debug)]
struct Activity {
    service: Service,
    run: i64,
    active: Arc<Active>,
}

impl Activity {
    /// Makes a run active until the value is dropped; none if it is active already.
    fn begin(service: &Service, run: i64, last: i64) -> Option<Self> {
        let active = service.runs().activate(run, last)?;
        Some(Activity { service: service.clone(), run, active })
    }
}

impl Activity {
    /// Has the targets of a plan write no more than there is room for.
    async fn limit(&self, plan: &mut Plan) -> Result<(), Refusal> {
        let config = self.service.config();
        if let Some(allowance) = self.service.arriving().of_run(&config, &plan.operation).await? {
            plan.allowance = allowance;
        }
        Ok(())
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.service.runs().deactivate(self.run);
    }
}

pub(crate) fn routes() -> Vec<Route> {
    let id = |route: Route| route.part("id", "The run.");
    let number = |least: u64| json!({"type": "integer", "minimum": least});
    vec![
        with_plan(Route::new(Method::POST, "/api/v1/runs", Access::Change, start::create))
            .about("Begins a run. Answers when it is planned; a request that is sent again with the same key begins none.")
            .header("Idempotency-Key", "Names the request, at most 256 characters: sent again, it is answered with the same run.")
            .takes::<RunRequest>()
            .answers::<RunSummary>(201)
            .answers::<RunSummary>(200),
        Route::get("/api/v1/runs", list)
            .about("The runs, the newest first. A token with selectors sees its own.")
            .query("before", "Only runs before this one.", number(1))
            .query("limit", "The most runs; 100 if it is not given.", number(1))
            .answers::<Vec<RunSummary>>(200),
        id(Route::get("/api/v1/runs/{id}", show)).about("A run, in short.").answers::<RunSummary>(200),
        id(Route::get("/api/v1/runs/{id}/plan", plan))
            .about("What the run was going to do when it was begun, or resumed last.")
            .answers::<PlanReport>(200),
        id(Route::get("/api/v1/runs/{id}/outcomes", outcomes))
            .about("The outcomes that there are now, in the order of the plan. A page of large ones has fewer.")
            .query("after", "What the page before named as `next`.", number(0))
            .query("limit", "The most outcomes; 100 if it is not given.", number(1))
            .answers::<OutcomePage>(200),
        id(Route::get("/api/v1/runs/{id}/junit", junit::show))
            .about("The outcomes as JUnit XML.")
            .answers_with(200, Some(Content::of(junit::CONTENT_TYPE))),
        id(Route::get("/api/v1/runs/{id}/events", events::follow))
            .about(
                "The run's events, from the first or from Last-Event-ID on, until it has ended. Lines of consoles are sent while they \
                 are new; a mark stands in the text where some are missing. Of the progress of targets under way the latest is sent.",
            )
            .header("Last-Event-ID", "The id of the last event that the client has.")
            .answers_with(200, Some(Content::of(sse::CONTENT_TYPE))),
        id(Route::new(Method::POST, "/api/v1/runs/{id}/stop", Access::Change, stop))
            .about("Starts no more targets. Those under way end normally.")
            .answers::<RunSummary>(200),
        id(Route::new(Method::POST, "/api/v1/runs/{id}/abort", Access::Change, abort))
            .about("Ends the run at once. Targets under way are cancelled.")
            .answers::<RunSummary>(200),
        with_plan(id(Route::new(Method::POST, "/api/v1/runs/{id}/resume", Access::Change, resume::resume)))
            .about(
                "Does what is left of a run that has ended: targets that were never started, or failed without an effect. The \
                 request has to be sent again where its operation may hold secrets.",
            )
            .may_take::<RunRequest>()
            .answers::<RunSummary>(200),
    ]
}

async fn list(State(service): State<Service>, caller: Caller, mut query: Query) -> Result<Response, Refusal> {
    let before = query.parse("before", "the number of a run", positive)?.unwrap_or(i64::MAX);
    let limit = query.parse("limit", "a number from 1", positive)?.unwrap_or(100).min(PAGE);
    query.end()?;
    let by = (!caller.token.is_whole()).then_some(caller.token.name.as_str());
    let rows = service.runs().store.runs(before, by, limit).await?;
    let runs: Vec<_> = rows.into_iter().map(|row| summary(&service, row)).collect();
    Ok(answer(&runs))
}

async fn show(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let row = visible(&service, &caller, &id).await?;
    Ok(answer(&summary(&service, row)))
}

async fn plan(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let row = visible(&service, &caller, &id).await?;
    match service.runs().store.plan(row.id).await? {
        Some(plan) => Ok(([(header::CONTENT_TYPE, "application/json")], plan).into_response()),
        None => Err(Refusal::new(ErrorKind::Conflict, "the run is not planned yet").with_hint("ask again")),
    }
}

async fn outcomes(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Refusal> {
    let after =
        query.parse("after", "a number from 0", |text| text.parse().ok().filter(|&n: &i64| n >= 0))?;
    let limit = query.parse("limit", "a number from 1", positive)?.unwrap_or(100).min(PAGE);
    query.end()?;
    let row = visible(&service, &caller, &id).await?;
    // One more shows whether there is another page.
    let OutcomesRead { mut outcomes, is_all } =
        service.runs().store.outcomes(&row, after.unwrap_or(0), limit + 1).await?;
    let is_over = outcomes.len() as i64 > limit;
    if is_over {
        outcomes.pop();
    }
    let has_more = is_over || !is_all;
    let next = outcomes.last().filter(|_| has_more).and_then(|(number, _)| u64::try_from(*number).ok());
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(answer(&OutcomePage { outcomes, next }))
}

async fn stop(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    end_early(&service, &caller, &id, "stop", StopReason::Requested).await
}

async fn abort(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    end_early(&service, &caller, &id, "abort", StopReason::Aborted).await
}

async fn end_early(
    service: &Service,
    caller: &Caller,
    id: &str,
    action: &str,
    reason: StopReason,
) -> Result<Response, Refusal> {
    let row = visible(service, caller, id).await?;
    may_change(caller, &row)?;
    let ended = || Refusal::new(ErrorKind::Conflict, format!("run {id} has ended"));
    let is_abort = reason == StopReason::Aborted;
    if let Some(cluster) = service.cluster() {
        if row.summary.state != RunState::Running {
            return Err(ended());
        }
        service.audit().record(caller, action, json!({"run": row.id})).await?;
        let reason = serde_json::to_string(&reason).map_err(share::unwritable)?;
        service.runs().store.change(Change::Halt { run: row.id, reason, is_abort }).await?;
        cluster.wake();
        return Ok(answer(&summary(service, row)));
    }
    let active = service.runs().active(row.id).ok_or_else(ended)?;
    service.audit().record(caller, action, json!({"run": row.id})).await?;
    match is_abort {
        true => active.control.abort.cancel(),
        false => active.control.stop.cancel(),
    }
    Ok(answer(&summary(service, row)))
}

/// The run of a request, if the client may see it: one with selectors or verbs sees only its own, as outcomes name VMs, and have what
/// programs printed.
async fn visible(service: &Service, caller: &Caller, id: &str) -> Result<RunRow, Refusal> {
    let nothing = || Refusal::nothing(format!("there is no run {id:?}"));
    let number = positive(id).ok_or_else(nothing)?;
    let row = service.runs().store.run(number).await?.ok_or_else(nothing)?;
    let is_visible = caller.token.is_whole() || row.by == caller.token.name;
    if is_visible { Ok(row) } else { Err(nothing()) }
}

/// Whether a client may end or resume a run.
fn may_change(caller: &Caller, row: &RunRow) -> Result<(), Refusal> {
    if row.by == caller.token.name || caller.token.role >= Role::Admin {
        return Ok(());
    }
    let problem = format!("run {} is of {:?}, and the role admin may change it", row.id, row.by);
    Err(Refusal::new(ErrorKind::PermissionDenied, problem))
}

/// A run in short, with its numbers so far if it is under way.
fn summary(service: &Service, row: RunRow) -> RunSummary {
    let active = service.runs().active(row.id);
    match active {
        Some(active) if row.summary.state == RunState::Running && service.cluster().is_none() => {
            RunSummary { statistics: Some(active.statistics.lock().clone()), ..row.summary }
        }
        _ => row.summary,
    }
}

/// A number from 1, as the store counts.
fn positive(text: &str) -> Option<i64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number: &i64| is_plain && number > 0)
}

/// An answer about a run that was begun.
fn created(summary: &RunSummary) -> Response {
    let location = format!("/api/v1/runs/{}", summary.id);
    let mut response = crate::body::answer_with(StatusCode::CREATED, summary);
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
