//! `atp cp`: files into guests and out of them.

use std::path::Path;
use std::sync::Arc;

use atp_executor::{Operation, PullSpec, PushSpec, Selection, Selector};
use atp_protocol::files::Source;

use crate::args::{CopyArgs, Side};
use crate::batch;
use crate::commands::narrowed;
use crate::context::Context;
use crate::problem::{Failure, Problem};

pub(crate) async fn run(args: CopyArgs, context: &Context) -> Result<u8, Failure> {
    let (selector, operation) = match (args.source, args.destination) {
        (Side::Here(path), Side::Guests(selector, destination)) => {
            let source = Source::open(&path).await.map_err(|error| {
                Problem::new(format!("{} cannot be copied", path.display())).because(&error)
            })?;
            let push = PushSpec { source: Arc::new(source), local_path: path, destination };
            (selector, Operation::Push(push))
        }
        (Side::Guests(..), Side::Here(destination)) if destination.as_os_str() == "-" => {
            let problem = Problem::new("a copy goes to a file, and `-` is none");
            return Err(problem
                .hint("to read a file's content: `atp exec SEL --spool -- cat PATH`; a file named so is ./-")
                .into());
        }
        (Side::Guests(selector, path), Side::Here(destination)) => {
            (selector, Operation::Pull(PullSpec { path, destination, separate: false }))
        }
        (Side::Here(source), Side::Here(destination)) => {
            if let Some((selector, path)) = relative(&source).or_else(|| relative(&destination)) {
                let problem = Problem::new(format!("{path:?}: a path in guests has to be absolute"));
                return Err(problem
                    .hint(format!(
                        "write {selector}:/{path}; a file here whose name has a ':' is ./{selector}:{path}"
                    ))
                    .into());
            }
            let problem = Problem::new("both paths are here, and one has to be in guests");
            return Err(problem.hint("write SEL:/PATH, as in `atp cp file 'web-*:/etc/file'`").into());
        }
        (Side::Guests(..), Side::Guests(..)) => {
            let problem = Problem::new("both paths are in guests, and one has to be here");
            return Err(problem.hint("copy the file here first, and from here to the others").into());
        }
    };
    batch::run(narrowed(Selection::of([selector]), args.narrow), operation, context).await
}

/// What may have been meant as a relative path in guests.
fn relative(path: &Path) -> Option<(String, String)> {
    let text = path.to_str().filter(|text| !text.starts_with(['.', '/']))?;
    let (selector, path) = text.split_once(':')?;
    selector.parse::<Selector>().is_ok().then(|| (selector.to_owned(), path.to_owned()))
}
