//! The language of a daemon's messages.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The folder with libvirt's translations, of Debian's package `libvirt-l10n`.
const CATALOGUES: &str = "/usr/share/locale";

/// A language of libvirt's, by the name of its catalogue (`de`, `pt_BR`), or `C`: that is English.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Language(String);

impl Language {
    pub(crate) fn new(name: &str) -> Result<Self> {
        if name != "C" && !Path::new(CATALOGUES).join(name).join("LC_MESSAGES/libvirt.mo").exists() {
            return Err(Error::NoCatalogue { language: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    /// Has a daemon speak it. The locale itself needs not be installed: the C locale with UTF-8 is built in, and with any
    /// locale but plain `C` the catalogue is chosen by `LANGUAGE`.
    pub(crate) fn set(&self, daemon: &mut Command) {
        if self.0 != "C" {
            daemon.env("LC_ALL", "C.UTF-8").env("LANGUAGE", &self.0);
        }
    }
}

impl Default for Language {
    fn default() -> Self {
        Self("C".to_owned())
    }
}
