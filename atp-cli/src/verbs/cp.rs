//! `atp cp`: files into guests and out of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use atp_executor::{Data, Operation, Outcome, PreparedPush, PullSpec, PushSpec, Selection, Selector};
use clap::Args;

use super::verb::Run;
use crate::args::NarrowArgs;
use crate::batch::Batch;
use crate::context::Context;
use crate::problem::{Failure, Problem};
use crate::render::Forms;
use crate::render::table::{NOTHING, Rows, status, time, vm};

const EXAMPLES: &str = "\
Examples:
  atp cp nginx.conf 'web-*:/etc/nginx/nginx.conf'
  atp cp -r site 'web-*:/srv'
  atp cp 'node7/*:/var/log/messages' logs";

/// Copy files into guests, or out of them, through the guest agent
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CopyArgs {
    /// The source: a local file, or SEL:/PATH, a file in the VMs that SEL selects; SEL:C:\PATH in Windows guests
    #[arg(value_name = "SRC")]
    source: Side,

    /// The destination: SEL:/PATH, a file or folder in these VMs, or a local file or folder. From several VMs, a
    /// local folder, in which each gets HOST/VM/NAME
    #[arg(value_name = "DST")]
    destination: Side,

    /// Copy a folder with all that is in it: into the destination, if that is a folder, or else under its name
    #[arg(short, long)]
    recursive: bool,

    #[command(flatten)]
    narrow: NarrowArgs,
}

/// One side of a copy.
#[derive(Debug, Clone)]
enum Side {
    /// A local path.
    Local(PathBuf),
    /// An absolute path in VMs.
    Guests(Selector, String),
}

impl FromStr for Side {
    type Err = String;

    /// A text with `:/` in it is a path in guests, and one with `:C:\` or `:C:/`, of any drive, in Windows guests; a local file
    /// with such a name is written with `./` before it.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_local = text.starts_with("./") || text.starts_with("../");
        let colons = text.match_indices(':').map(|(colon, _)| colon);
        let colon = colons
            .filter(|_| !is_local)
            .find(|colon| text[colon + 1..].starts_with('/') || has_drive(&text[colon + 1..]));
        match colon {
            None if text.is_empty() => Err("expected a path, or SEL:/PATH".to_owned()),
            None => Ok(Side::Local(PathBuf::from(text))),
            Some(colon) => {
                let selector = text[..colon].parse::<Selector>().map_err(|error| error.to_string())?;
                Ok(Side::Guests(selector, text[colon + 1..].to_owned()))
            }
        }
    }
}

impl Run for CopyArgs {
    async fn batch(self, _: &Context) -> Result<Batch, Failure> {
        let recursive = self.recursive;
        let (selector, operation) = match (self.source, self.destination) {
            (Side::Local(path), Side::Guests(selector, destination)) => {
                let push = PushSpec { source: path, destination, sha256: None, recursive, packed: false };
                let prepared = PreparedPush::open(push).await.map_err(|error| Problem::from(&error))?;
                (selector, Operation::Push(prepared))
            }
            (Side::Guests(..), Side::Local(destination)) if destination.as_os_str() == "-" => {
                let problem = Problem::new("the destination `-` is not a file");
                return Err(problem
                    .hint("`atp exec SEL --spool -- cat PATH` prints a file; a file of this name is ./-")
                    .into());
            }
            (Side::Guests(selector, path), Side::Local(destination)) => (
                selector,
                Operation::Pull(PullSpec { path, destination, separate: false, recursive, packed: false }),
            ),
            (Side::Local(source), Side::Local(destination)) => {
                if let Some((selector, path)) = relative(&source).or_else(|| relative(&destination)) {
                    let problem = Problem::new(format!("{path:?}: a path in guests must be absolute"));
                    return Err(problem
                        .hint(format!(
                            "write {selector}:/{path}; a local file whose name has a ':' is ./{selector}:{path}"
                        ))
                        .into());
                }
                let problem = Problem::new("both paths are local, but one must be in guests");
                return Err(problem.hint("write SEL:/PATH, as in `atp cp file 'web-*:/etc/file'`").into());
            }
            (Side::Guests(..), Side::Guests(..)) => {
                let problem = Problem::new("both paths are in guests, but one must be local");
                return Err(problem
                    .hint("copy the file to this machine first, and then to the other guests")
                    .into());
            }
        };
        Ok(Batch {
            selection: self.narrow.narrow(Selection::of([selector])),
            operation,
            dry_run: would_copy,
            forms: Forms::new(copies, &["guest_path", "local_path", "bytes", "resumed_at", "sha256"]),
        })
    }
}

