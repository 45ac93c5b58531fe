//! A guest that plays Windows, for the tests of this crate: it answers as the agent's documentation says, has no `/bin/sh`,
//! and does what each script of PowerShell says in a folder that is its drive `C:`.
//!
//! It knows the scripts by their text. It does not interpret them, so that it shows nothing of their grammar.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::digest::Digest;
use crate::error::Result;
use crate::exec;
use crate::files;
use crate::local_guest::{Fault, lost};
use crate::peer::Peer;
use crate::windows::HEAD;

/// Windows' words for a program that is not there, in German.
const NOT_FOUND: &str = "Guest agent command failed, error was 'Hilfsprogramm konnte nicht ausgeführt werden (Das System kann die angegebene Datei nicht finden)'";

pub(crate) struct WindowsGuest {
    pub(crate) drive: TempDir,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    handles: HashMap<i64, File>,
    processes: HashMap<i64, Value>,
    last: i64,
    /// What the launcher was to start: program, rest of the command line, folder, environment.
    launched: Vec<Vec<String>>,
    /// The exit status of the programs that are launched, and of the last step of a copy.
    status: u32,
    commands: Vec<String>,
    fault: Option<(usize, Fault)>,
    /// Whether it is older than the first Windows with `tar.exe`.
    is_old: bool,
}

impl WindowsGuest {
    pub(crate) fn new() -> Self {
        WindowsGuest { drive: tempfile::tempdir().unwrap(), inner: Mutex::default() }
    }

    /// The programs that are launched end with this status.
    pub(crate) fn ending_with(status: u32) -> Self {
        let guest = WindowsGuest::new();
        guest.inner.lock().unwrap().status = status;
        guest
    }

    /// Makes the command with this number, counted from 0, fail.
    pub(crate) fn with_fault(at: usize, fault: Fault) -> Self {
        let guest = WindowsGuest::new();
        guest.inner.lock().unwrap().fault = Some((at, fault));
        guest
    }

    /// It has no `tar.exe`.
    pub(crate) fn old() -> Self {
        let guest = WindowsGuest::new();
        guest.inner.lock().unwrap().is_old = true;
        guest
    }

    /// The command that failed, if one has.
    pub(crate) fn went_wrong(&self) -> Option<String> {
        let inner = self.inner.lock().unwrap();
        inner.commands.get(inner.fault?.0).cloned()
    }

    pub(crate) fn launched(&self) -> Vec<Vec<String>> {
        self.inner.lock().unwrap().launched.clone()
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.inner.lock().unwrap().commands.clone()
    }

    pub(crate) fn open_files(&self) -> usize {
        self.inner.lock().unwrap().handles.len()
    }

    /// The place of a path of the drive `C:` here.
    fn place(&self, path: &str) -> Option<PathBuf> {
        let rest = path.strip_prefix("C:")?.replace('\\', "/");
        Some(self.drive.path().join(rest.trim_start_matches('/')))
    }

