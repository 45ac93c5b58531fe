//! Hosts: health, connections, breakers.

use std::time::{Duration, SystemTime};

use atp_api::ErrorKind;
use atp_api::serve::{BreakerView, HealthView, HostView, PoolView};
use atp_executor::HostSelector;
use atp_settings::mask_uri;
use atp_transport::{ConnectionPool, FleetHealth, HostInfo, LibvirtConnector};
use axum::extract::State;
use axum::response::Response;

use crate::auth::{Caller, may_see_host};
use crate::body::{Path, Query, answer};
use crate::problem::Refusal;
use crate::route::{Route, texts};
use crate::state::Service;
use crate::time::rfc3339;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/hosts", list)
            .about("The hosts, with their health, connections and breakers. Sends nothing to the hosts.")
            .query("selector", "Hosts, as ID, a glob or @GROUP; may be repeated.", texts())
            .answers::<Vec<HostView>>(200),
        Route::get("/api/v1/hosts/{id}", one)
            .about("A host.")
            .part("id", "The host's id.")
            .answers::<HostView>(200),
    ]
}

async fn list(State(service): State<Service>, caller: Caller, mut query: Query) -> Result<Response, Refusal> {
    let selectors = query.all("selector");
    query.end()?;
    let selectors = selectors.iter().map(|text| text.parse::<HostSelector>());
    let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
    let is_chosen = |host: &HostInfo| {
        (selectors.is_empty() || selectors.iter().any(|selector| selector.matches(host)))
            && may_see_host(&caller.token, host)
    };
    let health = service.manager().health();
    let pools = service.manager().pools();
    let views = pools.iter().filter(|pool| is_chosen(&pool.info())).map(|pool| view(pool, &health));
    Ok(answer(&views.collect::<Vec<_>>()))
}

async fn one(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Refusal> {
    query.end()?;
    let pool = service.manager().pool(&id).ok().filter(|pool| may_see_host(&caller.token, &pool.info()));
    let pool = pool.ok_or_else(|| unknown(&id))?;
    Ok(answer(&view(&pool, &service.manager().health())))
}

/// The refusal of a host that there is not, or that the token may not see: which of the two it is not told.
pub(crate) fn unknown(id: &str) -> Refusal {
    Refusal::new(ErrorKind::UnknownHost, format!("there is no host {id:?}"))
}

fn view(pool: &ConnectionPool<LibvirtConnector>, health: &FleetHealth) -> HostView {
    let info = pool.info();
    let (stats, breaker) = (pool.stats(), pool.breaker());
    let engine = pool.config().engine.for_uri(&info.effective_uri());
    let health = match health.hosts.get(pool.host_id()) {
        Some(health) => HealthView {
            state: health.state.as_str().to_owned(),
            reason: health.reason.clone(),
            since: ago(health.since.elapsed()),
            last_connect_error: health.vitals.last_connect_error.clone(),
        },
        // It was added since.
        None => HealthView {
            state: "healthy".to_owned(),
            reason: String::new(),
            since: ago(Duration::ZERO),
            last_connect_error: None,
        },
    };
    HostView {
        id: pool.host_id().clone(),
        uri: mask_uri(&info.effective_uri()),
        address: info.address.clone(),
        engine: engine.as_str().to_owned(),
        weight: info.weight,
        groups: info.groups.clone(),
        labels: info.labels.clone(),
        health,
        pool: PoolView {
            total: stats.total_connections,
            idle: stats.idle_connections,
            active: stats.active_connections,
            connecting: stats.connecting,
            reconnecting: stats.reconnecting,
            failed: stats.failed,
            suspect: stats.suspect,
            draining: stats.draining,
            max: stats.max_connections,
            waiting: stats.waiting,
            calls_in_flight: stats.calls_in_flight,
            stuck_calls: stats.stuck_calls,
            requests: stats.total_requests,
            errors: stats.total_errors,
            acquire_timeouts: stats.acquire_timeouts,
            reconnects: stats.reconnects,
        },
        breaker: BreakerView {
            state: breaker.state.as_str().to_owned(),
            refused: breaker.refused,
            last_failure: breaker.last_failure.map(|error| error.to_string()),
        },
    }
}

/// The time on the wall that was `elapsed` ago.
fn ago(elapsed: Duration) -> String {
    let now = SystemTime::now();
    rfc3339(now.checked_sub(elapsed).unwrap_or(now))
}