/// Whether a path begins with a drive letter, and is absolute.
pub(super) fn has_drive(path: &str) -> bool {
    let mut characters = path.chars();
    characters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && characters.next() == Some(':')
        && matches!(characters.next(), Some('\\' | '/'))
}

/// A selector and a path, if the text may have been meant as a relative path in guests.
fn relative(path: &Path) -> Option<(String, String)> {
    let text = path.to_str().filter(|text| !text.starts_with(['.', '/']))?;
    let (selector, path) = text.split_once(':')?;
    selector.parse::<Selector>().is_ok().then(|| (selector.to_owned(), path.to_owned()))
}

fn would_copy(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::Push(PreparedPush { spec, source }) => {
            let (from, size) = (spec.source.display(), source.size());
            let what = if source.is_folder() { "a folder, " } else { "" };
            vec![format!("cp would copy {from} ({what}{size} bytes) to {} in the guests", spec.destination)]
        }
        Operation::Pull(spec) => {
            let (to, own) = (spec.destination.display(), if spec.separate { "/HOST/VM/NAME" } else { "" });
            let all = if spec.recursive { ", with all that is in it," } else { "" };
            vec![format!("cp would copy {}{all} in the guests to {to}{own}", spec.path)]
        }
        _ => Vec::new(),
    }
}

fn copies(outcomes: &[Outcome]) -> String {
    let mut rows = Rows::new(&["HOST", "VM", "RESULT", "BYTES", "IN THE GUEST", "HERE", "TIME"]);
    for outcome in outcomes {
        let (vm, result, time) = (vm(outcome), status(outcome), time(outcome));
        match &outcome.data {
            Some(Data::File(file)) => {
                let (bytes, here) = (file.bytes.to_string(), file.local_path.display().to_string());
                rows.add_outcome(outcome, &[vm, &result, &bytes, &file.guest_path, &here, &time]);
            }
            _ => rows.add_outcome(outcome, &[vm, &result, NOTHING, NOTHING, NOTHING, &time]),
        }
    }
    rows.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_side_with_a_selector_is_in_guests() {
        let side = |text: &str| {
            text.parse().map(|side| match side {
                Side::Local(path) => (None, path.display().to_string()),
                Side::Guests(selector, path) => (Some(selector.to_string()), path),
            })
        };
        for here in
            ["file", "/tmp/x", "./a:/b", "../a:/b", "./a:C:\\b", "a:b", "C:x", "C:\\x", "a:1:\\x", "a:C:x"]
        {
            assert_eq!(side(here), Ok((None, here.to_owned())));
        }
        for (text, selector, path) in [
            ("web-1:/etc/x", "web-1", "/etc/x"),
            ("h1/web-*:/a:/b", "h1/web-*", "/a:/b"),
            ("@rack/:/x", "@rack/", "/x"),
            ("/^web/:/x", "/^web/", "/x"),
            ("win:C:\\dir\\file", "win", "C:\\dir\\file"),
            ("h1/win-*:d:/dir/file", "h1/win-*", "d:/dir/file"),
            ("h1/web:/a:b:/c", "h1/web", "/a:b:/c"),
            // A VM whose name is a letter: there is a path before there is a drive.
            ("C:/x", "C", "/x"),
        ] {
            assert_eq!(side(text), Ok((Some(selector.to_owned()), path.to_owned())));
        }
        assert!(side("").is_err());
        assert!(side("web[:/x").is_err());
        assert!(side(":/x").is_err());
    }

    proptest! {
        #[test]
        fn a_side_is_all_that_was_typed(text in prop_oneof![any::<String>(), "[a:/.*@h\\[]{0,12}"]) {
            match text.parse::<Side>() {
                Ok(Side::Local(path)) => prop_assert_eq!(path.to_str(), Some(text.as_str())),
                Ok(Side::Guests(selector, path)) => {
                    prop_assert!(path.starts_with('/') || has_drive(&path), "{}", path);
                    prop_assert_eq!(format!("{selector}:{path}"), text);
                }
                Err(error) => prop_assert!(!error.is_empty()),
            }
        }
    }

    #[test]
    fn a_dry_run_names_both_paths() {
        let pull = |separate| PullSpec {
            path: "/etc/x".into(),
            destination: "to".into(),
            separate,
            recursive: false,
            packed: false,
        };
        let words = |separate| would_copy(&Operation::Pull(pull(separate))).join("\n");
        assert_eq!(words(false), "cp would copy /etc/x in the guests to to");
        assert_eq!(words(true), "cp would copy /etc/x in the guests to to/HOST/VM/NAME");
    }
}
