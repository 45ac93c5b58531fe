//! Resuming a run.

use atp_api::serve::RunSummary;
use atp_api::{ErrorKind, RunRequest};
use atp_executor::{History, JournalError, Notice, Plan};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header;
use axum::response::Response;

use super::share::{kept_plan, share};
use super::start::{audit, carry_out, not_stopping, planned};
use super::{Activity, may_change, summary, visible};
use crate::auth::Caller;
use crate::body::{Json, Path, Query, answer};
use crate::plans::{operation_of, plan_in, plan_of};
use crate::problem::Refusal;
use crate::state::Service;
use crate::store::{Change, RunRow, Started, TargetRow, key};

/// Targets that are read at a time.
const ROWS: i64 = 1000;

pub(super) async fn resume(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
    mut query: Query,
    request: Request,
) -> Result<Response, Refusal> {
    not_stopping(&service)?;
    let earlier = plan_in(&mut query)?;
    query.end()?;
    let given = match request.headers().contains_key(header::CONTENT_TYPE) {
        true => Some(Json::<RunRequest>::from_request(request, &service).await?.0),
        false => None,
    };
    let earlier = planned(&service, &caller, earlier, given.as_ref())?;
    let row = visible(&service, &caller, &id).await?;
    may_change(&caller, &row)?;
    let last = service.runs().store.last_event(row.id).await?;
    let activity = Activity::begin(&service, row.id, last)
        .ok_or_else(|| Refusal::new(ErrorKind::Conflict, format!("run {id} is under way")))?;
    let (planned, client) = (service.clone(), caller.clone());
    let resumed =
        service.tasks().spawn(async move { go_on(&planned, &client, row, given, earlier, activity).await });
    resumed.await.map_err(|_| Refusal::new(ErrorKind::Panicked, "the planning of the run failed"))??;
    let row = visible(&service, &caller, &id).await?;
    Ok(answer(&RunSummary { resumed_after: u64::try_from(last).ok(), ..summary(&service, row) }))
}

async fn go_on(
    service: &Service,
    caller: &Caller,
    row: RunRow,
    given: Option<RunRequest>,
    earlier: Option<Plan>,
    activity: Activity,
) -> Result<(), Refusal> {
    let store = &service.runs().store;
    let run = row.id;
    let last_event = *activity.active.last.borrow();
    let request = given.or(row.request).ok_or_else(|| {
        let problem = "the request of the run was not kept, as it may hold secrets";
        Refusal::field("body", problem).with_hint("send the request again that the run was begun with")
    })?;
    let head = row.head.ok_or_else(|| Refusal::new(ErrorKind::Conflict, "the run was never begun"))?;
    let operation = operation_of(service, caller, request.operation.clone()).await?;
    let mut targets = Vec::new();
    let mut after = 0;
    loop {
        let read = store.targets(run, after, ROWS).await?;
        let Some((last, _)) = read.last() else { break };
        after = *last;
        targets.extend(read.into_iter().map(|(_, target)| target));
    }
    let history = History::of_rows(&format!("of run {run}"), head, targets, &operation).map_err(refused)?;
    let plan = plan_of(service, caller, &request, operation, earlier).await?;
    let mut plan = history.apply(plan);
    activity.limit(&mut plan).await?;
    let share = share(service, &request, &plan, last_event)?;
    audit(service, caller, "resume", run, &plan).await?;
    let started = Started {
        run,
        head: None,
        last_event: Some(last_event),
        plan: kept_plan(&plan, &request.targets)?,
        targets: plan.targets.iter().map(TargetRow::of).collect(),
        moved: moved(&plan),
        share,
    };
    store.change(Change::Begin(Box::new(started))).await?;
    carry_out(service, plan, activity);
    Ok(())
}

/// VMs that are still to do and are on another host now.
fn moved(plan: &Plan) -> Vec<(String, String, String)> {
    let of = |notice: &Notice| match notice {
        Notice::Moved { uuid, from, host, .. } => {
            let id = uuid.to_string();
            Some((key(Some(from), Some(&id)), key(Some(host), Some(&id)), host.to_string()))
        }
        _ => None,
    };
    plan.notices.iter().filter_map(of).collect()
}

fn refused(error: JournalError) -> Refusal {
    Refusal::new(ErrorKind::Conflict, error.to_string()).with_hint(error.hint())
}
