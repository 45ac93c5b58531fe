//! `atp cp`.

use std::path::PathBuf;
use std::str::FromStr;

use atp_executor::Selector;
use clap::Args;

use super::targets::NarrowArgs;

/// `atp cp …`
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// What to copy: a file here, or SEL:/PATH, a file in the VMs that SEL selects
    #[arg(value_name = "SRC")]
    pub(crate) source: Side,

    /// Where to: SEL:/PATH, a file or a folder in these VMs, or a file or folder here. From several VMs, a folder
    /// here that gets HOST/VM/NAME for each
    #[arg(value_name = "DST")]
    pub(crate) destination: Side,

    #[command(flatten)]
    pub(crate) narrow: NarrowArgs,
}

/// One side of a copy.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    /// A path here.
    Here(PathBuf),
    /// An absolute path in VMs.
    Guests(Selector, String),
}

impl FromStr for Side {
    type Err = String;

    /// What has `:/` in it is in guests; a file here with such a name is written with `./` before it.
    fn from_str(text: &str) -> Result<Self, String> {
        let colon = text.find(":/").filter(|_| !text.starts_with("./") && !text.starts_with("../"));
        match colon {
            None if text.is_empty() => Err("expected a path, or SEL:/PATH".to_owned()),
            None => Ok(Side::Here(PathBuf::from(text))),
            Some(colon) => {
                let selector = text[..colon].parse::<Selector>().map_err(|error| error.to_string())?;
                Ok(Side::Guests(selector, text[colon + 1..].to_owned()))
            }
        }
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  atp cp nginx.conf 'web-*:/etc/nginx/nginx.conf'
  atp cp 'node7/*:/var/log/messages' logs";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_side_with_a_selector_is_in_guests() {
        let side = |text: &str| {
            text.parse().map(|side| match side {
                Side::Here(path) => (None, path.display().to_string()),
                Side::Guests(selector, path) => (Some(selector.to_string()), path),
            })
        };
        for here in ["file", "/tmp/x", "./a:/b", "../a:/b", "a:b", "C:x"] {
            assert_eq!(side(here), Ok((None, here.to_owned())));
        }
        for (text, selector, path) in [
            ("web-1:/etc/x", "web-1", "/etc/x"),
            ("h1/web-*:/a:/b", "h1/web-*", "/a:/b"),
            ("@rack/:/x", "@rack/", "/x"),
            ("/^web/:/x", "/^web/", "/x"),
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
                Ok(Side::Here(path)) => prop_assert_eq!(path.to_str(), Some(text.as_str())),
                Ok(Side::Guests(selector, path)) => {
                    prop_assert!(path.starts_with('/'), "{}", path);
                    prop_assert_eq!(format!("{selector}:{path}"), text);
                }
                Err(error) => prop_assert!(!error.is_empty()),
            }
        }
    }
}
