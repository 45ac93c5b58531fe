//! Beginning a run.

use atp_api::{Condition, ErrorKind, OperationSpec, RunRequest, canonical_json};
use atp_executor::{Operation, Plan, RunHead};
use atp_protocol::files::Digest;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::json;
use tracing::Instrument as _;
use uuid::Uuid;

use super::drive::drive;
use super::share::{kept_plan, share, unwritable};
use super::{Activity, created, summary, visible};
use crate::auth::Caller;
use crate::body::{Json, Query, answer, idempotency_key};
use crate::plans::{operation_of, plan_in, plan_of};
use crate::problem::Refusal;
use crate::state::Service;
use crate::store::{Change, NewRun, RunRecorder, Started, StoreError, TargetRow};

pub(super) async fn create(
    State(service): State<Service>,
    caller: Caller,
    headers: HeaderMap,
    mut query: Query,
    Json(request): Json<RunRequest>,
) -> Result<Response, Refusal> {
    not_stopping(&service)?;
    let earlier = plan_in(&mut query)?;
    query.end()?;
    let earlier = planned(&service, &caller, earlier, Some(&request))?;
    let key = idempotency_key(&headers)?;
    let operation = operation_of(&service, &caller, request.operation.clone()).await?;
    let new = NewRun {
        op: operation.name().to_owned(),
        by: caller.token.name.clone(),
        request: kept(&request),
        idempotency: key.map(|key| (key, body_hash(&request))),
        planner: service.cluster().map(|cluster| cluster.id().to_owned()),
    };
    // A client that leaves does not end what it began: it may send the request again with its key.
    let (planned, client) = (service.clone(), caller.clone());
    let began = service
        .tasks()
        .spawn(async move { begin_once(&planned, &client, new, request, operation, earlier).await });
    let began =
        began.await.map_err(|_| Refusal::new(ErrorKind::Panicked, "the planning of the run failed"))?;
    let (run, is_new) = began?;
    let row = visible(&service, &caller, &run.to_string()).await?;
    let summary = summary(&service, row);
    Ok(if is_new { created(&summary) } else { answer(&summary) })
}

/// The plan that a request names, if it is kept. It was counted when it was made: without one the request is counted.
pub(super) fn planned(
    service: &Service,
    caller: &Caller,
    id: Option<Uuid>,
    request: Option<&RunRequest>,
) -> Result<Option<Plan>, Refusal> {
    let plan = request.and_then(|request| service.plans().take(id, &caller.token.name, request));
    if plan.is_none() {
        service.limits().start(&caller.token)?;
    }
    Ok(plan)
}

/// Begins a run, if the request was not sent before. Returns which it is, and whether it is new.
async fn begin_once(
    service: &Service,
    caller: &Caller,
    new: NewRun,
    request: RunRequest,
    operation: Operation,
    earlier: Option<Plan>,
) -> Result<(i64, bool), Refusal> {
    let run = match service.runs().store.change(Change::New(new)).await {
        Ok(run) => run,
        Err(StoreError::Known { run, is_same: true }) => return Ok((run, false)),
        Err(StoreError::Known { run, .. }) => {
            let problem = format!("the key was sent with another request, which began run {run}");
            return Err(
                Refusal::new(ErrorKind::Conflict, problem).with_hint("use another key for another request")
            );
        }
        Err(error) => return Err(error.into()),
    };
    let activity = Activity::begin(service, run, 0)
        .ok_or_else(|| Refusal::new(ErrorKind::Conflict, "the run is under way"))?;
    let began = begin(service, caller, request, operation, earlier, activity).await;
    if began.is_err()
        && let Err(error) = service.runs().store.change(Change::Discard { run }).await
    {
        tracing::warn!(
            run,
            error = &error as &dyn std::error::Error,
            "a run that was not planned stays in the store"
        );
    }
    began.map(|()| (run, true))
}

