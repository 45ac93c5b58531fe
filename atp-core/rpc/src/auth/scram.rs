//! SCRAM (RFC 5802, RFC 7677): a password is proven and not sent, and the daemon proves that it knows it too.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// The most rounds that a daemon may ask for: a million take about a second.
const MAX_ROUNDS: u32 = 1_000_000;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

macro_rules! by_hash {
    ($hash:expr, $name:ident => $work:expr) => {
        match $hash {
            Hash::Sha1 => {
                type $name = Sha1;
                $work
            }
            Hash::Sha256 => {
                type $name = Sha256;
                $work
            }
            Hash::Sha512 => {
                type $name = Sha512;
                $work
            }
        }
    };
}

impl Hash {
    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        by_hash!(self, H => H::digest(bytes).to_vec())
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        by_hash!(self, H => {
            let mut mac = Hmac::<H>::new_from_slice(key).ok()?;
            mac.update(message);
            Some(mac.finalize().into_bytes().to_vec())
        })
    }

    /// Whether a message has this code, found out in constant time.
    fn has_hmac(self, key: &[u8], message: &[u8], code: &[u8]) -> bool {
        by_hash!(self, H => {
            let Ok(mut mac) = Hmac::<H>::new_from_slice(key) else { return false };
            mac.update(message);
            mac.verify_slice(code).is_ok()
        })
    }

    fn salted(self, password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        let mut salted = vec![0; self.digest(&[]).len()];
        by_hash!(self, H => pbkdf2_hmac::<H>(password, salt, rounds, &mut salted));
        salted
    }
}

/// An exchange under way.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    first: String,
}

/// What is left to be checked: the daemon's proof.
pub(super) struct Proof {
    hash: Hash,
    key: Vec<u8>,
    message: String,
}

impl Scram {
    /// Begins. Also gives the first message.
    pub(super) fn begin(hash: Hash, user: &str, password: &str, nonce: &str) -> Option<(Self, String)> {
        let user = stringprep::saslprep(user).ok()?.replace('=', "=3D").replace(',', "=2C");
        let password = stringprep::saslprep(password).ok()?.into_owned();
        let first = format!("n={user},r={nonce}");
        let message = format!("n,,{first}");
        Some((Scram { hash, password, nonce: nonce.to_owned(), first }, message))
    }

    /// Answers the daemon's first message. This takes as long as the daemon asks for rounds.
    pub(super) fn answer(self, challenge: &[u8]) -> Result<(String, Proof), &'static str> {
        let broken = "the daemon's challenge is none of SCRAM";
        let challenge = std::str::from_utf8(challenge).map_err(|_| broken)?;
        let mut parts = challenge.split(',');
        let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name)).ok_or(broken);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the daemon's nonce does not go on from ours");
        }
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| broken)?;
        let rounds = rounds.parse().ok().filter(|rounds| (1..=MAX_ROUNDS).contains(rounds));
        let rounds = rounds.ok_or("the daemon asks for too many rounds")?;
        let hash = self.hash;
        let salted = hash.salted(self.password.as_bytes(), &salt, rounds);
        let bare = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{bare}", self.first);
        let hmac = |key: &[u8], text: &str| hash.hmac(key, text.as_bytes()).ok_or(broken);
        let client = hmac(&salted, "Client Key")?;
        let signature = hmac(&hash.digest(&client), &message)?;
        let proof: Vec<u8> = client.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        let key = hmac(&salted, "Server Key")?;
        Ok((format!("{bare},p={}", BASE64_STANDARD.encode(proof)), Proof { hash, key, message }))
    }
}

impl Proof {
    /// Whether the daemon's last message proves that it knows the password.
    pub(super) fn holds(&self, message: &[u8]) -> bool {
        let text = std::str::from_utf8(message).ok();
        let code = text.and_then(|text| text.split(',').next()?.strip_prefix("v="));
        let code = code.and_then(|code| BASE64_STANDARD.decode(code).ok());
        code.is_some_and(|code| self.hash.has_hmac(&self.key, self.message.as_bytes(), &code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 5802 and RFC 7677.
    #[test]
    fn the_examples_of_the_rfcs() {
        for (hash, nonce, challenge, answer, end) in [
            (
                Hash::Sha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                "rOprNGfwEbeRWgbNEkqO",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                 p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let (scram, first) = Scram::begin(hash, "user", "pencil", nonce).unwrap();
            assert_eq!(first, format!("n,,n=user,r={nonce}"));
            let (said, proof) = scram.answer(challenge.as_bytes()).unwrap();
            assert_eq!(said, answer);
            assert!(proof.holds(end.as_bytes()));
            assert!(!proof.holds(b"v=AAAA") && !proof.holds(b"e=no"));
        }
    }

    #[test]
    fn a_daemon_that_breaks_the_rules_gets_no_answer() {
        for challenge in [
            &b"r=other,s=QSXCR+Q6sek8bf92,i=4096"[..],
            b"r=n,s=QSXCR+Q6sek8bf92,i=4096",
            b"r=nx,s=?,i=4096",
            b"r=nx,s=QSXCR+Q6sek8bf92,i=4294967295",
            b"r=nx,s=QSXCR+Q6sek8bf92,i=0",
            b"m=x,r=nx,s=QSXCR+Q6sek8bf92,i=1",
            b"\xff",
        ] {
            let (scram, _) = Scram::begin(Hash::Sha256, "a,b=c", "p", "n").unwrap();
            assert!(scram.answer(challenge).is_err(), "{}", String::from_utf8_lossy(challenge));
        }
    }
}
