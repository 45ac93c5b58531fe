//! A process in the guest, independent of the carrier that started it.

use tokio::time::Instant;
use uuid::Uuid;

use super::spec::{
    CMD, for_windows, is_for_windows, is_launched, launch_failure, name, to_command, to_windows_command,
};
use super::spool::Spool;
use super::{ExecOutput, ExecPolicy, ExecSpec, poll};
use crate::carrier::Carrier;
use crate::error::{ProtocolError, Result};

/// A mark that no program knows.
fn new_mark() -> String {
    Uuid::new_v4().simple().to_string()
}

/// A program that was started in a guest.
///
/// It belongs to the guest's agent, not to a connection: if the connection to the VM breaks, the agent can be asked
/// over another carrier, by the process id. Dropping it leaves the program running and the files of its output in
/// place.
#[derive(Debug)]
pub struct Process {
    program: String,
    pid: i64,
    /// The mark of the launcher, if that started it.
    mark: Option<String>,
    spool: Option<Spool>,
    /// Its result. The agent forgets a process after it has reported its end.
    ended: Option<ExecOutput>,
}

impl Process {
    pub(super) async fn start(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<Self> {
        if is_for_windows(spec) {
            // What is wrong with its paths is found there.
            let spec = for_windows(spec).unwrap_or_else(|| spec.clone());
            return Process::start_on_windows(carrier, &spec, deadline).await;
        }
        let spool = spec.spool.as_deref().map(Spool::new);
        let mark = new_mark();
        let command = to_command(spec, spool.as_ref().map(Spool::folder), &mark)?;
        // The launcher shell is not the program that the user named.
        let program = if is_launched(spec) { name(spec) } else { &command.path };
        let pid = match poll::started(carrier, &command, program, deadline).await {
            // Nothing was started, and by now it is known what the guest is.
            Err(error @ ProtocolError::NoShell { is_windows: true, .. })
                if spec.shell || is_launched(spec) =>
            {
                let Some(spec) = for_windows(spec) else { return Err(error) };
                return Process::start_on_windows(carrier, &spec, deadline).await;
            }
            started => started?,
        };
        let mark = Some(mark).filter(|_| is_launched(spec));
        Ok(Process { program: program.to_owned(), pid, mark, spool, ended: None })
    }

    async fn start_on_windows(carrier: &impl Carrier, spec: &ExecSpec, deadline: Instant) -> Result<Self> {
        let spool = spec.spool.as_deref().map(Spool::new);
        let mark = new_mark();
        let command = to_windows_command(spec, spool.as_ref().map(Spool::folder), &mark)?;
        let program = if spec.shell { CMD.0 } else { &spec.program };
        let pid = poll::started(carrier, &command, program, deadline).await?;
        Ok(Process { program: program.to_owned(), pid, mark: Some(mark), spool, ended: None })
    }

    /// Its process id in the guest.
    pub fn pid(&self) -> i64 {
        self.pid
    }

    /// Whether it has files in the guest, which [`discard`](Self::discard) removes.
    pub fn has_files(&self) -> bool {
        self.spool.is_some()
    }

    /// The error to report if its result could not be queried.
    pub fn lost(&self, source: ProtocolError) -> ProtocolError {
        let (program, pid, source) = (self.program.clone(), self.pid, Box::new(source));
        match self.ended {
            None => ProtocolError::ResultLost { program, pid, source },
            Some(_) => ProtocolError::OutputLost { program, pid, source },
        }
    }

    /// Waits for its end, until `deadline` at the latest, and fetches its output.
    ///
    /// After an error the call can be repeated, over the same carrier or another one: what is known and fetched is
    /// kept. A caller that gives up calls [`discard`](Self::discard).
    ///
    /// # Errors
    /// As [`run`](super::run). After [`ProcessLost`](ProtocolError::ProcessLost) and
    /// [`ExecFailed`](ProtocolError::ExecFailed) another call is useless.
    ///
    /// Dropping the future ends the queries. An answer that is on its way at that time is lost, together with the
    /// output in it.
    pub async fn wait(
        &mut self,
        carrier: &impl Carrier,
        policy: &ExecPolicy,
        deadline: Instant,
    ) -> Result<ExecOutput> {
        let work_deadline = self.spool.as_ref().map_or(deadline, |_| policy.spool.before(deadline));
        if self.ended.is_none() {
            let ended = poll::ended(carrier, self.pid, &self.program, &policy.polling, work_deadline).await?;
            self.ended = Some(ended);
        }
        let mut output = self.ended.clone().unwrap_or_default();
        if let Some(mark) = &self.mark
            && let Some(reason) = launch_failure(output.exit_code, &output.stderr, mark)
        {
            let program = self.program.clone();
            return Err(ProtocolError::ExecFailed { program, reason, libvirt: None });
        }
        if let Some(spool) = &mut self.spool {
            if let Err(source) = spool.fetch(carrier, &policy.spool, work_deadline).await {
                return Err(self.lost(source));
            }
            spool.remove(carrier, &policy.spool, deadline).await;
            spool.take(&mut output);
        }
        Ok(output)
    }

    /// Removes the files of its output in the guest, if the guest can be reached. The program is not touched.
    ///
    /// Ends by `deadline`, and earlier if the guest does not answer. Dropping the future may leave files in the guest.
    pub async fn discard(&mut self, carrier: &impl Carrier, policy: &ExecPolicy, deadline: Instant) {
        if let Some(spool) = &mut self.spool {
            spool.remove(carrier, &policy.spool, deadline).await;
        }
    }
}
