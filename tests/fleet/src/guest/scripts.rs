//! The shell scripts by which files are copied and looked at, as far as the guest's files in memory go. Each is known by a part of
//! its text; another script is one that the simulated shell does not know.

use super::files::Files;
use super::programs::Exit;

/// Runs such a script of `sh -c SCRIPT sh PARAMETERS…`.
pub(super) fn run(path: &str, args: &[String], files: &mut Files) -> Option<Exit> {
    let [option, script, _, parameters @ ..] = args else { return None };
    if option != "-c" || !["sh", "/bin/sh"].contains(&path) {
        return None;
    }
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let size = |files: &Files, path: &str| files.content(path).map(<[u8]>::len);
    let ended = |code| Exit { code, ..Exit::default() };
    Some(match parameters[..] {
        // A push begins: where the file and its partial file are, and how long that is.
        [path, name, key] if script.contains("part=$folder.atp-$3.part") => {
            let target = if path.ends_with('/') { format!("{path}{name}") } else { path.to_owned() };
            let folder = target.rfind('/').map_or("/", |end| &target[..=end]);
            let part = format!("{folder}.atp-{key}.part");
            if size(files, &part).is_none() {
                files.put(&part, Vec::new());
            }
            let there = size(files, &part).unwrap_or_default();
            Exit::success(format!("{target}\0{part}\0{there}\n"))
        }
        // It ends: the partial file gets its name.
        [part, target, _] if script.contains("&& mv -f \"$1\" \"$2\"") => match files.remove(part) {
            Some(content) => {
                files.put(target, content);
                Exit::default()
            }
            None => Exit::failure(1, "mv: No such file or directory\n"),
        },
        [path] if script.ends_with("rm -f \"$1\"") => {
            files.remove(path);
            Exit::default()
        }
        [path] if script.ends_with("&& : >\"$1\"") => {
            files.put(path, Vec::new());
            Exit::default()
        }
        // The guest has no tool for digests: the file is read.
        [path, _] if script.contains("sha256sum") => ended(if size(files, path).is_some() { 10 } else { 3 }),
        [path] if script.contains("stat -L -c '%f %s %Y %u %g'") => match size(files, path) {
            Some(size) => Exit::success(format!("81a4 {size} 0 0 0\n")),
            None => ended(3),
        },
        _ => return None,
    })
}
