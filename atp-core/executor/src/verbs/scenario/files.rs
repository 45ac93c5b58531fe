//! The files of a scenario: which its steps read, and where they may write.

use regex::Regex;

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
                pushed.push(path.ok_or_else(|| from.to_string()));
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
