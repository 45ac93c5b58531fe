//! `atp screenshot`: pictures of screens, in files.

use std::path::PathBuf;

use atp_executor::{Data, Operation, Outcome, ScreenshotSpec};
use atp_protocol::screenshot::ScreenshotLimits;
use clap::Args;

use super::verb::Run;
use crate::args::TargetArgs;
use crate::args::number::parse_number;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::Failure;
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};

const EXAMPLES: &str = "\
Examples:
  atp screenshot 'kiosk-*' -d shots
  atp screenshot 'node7/' --state running -d /tmp/node7 -o json";

/// Save screenshots of VMs, one PNG file for each
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScreenshotArgs {
    #[command(flatten)]
    targets: TargetArgs,

    /// The folder for the screenshots, which are HOST/VM.png in it. Existing files are replaced
    #[arg(short, long, value_name = "DIR")]
    directory: PathBuf,

    /// The screen of the VMs, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true, value_parser = parse_number)]
    screen: u32,
}

impl Run for ScreenshotArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let limits = ScreenshotLimits::default();
        let spec = ScreenshotSpec { folder: self.directory, screen: self.screen, limits };
        Ok(Batch {
            selection: self.targets.selection(),
            operation: Operation::Screenshot(spec),
            dry_run: would_write,
            forms: Forms::new(screenshots, &["file", "width", "height", "bytes"]),
        })
    }
}

fn would_write(operation: &Operation) -> Vec<String> {
    let Operation::Screenshot(spec) = operation else { return Vec::new() };
    let (folder, screen) = (spec.folder.display(), spec.screen);
    vec![format!("screenshot would write: {folder}/HOST/VM.png, of screen {screen}")]
}

fn screenshots(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "FILE", "SIZE", "TIME"]);
    for outcome in outcomes {
        match &outcome.data {
            Some(Data::Screenshot(picture)) => rows.add_outcome(
                outcome,
                &[
                    vm(outcome),
                    &status(outcome),
                    &picture.file.to_string_lossy(),
                    &format!("{}x{}", picture.width, picture.height),
                    &time(outcome),
                ],
            ),
            _ => {
                rows.add_outcome(outcome, &[vm(outcome), &status(outcome), NOTHING, NOTHING, &time(outcome)])
            }
        }
    }
    rows.finish()
}
