//! The steps of a scenario on one target, one after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atp_api::{
    ConsoleReport, Data, ExecReport, Isolation, OutcomeError, RevertSpec, ScenarioReport, ScreenshotLimits,
    Status, StepReport, millis,
};
use atp_protocol::files::FileError;
use atp_protocol::{LibvirtCarrier, ProtocolError, files, screenshot};
use atp_transport::domain::{DomainInfo, DomainState};
use atp_transport::{Effect, ErrorKind, HostId};
use regex::Regex;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Scenario;
use super::assertion::{Assertion, FileAssertion, Matcher};
use super::console::ConsoleWatch;
use super::evidence::{self, Evidence};
use super::places::FilePlaces;
use super::report::{
    after_revert, completion, has_failed, not_begun, partial, partial_in_evidence, partial_in_revert,
    partial_in_teardown, undone, worst,
};
use super::screen::{ScreenAssertion, read_image};
use super::step::{Action, Step};
use super::template::{Values, fill, fill_path};
use crate::verbs::completion::Completion;
use crate::verbs::facts::is_reached;
use crate::verbs::job::Job;
use crate::verbs::relocation::{Relocation, has_left, may_go_on, relocation};
use crate::verbs::{self, Operation};

/// The most bytes of a file whose content is checked: they are in memory.
const MOST_OF_FILE: u64 = 16 << 20;

/// Takes a target through the steps of a scenario, and in any case through its teardown.
pub(in crate::verbs) fn perform<'a>(
    job: &'a Job,
    domain: &'a DomainInfo,
    scenario: &'a Scenario,
) -> Pin<Box<dyn Future<Output = Completion> + Send + 'a>> {
    // In a box, as its steps are operations again.
    Box::pin(async move {
        let attempt = &job.attempt;
        let mut progress = StepRunner::new(job, domain, scenario);
        let mut report = progress.report(scenario);
        // Of what is done to the VM besides its steps.
        let mut effect = Effect::None;
        if let Some(Isolation { snapshot, .. }) = report.isolated.clone() {
            attempt.if_cut_off(partial_in_revert(&report, &snapshot));
            let reverted = progress.revert(&snapshot).await;
            let restored = reverted.status.is_success();
            report.isolated = Some(Isolation { snapshot, restored });
            if !restored {
                let mut effect = reverted.effect;
                if let Some(evidence) = &scenario.evidence {
                    attempt.if_cut_off(partial_in_evidence(&report, &reverted));
                    if evidence.console.is_some() {
                        progress.console = Some(ConsoleWatch::begin(&progress.job, domain).await);
                    }
                    effect = worst(effect, progress.collect(evidence, &mut report).await);
                    report.console = progress.console_report();
                }
                let failed = Completion { effect, ..not_begun(reverted, report) };
                return progress.job.ended(failed);
            }
            effect = reverted.effect;
        }
        // A VM has the consoles of its own process: what is written before it is taken back is of another.
        if scenario.needs_console() {
            progress.console = Some(ConsoleWatch::begin(&progress.job, domain).await);
        }
        let mut is_stopped = false;
        for step in scenario.steps() {
            if attempt.is_stop_requested() {
                is_stopped = true;
                break;
            }
            touched(&mut report);
            attempt.if_cut_off(partial(&report, step));
            let done = progress.step(step).await;
            let has_failed = has_failed(&done);
            report.steps.push(done);
            if has_failed {
                break;
            }
        }
        let has_failed = report.steps.last().is_some_and(has_failed);
        if let Some(evidence) = &scenario.evidence
            && (has_failed || evidence.always)
        {
            // Its commands may change the VM.
            touched(&mut report);
            effect = worst(effect, progress.collect(evidence, &mut report).await);
        }
        progress.last = None;
        progress.is_last_skipped = false;
        progress.is_teardown = true;
        for step in scenario.teardown() {
            touched(&mut report);
            attempt.if_cut_off(partial_in_teardown(&report, step));
            report.teardown.push(progress.step(step).await);
        }
        report.console = progress.console_report();
        let Some(isolation) = &mut report.isolated else {
            let ended = completion(report, is_stopped);
            return progress.job.ended(Completion { effect: worst(ended.effect, effect), ..ended });
        };
        let mut reverted = None;
        if !isolation.restored {
            let name = isolation.snapshot.clone();
            attempt.if_cut_off(partial_in_revert(&report, &name));
            let done = progress.revert(&name).await;
            report.isolated = Some(Isolation { snapshot: name, restored: done.status.is_success() });
            reverted = Some(done);
        }
        let ended = completion(report, is_stopped);
        let ended = Completion { effect: worst(ended.effect, effect), ..ended };
        progress.job.ended(match reverted {
            Some(reverted) => after_revert(ended, reverted),
            None => ended,
        })
    })
}

