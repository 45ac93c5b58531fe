//! Plans: what a run would do, and whether the client may do it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atp_api::{ErrorKind, OperationSpec, PlanReport, RunRequest, ScenarioSpec};
use atp_executor::{Operation, Plan, PlanError, Selection};
use axum::extract::State;
use axum::http::Method;
use axum::response::Response;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use crate::auth::{
    Access, Caller, leave_out, may_see_host, not_all_hosts, permit, permit_hosts, permit_verb, visible_part,
};
use crate::body::{Json, Query, answer};
use crate::files;
use crate::planned::KEPT_FOR;
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;

/// The parameter of a request that names a plan.
pub(crate) fn plan_in(query: &mut Query) -> Result<Option<Uuid>, Refusal> {
    query.parse("plan", "the id of a plan", |text| Uuid::try_parse(text).ok())
}

/// Describes it.
pub(crate) fn with_plan(route: Route) -> Route {
    let about = "The id of a plan that was just made for the same request: the run is started as it was planned, and no host is asked \
                 again. Without effect if the plan is not kept any more, which is so after 20 seconds.";
    route.query("plan", about, json!({"type": "string", "format": "uuid"}))
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/plans", Access::Look, make)
            .about("What a run would do. Asks the hosts for their VMs, and changes nothing. A run may be started as it is planned.")
            .takes::<RunRequest>()
            .answers::<PlanReport>(200),
    ]
}

async fn make(
    State(service): State<Service>,
    caller: Caller,
    Json(request): Json<RunRequest>,
) -> Result<Response, Refusal> {
    service.limits().start(&caller.token)?;
    let operation = operation_of(&service, &caller, request.operation.clone()).await?;
    let plan = plan_of(&service, &caller, &request, operation, None).await?;
    let report = plan.report();
    // Whether a VM that a limited token may work on has another name when the run begins would not be known.
    if !caller.token.selectors.is_empty() {
        return Ok(answer(&report));
    }
    let id = service.plans().keep(&caller.token.name, &request, plan);
    // What a plan has of its request may be secret, and is not to stay.
    tokio::spawn(async move {
        sleep(KEPT_FOR).await;
        service.plans().sweep();
    });
    Ok(answer(&PlanReport { id, ..report }))
}

/// Makes an operation ready, if the client may use its verbs.
pub(crate) async fn operation_of(
    service: &Service,
    caller: &Caller,
    operation: OperationSpec,
) -> Result<Operation, Refusal> {
    let operation = prepare(service, caller, operation).await?;
    permit_verb(&caller.token, &operation)?;
    Ok(operation)
}

/// Plans an operation that is ready, if the client may do that: hosts are checked before they are asked, and then each target.
/// Outcomes about hosts that it may not see are left out. With an `earlier` plan of the same request no host is asked.
///
/// Cancel safe.
pub(crate) async fn plan_of(
    service: &Service,
    caller: &Caller,
    request: &RunRequest,
    operation: Operation,
    earlier: Option<Plan>,
) -> Result<Plan, Refusal> {
    let RunRequest { targets, policy, .. } = request;
    let selection = Selection::try_from(targets)?;
    if selection.selectors.is_empty() {
        return Err(Refusal::field("targets.selectors", "names no target"));
    }
    if policy.timeout.is_zero() {
        return Err(Refusal::field("policy.timeout", "leaves no time"));
    }
    let hosts = service.manager().hosts();
    let is_list = matches!(operation, Operation::VmList);
    let selection = match is_list {
        true => visible_part(&caller.token, selection, &hosts),
        false => selection,
    };
    permit_hosts(&caller.token, &selection, &hosts)?;
    let mut plan = match earlier {
        Some(plan) => plan.with_operation(operation),
        None => {
            let planned = service.executor().plan(&selection, operation, policy.clone()).await;
            planned.map_err(|error| match error {
                PlanError::UnknownHost { .. } | PlanError::UnknownGroup { .. }
                    if !caller.token.selectors.is_empty() =>
                {
                    not_all_hosts(&caller.token)
                }
                error => error.into(),
            })?
        }
    };
    if is_list {
        leave_out(&caller.token, &selection, &mut plan, &hosts);
    }
    permit(&caller.token, &selection, &plan, &hosts)?;
    plan.settled.retain(|outcome| match &outcome.host {
        Some(id) => hosts.iter().any(|host| host.id == id.as_str() && may_see_host(&caller.token, host)),
        None => true,
    });
    Ok(plan)
}

/// Makes an operation ready. Files are those that the service keeps: no client names others of its machine.
async fn prepare(service: &Service, caller: &Caller, operation: OperationSpec) -> Result<Operation, Refusal> {
    let (operation, sent) = match operation {
        OperationSpec::Scenario(spec) => {
            let sent = spec.files.unwrap_or_default();
            (OperationSpec::Scenario(ScenarioSpec { files: None, ..spec }), sent)
        }
        operation => (operation, BTreeMap::new()),
    };
    let config = service.config();
    let is_shared = service.cluster().is_some();
    if is_shared
        && matches!(
            operation,
            OperationSpec::Push(_)
                | OperationSpec::Pull(_)
                | OperationSpec::Screenshot(_)
                | OperationSpec::Console(_)
        )
    {
        return Err(not_shared());
    }
    let operation = files::localise(&config, service.clock(), caller, operation).await?;
    let operation = Operation::prepare(operation).await.map_err(Refusal::from)?;
    match operation {
        Operation::Scenario(scenario) if is_shared && scenario.has_files() => Err(not_shared()),
        Operation::Scenario(scenario) if scenario.has_files() => {
            permit_verb(&caller.token, &Operation::Scenario(scenario.clone()))?;
            let places = files::places(&config, service.clock(), caller, &scenario, &sent).await?;
            Ok(Operation::Scenario(Arc::new(Arc::unwrap_or_clone(scenario).with_places(places))))
        }
        operation => Ok(operation),
    }
}

/// Files are on the machine of one controller, and others do the work.
fn not_shared() -> Refusal {
    let problem = "services of a cluster do not share files, so that none are copied and no pictures or consoles captured in runs";
    let hint = "use a service that has the hosts for itself, or the command line";
    Refusal::new(ErrorKind::NotSupported, problem).with_hint(hint)
}
