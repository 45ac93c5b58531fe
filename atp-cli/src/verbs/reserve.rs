//! `atp reserve` and `atp release`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anstyle::Style;
use atp_api::Targets;
use atp_api::serve::{ReleaseRequest, ReserveAnswer, ReserveRequest};
use atp_client::Client;
use atp_executor::{
    Candidate, Executor, Operation, Outcome, Reservation, ReservationError, Reservations, Reserved,
    Selection, Selector, has_copies,
};
use atp_settings::{parse_duration, parse_positive_duration};
use atp_transport::HostInfo;
use clap::{Args, ValueHint};

use super::verb::Verb;
use crate::args::{GlobalArgs, TargetArgs};
use crate::batch;
use crate::completer;
use crate::context::Context;
use crate::exit::TARGETS_FAILED;
use crate::inventory::{self, CLOSE_TIMEOUT};
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::remote;
use crate::render::table::Rows;
use crate::render::{csv, name};
use crate::signals::Interrupts;

const RESERVE_EXAMPLES: &str = "\
Examples:
  atp reserve 'test-*' --count 2 --for 1h --owner job-17 --file /var/lib/ci/vms
  atp reserve 'test-*' --count 2 --for 1h --owner job-17 --file /var/lib/ci/vms --wait=10m -o name
  atp reserve 'test-*' --count 2 --for 1h --owner job-17 --server http://127.0.0.1:9440";

const RELEASE_EXAMPLES: &str = "\
Examples:
  atp release --owner job-17 --file /var/lib/ci/vms
  atp release test-3 --owner job-17 --file /var/lib/ci/vms";

/// Whose reservations, and where.
#[derive(Debug, Args)]
struct Place {
    /// Who uses the VMs: a name that no other job has
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    owner: String,

    /// The file of the reservations, which all jobs name; on a local disk, as locks on shared filesystems are no promise. By
    /// default the one in the settings; with --server there is none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
}

/// What has the reservations.
enum Book {
    File(Reservations),
    Service(Box<Client>),
}

impl Place {
    /// The service if there is one, else the file.
    fn book(&self, context: &Context) -> Result<Book, Problem> {
        let client = remote::client(&context.settings)?;
        match (&self.file, client, &context.settings.reservations_file) {
            (Some(_), Some(client), _) => {
                let url = client.url();
                let problem = Problem::new(format!(
                    "--file is for reservations without a service, and {url} has its own"
                ));
                Err(problem.hint("remove --file, or add --server none"))
            }
            (None, Some(client), _) => Ok(Book::Service(Box::new(client))),
            (Some(file), None, _) | (None, None, Some(file)) => Ok(Book::File(Reservations::at(file))),
            (None, None, None) => {
                let problem = Problem::new("it is not said where the reservations are");
                Err(problem.hint(
                    "name the file that all jobs on this machine use with --file or in the setting reservations_file, or a service with --server",
                ))
            }
        }
    }
}

/// Reserve free VMs, so that no other job gets them
///
/// All jobs have to name the same file on the same machine, or use the same service. A VM is reserved until its time ends or it is
/// released. Either all that are asked for are reserved or none
#[derive(Debug, Args)]
#[command(after_help = RESERVE_EXAMPLES)]
pub(crate) struct ReserveArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The number of VMs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// How long they are reserved
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_positive_duration)]
    time: Duration,

    /// Wait until enough are free, and at most so long if a duration is given
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = parse_duration)]
    wait: Option<Option<Duration>>,

    #[command(flatten)]
    place: Place,
}

/// Release reserved VMs before their time ends; connects to no host
#[derive(Debug, Args)]
#[command(after_help = RELEASE_EXAMPLES)]
pub(crate) struct ReleaseArgs {
    /// VMs, as [HOST/]VM, by the names that they were reserved under; all of the owner by default
    #[arg(value_name = "SEL", add = completer::selectors())]
    selectors: Vec<Selector>,

    #[command(flatten)]
    place: Place,
}

/// Between two looks for free VMs.
const PAUSE: Duration = Duration::from_millis(500);

/// The same, where a service is asked by many.
const SERVICE_PAUSE: Duration = Duration::from_secs(1);

/// How long another process may have the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Refuses options of runs, because they would have no effect.
fn check(verb: &str, options: &GlobalArgs) -> Result<(), Problem> {
    let unfit = options.run_options();
    if unfit.is_empty() {
        return Ok(());
    }
    Err(Problem::new(format!(
        "`atp {verb}` is not a run over targets, and does not accept {}",
        unfit.join(", ")
    )))
}