/// Takes a VM back to the snapshot of an isolated scenario that an earlier run began on it, and did not end. The steps are not
/// repeated.
pub(in crate::verbs) fn undo<'a>(
    job: &'a Job,
    domain: &'a DomainInfo,
    scenario: &'a Scenario,
) -> Pin<Box<dyn Future<Output = Completion> + Send + 'a>> {
    Box::pin(async move {
        let mut progress = StepRunner::new(job, domain, scenario);
        progress.is_teardown = true;
        let mut report = progress.report(scenario);
        let name = report.isolated.as_ref().map(|isolation| isolation.snapshot.clone()).unwrap_or_default();
        let reverted = progress.revert(&name).await;
        let restored = reverted.status.is_success();
        report.isolated = Some(Isolation { snapshot: name, restored });
        progress.job.ended(Completion { data: Some(Data::Scenario(report)), ..undone(reverted) })
    })
}

/// Notes that a step may change the VM from now on.
fn touched(report: &mut ScenarioReport) {
    if let Some(isolation) = &mut report.isolated {
        isolation.restored = false;
    }
}

/// Carries out the steps of a scenario on one target.
struct StepRunner<'a> {
    /// The work on the host where the VM is.
    job: Job,
    domain: &'a DomainInfo,
    values: Values,
    /// The values of the file.
    own: Values,
    /// Where files are, if not where the steps say.
    places: Option<&'a FilePlaces>,
    /// The VM's console, if a step or the evidence needs it.
    console: Option<ConsoleWatch>,
    /// What the last step yielded that was no assert.
    last: Option<Data>,
    /// Whether that step was skipped, so that there is nothing to check.
    is_last_skipped: bool,
    /// Whether it is in the teardown, which is carried out also when the run was asked to stop.
    is_teardown: bool,
}

impl<'a> StepRunner<'a> {
    fn new(job: &Job, domain: &'a DomainInfo, scenario: &'a Scenario) -> Self {
        let values = scenario.values(&job.target.host, &domain.name, &domain.uuid.to_string());
        let job = Job { is_step: true, ..job.clone() };
        let places = scenario.places.as_ref();
        StepRunner {
            job,
            domain,
            values,
            own: scenario.variables.clone(),
            places,
            console: None,
            last: None,
            is_last_skipped: false,
            is_teardown: false,
        }
    }

    /// The report before anything was done.
    fn report(&self, scenario: &Scenario) -> ScenarioReport {
        // The variables of its name are those of the file, which all have a value.
        let name = scenario.isolate.as_ref().map(|name| name.fill(&self.values).unwrap_or_default());
        let isolated = name.map(|snapshot| Isolation { snapshot, restored: false });
        ScenarioReport { isolated, ..scenario.not_begun() }
    }

    /// Takes the VM back to a snapshot.
    async fn revert(&mut self, snapshot: &str) -> Completion {
        let deadline = self.job.deadline().min(Instant::now() + self.job.policy.timeout);
        let operation = Operation::SnapshotRevert(RevertSpec::new(snapshot));
        let (completion, _) = self.operate(operation, deadline).await;
        if let Some(host) = &completion.ended_on {
            self.go_on_at(host).await;
        }
        completion
    }