    fn execute(&self, command: &Value) -> std::result::Result<Value, String> {
        let mut inner = self.inner.lock().unwrap();
        let arguments = &command["arguments"];
        let text = |name: &str| arguments[name].as_str().unwrap_or_default();
        let handle = arguments["handle"].as_i64().unwrap_or_default();
        let failed = |error: std::io::Error| error.to_string();
        let name = command["execute"].as_str().unwrap_or_default();
        match name {
            "guest-get-osinfo" => Ok(json!({"id": "mswindows", "name": "Microsoft Windows",
                "pretty-name": "Windows Server 2022 Standard", "kernel-release": "20348"})),
            "guest-exec" if text("path") == "powershell.exe" => {
                let encoded = arguments["arg"].as_array().unwrap().last().unwrap().as_str().unwrap();
                let (script, parameters) = decoded(encoded);
                let ended = self.script(&mut inner, &script, &parameters);
                inner.last += 1;
                let pid = inner.last;
                inner.processes.insert(pid, ended);
                Ok(json!({ "pid": pid }))
            }
            "guest-exec" => Err(NOT_FOUND.to_owned()),
            "guest-exec-status" => {
                let pid = arguments["pid"].as_i64().unwrap_or_default();
                inner.processes.remove(&pid).ok_or_else(|| "Invalid parameter 'pid'".to_owned())
            }
            "guest-file-open" => {
                let path = self.place(text("path")).ok_or("Der angegebene Pfad wurde nicht gefunden.")?;
                let mut options = OpenOptions::new();
                match text("mode") {
                    "a" => options.append(true).create(true),
                    _ => options.read(true),
                };
                inner.last += 1;
                let handle = inner.last;
                inner.handles.insert(handle, options.open(path).map_err(failed)?);
                Ok(json!(handle))
            }
            "guest-file-close" => {
                inner.handles.remove(&handle).ok_or("handle not found")?;
                Ok(json!({}))
            }
            _ => {
                let file = inner.handles.get_mut(&handle).ok_or("handle not found")?;
                match name {
                    "guest-file-seek" => {
                        let offset = arguments["offset"].as_u64().unwrap_or_default();
                        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                        Ok(json!({"eof": false, "position": offset}))
                    }
                    "guest-file-read" => {
                        let count = arguments["count"].as_u64().unwrap_or_default();
                        let mut bytes = Vec::new();
                        file.take(count).read_to_end(&mut bytes).map_err(failed)?;
                        let eof = bytes.is_empty();
                        Ok(json!({"count": bytes.len(), "eof": eof, "buf-b64": BASE64.encode(bytes)}))
                    }
                    "guest-file-write" => {
                        let bytes = BASE64.decode(text("buf-b64")).map_err(|error| error.to_string())?;
                        file.write_all(&bytes).map_err(failed)?;
                        Ok(json!({"count": bytes.len(), "eof": false}))
                    }
                    _ => Err(format!("The command {name} has not been found")),
                }
            }
        }
    }

