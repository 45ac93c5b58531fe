//! Which VMs are reserved, for listings: a listing is shown also if that cannot be read, with a warning.

use atp_api::serve::ReservedVms;
use atp_client::Client;
use atp_executor::Reservations;

use crate::context::Context;

/// Those in the file that the settings name; none if they name none.
pub(crate) async fn of_file(context: &Context) -> ReservedVms {
    let Some(file) = context.settings.reservations_file.clone() else { return ReservedVms::default() };
    let reading = tokio::task::spawn_blocking(move || Reservations::at(file).list());
    match reading.await {
        Ok(Ok(all)) => all.into_iter().collect(),
        Ok(Err(error)) => unknown(&error.to_string(), context),
        Err(error) => unknown(&error.to_string(), context),
    }
}

/// Those that a service has.
pub(crate) async fn of_service(client: &Client, context: &Context) -> ReservedVms {
    match client.reservations().await {
        Ok(all) => all.into_iter().collect(),
        Err(error) => unknown(&error.to_string(), context),
    }
}

fn unknown(problem: &str, context: &Context) -> ReservedVms {
    context.console.warning(&format!("it is not known which VMs are reserved: {problem}"));
    ReservedVms::default()
}
