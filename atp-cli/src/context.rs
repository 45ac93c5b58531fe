//! What every command works with: the settings, the console, and the options that are no settings.

use std::path::PathBuf;

use crate::console::Console;
use crate::settings::Settings;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) console: Console,
    /// A new file to note a run in.
    pub(crate) journal: Option<PathBuf>,
    /// A journal to go on from.
    pub(crate) resume: Option<PathBuf>,
    /// Show what would be done, and do nothing.
    pub(crate) dry_run: bool,
    /// A file for the outcomes as JUnit XML.
    pub(crate) junit: Option<PathBuf>,
    /// How much is logged on stderr; 0 is errors only.
    pub(crate) verbosity: u8,
    /// Consent was given on the command line.
    pub(crate) yes: bool,
}