    fn console_report(&self) -> Option<Box<ConsoleReport>> {
        self.console.as_ref().map(|console| Box::new(console.report()))
    }

    /// Collects the evidence. Returns the effect of its commands.
    async fn collect(&self, evidence: &Evidence, report: &mut ScenarioReport) -> Effect {
        let values = (&self.values, &self.own, self.places);
        let console = self.console.as_ref();
        let (collected, sent) = evidence::collect(evidence, &self.job, self.domain, console, values).await;
        report.evidence = Some(Box::new(collected));
        sent
    }

    /// Carries out a step with the variables that only it has, unless a condition of it does not hold.
    async fn step(&mut self, step: &Step) -> StepReport {
        let started = Instant::now();
        let bound = step.bind(&mut self.values, &mut self.own);
        let holds = match &step.action {
            Action::Assert(assertion) if self.is_last_skipped && assertion.looks_back() => Ok(false),
            _ => step.when.iter().try_fold(true, |holds, when| Ok(holds && when.holds(&self.values)?)),
        };
        let report = match (holds, bound) {
            (Ok(false), _) => {
                self.is_last_skipped |= !matches!(step.action, Action::Assert(_));
                skipped(step)
            }
            (Ok(true), Ok(())) => self.carry_out(step, started).await,
            (Err(reason), _) | (_, Err(reason)) => report_of(step, unfit(reason), 0, started),
        };
        for (name, _) in step.bindings.iter() {
            self.values.remove(name);
            self.own.remove(name);
        }
        report
    }

    /// Carries out a step, and repeats it as it says. What is known to have ended is repeated whatever it has done; what may still go
    /// on in the VM, or reads files on this machine, is not.
    async fn carry_out(&mut self, step: &Step, started: Instant) -> StepReport {
        let mut repetitions = step.retry.map_or(0, |retry| retry.times);
        let pause = step.retry.map_or(Duration::ZERO, |retry| retry.every);
        let (mut effect, mut attempts) = (Effect::None, 0);
        loop {
            let (completion, made) = self.once(step).await;
            attempts += made;
            effect = worst(effect, completion.effect);
            let completion = Completion { effect, ..completion };
            let is_over = repetitions == 0
                || completion.status.is_success()
                || completion.effect == Effect::Unknown
                || completion.status == Status::Cancelled
                || completion.error.as_ref().is_some_and(|error| error.kind == ErrorKind::DeadlinePassed)
                || self.stays_wrong(&step.action)
                || Instant::now() + pause >= self.job.deadline();
            if is_over || !self.pauses(pause).await {
                return self.ended(step, completion, attempts, started).await;
            }
            repetitions -= 1;
        }
    }

    /// Whether an assertion is wrong for good: of what the step before yielded, or of a fault that the kernel has reported.
    fn stays_wrong(&self, action: &Action) -> bool {
        let Action::Assert(assertion) = action else { return false };
        let console = self.console.as_ref();
        !differences(assertion, self.last.as_ref(), None).is_empty()
            || console.is_some_and(|console| console.stays_wrong(&assertion.no_fault_of))
    }

