//! SHA-256 of files on this machine and in the guest, to verify copies.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::handle::Reader;
use super::script::{self, Script};
use super::{TransferPolicy, blocking};
use crate::carrier::Carrier;
use crate::digest::Digest;
use crate::error::FileError;
use crate::error::Result;

/// Prints the digest of the first `$2` bytes of `$1`, with the tool that the guest has.
pub(super) const DIGEST: Script = Script {
    posix: r#"[ -f "$1" ] || exit 3
has() { command -v "$1" >/dev/null 2>&1; }
if has sha256sum; then head -c "$2" "$1" | sha256sum
elif has shasum; then head -c "$2" "$1" | shasum -a 256
elif has sha256; then head -c "$2" "$1" | sha256 -q
elif has openssl; then head -c "$2" "$1" | openssl dgst -sha256 -r
else exit 10
fi"#,
    windows: r"if(-not [IO.File]::Exists($a[0])){exit 3}
$f=[IO.File]::Open($a[0],'Open','Read','ReadWrite');$left=[long]$a[1]
$h=[Security.Cryptography.SHA256]::Create();$b=New-Object byte[] 65536
while($left -gt 0){
$n=$f.Read($b,0,[int][Math]::Min($left,$b.Length));if($n -eq 0){break}
[void]$h.TransformBlock($b,0,$n,$b,0);$left-=$n
}
[void]$h.TransformFinalBlock($b,0,0)
say ([BitConverter]::ToString($h.Hash).Replace('-','').ToLower())",
};

/// The exit code for a missing tool.
const NO_TOOL: i32 = 10;

/// The digest of the first `length` bytes of a file in the guest. If the guest has no tool for it, the file is read
/// instead.
pub(super) async fn in_guest(
    carrier: &impl Carrier,
    path: &str,
    length: u64,
    policy: &TransferPolicy,
    deadline: Instant,
) -> Result<Digest> {
    let output = script::output(carrier, DIGEST, &[path, &length.to_string()], deadline).await?;
    if output.exit_code == Some(NO_TOOL) {
        return by_reading(carrier, path, length, policy, deadline).await;
    }
    let stdout = script::checked(output, "read", path)?;
    let word = String::from_utf8_lossy(&stdout);
    let word = word.split_whitespace().next().unwrap_or_default();
    word.parse().map_err(|_| {
        let reason = "the guest's tool for SHA-256 does not print a digest".to_owned();
        FileError::Guest { action: "check", path: path.to_owned(), reason }.into()
    })
}

async fn by_reading(
    carrier: &impl Carrier,
    path: &str,
    length: u64,
    policy: &TransferPolicy,
    deadline: Instant,
) -> Result<Digest> {
    let mut reader = Reader::new(path.to_owned(), 0);
    let mut hasher = Sha256::new();
    let read = loop {
        let left = length.saturating_sub(reader.offset());
        if left == 0 {
            break Ok(());
        }
        let count = policy.chunk.min(usize::try_from(left).unwrap_or(usize::MAX));
        match reader.read(carrier, count, policy.before(deadline)).await {
            Ok(chunk) => {
                hasher.update(&chunk.bytes);
                if chunk.end {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
    };
    let closed = reader.close(carrier, deadline).await;
    read.and(closed)?;
    Ok(Digest::finish(hasher))
}

/// The digest of the first `length` bytes of a local file, as a hasher that can continue with the bytes that follow.
pub(super) async fn of_local(path: &Path, length: u64) -> Result<Sha256> {
    let path = path.to_owned();
    blocking(move || {
        let file = open_regular(&path).map_err(|error| FileError::local("read", &path, error))?;
        of_file(&file, &path, length)
    })
    .await
}

/// Opens a file for reading. It was a regular file when it was examined, and may be a FIFO by now, on which a read may
/// never return.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// As [`of_local`], for a file that was just opened. It blocks.
pub(super) fn of_file(file: &File, path: &Path, length: u64) -> Result<Sha256> {
    let mut file = file.take(length);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|error| FileError::local("read", path, error))? {
            0 => return Ok(hasher),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_became_a_fifo_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // The other end of the FIFO, with data in it: otherwise a faulty reader would hang, and this test with it.
        let mut other_end = File::options().read(true).write(true).open(&path).unwrap();
        io::Write::write_all(&mut other_end, b"abc").unwrap();
        assert_eq!(of_local(&path, 3).await.unwrap_err().kind(), "local-file-error");
    }
}