    /// Does what a script says, and returns the answer about its process.
    fn script(&self, inner: &mut Inner, script: &str, parameters: &[String]) -> Value {
        let known = files::WINDOWS_SCRIPTS.into_iter().chain(exec::WINDOWS_SCRIPTS);
        let name = known.into_iter().find(|(_, text)| *text == script).map(|(name, _)| name);
        let place = |number: usize| self.place(&parameters[number]).unwrap();
        let (mut code, mut stdout, mut stderr) = (0, String::new(), String::new());
        match name.unwrap_or_else(|| panic!("an unknown script: {script}")) {
            "stat" => match fs::metadata(place(0)) {
                Ok(there) if there.is_dir() => stdout = "41ed 0 1700000000 0 0".to_owned(),
                Ok(there) => stdout = format!("81a4 {} 1700000000 0 0", there.len()),
                Err(_) => code = 3,
            },
            "list" => {
                let names: Vec<_> = fs::read_dir(place(0))
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                stdout.extend(names.iter().map(|name| format!("./{name}\0")));
                stdout.push('\0');
                stdout.extend(names.iter().map(|name| format!("81a4 1 1700000000 0 0 ./{name}\n")));
            }
            "digest" => {
                let length = parameters[1].parse::<usize>().unwrap();
                let bytes = fs::read(place(0)).unwrap();
                stdout = Digest::of(&bytes[..length.min(bytes.len())]).to_string();
            }
            "prepare" => {
                let mut path = parameters[0].clone();
                if place(0).is_dir() {
                    path = format!("{}\\{}", path.trim_end_matches(['\\', '/']), parameters[1]);
                }
                let (folder, _) = path.rsplit_once(['\\', '/']).unwrap();
                let partial = format!("{folder}\\.atp-{}.part", parameters[2]);
                if self.place(&format!("{folder}\\")).unwrap().is_dir() {
                    stdout = self.begun(&path, &partial);
                } else {
                    code = 3;
                }
            }
            "empty" => drop(File::create(place(0)).unwrap()),
            "finish" => {
                code = inner.status;
                if code == 0 {
                    fs::rename(place(0), place(1)).unwrap();
                }
            }
            "remove" => fs::remove_file(place(0)).unwrap(),
            "prepare a folder" => {
                let mut path = parameters[0].replace('/', "\\").trim_end_matches('\\').to_owned();
                if place(0).is_dir() && !parameters[4].is_empty() {
                    (code, stderr) = (1, format!("{}: {}", parameters[1], parameters[4]));
                } else if place(0).is_dir() {
                    path = format!("{path}\\{}", parameters[1]);
                }
                let (folder, _) = path.rsplit_once('\\').unwrap();
                let partial = format!("{folder}\\.atp-{}.part", parameters[2]);
                let (here, above) = (self.place(&path).unwrap(), self.place(&format!("{folder}\\")).unwrap());
                let longest = parameters[3].parse::<usize>().unwrap() + partial.len() + 16;
                match code {
                    1 => {}
                    _ if here.is_symlink() => (code, stdout) = (12, path),
                    _ if here.is_file() => code = 5,
                    _ if !above.is_dir() => code = 3,
                    _ if inner.is_old => code = 11,
                    _ if longest > 247 => {
                        (code, stderr) = (1, "a path in it would have too many characters".into())
                    }
                    _ => stdout = self.begun(&path, &partial),
                }
            }
            "extract" => {
                let own = format!("{}.{}", parameters[2], inner.last);
                let (beside, prefix) = (place(2).parent().unwrap().to_owned(), place(2));
                let prefix = prefix.file_name().unwrap().to_str().unwrap().to_owned() + ".";
                for name in fs::read_dir(&beside).unwrap().map(|entry| entry.unwrap().file_name()) {
                    if name.to_str().unwrap().starts_with(&prefix) {
                        fs::remove_dir_all(beside.join(name)).unwrap();
                    }
                }
                let new = self.place(&own).unwrap().join("new");
                fs::create_dir_all(&new).unwrap();
                tar::Archive::new(File::open(place(0)).unwrap()).unpack(&new).unwrap();
                match find_other(&new, &place(1)) {
                    Some(found) => {
                        fs::remove_dir_all(new.parent().unwrap()).unwrap();
                        let below = found.strip_prefix(self.drive.path()).unwrap().to_str().unwrap();
                        (code, stdout) = (8, format!("C:\\{}", below.replace('/', "\\")));
                    }
                    None => stdout = own,
                }
            }
            "place" => {
                code = inner.status;
                if code == 0 {
                    if place(1).exists() {
                        merge(&place(2).join("new"), &place(1));
                    } else {
                        fs::rename(place(2).join("new"), place(1)).unwrap();
                    }
                    fs::remove_dir_all(place(2)).unwrap();
                    fs::remove_file(place(0)).unwrap();
                }
            }
            "pack" => match place(0) {
                folder if folder.is_file() => code = 5,
                folder if !folder.exists() => code = 3,
                _ if inner.is_old => code = 11,
                folder => {
                    if let Some(link) = find_link(&folder) {
                        (code, stdout) = (8, link.display().to_string());
                    } else {
                        let own = format!("C:\\Temp\\.atp-{}.1", parameters[1]);
                        let here = self.place(&own).unwrap();
                        fs::create_dir_all(&here).unwrap();
                        let mut archive = tar::Builder::new(File::create(here.join("archive")).unwrap());
                        archive.append_dir_all(".", folder).unwrap();
                        archive.finish().unwrap();
                        stdout = own + "\\archive";
                    }
                }
            },
            "remove an archive" => fs::remove_dir_all(place(0).parent().unwrap()).unwrap(),
            "remove folder" => fs::remove_dir_all(place(0)).unwrap(),
            _ => {
                // Without the mark, which is another each time.
                inner.launched.push([&parameters[..4], &parameters[5..]].concat());
                if !parameters[2].is_empty() && !place(2).is_dir() {
                    stderr =
                        format!("no such directory: {}\natp: not started {}\n", parameters[2], parameters[4]);
                    code = 125;
                } else {
                    code = inner.status;
                    let printed = "Gr\u{81}\u{e1}e";
                    if parameters[3].is_empty() {
                        stdout = printed.to_owned();
                    } else {
                        fs::create_dir_all(place(3)).unwrap();
                        fs::write(place(3).join("out"), printed).unwrap();
                        fs::write(place(3).join("err"), "").unwrap();
                    }
                }
            }
        }
        let mut ended = json!({
            "exited": true, "out-data": BASE64.encode(stdout), "err-data": BASE64.encode(stderr),
        });
        // The agent reports a status as an exception if it is that large.
        let key = if code > 0xC000_0000 { "signal" } else { "exitcode" };
        ended[key] = json!(code);
        ended
    }
}