    /// Waits before a repetition. Returns whether it was not asked to stop.
    async fn pauses(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.job.attempt.stop_requested(), if !self.is_teardown => false,
            () = sleep(pause) => true,
        }
    }

    /// Carries out a step once, in its own time. Returns the number of attempts that it took.
    async fn once(&mut self, step: &Step) -> (Completion, u32) {
        let time = step.timeout.unwrap_or(self.job.policy.timeout);
        let deadline = self.job.deadline().min(Instant::now() + time);
        let (completion, attempts) = match &step.action {
            Action::Do(operation) => {
                let filled = operation.fill(&self.values, &self.own, self.places);
                match timeout_at(deadline, filled).await {
                    Ok(Ok(operation)) => self.operate(operation, deadline).await,
                    Ok(Err(message)) => (unfit(message), 0),
                    Err(_) => (files_late(), 0),
                }
            }
            Action::Assert(assertion) => (self.check(assertion, deadline).await, 1),
            Action::AwaitConsole(line) => (self.await_console(line, deadline).await, 1),
        };
        if let Some(host) = &completion.ended_on {
            self.go_on_at(host).await;
        }
        (completion, attempts)
    }

    /// Keeps what a step has yielded, and reports it.
    async fn ended(
        &mut self,
        step: &Step,
        completion: Completion,
        attempts: u32,
        started: Instant,
    ) -> StepReport {
        if completion.status.is_success() {
            // A VM that was started by a step can move as well.
            self.job.was_active = true;
        }
        let completion = if step.exit_is_judged { leave_exit_code(completion) } else { completion };
        if !matches!(step.action, Action::Assert(_)) {
            self.last.clone_from(&completion.data);
            self.is_last_skipped = false;
        }
        if let (Some(name), true) = (&step.capture, completion.status.is_success()) {
            self.values.insert(name.clone(), yielded(completion.data.as_ref()));
        }
        report_of(step, completion, attempts, started)
    }

    /// Carries out an operation, and repeats it if that is allowed.
    async fn operate(&self, operation: Operation, deadline: Instant) -> (Completion, u32) {
        let operation = Arc::new(operation);
        let mut pause = self.job.policy.retry_initial;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let completion = self.attempt(&operation, deadline).await;
            let is_last = attempts > self.job.policy.retries || Instant::now() + pause >= deadline;
            let is_stopped = !self.is_teardown && self.job.attempt.is_stop_requested();
            if is_last || is_stopped || !completion.may_repeat() {
                return (completion, attempts);
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.job.policy.retry_max);
        }
    }

    async fn attempt(&self, operation: &Arc<Operation>, deadline: Instant) -> Completion {
        let ends_on_stop = !self.is_teardown && operation.facts().ends_on_stop;
        let step = self.job.attempt.part(deadline);
        let (operation, job) = (Arc::clone(operation), Job { attempt: step.clone(), ..self.job.clone() });
        // A separate task, so that a panic ends only this task and the teardown is still carried out.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let completion = verbs::perform(&operation, &job).await;
            (completion, Instant::now())
        }));
        // When the run is aborted, all of this is dropped.
        let never = CancellationToken::new();
        let ended = step.supervise(task, self.job.policy.grace, &never);
        tokio::select! {
            (completion, _) = ended => completion,
            () = self.job.attempt.stop_requested(), if ends_on_stop => {
                verbs::stopped(&Job { attempt: step.clone(), ..self.job.clone() })
            }
        }
    }

    /// Goes on at the host where a step has followed the VM to, unless nothing may be done to it there: a look follows it
    /// everywhere.
    async fn go_on_at(&mut self, host: &HostId) {
        if *host != self.job.target.host && may_go_on(&self.job, self.domain, host).await {
            self.job = self.job.at(host.clone());
        }
    }

    async fn check(&mut self, assertion: &Assertion, deadline: Instant) -> Completion {
        let state = match assertion.state {
            Some(_) => match self.state(deadline).await {
                Ok(state) => Some(state),
                Err(error) => return Completion::failed(Status::Failed, Effect::None, error),
            },
            None => None,
        };
        let mut found = differences(assertion, self.last.as_ref(), state);
        if let (Some(console), false) = (&mut self.console, assertion.no_fault_of.is_empty()) {
            match console.differences(&assertion.no_fault_of, deadline).await {
                Ok(differences) => found.extend(differences),
                Err(error) => return Completion::failed(Status::Failed, Effect::None, error),
            }
        }
        if let Some(file) = &assertion.file {
            match self.file_differences(file, deadline).await {
                Ok(differences) => found.extend(differences),
                Err(completion) => return *completion,
            }
        }
        if let Some(screen) = &assertion.screen {
            match self.screen_differences(screen, deadline).await {
                Ok(differences) => found.extend(differences),
                Err(completion) => return *completion,
            }
        }
        match found {
            differences if differences.is_empty() => Completion::ok(Effect::None, None),
            differences => {
                let error = OutcomeError::new(ErrorKind::AssertionFailed, differences.join("; "))
                    .with_hint("the data of the previous step has its result");
                Completion::failed(Status::Failed, Effect::None, error)
            }
        }
    }

    /// Waits for a line of the console. A request to stop ends it at once, except in the teardown.
    async fn await_console(&mut self, line: &Matcher, deadline: Instant) -> Completion {
        let attempt = self.job.attempt.part(deadline);
        let ends_on_stop = !self.is_teardown;
        // There is one whenever a step waits for it.
        let Some(console) = &mut self.console else { return unfit("the console is not captured".to_owned()) };
        tokio::select! {
            biased;
            completion = console.wait(line, deadline) => completion,
            () = attempt.stop_requested(), if ends_on_stop => {
                verbs::stopped(&Job { attempt: attempt.clone(), ..self.job.clone() })
            }
        }
    }

    /// Returns how a file in the guest differs from what was expected. The error is how the step ends if the guest cannot be asked.
    async fn file_differences(
        &self,
        expected: &FileAssertion,
        deadline: Instant,
    ) -> Result<Option<String>, Box<Completion>> {
        let path = &fill(&expected.path, &self.values).map_err(|reason| Box::new(unfit(reason)))?;
        let job = Job { attempt: self.job.attempt.part(deadline), ..self.job.clone() };
        let uuid = self.domain.uuid;
        let looked = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            let carrier = LibvirtCarrier::new(&connection, uuid);
            match expected.matches {
                Some(_) => files::read(&carrier, path, MOST_OF_FILE, deadline).await,
                None => files::stat(&carrier, path, deadline).await.map(|_| Vec::new()),
            }
        });
        let found = match looked.await {
            Ok(content) => Some(content),
            Err(ProtocolError::File(FileError::NotFound { .. })) => None,
            Err(error) => return Err(Box::new(job.failure(&error))),
        };
        Ok(match (&found, &expected.matches) {
            (None, _) if expected.exists => Some(format!("{path} is not there")),
            (Some(_), _) if !expected.exists => Some(format!("{path} is there")),
            (Some(content), Some(matcher)) if !matcher.0.is_match(&String::from_utf8_lossy(content)) => {
                Some(format!("{path} does not match /{}/", matcher.0))
            }
            _ => None,
        })
    }

    /// Returns how the VM's screen differs from a reference. The error is how the step ends if they cannot be compared.
    async fn screen_differences(
        &self,
        expected: &ScreenAssertion,
        deadline: Instant,
    ) -> Result<Vec<String>, Box<Completion>> {
        let unfit = |reason| Box::new(unfit(reason));
        let path = fill_path(&expected.image, &self.values, &self.own).map_err(unfit)?;
        let path = self.places.map_or(Ok(path.clone()), |places| places.source(&path)).map_err(unfit)?;
        let job = Job { attempt: self.job.attempt.part(deadline), ..self.job.clone() };
        let uuid = self.domain.uuid;
        let taken = job.manager.execute_on_host_with(job.host(), job.options(), |connection| async move {
            screenshot::take(&connection, uuid, 0, ScreenshotLimits::default(), deadline).await
        });
        let screen = taken.await.map_err(|error: ProtocolError| Box::new(job.failure(&error)))?.png;
        let expected = expected.clone();
        // Millions of pixels take a while.
        let compared = spawn_blocking(move || expected.differences(&read_image(&path)?, &screen));
        let compared = timeout_at(deadline, compared).await.map_err(|_| Box::new(files_late()))?;
        compared.unwrap_or_else(|error| Err(error.to_string())).map_err(unfit)
    }

    /// Returns the VM's state now, where it is.
    async fn state(&mut self, deadline: Instant) -> Result<DomainState, OutcomeError> {
        let uuid = self.domain.uuid;
        let mut place = Job { attempt: self.job.attempt.part(deadline), ..self.job.clone() };
        loop {
            let looked =
                place.manager.execute_on_host_with(place.host(), place.options(), |connection| async move {
                    connection.domain_info(uuid).await
                });
            let now = looked.await;
            let is_gone = match &now {
                Ok(now) => has_left(now),
                Err(error) => error.kind() == ErrorKind::VmNotFound,
            };
            if is_gone && let Relocation::To(host) = relocation(&place, self.domain).await {
                place = place.at(host);
                continue;
            }
            self.go_on_at(&place.target.host).await;
            return now.map(|now| now.state).map_err(|error| OutcomeError::from(&error));
        }
    }
}

