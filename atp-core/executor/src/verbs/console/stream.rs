//! A serial console as a stream that is opened again after it was closed.

use std::io;
use std::time::Duration;

use atp_api::OutcomeError;
use atp_transport::domain::DomainInfo;
use atp_transport::{ChannelOptions, DomainChannel, ErrorKind, ExecuteOptions, LibvirtConnection};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};

use crate::verbs::facts::{Needs, refusal};
use crate::verbs::job::Job;
use crate::verbs::relocation::{Relocation, has_left, relocation};

/// One read, bytes.
const READ: usize = 16 << 10;
/// The longest pause between two attempts to open a console. A VM that is started writes its first lines soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The same for a console that another client has taken: each attempt is a new connection to the host.
const LONGEST_PAUSE_IN_USE: Duration = Duration::from_secs(15);
/// How long a console that another client has is waited for when it is first opened: a client that has just left may still have
/// it.
const IN_USE: Duration = Duration::from_secs(2);

/// What happens on a console.
#[derive(Debug)]
pub(in crate::verbs) enum ConsoleItem<'a> {
    /// It is open from here on.
    Open,
    /// The guest wrote this.
    Bytes(&'a [u8]),
    /// It is not open from here on, for this reason.
    Gap(String),
    /// It is not open, and the VM did not run when it was looked at, which began at this time: nothing is written to it.
    Off(Instant),
    /// It is not open, and the VM runs again.
    Closed,
}

/// How the console is after an attempt to open it.
enum Opened {
    Channel(DomainChannel),
    Off(Instant),
    Closed,
}

/// A console of a VM, wherever the VM is. Dropping it closes the console.
pub(in crate::verbs) struct ConsoleStream {
    /// The work on the host where the VM is.
    job: Job,
    domain: DomainInfo,
    device: Option<String>,
    force: bool,
    channel: Option<DomainChannel>,
    buffer: Box<[u8]>,
    /// When the first attempt to open it began.
    began: Instant,
    was_open: bool,
    /// Whether anything came since it was opened for the last time.
    has_spoken: bool,
    pause: Duration,
    /// Why the last attempt to open it failed.
    last_error: Option<OutcomeError>,
    /// libvirt's number of the VM's process when the console was last open.
    process: Option<u32>,
    /// Whether the VM did not run at the last attempt.
    is_off: bool,
    /// Since when another client has the console.
    taken_since: Option<Instant>,
    /// Why it has ended, as long as it is not known whether the VM's process has ended then.
    ended: Option<String>,
    /// Why the guest may have written something that was not seen.
    missed: Option<String>,
}

impl ConsoleStream {
    pub(in crate::verbs) fn new(job: Job, domain: DomainInfo, device: Option<String>, force: bool) -> Self {
        let pause = job.policy.poll_initial;
        ConsoleStream {
            job,
            domain,
            device,
            force,
            channel: None,
            buffer: vec![0; READ].into(),
            began: Instant::now(),
            was_open: false,
            has_spoken: false,
            pause,
            last_error: None,
            process: None,
            is_off: false,
            taken_since: None,
            ended: None,
            missed: None,
        }
    }

    /// The work on the host where the VM is now.
    pub(in crate::verbs) fn job(&self) -> &Job {
        &self.job
    }

    /// Why the console is not open, if it never was.
    pub(in crate::verbs) fn never_opened(&self) -> Option<&OutcomeError> {
        self.last_error.as_ref().filter(|_| !self.was_open)
    }

    /// Whether the console was open at any time.
    pub(in crate::verbs) fn is_open_once(&self) -> bool {
        self.was_open
    }

    /// Why the guest may have written something that was not seen since the console was first open, if it may.
    ///
    /// What a VM writes before its process ends is seen, so a VM that is stopped and started misses nothing but the first lines of
    /// its start.
    pub(in crate::verbs) fn unseen(&self) -> Option<&str> {
        self.missed.as_deref().or(self.ended.as_deref())
    }

    /// Whether it is not known yet if the VM's process has ended when the console was closed.
    pub(in crate::verbs) fn is_in_doubt(&self) -> bool {
        self.ended.is_some()
    }

