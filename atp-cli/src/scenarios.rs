//! The scenario files that a command names.

use std::fs;
use std::path::{Path, PathBuf};

use atp_executor::{Scenario, ScenarioError};

use crate::problem::Problem;

/// The deepest folder in folders that is looked into.
const DEEPEST: usize = 16;

/// A scenario file, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) path: PathBuf,
    pub(crate) scenario: Result<Scenario, Vec<ScenarioError>>,
}

impl Checked {
    pub(crate) fn is_right(&self) -> bool {
        self.scenario.is_ok()
    }

    /// All that is wrong with it.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.scenario.as_ref().err().into_iter().flatten().map(|error| {
            // `FILE:LINE:COLUMN: …`, which editors can open.
            let place = error.place.map(|place| format!(":{}:{}", place.line, place.column));
            let path = self.path_of(error);
            let problem =
                Problem::new(format!("{}{}: {}", path.display(), place.unwrap_or_default(), error.message));
            match &error.hint {
                Some(hint) => problem.hint(hint.clone()),
                None => problem,
            }
        })
    }

    /// The file that an error is in: this, or one that it includes.
    pub(crate) fn path_of(&self, error: &ScenarioError) -> PathBuf {
        match &error.file {
            Some(file) => self.path.with_file_name("").join(file),
            None => self.path.clone(),
        }
    }
}

/// Reads scenario files and those of folders, and gives variables other values.
///
/// # Errors
/// All that is wrong with them, or with the variables.
pub(crate) fn read(paths: &[PathBuf], set: &[(String, String)]) -> Result<Vec<Scenario>, Vec<Problem>> {
    let checked = check(paths, set)?;
    let problems: Vec<_> = checked.iter().flat_map(Checked::problems).collect();
    match problems.is_empty() {
        true => Ok(checked.into_iter().filter_map(|file| file.scenario.ok()).collect()),
        false => Err(problems),
    }
}

/// As [`read`], with what is wrong with each file. A variable is set in those files that have it.
///
/// # Errors
/// A folder cannot be read or has no scenario, or no file has a variable.
pub(crate) fn check(paths: &[PathBuf], set: &[(String, String)]) -> Result<Vec<Checked>, Vec<Problem>> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let before = files.len();
        match path.is_dir() {
            true => add_folder(path, DEEPEST, &mut files, &mut problems),
            false => files.push(path.clone()),
        }
        if path.is_dir() && files.len() == before && problems.is_empty() {
            let problem = Problem::new(format!("{}: there is no scenario in this folder", path.display()));
            problems.push(
                problem.hint("scenario files end in .yaml or .yml; docs/scenarios.md describes the format"),
            );
        }
    }
    let mut checked: Vec<_> = files.into_iter().map(|path| Checked { scenario: load(&path), path }).collect();
    for (name, value) in set {
        let mut unknown = None;
        let mut is_known = false;
        for scenario in checked.iter_mut().filter_map(|file| file.scenario.as_mut().ok()) {
            match scenario.set(name, value) {
                Ok(()) => is_known = true,
                Err(error) => unknown = Some(error),
            }
        }
        if let (Some(error), false) = (unknown, is_known) {
            let problem = Problem::new(format!("--set {name}={value}: {error}"));
            problems.push(match error.hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
    }
    for place in 0..checked.len() {
        let (before, rest) = checked.split_at_mut(place);
        let before: Vec<_> = before.iter().filter_map(|file| file.scenario.as_ref().ok()).collect();
        let Some(Checked { scenario: read, .. }) = rest.first_mut() else { continue };
        let Ok(scenario) = read else { continue };
        let problems = scenario.selection().err().into_iter();
        let problems: Vec<_> = problems.chain(scenario.unreadable_files(&before)).collect();
        if !problems.is_empty() {
            *read = Err(problems);
        }
    }
    if problems.is_empty() { Ok(checked) } else { Err(problems) }
}

fn load(path: &Path) -> Result<Scenario, Vec<ScenarioError>> {
    let mut loaded = Scenario::load(path);
    if let Err(errors) = &mut loaded
        && let Some(error) = errors.first_mut()
        && Scenario::is_included_file(path)
    {
        error.message = "a list of steps, which scenarios include, and no scenario".to_owned();
        error.hint = Some("name the scenario that includes it".to_owned());
    }
    loaded
}

/// Adds the scenario files of a folder and of those in it, in the order of their names. Links to folders are not followed.
fn add_folder(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<_> = match entries {
        Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
        Err(error) => {
            let problem = Problem::new(format!("{} cannot be read", folder.display()));
            return problems.push(problem.because(&error));
        }
    };
    paths.sort();
    for path in paths {
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if path.is_dir() && !path.is_symlink() && depth > 0 {
            add_folder(&path, depth - 1, files, problems);
        } else if is_yaml && !path.is_dir() && !Scenario::is_included_file(&path) {
            files.push(path);
        }
    }
}
