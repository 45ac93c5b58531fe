//! Which VMs are reserved, for listings: a listing is shown also if that cannot be read, with a warning.

use std::collections::HashMap;

use atp_client::Client;
use atp_executor::{Reservation, Reservations};
use uuid::Uuid;

use crate::context::Context;

/// Those in the file that the settings name; none if they name none.
pub(crate) async fn of_file(context: &Context) -> HashMap<Uuid, Reservation> {
    let Some(file) = context.settings.reservations_file.clone() else { return HashMap::new() };
    let reading = tokio::task::spawn_blocking(move || Reservations::at(file).list());
    match reading.await {
        Ok(Ok(all)) => by_vm(all),
        Ok(Err(error)) => unknown(&error.to_string(), context),
        Err(error) => unknown(&error.to_string(), context),
    }
}

/// Those that a service has.
pub(crate) async fn of_service(client: &Client, context: &Context) -> HashMap<Uuid, Reservation> {
    match client.reservations().await {
        Ok(all) => by_vm(all),
        Err(error) => unknown(&error.to_string(), context),
    }
}

fn by_vm(all: Vec<Reservation>) -> HashMap<Uuid, Reservation> {
    all.into_iter().map(|one| (one.uuid, one)).collect()
}

fn unknown(problem: &str, context: &Context) -> HashMap<Uuid, Reservation> {
    context.console.warning(&format!("it is not known which VMs are reserved: {problem}"));
    HashMap::new()
}
