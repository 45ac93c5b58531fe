//! `atp serve`: opens the service, follows the settings, and ends in order.

use std::time::Duration;

use atp_serve::{ListenError, Listener, ServeConfig, Service};
use atp_transport::TransportManager;

use crate::context::Context;
use crate::exit::SUCCESS;
use crate::inventory;
use crate::problem::{Failure, Problem};
use crate::signals::Interrupts;

pub(super) async fn run(listen: Option<String>, context: &Context) -> Result<u8, Failure> {
    let interrupts = Interrupts::listen()?;
    let config = with_listen(context.settings.serve.clone(), listen.as_deref());
    let listener = Listener::bind(&config).await.map_err(refused)?;
    let is_configured = !context.settings.hosts.is_empty();
    let manager = match is_configured {
        true => TransportManager::new(context.settings.transport.clone()),
        // This machine's daemon, or a problem that says how to name a host.
        false => inventory::open(&context.settings).await?,
    };
    let following = match is_configured {
        true => {
            let sources = context.sources.followed(warm()).map_err(Failure::Usage)?;
            let following = manager.follow(sources);
            Some(following.map_err(|error| Problem::new("the hosts cannot be used").because(&error))?)
        }
        false => None,
    };
    let service = Service::open(config, manager.clone())
        .map_err(|error| Problem::new("the service cannot be opened").because(&error))?;
    let scheme = if listener.tls().is_some() { "https" } else { "http" };
    context.console.note(&format!(
        "serving {} hosts on {scheme}://{}",
        manager.hosts().len(),
        listener.address()
    ));
    if service.tokens().is_empty() {
        context.console.note("there is no token yet: `atp serve token add NAME --role admin` makes one");
    }
    let stopping = service.stopping().clone();
    let drained = tokio::select! {
        drained = listener.serve(service) => drained,
        _ = async {
            interrupts.first().await;
            context.console.note("ending: requests and runs under way are finished first");
            stopping.cancel();
            std::future::pending::<()>().await;
        } => false,
    };
    drop(following);
    if !drained {
        context.console.warning("ended with work under way");
    }
    inventory::close(&manager, Duration::ZERO).await;
    Ok(SUCCESS)
}

/// The connections that are kept to each host without work.
fn warm() -> usize {
    1
}

fn with_listen(config: ServeConfig, listen: Option<&str>) -> ServeConfig {
    match listen {
        Some(listen) => ServeConfig { listen: listen.to_owned(), ..config },
        None => config,
    }
}

fn refused(error: ListenError) -> Problem {
    let problem = Problem::new(error.to_string());
    match std::error::Error::source(&error) {
        Some(source) => problem.because(source),
        None => problem,
    }
}
