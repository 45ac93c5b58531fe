//! Screens of VMs, for pages that look at many.

use std::time::Duration;

use atp_api::{ErrorKind, OutcomeError};
use atp_executor::Operation;
use atp_protocol::screenshot::{self, ScreenshotLimits};
use atp_transport::ExecuteOptions;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::time::Instant;

use crate::auth::{Caller, may_see_host, may_see_vm, permit_verb};
use crate::body::{Path, Query};
use crate::cache::Lacking;
use crate::hosts::unknown;
use crate::problem::Refusal;
use crate::route::{Content, Route};
use crate::state::Service;

/// How long a picture is shown again: all who look at a screen at the same time see one picture of it.
const TTL: Duration = Duration::from_secs(2);

/// The most screens of a VM that can be asked for.
const MAX_SCREENS: u32 = 16;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/vms/{host}/{vm}/screenshot", show)
            .about("A picture of a VM's screen, at most two seconds old.")
            .part("host", "The host's id.")
            .part("vm", "The VM's name.")
            .query(
                "screen",
                "Which of its screens, from 0.",
                json!({"type": "integer", "minimum": 0, "maximum": 15}),
            )
            .answers_with(200, Some(Content::of("image/png"))),
    ]
}

async fn show(
    State(service): State<Service>,
    caller: Caller,
    Path((host, vm)): Path<(String, String)>,
    mut query: Query,
) -> Result<Response, Refusal> {
    let screen = query.parse("screen", "a number below 16", |text| {
        text.parse::<u32>().ok().filter(|&screen| screen < MAX_SCREENS)
    })?;
    query.end()?;
    // Its folder is not used: the verb is.
    let operation = Operation::Screenshot(atp_api::ScreenshotSpec {
        folder: std::path::PathBuf::new(),
        screen: screen.unwrap_or(0),
        limits: ScreenshotLimits::default(),
    });
    permit_verb(&caller.token, &operation)?;
    let pool = service.manager().pool(&host).map_err(|_| unknown(&host))?;
    let info = pool.info();
    if !may_see_host(&caller.token, &info) {
        return Err(unknown(&host));
    }
    if !may_see_vm(&caller.token, &info, &vm) {
        let problem = format!("host {host}: there is no VM {vm:?}");
        return Err(Refusal::new(ErrorKind::VmNotFound, problem));
    }
    let screen = screen.unwrap_or(0);
    let key = format!("{host}/{screen}/{vm}");
    let asked = service.clone();
    let fetch = || async move {
        let deadline = Instant::now() + asked.list_timeout();
        let taken = asked.manager().execute_on_host_with(&host, ExecuteOptions::by(deadline), |connection| {
            let vm = vm.clone();
            async move {
                let domain = connection.domain_by_name(&vm).await?;
                screenshot::take(&connection, domain.uuid, screen, ScreenshotLimits::default(), deadline)
                    .await
            }
        });
        taken.await.map(|taken| taken.png).map_err(|error| OutcomeError::from(&error))
    };
    match service.screens().get(&key, TTL, None, fetch).await {
        Ok(kept) => {
            let headers = [(header::CONTENT_TYPE, "image/png")];
            Ok((headers, kept.value.to_vec()).into_response())
        }
        Err(Lacking { error, .. }) => Err(error.into()),
    }
}
