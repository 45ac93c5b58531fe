//! What is wrong with a configuration.

use std::fmt;

use crate::key_text;

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// One entry for each value or source that cannot be used.
    pub problems: Vec<ConfigProblem>,
}

/// A value or a source that cannot be used. Its text is a sentence that says where and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, as it is written in a file: `pool.max_connections_per_host`. Empty where a source as a whole
    /// cannot be read.
    pub path: String,
    /// Where the value was set: `FILE:LINE`, the name of a variable; none for one set in code.
    pub origin: Option<String>,
    /// What is wrong, with the key, and what would be right.
    pub problem: String,
    /// What can be tried; for an unknown key, the nearest known one.
    pub hint: Option<String>,
}

impl ConfigProblem {
    /// A problem with the value at a key, from that origin.
    pub fn new(path: impl Into<String>, origin: Option<String>, problem: impl Into<String>) -> Self {
        ConfigProblem { path: path.into(), origin, problem: problem.into(), hint: None }
    }

    /// The same problem, where the configuration it is in is a section of a larger whole.
    pub fn below(self, section: &[&str]) -> Self {
        let section = key_text(section);
        let path = [section.as_str(), &self.path].join(".").trim_end_matches('.').to_owned();
        ConfigProblem { path, problem: format!("in `{section}`: {}", self.problem), ..self }
    }

    /// Adds what can be tried.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for ConfigProblem {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// `Ok` if there is no problem.
    pub fn unless_empty(problems: Vec<ConfigProblem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}
