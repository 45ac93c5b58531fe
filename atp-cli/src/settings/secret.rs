//! Passwords in URIs, taken out before anything is printed.

/// What stands in a secret's place.
const MASK: &str = "***";

/// Parameters of a URI whose values are nobody's business.
const SECRET_PARAMETERS: [&str; 6] = ["password", "passwd", "pass", "passphrase", "secret", "token"];

/// The URI without its secrets: the password of the user and the values of parameters that are named as
/// secrets. Works on whatever is given, also on what is no URI.
pub(crate) fn mask_uri(uri: &str) -> String {
    let (base, parameters) = match uri.split_once('?') {
        Some((base, parameters)) => (base, Some(parameters)),
        None => (uri, None),
    };
    let mut masked = mask_user(base);
    if let Some(parameters) = parameters {
        masked.push('?');
        let parameters: Vec<_> = parameters.split('&').map(mask_parameter).collect();
        masked.push_str(&parameters.join("&"));
    }
    masked
}

/// Masks `secret` in `scheme://user:secret@host/path`. A password with a `/` in it is not a valid URI, and is
/// masked up to the last `@` all the same.
fn mask_user(base: &str) -> String {
    let start = base.find("//").map_or(0, |at| at + 2);
    let Some(end) = base.rfind('@').filter(|&end| end > start) else { return base.to_owned() };
    match base[start..end].find(':') {
        Some(colon) => format!("{}:{MASK}{}", &base[..start + colon], &base[end..]),
        None => base.to_owned(),
    }
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
    use super::*;

    #[test]
    fn passwords_are_masked_and_the_rest_stands() {
        for (uri, masked) in [
            ("qemu:///system", "qemu:///system"),
            ("qemu+tcp://10.0.0.7:16509/system", "qemu+tcp://10.0.0.7:16509/system"),
            ("qemu+ssh://root@node7/system", "qemu+ssh://root@node7/system"),
            ("qemu+ssh://root:hunter2@node7/system", "qemu+ssh://root:***@node7/system"),
            ("qemu+ssh://root:a/b@c@node7/system", "qemu+ssh://root:***@node7/system"),
            ("esx://h/?password=hunter2&no_verify=1", "esx://h/?password=***&no_verify=1"),
            ("esx://h/?Password=hunter2", "esx://h/?Password=***"),
            ("root:hunter2@node7", "root:***@node7"),
            ("", ""),
        ] {
            assert_eq!(mask_uri(uri), masked);
        }
    }
}