fn report_of(step: &Step, completion: Completion, attempts: u32, started: Instant) -> StepReport {
    StepReport {
        name: step.name.clone(),
        op: step.op().into(),
        status: completion.status,
        effect: completion.effect,
        attempts,
        duration_ms: millis(started.elapsed()),
        data: completion.data,
        error: completion.error,
    }
}

/// The report of a step of which a condition does not hold.
fn skipped(step: &Step) -> StepReport {
    let completion = Completion { status: Status::Skipped, ..Completion::ok(Effect::None, None) };
    report_of(step, completion, 0, Instant::now())
}

/// The completion of a step that cannot be carried out, as something in it has no value or a wrong one.
fn unfit(message: String) -> Completion {
    Completion::failed(Status::Failed, Effect::None, OutcomeError::new(ErrorKind::StepUnfit, message))
}

/// The completion of a step whose time was over before its files on this machine were read. What reads them goes on, and has a thread:
/// the step is not repeated.
fn files_late() -> Completion {
    let message = "the deadline passed before the files of the step were read on this machine";
    let error = OutcomeError::new(ErrorKind::DeadlinePassed, message)
        .with_hint("check that the disk answers on which they are, or allow more time");
    Completion::failed(Status::Timeout, Effect::None, error)
}

/// Counts a process that exited with another code than 0 as success: the next step judges it.
fn leave_exit_code(completion: Completion) -> Completion {
    match &completion.data {
        Some(Data::Exec(report)) if report.exit_code.is_some() => {
            Completion { status: Status::Ok, error: None, ..completion }
        }
        _ => completion,
    }
}

