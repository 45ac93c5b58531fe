//! Makes a manager of the hosts in the settings. No host is connected to here, with one exception: if no host is
//! configured, the daemon of this machine is asked whether it answers.

use std::time::Duration;

use atp_executor::Selection;
use atp_transport::{ErrorKind, ExecuteOptions, HostInfo, TransportConfig, TransportError, TransportManager};
use tokio::time::Instant;

use crate::password;
use crate::problem::{Failure, Problem};
use crate::settings::{Settings, mask_uri};
use crate::signals::Interrupts;
use crate::words;

/// The host that is used if none is configured.
const LOCAL_ID: &str = "local";
const LOCAL_URI: &str = "qemu:///system";

/// The URI of that host: the one that libvirt's own clients use without a URI (`LIBVIRT_DEFAULT_URI`, `uri_default` in
/// `libvirt.conf`), else the system daemon of this machine.
fn local_uri() -> String {
    atp_transport::default_uri().unwrap_or_else(|| LOCAL_URI.to_owned())
}

/// Maximum time for closing the connections at the end. A daemon logs an error for each client that leaves without
/// closing its connection.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Maximum time for the daemon of this machine to answer, if no host is configured.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a manager of the hosts in the settings, or of this machine's daemon if there are none.
///
/// # Errors
/// Hosts that cannot be used, every one of them; or no host at all.
pub(crate) async fn open(settings: &Settings) -> Result<TransportManager, Vec<Problem>> {
    refuse_service(settings)?;
    let manager = register(settings).await?;
    if !settings.hosts.is_empty() {
        return Ok(manager);
    }
    if settings.has_inventory {
        return Err(vec![empty_inventory(settings)]);
    }
    match try_local(&manager, settings.policy.timeout.min(LOCAL_TIMEOUT)).await {
        Ok(()) => Ok(manager),
        Err(error) => Err(vec![no_hosts(settings, &error)]),
    }
}

/// Refuses what cannot be done through a service.
fn refuse_service(settings: &Settings) -> Result<(), Vec<Problem>> {
    let Some(server) = &settings.server else { return Ok(()) };
    let problem =
        Problem::new(format!("this command connects to the hosts itself, and not through {}", server.url));
    Err(vec![problem.hint("add --server none to connect from this machine")])
}

/// The hosts in the settings, or this machine if there are none; connects to nothing.
///
/// # Errors
/// As [`open`], except that this machine's daemon need not answer.
pub(crate) async fn known(settings: &Settings) -> Result<Vec<HostInfo>, Vec<Problem>> {
    let manager = register(settings).await?;
    match settings.hosts.is_empty() {
        false => Ok(manager.hosts()),
        true if settings.has_inventory => Err(vec![empty_inventory(settings)]),
        true => Ok(vec![HostInfo::from_uri(LOCAL_ID, local_uri())]),
    }
}

/// Asks for the passwords of the selected hosts that a person has to type, and returns the settings with them.
/// Nothing else may be written to the terminal during the prompt.
///
/// # Errors
/// There is no terminal to ask on, or a signal came.
pub(crate) async fn with_passwords(
    selection: &Selection,
    settings: &Settings,
    interrupts: &Interrupts,
) -> Result<Settings, Failure> {
    let mut settings = settings.clone();
    for host in settings.hosts.iter_mut().filter(|host| selection.concerns(host)) {
        password::ask_if_wanted(host, interrupts).await?;
    }
    Ok(settings)
}

/// As [`open`], after the passwords of the selected hosts were asked for.
///
/// # Errors
/// As [`open`] and [`with_passwords`].
pub(crate) async fn open_selected(
    selection: &Selection,
    settings: &Settings,
    interrupts: &Interrupts,
) -> Result<TransportManager, Failure> {
    let settings = with_passwords(selection, settings, interrupts).await?;
    tokio::select! {
        opened = open(&settings) => Ok(opened?),
        signal = interrupts.first() => Err(Failure::Interrupted(signal)),
    }
}

/// Closes the connections within [`CLOSE_TIMEOUT`]; hung closes are abandoned. Calls in flight have `grace` to end
/// first.
pub(crate) async fn close(manager: &TransportManager, grace: Duration) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, manager.close(grace)).await;
}

/// Makes a manager of exactly the hosts in the settings.
///
/// # Errors
/// Hosts that cannot be used, every one of them.
pub(crate) async fn register(settings: &Settings) -> Result<TransportManager, Vec<Problem>> {
    let manager = TransportManager::new(settings.transport.clone());
    let mut problems = Vec::new();
    for host in &settings.hosts {
        if let Err(error) = manager.add_host(host.clone()).await {
            problems.push(unusable(settings, host, &error));
        }
    }
    if problems.is_empty() { Ok(manager) } else { Err(problems) }
}

/// Checks that a host could be registered; connects to nothing.
///
/// # Errors
/// Why not.
pub(crate) async fn check(host: &HostInfo) -> Result<(), TransportError> {
    let mut config = TransportConfig::default();
    // No connections are opened.
    config.pool.min_connections_per_host = 0;
    let manager = TransportManager::new(config);
    manager.add_host(host.clone()).await
}

async fn try_local(manager: &TransportManager, timeout: Duration) -> Result<(), TransportError> {
    manager.add_host(HostInfo::from_uri(LOCAL_ID, local_uri())).await?;
    let options = ExecuteOptions::by(Instant::now() + timeout);
    let version = manager
        .execute_on_host_with(LOCAL_ID, options, |connection| async move { connection.lib_version().await });
    version.await.map(|_| ())
}

fn unusable(settings: &Settings, host: &HostInfo, error: &TransportError) -> Problem {
    let origin = settings.origin_of_host(&host.id).unwrap_or("the settings");
    let uri = mask_uri(&host.effective_uri());
    let problem =
        Problem::new(format!("{origin}: host {} has the URI {uri:?}, which cannot be used", host.id));
    problem.cause(reason(error)).hint(error.hint())
}

/// Why a host cannot be used, without naming it again.
pub(crate) fn reason(error: &TransportError) -> String {
    match error {
        TransportError::InvalidUri { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

fn empty_inventory(settings: &Settings) -> Problem {
    let files: Vec<_> = settings.files.iter().map(|file| file.display().to_string()).collect();
    Problem::new(format!("the inventory is empty: {} defines no host", files.join(" and "))).hint(
        "add a section such as [hosts.node7] with uri = \"qemu+tcp://10.0.0.7/system\", or use --host ID=URI",
    )
}

fn no_hosts(settings: &Settings, error: &TransportError) -> Problem {
    let file = settings.own_file.as_ref();
    let file = file.map_or_else(|| "a file given by --config".to_owned(), |file| file.display().to_string());
    let uri = mask_uri(&local_uri());
    let about = format!("there is no host: none is configured, and {uri} cannot be used");
    let local = match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("start this machine's libvirt daemon, which is then used as host {LOCAL_ID}")
        }
        _ => format!("to use {uri} as host {LOCAL_ID}: {}", words::hint(&error.hint())),
    };
    Problem::new(about).because(error).hint(format!(
        "do one of the following:\n  \
         - {local}\n  \
         - name a host with --host ID=URI; to try it out: atp --host demo=test:///default vm list\n  \
         - add a host to {file}: atp host add ID URI"
    ))
}