impl Verb for ReserveArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        check("reserve", options)
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let interrupts = Interrupts::listen()?;
        let (book, selection) = (self.place.book(context)?, self.targets.selection());
        let (count, time, owner) = (self.count, self.time, self.place.owner);
        let mut asked = match book {
            Book::File(file) => {
                let (candidates, settled) = candidates(&selection, context, &interrupts).await?;
                Asked::File { file, candidates, settled }
            }
            Book::Service(client) => {
                let (targets, owner) = (Targets::from(&selection), owner.clone());
                Asked::Service(client, ReserveRequest { targets, count, owner, time })
            }
        };
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let give_up = self.wait.flatten().map(|longest| Instant::now() + longest);
        let mut warned = BTreeSet::new();
        loop {
            // A reservation that was made is not lost by a signal: it is waited for.
            let answer = asked.try_once(&owner, wanted, time, give_up, &interrupts).await?;
            for error in answer.settled.iter().filter_map(|outcome| outcome.error.as_ref()) {
                // A host that cannot be asked has none that could be reserved now.
                if warned.insert(error.message.clone()) {
                    context.console.warning(&error.message);
                }
            }
            if !answer.reservations.is_empty() {
                return Ok(show(&answer.reservations, context));
            }
            let (free, selected) = (answer.free, answer.selected);
            if selected == 0 && answer.settled.is_empty() {
                let nothing = batch::nothing_matches(&selection, &Operation::VmList, None);
                return Err(Failure::NoMatch(nothing));
            }
            if selected < u64::from(count) {
                let problem =
                    Problem::new(format!("too few VMs are selected: {selected}, and --count is {wanted}"));
                context.console.problem(&problem.hint("`atp vm list SEL` shows which are selected"));
                return Ok(TARGETS_FAILED);
            }
            if self.wait.is_none() || give_up.is_some_and(|end| Instant::now() >= end) {
                let problem = Problem::new(format!(
                    "too few VMs are free: {free} of the {selected} selected, and --count is {wanted}"
                ));
                let hint = if self.wait.is_none() {
                    "--wait waits until enough are free"
                } else {
                    "allow more time with --wait, or select more VMs"
                };
                context.console.problem(&problem.hint(hint));
                return Ok(TARGETS_FAILED);
            }
            tokio::select! {
                () = tokio::time::sleep(asked.pause()) => {}
                signal = interrupts.first() => return Err(Failure::Interrupted(signal)),
            }
        }
    }
}

/// Asks the hosts for the VMs of a selection.
async fn candidates(
    selection: &Selection,
    context: &Context,
    interrupts: &Interrupts,
) -> Result<(Vec<Candidate>, Vec<Outcome>), Failure> {
    let manager = inventory::open_selected(selection, &context.settings, interrupts).await?;
    let executor = Executor::new(manager.clone());
    let policy = context.settings.policy.clone();
    let planning = executor.plan_until_stopped(selection, Operation::VmList, policy, interrupts.control());
    let plan = planning.await.map_err(Problem::from)?;
    let candidates = plan.targets.iter().filter_map(|target| {
        let (vm, uuid) = (target.vm()?.to_owned(), target.uuid()?);
        let is_copy = has_copies(&manager, &target.host);
        Some(Candidate { host: target.host.clone(), vm, uuid, is_copy })
    });
    let candidates = candidates.collect();
    inventory::close(&manager, CLOSE_TIMEOUT).await;
    if let Some(signal) = interrupts.received() {
        return Err(Failure::Interrupted(signal));
    }
    Ok((candidates, plan.settled))
}

/// What is asked for free VMs.
enum Asked {
    File { file: Reservations, candidates: Vec<Candidate>, settled: Vec<Outcome> },
    Service(Box<Client>, ReserveRequest),
}

impl Asked {
    /// Between two tries.
    fn pause(&self) -> Duration {
        match self {
            Asked::File { .. } => PAUSE,
            Asked::Service(..) => SERVICE_PAUSE,
        }
    }

    /// Reserves VMs if enough are free.
    async fn try_once(
        &mut self,
        owner: &str,
        wanted: usize,
        time: Duration,
        give_up: Option<Instant>,
        interrupts: &Interrupts,
    ) -> Result<ReserveAnswer, Failure> {
        match self {
            Asked::File { file, candidates, settled } => {
                let selected = candidates.len() as u64;
                let trying = reserve_in(file, candidates, wanted, owner, time, give_up, interrupts);
                let (reservations, free) = match trying.await? {
                    Reserved::Granted(granted) => {
                        let free = granted.len() as u64;
                        (granted, free)
                    }
                    Reserved::TooFew { free } => (Vec::new(), free as u64),
                };
                Ok(ReserveAnswer { reservations, free, selected, settled: std::mem::take(settled) })
            }
            Asked::Service(client, request) => {
                let began = SystemTime::now();
                let answer = client.reserve(request).await.map_err(Problem::from)?;
                // This process may have been stopped before it read the answer.
                let took = began.elapsed().unwrap_or_default();
                if !answer.reservations.is_empty() && took >= time {
                    let problem = Problem::new("the reservations ended before their answer was read");
                    return Err(problem.hint("run it again").into());
                }
                Ok(answer)
            }
        }
    }
}

