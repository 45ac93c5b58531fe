//! Passwords in URIs, taken out before anything is printed.

/// The replacement for a secret.
const MASK: &str = "***";

/// Parameters of a URI whose values are secret.
const SECRET_PARAMETERS: [&str; 6] = ["password", "passwd", "pass", "passphrase", "secret", "token"];

/// The URI without its secrets: the password of the user and the values of parameters that are named as
/// secrets. Takes any text, also one that is not a URI.
pub fn mask_uri(uri: &str) -> String {
    let start = uri.find("://").map_or(0, |at| at + 3);
    let (user, rest) = uri.split_at(user_end(uri, start).unwrap_or(start));
    let (user, rest) = match user[start..].find(':') {
        Some(colon) => (format!("{}:{MASK}", &user[..start + colon]), rest),
        None => (user.to_owned(), rest),
    };
    match rest.split_once('?') {
        Some((base, parameters)) => {
            let parameters: Vec<_> = parameters.split('&').map(mask_parameter).collect();
            format!("{user}{base}?{}", parameters.join("&"))
        }
        None => user + rest,
    }
}

/// Where the user and the password of `scheme://user:secret@host/path` end, with what is before the host starting at
/// `start`. A password with a `/` or a `?` in it has no place in a URI, and it ends at the last `@` all the same; but
/// not at one that stands in the value of a parameter.
fn user_end(uri: &str, start: usize) -> Option<usize> {
    let last = uri.rfind('@').filter(|&at| at >= start)?;
    let parameters = uri.find('?').filter(|&at| at >= start).unwrap_or(uri.len());
    if last < parameters || !uri[parameters..last].contains('=') {
        return Some(last);
    }
    let base = &uri[start..parameters];
    if let Some(end) = base.rfind('@') {
        return Some(start + end);
    }
    let port = base.split_once(':')?.1.split('/').next()?;
    let is_port = base.starts_with('[') || (!port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    (!is_port).then_some(last)
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => {
            format!("{name}={MASK}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_are_masked_and_the_rest_stands() {
        for (uri, masked) in [
            ("qemu:///system", "qemu:///system"),
            ("qemu+tcp://10.0.0.7:16509/system", "qemu+tcp://10.0.0.7:16509/system"),
            ("qemu+ssh://root@node7/system", "qemu+ssh://root@node7/system"),
            ("qemu+ssh://root:hunter2@node7/system", "qemu+ssh://root:***@node7/system"),
            ("qemu+ssh://root:a/b@c@node7/system", "qemu+ssh://root:***@node7/system"),
            ("qemu+ssh://root:hun?ter2@node7/system", "qemu+ssh://root:***@node7/system"),
            ("qemu+ssh://root:12?34@node7/system?a=b", "qemu+ssh://root:***@node7/system?a=b"),
            ("qemu+tcp://node7:16509/system?name=a@b", "qemu+tcp://node7:16509/system?name=a@b"),
            ("qemu+tcp://[::1]:16509/system?name=a@b", "qemu+tcp://[::1]:16509/system?name=a@b"),
            ("esx://h/?password=hunter2&no_verify=1", "esx://h/?password=***&no_verify=1"),
            ("esx://h/?Password=hunter2", "esx://h/?Password=***"),
            ("root:hunter2@node7", "root:***@node7"),
            ("root:hun//ter2@node7", "root:***@node7"),
            ("", ""),
        ] {
            assert_eq!(mask_uri(uri), masked);
        }
    }

    proptest! {
        #[test]
        fn a_password_of_any_characters_is_masked(
            start in prop::sample::select(vec!["esx://", "qemu+ssh://"]),
            password in "[a-zA-Z?#/@:]{1,12}",
            end in prop::sample::select(vec!["", "/system", "/system?no_verify=1"]),
        ) {
            prop_assert_eq!(mask_uri(&format!("{start}root:{password}@node7{end}")), format!("{start}root:***@node7{end}"));
        }

        #[test]
        fn whatever_is_given_something_comes_of_it(text in any::<String>(), near in "[a:/?@&=\\[é]{0,16}") {
            mask_uri(&text);
            mask_uri(&near);
        }

        #[test]
        fn a_uri_without_a_user_is_not_changed(uri in "[a-z+]{0,6}(://)?[a-z0-9.:/é]{0,24}") {
            prop_assert_eq!(mask_uri(&uri), uri);
        }
    }
}
