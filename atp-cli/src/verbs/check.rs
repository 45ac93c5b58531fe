//! `atp check`: scenario files are checked, without hosts.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::verb::Verb;
use crate::args::{GlobalArgs, pair};
use crate::context::Context;
use crate::exit;
use crate::json;
use crate::output::{Output, OutputFormat};
use crate::problem::{Failure, Problem};
use crate::render::csv;
use crate::scenarios::{self, Checked};

const EXAMPLES: &str = "\
Examples:
  atp check smoke.yaml
  atp check scenarios/ -o json";

/// Check scenario files, and report all that is wrong with them; connects to nothing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Scenario files; of a folder, all files in it that end in .yaml or .yml
    #[arg(value_name = "SCENARIO", required = true)]
    scenarios: Vec<PathBuf>,

    /// Set a variable of the scenarios to another value; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair("expected NAME=VALUE, such as targets=web-*"))]
    set: Vec<(String, String)>,
}

impl Verb for CheckArgs {
    fn check(&self, options: &GlobalArgs) -> Result<(), Problem> {
        options.refuse_reports()
    }

    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let checked = scenarios::check(&self.scenarios, &self.set)?;
        let problems: Vec<_> = checked.iter().flat_map(Checked::problems).collect();
        context.console.problems(&problems);
        let mut output = Output::stdout();
        match context.settings.output {
            OutputFormat::Table => {
                for file in checked.iter().filter(|file| file.is_right()) {
                    output.write(&format!("ok: {}\n", file.path.display()));
                }
            }
            OutputFormat::Csv => {
                output.write("file,status\n");
                for file in &checked {
                    let status = if file.is_right() { "ok" } else { "failed" };
                    let cells = [file.path.display().to_string().into(), status.into()];
                    output.write(&csv::row(cells.into_iter()));
                }
            }
            OutputFormat::Name => {
                for file in checked.iter().filter(|file| file.is_right()) {
                    output.write(&format!("{}\n", file.path.display()));
                }
            }
            OutputFormat::Json => {
                output.write(&json::array(&checked.iter().map(as_json).collect::<Vec<_>>()));
            }
            OutputFormat::Jsonl => checked.iter().for_each(|file| output.write(&json::line(&as_json(file)))),
        }
        let written = output.end(&context.console);
        Ok(if problems.is_empty() { written } else { exit::USAGE })
    }
}

fn as_json(file: &Checked) -> serde_json::Value {
    let errors = file.scenario.as_ref().err().into_iter().flatten();
    let errors = errors.map(|error| {
        let path = file.path_of(error).display().to_string();
        let (line, column) = (error.place.map(|place| place.line), error.place.map(|place| place.column));
        json!({"file": path, "line": line, "column": column, "message": error.message, "hint": error.hint})
    });
    json!({
        "file": file.path.display().to_string(),
        "status": if file.is_right() { "ok" } else { "failed" },
        "problems": errors.collect::<Vec<_>>(),
    })
}