/// Returns what a step yielded as text: a process's standard output without trailing line ends, or JSON.
fn yielded(data: Option<&Data>) -> String {
    match data {
        Some(Data::Exec(report)) => {
            let text = report.stdout.lossy_text();
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        Some(Data::Reply(Value::String(text))) => text.clone(),
        Some(data) => serde_json::to_string(data).unwrap_or_default(),
        None => String::new(),
    }
}

/// Returns how the last step and the VM differ from what was expected.
fn differences(assertion: &Assertion, last: Option<&Data>, state: Option<DomainState>) -> Vec<String> {
    let report: Option<&ExecReport> = match last {
        Some(Data::Exec(report)) => Some(report),
        _ => None,
    };
    let mut differences = Vec::new();
    if let Some(expected) = assertion.exit_code {
        match report.and_then(|report| report.exit_code) {
            Some(code) if code == expected => {}
            Some(code) => differences.push(format!("the exit code is {code}, not {expected}")),
            None => differences.push(format!("there is no exit code; {expected} was expected")),
        }
    }
    let mut compare = |what: &str, text: String, regex: &Regex| {
        if !regex.is_match(&text) {
            differences.push(format!("{what} does not match /{regex}/"));
        }
    };
    if let Some(matcher) = &assertion.stdout {
        compare("the output", yielded(last), &matcher.0);
    }
    if let Some(matcher) = &assertion.stderr {
        let text = report.map(|report| report.stderr.lossy_text().into_owned());
        compare("its standard error", text.unwrap_or_default(), &matcher.0);
    }
    if let (Some(expected), Some(state)) = (assertion.state, state)
        && !is_reached(expected, state)
    {
        differences.push(format!("the VM is {state}, not {expected}"));
    }
    differences
}
