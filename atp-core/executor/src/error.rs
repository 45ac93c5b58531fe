//! An error in one line.

use std::error::Error;

use atp_api::OutcomeError;

/// An error with its causes in one line: a message that only names a libvirt function does not say why.
pub(crate) fn in_full(error: &dyn Error) -> String {
    let mut line = error.to_string();
    for cause in OutcomeError::causes_of(error) {
        line.push_str(": ");
        line.push_str(&cause);
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_line_says_why() {
        let cause = io::Error::other("not connected");
        #[derive(Debug, thiserror::Error)]
        #[error("host h1: virDomainGetInfo")]
        struct Call(#[source] io::Error);
        assert_eq!(in_full(&Call(cause)), "host h1: virDomainGetInfo: not connected");
    }
}
