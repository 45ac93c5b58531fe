//! `atp serve`: opens the service, follows the settings, and ends in order.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use atp_serve::{ListenError, Listener, ServeConfig, Service, Supervisor, Tls};
use atp_transport::{Fleet, TransportManager};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::context::Context;
use crate::exit::SUCCESS;
use crate::inventory;
use crate::problem::{Failure, Problem};
use crate::settings::Settings;
use crate::signals::Interrupts;

/// The connections that are kept to each host without work, unless the settings say otherwise.
const WARM: usize = 1;

/// How often it is looked whether the file of tokens has changed.
const LOOK_AT_TOKENS: Duration = Duration::from_secs(1);

pub(super) async fn run(listen: Option<String>, context: &Context) -> Result<u8, Failure> {
    let interrupts = Interrupts::listen()?;
    let mut hangup =
        signal(SignalKind::hangup()).context("signal handlers cannot be installed").map_err(Failure::Bug)?;
    let supervisor = Supervisor::of_process();
    let config = with_listen(context.settings.serve.clone(), listen.as_deref());
    let listener = Listener::bind(&config).await.map_err(refused)?;
    let follows = !context.settings.hosts.is_empty();
    let manager = match follows {
        true => TransportManager::new(context.settings.transport.clone()),
        // This machine's daemon, or a problem that says how to name a host.
        false => inventory::open(&context.settings).await?,
    };
    let following = match follows {
        true => {
            let sources = context.sources.followed(WARM).map_err(Failure::Usage)?;
            let following = manager.follow(sources);
            Some(following.map_err(|error| Problem::new("the hosts cannot be used").because(&error))?)
        }
        false => None,
    };
    let service = Service::open(config, manager.clone())
        .await
        .map_err(|error| Problem::new("the service cannot be opened").because(&error))?;
    let reload = Reload { context, listen, service: service.clone(), tls: listener.tls().cloned(), follows };
    let url = url(&listener);
    let hosts = match manager.hosts().len() {
        1 => "1 host".to_owned(),
        count => format!("{count} hosts"),
    };
    context.console.note(&format!("serving {hosts} on {url}"));
    if service.tokens().is_empty() {
        context.console.note("there is no token yet: `atp serve token add NAME --role admin` makes one");
    }
    let mut tokens = Tokens::of(&service);
    let stopping = service.stopping().clone();
    let mut serving = std::pin::pin!(listener.serve(service.clone()));
    supervisor.ready(&format!("serving {url}")).await;

    let mut look = interval(LOOK_AT_TOKENS);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Without a watchdog it ticks as rarely, and nothing is told.
    let mut watchdog = interval(supervisor.watchdog().unwrap_or(Duration::from_secs(60)));
    let drained = loop {
        tokio::select! {
            drained = &mut serving => break drained,
            _ = interrupts.first(), if !stopping.is_cancelled() => {
                context.console.note("ending: requests and runs under way are finished first; interrupt again to end at once");
                stopping.cancel();
                supervisor.stopping().await;
            }
            () = interrupts.control().abort.cancelled() => break false,
            _ = hangup.recv() => {
                supervisor.reloading().await;
                reload.all().await;
                tokens.look(&service, context).await;
                supervisor.ready(&format!("serving {url}")).await;
            }
            _ = look.tick() => tokens.look(&service, context).await,
            _ = watchdog.tick() => if supervisor.watchdog().is_some() { supervisor.alive() },
        }
    };
    drop(following);
    if !drained {
        context.console.warning("ended with work under way");
    }
    inventory::close(&manager, Duration::ZERO).await;
    Ok(SUCCESS)
}

fn url(listener: &Listener) -> String {
    let scheme = if listener.tls().is_some() { "https" } else { "http" };
    format!("{scheme}://{}", listener.address())
}

/// What SIGHUP reads again.
struct Reload<'a> {
    context: &'a Context,
    listen: Option<String>,
    service: Service,
    tls: Option<Tls>,
    /// Whether the hosts are those of the settings.
    follows: bool,
}

impl Reload<'_> {
    /// Reads the settings, the hosts and the certificate again. What cannot be used is told, and stays as it was.
    async fn all(&self) {
        let console = &self.context.console;
        let sources = self.context.sources.clone();
        let resolved = tokio::task::spawn_blocking(move || Settings::resolve(&sources)).await;
        let settings = match resolved {
            Ok(Ok(settings)) => settings,
            Ok(Err(problems)) => {
                console.problems(&problems);
                return console.warning("the settings stay as they were");
            }
            Err(_) => return console.warning("the settings cannot be read; they stay as they were"),
        };
        let config = with_listen(settings.serve, self.listen.as_deref());
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reload(&config)
        {
            console.problem(&refused(error));
            console.warning("the certificate stays as it was");
        }
        if self.follows {
            self.hosts();
        }
        for setting in self.service.configure(config) {
            console.warning(&format!("serve.{setting} has changed, which the next start takes over"));
        }
        console.note("the settings were read again");
    }

    /// Applies the hosts of the settings. Their files are followed too; this is for those that no change was seen of.
    fn hosts(&self) {
        let console = &self.context.console;
        let applied = match self.context.sources.followed(WARM) {
            Ok(sources) => match Fleet::load(&sources) {
                Ok(fleet) if fleet.hosts.is_empty() => {
                    return console.warning("no host is left; they stay as they were");
                }
                Ok(fleet) => self.service.manager().apply(fleet).map(drop).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Err(problems) => return console.problems(&problems),
        };
        if let Err(error) = applied {
            console.warning(&format!("the hosts stay as they were: {error}"));
        }
    }
}

/// The file of tokens, as it was last read.
struct Tokens {
    path: Option<PathBuf>,
    seen: Option<(SystemTime, u64)>,
}

impl Tokens {
    fn of(service: &Service) -> Self {
        let path = service.config().tokens().ok();
        let seen = path.as_ref().and_then(mark);
        Tokens { path, seen }
    }

    /// Reads the file again if it has changed. One that cannot be used is told once, and the tokens stay as they were.
    async fn look(&mut self, service: &Service, context: &Context) {
        let Some(path) = self.path.clone() else { return };
        let (seen, service) = (self.seen, service.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let now = mark(&path);
            (now != seen).then(|| (now, service.reload_tokens(&path)))
        });
        let Ok(Some((now, read))) = looked.await else { return };
        self.seen = now;
        match read {
            Ok(()) => context.console.note("the tokens were read again"),
            Err(error) => {
                context.console.problem(&Problem::new("the tokens stay as they were").because(&error));
            }
        }
    }
}

/// What shows that a file has changed: it is always replaced by another.
fn mark(path: &PathBuf) -> Option<(SystemTime, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.ino()))
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
