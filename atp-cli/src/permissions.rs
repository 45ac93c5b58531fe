//! Permissions of the settings files, and of files with a password, a token or a key.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use atp_executor::Finding;
use atp_transport::{HostInfo, PasswordSource};

use crate::settings::Settings;

/// Mode bits that let others than the owner read or write.
const OTHERS_READ: u32 = 0o044;
const OTHERS_WRITE: u32 = 0o022;

/// What to do if a host's password file is not there.
const PASSWORD_FILE: &str = "correct password_file in the host's auth section, or create that file, with the password as its first line";

/// Checks the settings files. A file without secrets may be readable by everyone, but only its owner may write it: a
/// URI can name a program to run.
pub(crate) fn files(settings: &Settings) -> impl Iterator<Item = Finding> {
    settings.files.iter().map(|file| match fs::metadata(file) {
        Ok(metadata) => permissions(file, metadata.permissions().mode(), settings.has_secrets(file)),
        Err(error) => Finding::note("settings", format!("{}: {error}", file.display())),
    })
}

/// Checks the files that the settings name and that hold a password, a token or a key.
pub(crate) fn secret_files(settings: &Settings) -> impl Iterator<Item = Finding> {
    let password = |host: &HostInfo| match host.credentials.as_ref()?.password.as_ref()? {
        PasswordSource::File(file) => {
            Some((file.clone(), (format!("password_file of host {}", host.id), PASSWORD_FILE)))
        }
        _ => None,
    };
    let token = settings.server.as_ref().map(|server| {
        let hint = "correct server_token_file, or create that file, with the token as its first line";
        (server.token_file.clone(), ("server_token_file".to_owned(), hint))
    });
    // A file that several hosts have is told as that of the first.
    let files: BTreeMap<_, _> =
        token.into_iter().chain(settings.hosts.iter().filter_map(password).rev()).collect();
    let named = files.into_iter().map(|(file, (what, hint))| match fs::metadata(&file) {
        Ok(metadata) => permissions(&file, metadata.permissions().mode(), true),
        Err(error) => Finding::problem("settings", format!("{}, the {what}: {error}", file.display()), hint),
    });
    #[cfg(feature = "serve")]
    let named = named.chain(of_service(&settings.serve));
    named
}

/// Checks those of a service. It may be another user's, who alone can look at them.
#[cfg(feature = "serve")]
fn of_service(serve: &atp_serve::ServeConfig) -> impl Iterator<Item = Finding> {
    // A key may be that of a group of services.
    const GROUP_READ: u32 = 0o040;
    let files = [(&serve.tls_key, GROUP_READ), (&serve.database_password_file, 0), (&serve.tokens, 0)];
    files.into_iter().filter(|(file, _)| !file.is_empty()).map(|(file, allowed)| match fs::metadata(file) {
        Ok(metadata) => permissions(Path::new(file), metadata.permissions().mode() & !allowed, true),
        Err(error) => Finding::note("settings", format!("{file}: {error}")),
    })
}

fn permissions(file: &Path, mode: u32, has_secrets: bool) -> Finding {
    let name = file.display();
    if mode & OTHERS_WRITE != 0 {
        let message = format!(
            "{name} can be written by others (mode {:03o}), and can name programs to run",
            mode & 0o777
        );
        return Finding::problem("settings", message, format!("chmod go-w {name}"));
    }
    if has_secrets && mode & OTHERS_READ != 0 {
        let message = format!("{name} holds a secret and can be read by others (mode {:03o})", mode & 0o777);
        return Finding::problem("settings", message, format!("chmod go= {name}"));
    }
    Finding::ok("settings", format!("{name} is valid, and no other user can change it"))
}

#[cfg(test)]
mod tests {
    use atp_executor::Verdict;

    use super::*;

    #[test]
    fn permissions_are_checked_by_the_content_of_the_file() {
        let verdict = |mode, has_secrets| permissions(Path::new("f"), mode, has_secrets).verdict;
        for (mode, has_secrets, expected) in [
            (0o100600, true, Verdict::Ok),
            (0o100644, false, Verdict::Ok),
            (0o100644, true, Verdict::Problem),
            (0o100640, true, Verdict::Problem),
            (0o100664, false, Verdict::Problem),
            (0o100602, false, Verdict::Problem),
        ] {
            assert_eq!(verdict(mode, has_secrets), expected, "{mode:o} {has_secrets}");
        }
    }
}
