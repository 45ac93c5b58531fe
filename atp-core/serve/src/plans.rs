//! Plans: what a run would do, and whether the client may do it.

use std::collections::BTreeMap;
use std::sync::Arc;

use atp_api::{ErrorKind, OperationSpec, PlanReport, Policy, RunRequest, ScenarioSpec, Targets};
use atp_executor::{Operation, Plan, PlanError, Selection};
use axum::extract::State;
use axum::http::Method;
use axum::response::Response;

use crate::auth::{Access, Caller, may_see_host, not_all_hosts, permit, permit_hosts, permit_verb};
use crate::body::{Json, answer};
use crate::files;
use crate::problem::Refusal;
use crate::route::Route;
use crate::state::Service;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/plans", Access::Look, make)
            .about("What a run would do. Asks the hosts for their VMs, and changes nothing.")
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
    let plan = plan(&service, &caller, request).await?;
    Ok(answer(&plan.report()))
}

/// Plans what a client asks for, if it may do that: its role and verbs are checked before hosts are asked, and then each
/// target. Outcomes about hosts that it may not see are left out.
///
/// Cancel safe.
pub(crate) async fn plan(service: &Service, caller: &Caller, request: RunRequest) -> Result<Plan, Refusal> {
    let RunRequest { targets, operation, policy, .. } = request;
    let operation = operation_of(service, caller, operation).await?;
    plan_of(service, caller, &targets, operation, policy).await
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

/// Plans an operation that is ready. The rest is as in [`plan`].
pub(crate) async fn plan_of(
    service: &Service,
    caller: &Caller,
    targets: &Targets,
    operation: Operation,
    policy: Policy,
) -> Result<Plan, Refusal> {
    let selection = Selection::try_from(targets)?;
    if selection.selectors.is_empty() {
        return Err(Refusal::field("targets.selectors", "names no target"));
    }
    if policy.timeout.is_zero() {
        return Err(Refusal::field("policy.timeout", "leaves no time"));
    }
    let hosts = service.manager().hosts();
    permit_hosts(&caller.token, &selection, &hosts)?;
    let planned = service.executor().plan(&selection, operation, policy).await;
    let mut plan = planned.map_err(|error| match error {
        PlanError::UnknownHost { .. } | PlanError::UnknownGroup { .. }
            if !caller.token.selectors.is_empty() =>
        {
            not_all_hosts(&caller.token)
        }
        error => error.into(),
    })?;
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
