//! Text for terminals: text from guests, daemons and VM names is made safe, and the styles of this program have
//! names.

use anstyle::{AnsiColor, Style};
pub(crate) use atp_executor::text::{block, is_unsafe, line, stream_block};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorMode {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Sets whether stdout and stderr are coloured from now on. With `auto` they are coloured on a terminal, unless
/// `NO_COLOR` is set.
pub(crate) fn set_colors(mode: ColorMode) {
    match mode {
        ColorMode::Auto => anstream::ColorChoice::Auto,
        ColorMode::Always => anstream::ColorChoice::Always,
        ColorMode::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Headings of tables and of groups of targets.
pub(crate) const HEADING: Style = Style::new().bold();
/// The word `error`, and unsuccessful states.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// The word `hint`.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Less important text.
pub(crate) const DIM: Style = Style::new().dimmed();

/// The text in a style, with a reset after it.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
