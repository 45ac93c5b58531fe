//! Errors for people: what is wrong, why, and what to try.

use std::error::Error;

use atp_executor::{JournalError, OutcomeError, PlanError};
use atp_transport::{ConfigProblem, Hint};

use crate::exit::{self, Signal};
use crate::words;

/// One problem, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong, and where.
    pub(crate) message: String,
    /// Its causes, the nearest first.
    pub(crate) causes: Vec<String>,
    /// What to try.
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// A problem without causes or a hint.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Adds an error and its sources as causes.
    pub(crate) fn because(self, error: &(dyn Error + 'static)) -> Self {
        self.because_of(anyhow::Chain::new(error))
    }

    fn because_of<'a>(mut self, causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> Self {
        self.causes.extend(causes.map(ToString::to_string));
        self
    }

    /// Adds a cause in words.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds a hint: what to try.
    pub(crate) fn hint(mut self, hint: impl Into<Hint>) -> Self {
        self.hint = Some(words::hint(&hint.into()));
        self
    }
}

impl From<ConfigProblem> for Problem {
    fn from(problem: ConfigProblem) -> Self {
        let message = problem.to_string();
        Problem::new(message)
            .hint(problem.hint.unwrap_or_else(|| "`atp config show` prints every setting".to_owned()))
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        let problem = Problem::new(error.to_string()).hint(error.hint());
        match error.source() {
            Some(source) => problem.because(source),
            None => problem,
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        Problem::new(error.to_string()).hint(error.hint())
    }
}

impl From<&OutcomeError> for Problem {
    fn from(error: &OutcomeError) -> Self {
        let problem = Problem { causes: error.causes.clone(), ..Problem::new(error.message.as_str()) };
        match &error.hint {
            Some(hint) => problem.hint(hint.clone()),
            None => problem,
        }
    }
}

impl From<&anyhow::Error> for Problem {
    fn from(error: &anyhow::Error) -> Self {
        Problem::new(error.to_string()).because_of(error.chain().skip(1))
    }
}

/// Why a verb ended without a run to report.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments, the configuration or the answer to a prompt do not allow it. Nothing was done.
    Usage(Vec<Problem>),
    /// A target failed, or its host did. Nothing was done.
    Target(Problem),
    /// The selectors, all of them globs, matched nothing.
    NoMatch(Problem),
    /// A signal came before there was anything to report.
    Interrupted(Signal),
    /// A bug in this program, or a failure of the system that it cannot work without.
    Bug(anyhow::Error),
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::Target(_) => exit::TARGETS_FAILED,
            Failure::NoMatch(_) => exit::MATCHED_NOTHING,
            Failure::Interrupted(signal) => signal.exit_code(),
            Failure::Bug(_) => exit::BUG,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Usage(vec![problem])
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Failure::Usage(problems)
    }
}
