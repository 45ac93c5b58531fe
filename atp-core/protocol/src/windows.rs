//! Small scripts of PowerShell for a Windows guest, for work that the agent has no command for.
//!
//! A script goes as `-EncodedCommand`, and its parameters as base64 in it: so nothing is quoted for `CreateProcess`, for
//! PowerShell or for `cmd.exe`, which have three different rules.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use qapi::qga::{GuestExecCaptureOutput, guest_exec};

use crate::error::{ProtocolError, Result};

/// The program that runs the scripts. It is in the agent's `PATH` on every edition but Nano Server.
pub(crate) const POWERSHELL: &str = "powershell.exe";

/// The agent's name for the system (`guest-get-osinfo`).
pub(crate) const OS_ID: &str = "mswindows";

/// The longest command line of Windows, in characters, less some for the program and its options.
const LONGEST: usize = 32_000;

/// The beginning of every script. An error that is not handled is printed, and ends the script with 1. Text is written as
/// UTF-8, whatever the console's code page is; and no progress, which PowerShell would write to standard error as XML.
pub(crate) const HEAD: &str = r"$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue'
function put($stream,$text){$b=[Text.Encoding]::UTF8.GetBytes($text);$stream.Write($b,0,$b.Length);$stream.Flush()}
function say($text){put ([Console]::OpenStandardOutput()) $text}
function complain($text){put ([Console]::OpenStandardError()) $text}
trap {complain ($_.Exception.GetBaseException().Message);exit 1}
";

/// Whether a path is an absolute one of Windows: it begins with a drive letter.
pub(crate) fn is_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.len() >= 3 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && matches!(bytes[2], b'\\' | b'/')
}

/// The command that runs a script. Its parameters are `$a[0]`, `$a[1]` and so on.
pub(crate) fn command(script: &str, parameters: &[&str], stdin: Option<Vec<u8>>) -> Result<guest_exec> {
    let words: Vec<_> = parameters.iter().map(|word| format!("'{}'", BASE64.encode(word))).collect();
    let text = format!(
        "$a=@(@({})|%{{[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($_))}})\n{HEAD}{script}",
        words.join(",")
    );
    let encoded = BASE64.encode(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    if encoded.len() > LONGEST {
        return Err(ProtocolError::CommandTooLarge { size: encoded.len(), limit: LONGEST });
    }
    let options = [
        "-NoLogo",
        "-NoProfile",
        "-NonInteractive",
        "-InputFormat",
        "None",
        "-OutputFormat",
        "Text",
        "-ExecutionPolicy",
        "Bypass",
        "-EncodedCommand",
    ];
    let arg = options.map(str::to_owned).into_iter().chain([encoded]).collect();
    Ok(guest_exec {
        path: POWERSHELL.to_owned(),
        arg: Some(arg),
        env: None,
        input_data: stdin,
        capture_output: Some(GuestExecCaptureOutput::flag(true)),
    })
}

/// One word of a command line, quoted as the C runtime of Windows reads it: a backslash counts as one unless a quote
/// follows.
pub(crate) fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '\n', '\u{b}', '"']) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    let mut backslashes = 0;
    for character in word.chars() {
        match character {
            '\\' => backslashes += 1,
            '"' => {
                text.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        text.push(character);
    }
    text.extend(std::iter::repeat_n('\\', backslashes));
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_windows_begins_with_a_drive_letter() {
        for path in ["C:\\", "c:/x", "Z:\\a b\\c"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "C:", "C:x", "/C:/x", "1:\\x", "\\\\server\\share", "é:\\x"] {
            assert!(!is_path(path), "{path}");
        }
    }

    #[test]
    fn a_word_is_quoted_as_the_c_runtime_reads_it() {
        for (word, text) in [
            ("plain", "plain"),
            (r"C:\dir\", r"C:\dir\"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            (r"C:\a b\", r#""C:\a b\\""#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            (r#"a\"b"#, r#""a\\\"b""#),
            (r"a\b c\d", r#""a\b c\d""#),
        ] {
            assert_eq!(quoted(word), text, "{word}");
        }
    }

    #[test]
    fn a_script_and_its_parameters_arrive_whatever_is_in_them() {
        let odd = "it's \u{2019} $(x) \"`; \u{1f600}\n";
        let command = command("say $a[0]", &[odd, ""], None).unwrap();
        let encoded = command.arg.unwrap().pop().unwrap();
        let units: Vec<_> = BASE64
            .decode(encoded)
            .unwrap()
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let text = String::from_utf16(&units).unwrap();
        assert!(text.starts_with(&format!("$a=@(@('{}','')|", BASE64.encode(odd))), "{text}");
        assert!(text.ends_with(&format!("{HEAD}say $a[0]")));
        assert_eq!(super::command(&"x".repeat(20_000), &[], None).unwrap_err().kind(), "command-too-large");
    }
}