/// Reserves in a file.
async fn reserve_in(
    file: &Reservations,
    candidates: &[Candidate],
    wanted: usize,
    owner: &str,
    time: Duration,
    give_up: Option<Instant>,
    interrupts: &Interrupts,
) -> Result<Reserved, Failure> {
    let since = Instant::now();
    let until = since + LOCK_TIMEOUT;
    let until = give_up.map_or(until, |end| end.min(until));
    loop {
        let (file, candidates, owner) = (file.clone(), candidates.to_owned(), owner.to_owned());
        // The lock is waited for in short parts: what has it may reserve, and that must not happen after an interrupt.
        let trying = blocking(move || {
            let part_until = until.min(Instant::now() + PAUSE);
            match file.reserve(&candidates, wanted, &owner, time, part_until) {
                Err(ReservationError::Locked { .. }) if Instant::now() < until => Ok(None),
                Err(ReservationError::Locked { path, .. }) => {
                    Err(ReservationError::Locked { path, waited: since.elapsed() })
                }
                reserved => reserved.map(Some),
            }
        });
        if let Some(reserved) = trying.await? {
            return Ok(reserved);
        }
        if let Some(signal) = interrupts.received() {
            return Err(Failure::Interrupted(signal));
        }
    }
}

impl Verb for ReleaseArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        check("release", options)
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let released = match self.place.book(context)? {
            Book::File(file) if !file.path().exists() => {
                let path = file.path().display();
                context.console.warning(&format!("nothing was released: there is no file {path}"));
                return Ok(show(&[], context));
            }
            Book::File(file) => self.release_in(file, context).await?,
            Book::Service(client) => {
                let selectors = self.selectors.iter().map(ToString::to_string).collect();
                let request = ReleaseRequest { owner: self.place.owner.clone(), selectors };
                client.release(&request).await.map_err(Problem::from)?
            }
        };
        if released.is_empty() {
            context.console.warning("nothing was released: the owner has none of these VMs");
        }
        Ok(show(&released, context))
    }
}

impl ReleaseArgs {
    async fn release_in(self, file: Reservations, context: &Context) -> Result<Vec<Reservation>, Failure> {
        let is_all = self.selectors.is_empty();
        let selection = if is_all { Selection::all() } else { Selection::of(self.selectors) };
        let hosts = context.settings.hosts.clone();
        let owner = self.place.owner;
        blocking(move || {
            let chooses = |one: &Reservation| {
                // A host that is no longer in the settings has its id.
                let unknown = HostInfo::new(one.host.as_str(), one.host.as_str());
                let host = hosts.iter().find(|host| host.id == one.host.as_str()).unwrap_or(&unknown);
                is_all || selection.includes(host, &one.vm)
            };
            file.release(&owner, chooses, Instant::now() + LOCK_TIMEOUT)
        })
        .await
    }
}

/// Runs what blocks beside the runtime's workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReservationError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| problem(&error).into()),
        Err(error) => Err(Failure::Bug(error.into())),
    }
}

pub(crate) fn problem(error: &ReservationError) -> Problem {
    let mut problem = Problem::new(error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        problem = problem.because(source);
    }
    problem.hint(match error {
        ReservationError::Filesystem { .. } => {
            "name a file on a local disk of the machine that all jobs run on"
        }
        ReservationError::Invalid { .. } => "name another file with --file; nothing was written to this one",
        ReservationError::Locked { .. } => {
            "look for a process that is stopped while it has the file open: `fuser FILE.lock`"
        }
        ReservationError::Late { .. } => "run it again",
        _ => "check the path and its permissions",
    })
}

/// Writes reservations. Returns the exit code.
fn show(reservations: &[Reservation], context: &Context) -> u8 {
    let mut output = Output::stdout();
    match context.settings.output {
        OutputFormat::Table => output.write(&table(reservations)),
        OutputFormat::Json => output.write(&json::array(reservations)),
        OutputFormat::Jsonl => reservations.iter().for_each(|one| output.write(&json::line(one))),
        OutputFormat::Csv => {
            output.write(&csv::row(["host", "vm", "uuid", "owner", "until_ms"].map(Into::into).into_iter()));
            for one in reservations {
                let (uuid, until) = (one.uuid.to_string(), one.until_ms.to_string());
                let cells = [one.host.as_str(), &one.vm, &uuid, &one.owner, &until].map(Into::into);
                output.write(&csv::row(cells.into_iter()));
            }
        }
        OutputFormat::Name => {
            for one in reservations {
                output.write(&format!("{}\n", name::selector_of(&one.host, Some(&one.vm))));
            }
        }
    }
    output.end(&context.console)
}

fn table(reservations: &[Reservation]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "OWNER", "UNTIL"]);
    for one in reservations {
        let until = until(one.until_ms);
        rows.add(Style::new(), &[one.host.as_str(), &one.vm, &one.owner, &until]);
    }
    rows.finish()
}

/// The end of a reservation as it is shown to people.
pub(super) fn until(ms: u64) -> String {
    let until = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    // Times that cannot be written are far away.
    let until = (ms < LAST_MS).then(|| humantime::format_rfc3339_seconds(until).to_string());
    until.unwrap_or_else(|| "for ever".to_owned())
}

/// The end of the year 9999, milliseconds since 1970.
const LAST_MS: u64 = 253_402_300_800_000;
