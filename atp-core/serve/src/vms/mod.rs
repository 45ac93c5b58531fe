//! VMs by selector, from listings that are used again for a while.

mod chosen;
mod listed;
mod order;

use std::time::SystemTime;

use atp_api::serve::{ReservedVms, VmEntry, VmListing};
use atp_api::{LabelFilter, StateFilter};
use atp_executor::{Selection, Selector};
use atp_settings::parse_duration;
use axum::extract::State;
use axum::response::Response;
use serde_json::json;

pub(crate) use chosen::{Asked, Chosen, choose, chooses, concerned, listed_now};
pub(crate) use listed::Listed;

use crate::auth::Caller;
use crate::body::{Query, answer};
use crate::problem::Refusal;
use crate::route::{Route, texts};
use crate::state::Service;
use crate::time::{millis, rfc3339};

pub(crate) fn routes() -> Vec<Route> {
    let number = |least: u64| json!({"type": "integer", "minimum": least});
    vec![
        narrowed(Route::get("/api/v1/vms", list))
            .about("The VMs of a selection, as their hosts listed them within the last seconds.")
            .query("offset", "How many of them are left out at the beginning.", number(0))
            .query("limit", "The most VMs of the answer; all if it is not given.", number(1))
            .query(
                "max_age",
                "How old a listing may be, such as 5s; 0s to ask the hosts now.",
                json!({"type": "string"}),
            )
            .query(
                "allow_stale",
                "Whether the VMs of a host that does not answer are those of an earlier listing.",
                json!({"type": "boolean"}),
            )
            .answers::<VmListing>(200),
    ]
}

/// Adds the parameters that choose VMs.
pub(crate) fn narrowed(route: Route) -> Route {
    route
        .query(
            "selector",
            "VMs, as [HOST/]VM, a glob, HOST/ or @GROUP/; may be repeated. All without one.",
            texts(),
        )
        .query("exclude", "VMs that are left out; may be repeated.", texts())
        .query("state", "Only VMs in this state.", json!({"type": "string", "enum": StateFilter::NAMES}))
        .query(
            "label",
            "Only VMs with this label, as KEY=VALUE; may be repeated, and then all must match.",
            texts(),
        )
}

/// Reads the parameters that choose VMs.
pub(crate) fn read_selection(query: &mut Query) -> Result<Selection, Refusal> {
    let parse =
        |texts: Vec<String>| texts.iter().map(|text| text.parse::<Selector>()).collect::<Result<Vec<_>, _>>();
    let selectors = parse(query.all("selector"))?;
    let exclude = parse(query.all("exclude"))?;
    let states = StateFilter::NAMES.join(", ");
    let state = query.parse("state", &format!("one of {states}"), |text| text.parse().ok())?;
    let labels = query.all("label");
    let labels = labels.iter().map(|text| text.parse::<LabelFilter>());
    let labels =
        labels.collect::<Result<_, _>>().map_err(|error| Refusal::field("label", error.to_string()))?;
    let all = if selectors.is_empty() { Selection::all() } else { Selection::of(selectors) };
    Ok(Selection { exclude, state: state.unwrap_or_default(), labels, ..all })
}

async fn list(State(service): State<Service>, caller: Caller, mut query: Query) -> Result<Response, Refusal> {
    let selection = read_selection(&mut query)?;
    let offset = query.parse("offset", "a number from 0", |text| text.parse::<usize>().ok())?;
    let limit =
        query.parse("limit", "a number from 1", |text| text.parse::<usize>().ok().filter(|&n| n > 0))?;
    let max_age = query.parse("max_age", "a duration such as 5s", |text| parse_duration(text).ok())?;
    let allow_stale = query.parse("allow_stale", "true or false", |text| text.parse().ok())?;
    query.end()?;
    let asked = Asked {
        selection,
        max_age: max_age.unwrap_or(service.config().cache_ttl),
        allow_stale: allow_stale.unwrap_or(false),
    };
    let store = service.store().clone();
    let reserved = async { store.reservations(store.now(millis(service.clock().steady())).await?).await };
    let (chosen, reserved) = tokio::join!(choose(&service, &caller, &asked), reserved);
    let (chosen, settled) = chosen?;
    // Which VMs there are is shown also while the store is away.
    let (reserved, reservations_unknown) = match reserved {
        Ok(reserved) => (reserved, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let reserved: ReservedVms = reserved.into_iter().collect();
    let entry = |(chosen, domain): (&Chosen, _)| with_reservation(chosen.entry(domain), &reserved);
    let all = chosen.iter().flat_map(|chosen| chosen.vms().map(move |domain| (chosen, domain)));
    let vms = all.skip(offset.unwrap_or(0)).take(limit.unwrap_or(usize::MAX)).map(entry).collect();
    let oldest: Option<SystemTime> = chosen.iter().filter_map(Chosen::fresh).min();
    let listing = VmListing {
        vms,
        total: chosen.iter().map(Chosen::len).sum::<usize>() as u64,
        settled,
        stale: chosen.iter().filter_map(Chosen::stale).collect(),
        as_of: oldest.map(rfc3339),
        reservations_unknown,
    };
    Ok(answer(&listing))
}

fn with_reservation(mut entry: VmEntry, reserved: &ReservedVms) -> VmEntry {
    if let Some(reservation) = reserved.of(&entry.host, entry.info.uuid) {
        entry.info.reserved_by = Some(reservation.owner.clone());
        entry.info.reserved_until_ms = Some(reservation.until_ms);
    }
    entry
}
