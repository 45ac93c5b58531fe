//! What every verb works with: the settings, the console, and the options that are not settings.

use std::path::PathBuf;

use crate::console::Console;
use crate::settings::{Settings, Sources};

/// What every verb works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    /// Where the settings come from, for a program that follows them.
    #[cfg_attr(not(feature = "serve"), expect(dead_code, reason = "only the service reads settings again"))]
    pub(crate) sources: Sources,
    pub(crate) console: Console,
    /// A new file for the journal of the run.
    pub(crate) journal: Option<PathBuf>,
    /// A journal to continue from.
    pub(crate) resume: Option<PathBuf>,
    /// Show what would be done, and do nothing.
    pub(crate) dry_run: bool,
    /// A file for the outcomes as JUnit XML.
    pub(crate) junit: Option<PathBuf>,
    /// A file for the report as a page.
    pub(crate) html: Option<PathBuf>,
    /// How much is logged to stderr; 0 is errors only.
    pub(crate) verbosity: u8,
    /// Consent was given on the command line.
    pub(crate) yes: bool,
}
