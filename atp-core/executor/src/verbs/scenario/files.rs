//! The files of a scenario: which its steps read, and where they may write.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use regex::Regex;

use super::error::ScenarioError;
use super::places::FilePlaces;
use super::template::{Template, Values, fill_path};
use super::{Action, Scenario, Step, StepOperation};

impl Scenario {
    /// Has its steps read and write files in these places, and not where their paths say.
    #[must_use]
    pub fn with_places(self, places: FilePlaces) -> Self {
        Scenario { places: Some(places), ..self }
    }

    /// The places of its steps' files, where they are not what their paths say.
    pub fn places(&self) -> Option<&FilePlaces> {
        self.places.as_ref()
    }

    /// Whether steps copy files, take pictures or compare them, or evidence is collected.
    pub fn has_files(&self) -> bool {
        let writes = |step: &Step| {
            matches!(step.operation(), Some(StepOperation::Pull { .. } | StepOperation::Screenshot(_)))
        };
        self.evidence.is_some() || self.all_steps().any(|step| writes(step) || read_by(step).is_some())
    }

    /// The paths of the files that its steps read, each as far as it is known: with the variables of the file, and those of a
    /// target, its host, name and UUID, if one is given. The error has the path as it stands in the file.
    pub fn pushed(&self, target: Option<(&str, &str, &str)>) -> Vec<Result<String, String>> {
        self.steps_that_read(target).into_iter().map(|(_, path)| path).collect()
    }

    /// The files that its steps read and that cannot be read here, as far as their names are known without a target. A step with a
    /// condition may need none, and a file may come later that is in a folder to which a step writes, of this or of the scenarios
    /// that are run `before`.
    ///
    /// Blocks.
    pub fn unreadable_files(&self, before: &[&Scenario]) -> Vec<ScenarioError> {
        let is_written = |path: &Path| {
            let folders = path.ancestors().skip(1).filter_map(Path::to_str);
            let writers = before.iter().copied().chain([self]);
            folders.into_iter().any(|folder| writers.clone().any(|writer| writer.may_write_to(folder)))
        };
        let unreadable = |(step, path): (&Step, Result<String, String>)| {
            let path = path.ok().filter(|_| step.when.is_empty())?;
            let error = try_to_read(Path::new(&path)).err().filter(|_| !is_written(Path::new(&path)))?;
            let error = ScenarioError::at(step.place, format!("the file {path} cannot be read: {error}"));
            let error =
                error.with_hint("check the path: it begins in the folder in which the command is run");
            Some(ScenarioError { file: step.file.clone(), ..error })
        };
        self.steps_that_read(None).into_iter().filter_map(unreadable).collect()
    }

