//! `atp config show`.

use std::borrow::Cow;

use anstyle::Style;
use clap::Args;

use crate::args::GlobalArgs;
use crate::context::Context;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::render::csv;
use crate::render::table::Rows;
use crate::settings::Entry;
use crate::terminal;
use crate::verbs::verb::Verb;

const EXAMPLES: &str = "\
Examples:
  atp config show
  atp config show --timeout 5s -o json";

/// Print every setting with its value and origin; passwords in URIs are masked
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {}

impl Verb for ShowArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let entries = &context.settings.entries;
        let mut output = Output::stdout();
        match context.settings.output {
            OutputFormat::Table => output.write(&table(entries)),
            OutputFormat::Json => output.write(&json::array(entries)),
            OutputFormat::Csv => output.write(&csv_rows(entries)),
            OutputFormat::Name => entries.iter().for_each(|entry| output.write(&format!("{}\n", entry.key))),
            OutputFormat::Jsonl => entries.iter().for_each(|entry| output.write(&json::line(entry))),
        }
        Ok(output.end(&context.console))
    }
}

fn table(entries: &[Entry]) -> String {
    let mut rows = Rows::new(&["KEY", "VALUE", "ORIGIN"]);
    for entry in entries {
        let style = if entry.is_default() { terminal::DIM } else { Style::new() };
        rows.add(style, &[&entry.key, &entry.value.to_string(), &entry.origin]);
    }
    rows.finish()
}

fn csv_rows(entries: &[Entry]) -> String {
    let mut text = csv::row(["key", "value", "origin"].map(Cow::from).into_iter());
    for entry in entries {
        text.push_str(&csv::row(
            [Cow::from(entry.key.as_str()), csv::cell(&entry.value), entry.origin.as_str().into()]
                .into_iter(),
        ));
    }
    text
}
