//! `cargo xtask features`: each crate compiles without its default features, and with each of its features alone.
//!
//! The other checks build the whole workspace at once, where one crate may turn on what another forgot to.

use std::fs;
use std::process::ExitCode;

use crate::{Result, cargo};

/// Checks every member that has features, without its tests, and names the combinations that do not compile.
pub(crate) fn run() -> Result<ExitCode> {
    let (mut checked, mut failed) = (0, Vec::new());
    for member in cargo::members()? {
        let manifest = cargo::root().join(&member).join("Cargo.toml");
        let text =
            fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let features = features(&text);
        if features.is_empty() {
            continue;
        }
        for feature in std::iter::once("").chain(features) {
            let shown = format!("{member} with {}", if feature.is_empty() { "no feature" } else { feature });
            println!("{shown}");
            let mut command = cargo::cargo_apart();
            command.args(["check", "--quiet", "--no-default-features", "--features", feature]);
            command.arg("--manifest-path").arg(&manifest);
            let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
            checked += 1;
            if !status.success() {
                failed.push(shown);
            }
        }
    }
    checked += 1;
    println!("atp without the C library");
    if let Some(part) = part_of_the_library_engine()? {
        failed.push(format!("atp-cli with the native engine alone: it has {part}"));
    }
    for shown in &failed {
        println!("problem: {shown}");
    }
    println!("{checked} combinations, {} problems", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds `atp` with the native engine alone, and looks whether it names the C library or a source file of its engine all the
/// same: it is to run on machines without the one, and has no use for the other.
fn part_of_the_library_engine() -> Result<Option<&'static str>> {
    // As they are written in the table of the libraries that a program needs, and in the places of panics.
    const PARTS: [&str; 2] = ["libvirt.so", "src/engine/library"];
    let mut command = cargo::cargo_apart();
    command.args(["build", "--quiet", "-p", "atp-cli", "--no-default-features", "--features", "native"]);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("atp does not compile with the native engine alone".to_owned());
    }
    let path = cargo::folder_apart().join("debug/atp");
    let program = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let is_named = |name: &&str| program.windows(name.len()).any(|part| part == name.as_bytes());
    Ok(PARTS.into_iter().find(is_named))
}

/// The names in a manifest's table of features, without `default`.
fn features(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "[features]").skip(1);
    let table = lines.take_while(|line| !line.starts_with('['));
    let names = table.filter(|line| !line.starts_with(['#', ' ', '\t', ']']));
    names
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim())
        .filter(|name| *name != "default")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_of_a_manifest_are_its_keys_without_the_default() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\ndefault = [\"a\"]\n# of = a kind\na = [\"dep:x\"]\n\
                        b = [\n    \"dep:y\",\n    \"z/c=d\",\n]\n\n[dependencies]\nx = \"1\"\n";
        assert_eq!(features(manifest), ["a", "b"]);
        assert!(features("[dependencies]\nx = \"1\"\n").is_empty());
    }
}