    /// The steps that read a file here, with its path as in [`pushed`](Self::pushed).
    fn steps_that_read(&self, target: Option<(&str, &str, &str)>) -> Vec<(&Step, Result<String, String>)> {
        let mut values = self.variables.clone();
        if let Some((host, vm, uuid)) = target {
            let own = [("host", host), ("vm", vm), ("uuid", uuid)];
            values.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let mut own = self.variables.clone();
        let mut pushed = Vec::new();
        for step in self.all_steps() {
            if let Some(from) = read_by(step) {
                let (mut values, mut own) = (values.clone(), own.clone());
                // A path that needs a value that is not known has none.
                let bound = step.bind(&mut values, &mut own);
                let path = bound.and_then(|()| fill_path(from, &values, &own)).ok();
                let path = path.and_then(|path| path.into_os_string().into_string().ok());
                pushed.push((step, path.ok_or_else(|| from.to_string())));
            }
            // From here on it is what the guest said.
            if let Some(name) = &step.capture {
                values.remove(name);
                own.remove(name);
            }
        }
        pushed
    }

    /// Whether a step may name this folder for what it pulls, for pictures, or it is that of the evidence: what it captured can be any single name in it.
    pub fn may_write_to(&self, folder: &str) -> bool {
        // What a step captures may be any name, and is the file's value until then.
        let mut unknown = self.variables.clone();
        unknown.retain(|name, _| !self.all_steps().any(|step| step.capture.as_ref() == Some(name)));
        let may_be = |template: &Template, step: Option<&Step>| {
            [&self.variables, &unknown].into_iter().any(|own| {
                let mut own = own.clone();
                if let Some(step) = step {
                    // What cannot be bound is not the file's own: it can be any name.
                    let _unknown = step.bind(&mut own.clone(), &mut own);
                }
                may_be(template, &own, folder)
            })
        };
        self.evidence.as_ref().is_some_and(|evidence| may_be(&evidence.folder, None))
            || self.all_steps().any(|step| match step.operation() {
                Some(StepOperation::Pull { to: named, .. } | StepOperation::Screenshot(named)) => {
                    may_be(named, Some(step))
                }
                _ => false,
            })
    }
}

/// Opens a file as a step would.
fn try_to_read(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // To open a pipe waits for its other end.
    if found.is_file() { File::open(path).map(drop) } else { Ok(()) }
}

/// The file that a step reads.
fn read_by(step: &Step) -> Option<&Template> {
    match &step.action {
        Action::Do(StepOperation::Push { from, .. }) => Some(from),
        Action::Assert(assertion) => assertion.screen.as_ref().map(|screen| &screen.image),
        _ => None,
    }
}

/// Whether a path can come of a template, with any value of variables that are not the file's own.
fn may_be(template: &Template, own: &Values, path: &str) -> bool {
    const NAME: &str = r"(?:\.{3,}|\.{0,2}[^./\x00][^/\x00]*)";
    let pattern = template.pattern(|name| own.get(name).map(|value| regex::escape(value)), NAME);
    Regex::new(&format!("(?s)^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(steps: &str) -> Scenario {
        let text = format!("name: a\ntargets: '*'\nvariables: {{base: '../out'}}\nsteps:\n{steps}");
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_files_that_are_pushed_are_known_as_far_as_their_names_are() {
        let scenario = scenario(
            "  - cp: {push: a.conf, to: /a}\n  - cp: {push: 'per/${vm}.conf', to: /b}\n  - exec: hostname\n    capture: said\n  \
             - cp: {push: '${said}', to: /c}\n",
        );
        let unknown = || Err("${said}".to_owned());
        assert_eq!(scenario.pushed(None), [Ok("a.conf".into()), Err("per/${vm}.conf".into()), unknown()]);
        let of_target = scenario.pushed(Some(("h1", "web", "u")));
        assert_eq!(of_target, [Ok("a.conf".into()), Ok("per/web.conf".into()), unknown()]);
        // A VM's name leads to no other folder.
        assert_eq!(scenario.pushed(Some(("h1", "../x", "u")))[1], Err("per/${vm}.conf".into()));
        assert!(scenario.has_files() && !self::scenario("  - exec: 'true'\n").has_files());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_found_where_its_name_is_known() {
        let scenario = scenario(
            "  - cp: {push: /nope/a, to: /a}\n  - cp: {push: 'nope/${vm}', to: /a}\n  - screenshot: shots/all\n  \
             - assert: {screen: {image: shots/all/h1/vm1.png}}\n  - assert: {screen: {image: shots/vm1.png}}\n  \
             - {when: {value: '${vm}', equals: a}, cp: {push: /nope/b, to: /a}}\n  - cp: {push: /dev/null, to: /a}\n  \
             - {for_each: {x: [/nope/c, /]}, cp: {push: '${x}', to: /a}}\n",
        );
        let pulls = self::scenario("  - cp: {pull: /a, to: shots}\n");
        assert_eq!(scenario.unreadable_files(&[&pulls]).len(), 3);
        let found = scenario.unreadable_files(&[]);
        let found: Vec<_> = found
            .iter()
            .map(|error| (error.place.unwrap().line, error.message.split(' ').nth(2).unwrap()))
            .collect();
        assert_eq!(found, [(5, "/nope/a"), (9, "shots/vm1.png"), (12, "/nope/c"), (12, "/")]);
    }

    #[test]
    fn a_captured_value_is_that_of_the_guest_and_no_longer_of_the_file() {
        let scenario = scenario(
            "  - {cp: {push: '${base}', to: /a}}\n  - exec: hostname\n    capture: base\n  \
             - {for_each: {x: ['${base}']}, cp: {push: '${x}', to: /a}}\n  - screenshot: '${base}'\n",
        );
        assert_eq!(scenario.pushed(None), [Ok("../out".into()), Err("${x}".into())]);
        assert!(scenario.may_write_to("../out") && scenario.may_write_to("web-1"));
        assert!(!scenario.may_write_to("../x"));
    }

    #[test]
    fn a_service_can_name_no_folder_but_those_of_the_steps() {
        let scenario = scenario(
            "  - exec: hostname\n    capture: said\n  - cp: {pull: /x, to: '${base}/${said}'}\n  - screenshot: shots.d\n",
        );
        for folder in ["../out/x", "../out/..x", "../out/...", "../out/.x", "shots.d"] {
            assert!(scenario.may_write_to(folder), "{folder}");
        }
        for folder in [
            "",
            "/etc",
            "shotsxd",
            "shots.d/x",
            "../out",
            "../out/",
            "../out/.",
            "../out/..",
            "../out/a/b",
            "out/x",
        ] {
            assert!(!scenario.may_write_to(folder), "{folder}");
        }
    }
}
