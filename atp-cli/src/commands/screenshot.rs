//! `atp screenshot`: pictures of screens, in files.

use atp_executor::{Operation, ScreenshotSpec};
use atp_protocol::screenshot::ScreenshotLimits;

use crate::args::ScreenshotArgs;
use crate::batch;
use crate::commands::selection;
use crate::context::Context;
use crate::problem::Failure;

pub(crate) async fn run(args: ScreenshotArgs, context: &Context) -> Result<u8, Failure> {
    let limits = ScreenshotLimits::default();
    let spec = ScreenshotSpec { folder: args.directory, screen: args.screen, limits };
    batch::run(selection(args.targets), Operation::Screenshot(spec), context).await
}