    /// Waits for the next item. A console that cannot be opened now is waited for.
    ///
    /// # Errors
    /// Why the console can never be opened. It is not to be asked again.
    ///
    /// Cancel safe.
    pub(in crate::verbs) async fn next(&mut self) -> Result<ConsoleItem<'_>, OutcomeError> {
        let Some(channel) = &mut self.channel else {
            // One that ends as soon as it is open would be opened without end.
            if self.was_open && !self.has_spoken {
                self.rest(LONGEST_PAUSE).await;
            }
            if self.is_off {
                self.rest(LONGEST_PAUSE).await;
            }
            match self.opened().await? {
                Opened::Channel(channel) => self.channel = Some(channel),
                Opened::Off(looked) => return Ok(ConsoleItem::Off(looked)),
                Opened::Closed => return Ok(ConsoleItem::Closed),
            }
            (self.was_open, self.has_spoken, self.is_off) = (true, false, false);
            self.taken_since = None;
            // Also one that a step has started can be migrated away.
            self.job.was_active = true;
            return Ok(ConsoleItem::Open);
        };
        let (reason, is_lost) = match channel.read(&mut self.buffer).await {
            Ok(0) => ("the VM was stopped, or another client has taken the console".to_owned(), false),
            Ok(read) => {
                (self.has_spoken, self.pause) = (true, self.job.policy.poll_initial);
                // The process that was there has not ended.
                self.missed = self.missed.take().or(self.ended.take());
                return Ok(ConsoleItem::Bytes(&self.buffer[..read]));
            }
            // libvirt may report the end of a process so; all else is an end of the connection.
            Err(error) => (OutcomeError::in_full(&error), error.kind() != io::ErrorKind::Other),
        };
        self.channel = None;
        (if is_lost { &mut self.missed } else { &mut self.ended }).get_or_insert_with(|| reason.clone());
        Ok(ConsoleItem::Gap(reason))
    }

    /// Opens the console as soon as that is possible. Ends before if the VM does not run, or runs again.
    async fn opened(&mut self) -> Result<Opened, OutcomeError> {
        loop {
            let looked = Instant::now();
            let error = match self.open().await {
                Ok(channel) => return Ok(Opened::Channel(channel)),
                Err(error) => error,
            };
            if !self.may_pass(&error) {
                return Err(error);
            }
            let mut is_off = matches!(error.kind, ErrorKind::VmNotFound | ErrorKind::VmNotRunning);
            if is_off && let Some(elsewhere) = self.elsewhere().await {
                is_off = false;
                self.miss(|| elsewhere);
            }
            let is_taken = self.was_open && error.kind == ErrorKind::ChannelInUse;
            self.last_error = Some(error);
            if is_off {
                (self.is_off, self.ended, self.taken_since) = (true, None, None);
                return Ok(Opened::Off(looked));
            }
            if std::mem::take(&mut self.is_off) {
                return Ok(Opened::Closed);
            }
            self.rest(if is_taken { LONGEST_PAUSE_IN_USE } else { LONGEST_PAUSE }).await;
        }
    }

    /// What is known of a VM that runs on another host than was asked, or may. It is followed where it is known.
    async fn elsewhere(&mut self) -> Option<String> {
        match relocation(&self.job, &self.domain).await {
            Relocation::To(host) => {
                let moved = format!("the VM has moved to {host}");
                self.job = self.job.at(host);
                Some(moved)
            }
            Relocation::Lost(why) => Some(format!("the VM {why}")),
            Relocation::Here(Some(now)) if has_left(&now) => Some("the VM was migrated away".to_owned()),
            Relocation::Here(_) => None,
        }
    }

    /// Notes why something may not be seen, if the console was open before.
    fn miss(&mut self, reason: impl FnOnce() -> String) {
        if self.was_open {
            self.missed.get_or_insert_with(reason);
        }
    }

    /// The pause before the next attempt.
    async fn rest(&mut self, longest: Duration) {
        self.pause = self.pause.min(longest);
        sleep(self.pause).await;
        self.pause *= 2;
    }

    /// Makes one attempt. A VM that does not run costs no connection of its own.
    async fn open(&mut self) -> Result<DomainChannel, OutcomeError> {
        let (uuid, deadline) = (self.domain.uuid, self.job.deadline());
        let look = |connection: LibvirtConnection| async move { connection.domain_info(uuid).await };
        let looked =
            self.job.manager.execute_on_host_with(self.job.host(), ExecuteOptions::by(deadline), look).await;
        let now = match looked {
            Ok(now) => now,
            Err(error) => {
                let error = OutcomeError::from(&error);
                if error.kind != ErrorKind::VmNotFound {
                    self.miss(|| error.message.clone());
                }
                return Err(error);
            }
        };
        if !Needs::Active.allow(now.state) {
            return Err(refusal(Needs::Active, &self.job.target.host, &now));
        }
        if self.process != now.id {
            // It was stopped and started.
            (self.process, self.ended) = (now.id, None);
        }
        // A client that takes the console over by force is not to be thrown out in turn.
        let options = ChannelOptions { force: self.force && !self.was_open, ..ChannelOptions::default() };
        let opened =
            self.job.manager.open_console(self.job.host(), uuid, self.device.as_deref(), &options, deadline);
        let error = match opened.await {
            Ok(channel) => return Ok(channel),
            Err(error) => OutcomeError::from(&error),
        };
        match error.kind {
            ErrorKind::VmNotFound | ErrorKind::VmNotRunning => {}
            // The daemon may not have noticed yet that the console of an earlier process was closed.
            ErrorKind::ChannelInUse
                if self.taken_since.get_or_insert_with(Instant::now).elapsed() < IN_USE => {}
            _ => self.miss(|| error.message.clone()),
        }
        Err(error)
    }

    /// Whether a later attempt may open the console.
    fn may_pass(&self, error: &OutcomeError) -> bool {
        match error.kind {
            ErrorKind::VmNotRunning => true,
            // A VM that was there may be defined again.
            ErrorKind::VmNotFound => self.was_open,
            // The daemon may not have noticed yet that it was closed.
            ErrorKind::ChannelInUse => self.was_open || self.began.elapsed() < IN_USE,
            _ => error.retryable,
        }
    }
}