impl WindowsGuest {
    /// What is printed of a copy that begins, whose partial file is there then.
    fn begun(&self, path: &str, partial: &str) -> String {
        let here = self.place(partial).unwrap();
        let file = OpenOptions::new().append(true).create(true).open(here).unwrap();
        format!("{path}\0{partial}\0{}", file.metadata().unwrap().len())
    }
}

/// What is in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The first path in the folder `to` that is not replaced by what is in `from`. A symbolic link plays a reparse point.
fn find_other(from: &Path, to: &Path) -> Option<PathBuf> {
    entries(from).into_iter().find_map(|path| {
        let there = to.join(path.file_name().unwrap());
        if there.is_symlink() || there.exists() && there.is_dir() != path.is_dir() {
            return Some(there);
        }
        path.is_dir().then(|| find_other(&path, &there)).flatten()
    })
}

/// The first link in a folder.
fn find_link(folder: &Path) -> Option<PathBuf> {
    entries(folder).into_iter().find_map(|path| match path.is_symlink() {
        true => Some(path),
        false => path.is_dir().then(|| find_link(&path)).flatten(),
    })
}

fn merge(from: &Path, to: &Path) {
    for path in entries(from) {
        let there = to.join(path.file_name().unwrap());
        if there.is_dir() { merge(&path, &there) } else { fs::rename(path, there).unwrap() }
    }
}

/// The script and its parameters.
fn decoded(encoded: &str) -> (String, Vec<String>) {
    let bytes = BASE64.decode(encoded).unwrap();
    let units: Vec<_> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(&units).unwrap();
    let (first, script) = text.split_once('\n').unwrap();
    let parameters = first
        .split('\'')
        .skip(1)
        .step_by(2)
        .map(|word| String::from_utf8(BASE64.decode(word).unwrap()).unwrap());
    (script.strip_prefix(HEAD).unwrap().to_owned(), parameters.collect())
}

impl Carrier for WindowsGuest {
    async fn send(&self, _peer: Peer, command: &str, _deadline: Instant) -> Result<String> {
        let command: Value = serde_json::from_str(command).unwrap();
        let fault = {
            let mut inner = self.inner.lock().unwrap();
            let number = inner.commands.len();
            inner.commands.push(command["execute"].as_str().unwrap_or_default().to_owned());
            inner.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
        };
        let result = match fault {
            Some(Fault::Unsent) => return lost(false),
            Some(Fault::Refused) => Err("not today".to_owned()),
            _ => self.execute(&command),
        };
        if fault == Some(Fault::Unanswered) {
            return lost(true);
        }
        let reply = match result {
            Ok(value) => json!({ "return": value }),
            Err(desc) => json!({"error": {"class": "GenericError", "desc": desc}}),
        };
        Ok(reply.to_string())
    }

    fn command_max(&self, _peer: Peer) -> usize {
        65_536
    }
}
