//! The files of a scenario: which its steps read, and where they may write.

use regex::Regex;

use super::places::FilePlaces;
use super::template::{Template, Values, fill_path};
use super::{Scenario, StepOperation};

impl Scenario {
    /// Has its steps read and write files in these places, and not where their paths say.
    #[must_use]
    pub fn with_places(self, places: FilePlaces) -> Self {
        Scenario { places: Some(places), ..self }
    }

    /// Whether steps copy files, or take pictures.
    pub fn has_files(&self) -> bool {
        self.operations().any(|operation| {
            matches!(
                operation,
                StepOperation::Push { .. } | StepOperation::Pull { .. } | StepOperation::Screenshot(_)
            )
        })
    }

    /// The paths of the files that its steps push, each as far as it is known: with the variables of the file, and those of a
    /// target, its host, name and UUID, if one is given. The error has the path as it stands in the file.
    pub fn pushed(&self, target: Option<(&str, &str, &str)>) -> Vec<Result<String, String>> {
        let mut values = self.variables.clone();
        if let Some((host, vm, uuid)) = target {
            let own = [("host", host), ("vm", vm), ("uuid", uuid)];
            values.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let path = |from: &Template| {
            let path = fill_path(from, &values, &self.variables).ok();
            path.and_then(|path| path.into_os_string().into_string().ok()).ok_or_else(|| from.to_string())
        };
        let pushed = self.operations().filter_map(|operation| match operation {
            StepOperation::Push { from, .. } => Some(path(from)),
            _ => None,
        });
        pushed.collect()
    }

    /// Whether a step may name this folder for what it pulls, or for pictures: what it captured can be any single name in it.
    pub fn may_write_to(&self, folder: &str) -> bool {
        self.operations().any(|operation| match operation {
            StepOperation::Pull { to: named, .. } | StepOperation::Screenshot(named) => {
                may_be(named, &self.variables, folder)
            }
            _ => false,
        })
    }

    fn operations(&self) -> impl Iterator<Item = &StepOperation> {
        self.steps.iter().chain(&self.teardown).filter_map(|step| step.operation())
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