async fn begin(
    service: &Service,
    caller: &Caller,
    request: RunRequest,
    operation: Operation,
    earlier: Option<Plan>,
    activity: Activity,
) -> Result<(), Refusal> {
    let mut plan = plan_of(service, caller, &request, operation, earlier).await?;
    activity.limit(&mut plan).await?;
    audit(service, caller, "run", activity.run, &plan).await?;
    let share = share(service, &request, &plan, 0)?;
    let head = serde_json::to_string(&RunHead::of(&plan)).map_err(unwritable)?;
    let started = Started {
        run: activity.run,
        head: Some(head),
        last_event: None,
        plan: kept_plan(&plan, &request.targets)?,
        targets: plan.targets.iter().map(TargetRow::of).collect(),
        moved: Vec::new(),
        share,
    };
    service.runs().store.change(Change::Begin(Box::new(started))).await?;
    carry_out(service, plan, activity);
    Ok(())
}

/// Records who works on how many targets.
pub(super) async fn audit(
    service: &Service,
    caller: &Caller,
    action: &str,
    run: i64,
    plan: &Plan,
) -> Result<(), Refusal> {
    let details = json!({"run": run, "verb": plan.operation.name(), "targets": plan.targets.len()});
    service.audit().record(caller, action, details).await
}

/// Starts a run that is in the store. Where controllers share it, each starts what is its own.
pub(super) fn carry_out(service: &Service, plan: Plan, activity: Activity) {
    if let Some(cluster) = service.cluster() {
        return cluster.wake();
    }
    let (store, files) = (service.runs().store.clone(), service.config().files().ok());
    let recorder = RunRecorder::new(store, activity.run, files, activity.active.refused.clone());
    let journal: std::sync::Arc<dyn atp_executor::Recorder> = std::sync::Arc::new(recorder);
    let run = service.executor().run_noted(plan, Some(journal), &activity.active.control);
    let span = tracing::debug_span!("run", run = activity.run);
    service.tasks().spawn(drive(run, activity).instrument(span));
}

/// Refuses to begin anything when the service ends.
pub(super) fn not_stopping(service: &Service) -> Result<(), Refusal> {
    match service.stopping().is_cancelled() {
        true => Err(Refusal::new(ErrorKind::ServiceStopping, "the service ends")),
        false => Ok(()),
    }
}

/// The request as it is kept for a resume, if its operation has no part that may be secret: no command lines, texts, keys, data or
/// variables of the client, and no files of its.
fn kept(request: &RunRequest) -> Option<String> {
    let is_plain = match &request.operation {
        OperationSpec::HostCheck
        | OperationSpec::DiagnoseHost
        | OperationSpec::DiagnoseAgent
        | OperationSpec::VmList
        | OperationSpec::VmInfo
        | OperationSpec::VmXml(_)
        | OperationSpec::VmAutostart(_)
        | OperationSpec::VmNmi
        | OperationSpec::SnapshotList
        | OperationSpec::SnapshotCreate(_)
        | OperationSpec::SnapshotRevert(_)
        | OperationSpec::SnapshotDelete(_)
        | OperationSpec::Lifecycle(_)
        | OperationSpec::Screenshot(_)
        | OperationSpec::Console(_)
        | OperationSpec::Mouse(_) => true,
        OperationSpec::Wait(condition) => !matches!(condition, Condition::Exec(_)),
        OperationSpec::Exec(_)
        | OperationSpec::Pull(_)
        | OperationSpec::Push(_)
        | OperationSpec::Qmp(_)
        | OperationSpec::Qga(_)
        | OperationSpec::Key(_)
        | OperationSpec::Type(_)
        | OperationSpec::Scenario(_) => false,
    };
    if is_plain { serde_json::to_string(request).ok() } else { None }
}

/// Identifies a request without repeating it.
fn body_hash(request: &RunRequest) -> String {
    // Every key in it is text, so that serialising it cannot fail.
    let json = canonical_json(&serde_json::to_value(request).unwrap_or_default());
    Digest::of(json.as_bytes()).to_string()
}
