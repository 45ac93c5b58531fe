//! Scenario files: what is right, what is wrong and where, the schema, and runs on libvirt's test driver.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atp_executor::{
    Data, Executor, Operation, Outcome, Policy, Run, RunControl, Scenario, ScenarioError, ScenarioReport,
    Status, scenario_schema,
};
use atp_transport::{Effect, HostInfo, PoolConfig, TransportConfig, TransportManager};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/scenarios")
}

#[test]
fn the_examples_are_scenarios() {
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let scenario =
                Scenario::load(&path).unwrap_or_else(|errors| panic!("{}: {errors:?}", path.display()));
            assert_eq!(Some(scenario.name()), path.file_stem().and_then(|stem| stem.to_str()));
            assert!(scenario.description().is_some());
            count += 1;
        }
    }
    assert_eq!(count, 9);
}

/// `UPDATE_SCHEMA=1 cargo test -p atp-executor --test scenario` writes it anew.
#[test]
fn the_schema_for_editors_is_in_step() {
    let path = folder().join("scenario.schema.json");
    let schema = format!("{}\n", serde_json::to_string_pretty(&scenario_schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), schema);
}

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    text.parse()
}

/// A scenario with these lines as its steps, the first of them on line 4.
fn with_steps(steps: &str) -> String {
    format!("name: n\ntargets: '*'\nsteps:\n{steps}\n")
}

#[test]
fn errors_say_where_and_what() {
    let steps = |text: &str| with_steps(text);
    let mut wrong = Vec::new();
    for (text, line, column, message, hint) in [
        (String::new(), 1, 1, "a scenario with its keys", ""),
        ("- a\n".into(), 1, 1, "a scenario with its keys, not a list", ""),
        ("name: n\ntargets: x\n".into(), 1, 1, "needs the key \"steps\"", ""),
        ("name: n\ntarget: x\n".into(), 2, 1, "no key \"target\"", "\"targets\""),
        ("name: n\ntargets: 'a['\nsteps:\n  - wait: agent\n".into(), 2, 10, "character 2", "a selector is"),
        ("name: n\ntargets: x\nsteps: []\n".into(), 3, 8, "a list of steps without any", ""),
        (
            "name: n\ntargets: x\nstate: off\nsteps:\n  - wait: agent\n".into(),
            3,
            8,
            "not one of any, running",
            "",
        ),
        (
            "name: n\nvariables: {vm: x}\ntargets: x\nsteps: [{wait: agent}]\n".into(),
            2,
            13,
            "cannot be named",
            "properties of every VM",
        ),
        (
            "name: n\ntargets: ${vms}\nsteps: [{wait: agent}]\n".into(),
            2,
            10,
            "no variable \"vms\"",
            "nothing",
        ),
        ("name: [\n".into(), 1, 7, "unclosed bracket", ""),
        (steps("  - exce: true"), 4, 5, "no key \"exce\"", "\"exec\""),
        (steps("  - name: x"), 4, 5, "a step needs an action", "exec, qmp"),
        (steps("  - exec: a\n    qmp: b"), 5, 10, "a second one: qmp", "a separate step"),
        (steps("  - exec: echo ${krenel}\n  - exec: x"), 4, 11, "no variable \"krenel\"", "known here"),
        (steps("  - exec: echo ${host\n"), 4, 11, "not closed", ""),
        (steps("  - exec: {comand: x}"), 4, 12, "no key \"comand\"", "\"command\""),
        (steps("  - exec: [a, [b]]"), 4, 15, "expected text, not a list", ""),
        (steps("  - exec: x\n    timeout: 30"), 5, 14, "a time such as 30s", ""),
        (steps("  - exec: x\n    capture: 1a"), 5, 14, "cannot be named", ""),
        (steps("  - wait: agent\n    capture: x"), 5, 14, "no result to capture", ""),
        (steps("  - vm: explode"), 4, 9, "\"explode\" is not one of start", "known here"),
        (steps("  - vm: {action: shutdwon}"), 4, 18, "not one of start", "\"shutdown\""),
        (
            steps("  - vm: {action: start, wait: maybe}"),
            4,
            31,
            "\"maybe\" is not one of state, agent",
            "true or false",
        ),
        (steps("  - vm: {action: start, wait: 3}"), 4, 31, "true or false", ""),
        (steps("  - vm: {action: destroy, wait: agent}"), 4, 9, "destroy cannot wait for the agent", ""),
        (steps("  - wait: {}"), 4, 11, "one condition", ""),
        (steps("  - wait: {port: 0}"), 4, 18, "a port from 1 to 65535", ""),
        (steps("  - wait: {console: '('}"), 4, 21, "not a regular expression", ""),
        (steps("  - wait: {console: x, port: 1}"), 4, 11, "one condition", ""),
        (steps("  - assert: {console: {none_of: [panics]}}"), 4, 34, "not one of panic", "\"panic\""),
        (steps("  - assert: {file: {exists: true}}"), 4, 20, "needs the key \"path\"", ""),
        (
            steps("  - assert: {file: {path: /x, exists: false, matches: y}}"),
            4,
            20,
            "not there has no content",
            "",
        ),
        (
            "name: n\ntargets: x\nevidence: {on: failure}\n".into(),
            3,
            11,
            "no evidence is asked for",
            "console",
        ),
        ("name: n\ntargets: x\nevidence: {console: 0}\n".into(), 3, 21, "lines from 1 to 10000", ""),
        (steps("  - wait: boot"), 4, 11, "not one of agent", "state: STATE"),
        (steps("  - assert: {}"), 4, 13, "needs a condition", ""),
        (steps("  - assert: {exit_code: 0}"), 4, 5, "need an exec step directly before", ""),
        (steps("  - assert: {stdout: x}"), 4, 5, "no previous step", ""),
        (
            steps("  - exec: x\n  - assert: {stdout: '('}"),
            5,
            22,
            "not a regular expression: unclosed group",
            "",
        ),
        (steps("  - exec: x\n  - assert: {exit_code: none}"), 5, 25, "a whole number", ""),
        (steps("  - cp: {to: x}"), 4, 9, "push a file, or pull one", ""),
        (steps("  - key: ctrl-nosuch"), 4, 10, "nosuch", ""),
        (steps("  - mouse: fly"), 4, 12, "fly", ""),
        (steps("  - qmp: '{\"execute\":1}'"), 4, 10, "name comes first", ""),
        (steps("  - {exec: x, when: {value: x}}"), 4, 21, "one comparison", "not_equals"),
        (steps("  - {exec: x, when: {value: '${y}', equals: x}}"), 4, 29, "no variable \"y\"", ""),
        (steps("  - {exec: x, retry: 0}"), 4, 22, "from 1 to 1000", ""),
        (
            steps("  - exec: x\n  - {assert: {stdout: x}, retry: 2}"),
            5,
            34,
            "the same result",
            "the step before",
        ),
        (steps("  - {exec: x, for_each: {vm: [a]}}"), 4, 26, "cannot be named", ""),
        (steps("  - {exec: x, for_each: [a]}"), 4, 25, "a mapping of names", ""),
        (steps("  - {exec: x, for_each: {a: [x], b: [y]}}"), 4, 25, "one variable with a list", ""),
        (steps("  - {exec: x, for_each: {a: []}}"), 4, 29, "without any", ""),
        (steps("  - {exec: x, for_each: {a: [x]}}\n  - exec: ${a}"), 5, 11, "no variable \"a\"", ""),
        (steps("  - {exec: x, for_each: {a: [x]}, capture: a}"), 4, 44, "that of a for_each", ""),
        (steps("  - {include: a.yaml, timeout: 3s}"), 4, 32, "when and for_each only", ""),
        (steps("  - include: a.yaml"), 4, 14, "only a scenario that is read from a file", ""),
    ] {
        let error = parse(&text).unwrap_err();
        let place = error.place.unwrap();
        let is_right = (place.line, place.column) == (line, column)
            && error.message.contains(message)
            && error.hint.as_deref().unwrap_or_default().contains(hint);
        if !is_right {
            wrong.push(format!("{text}\n=> {error}, hint {:?}", error.hint));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn variables_are_of_the_file_and_can_be_set() {
    let text = "name: n\nvariables: {who: web, version: 1.10}\ntargets: ['${who}-*', h1/db]\nexclude: h2/\n\
                labels: {role: '${who}'}\nsteps:\n  - exec: echo ${version} ${vm}\n";
    let mut scenario = parse(text).unwrap();
    let selectors = |scenario: &Scenario| {
        let selection = scenario.selection().unwrap();
        assert_eq!(selection.exclude.len(), 1);
        let labels: Vec<_> = selection.labels.iter().map(|label| label.value.clone()).collect();
        (selection.selectors.iter().map(ToString::to_string).collect::<Vec<_>>(), labels)
    };
    assert_eq!(selectors(&scenario), (vec!["web-*".into(), "h1/db".into()], vec!["web".into()]));
    scenario.set("who", "app").unwrap();
    assert_eq!(selectors(&scenario).0[0], "app-*");
    // As it is written, not as the number it looks like.
    assert!(format!("{scenario:?}").contains("\"1.10\""), "{scenario:?}");
    let error = scenario.set("whom", "x").unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean \"who\"?"));
    scenario.set("who", "a[").unwrap();
    assert_eq!(scenario.selection().unwrap_err().place.map(|place| place.line), Some(3));
}

#[test]
fn a_scenario_is_as_careful_as_its_steps() {
    let of = |steps: &str| parse(&with_steps(steps)).unwrap();
    assert!(of("  - vm: destroy").is_disruptive());
    assert!(!of("  - vm: start").is_disruptive());
    assert!(of("  - vm: info\n  - assert: {state: running}\n  - wait: {state: running}").only_looks());
    assert!(!of("  - exec: x").only_looks());
    assert!(
        of("  - wait: {port: 22}\n  - wait: {console: login}\n  - assert: {console: {none_of: [oops]}}")
            .only_looks()
    );
    let evidence =
        |what: &str| parse(&format!("evidence: {what}\n{}", with_steps("  - wait: agent"))).unwrap();
    assert!(evidence("{console: 9, screenshot: true}").only_looks());
    let commands = evidence("{on: always, commands: [dmesg]}");
    assert!(!commands.only_looks());
    assert_eq!(commands.budget(Duration::from_secs(60)), Duration::from_secs(80));
    let timed = of("  - exec: x\n    timeout: 5m\n  - exec: y");
    assert_eq!(timed.budget(Duration::from_secs(60)), Duration::from_secs(360));
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_that_is_nearly_a_scenario_is_a_panic(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "name: n", "targets: '*'", "targets: [a, b]", "steps:", "teardown:", "variables:", "  a: 1",
                "  - exec: x", "  - exec: [a, ${b}]", "  - wait: agent", "  - assert: {exit_code: 1}", "    capture: b",
                "    timeout: 3s", "  - vm: {action: start}", "labels: {a: b}", "state: paused", "  -", "[", "&a *a", "? x",
            ]),
            0..12,
        ),
    ) {
        if let Err(error) = parse(&lines.join("\n")) {
            prop_assert!(error.place.is_none_or(|place| place.line >= 1 && place.column >= 1));
        }
    }
}

/// Starts a scenario on libvirt's test driver, with one domain named `test` that has neither monitor nor agent. It
/// comes from a file, for all connections of a process share that of `test:///default`, and so would these tests. The
/// driver reads the file for every connection anew, so the host has one connection only.
async fn start(text: &str, control: &RunControl) -> (TransportManager, Run) {
    start_scenario(parse(text).unwrap(), control).await
}

async fn start_scenario(scenario: Scenario, control: &RunControl) -> (TransportManager, Run) {
    let pool =
        PoolConfig { max_connections_per_host: 1, min_connections_per_host: 0, ..PoolConfig::default() };
    let manager = TransportManager::new(TransportConfig { pool, ..TransportConfig::default() });
    let uri = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/one_domain.xml");
    manager.add_host(HostInfo::from_uri("demo", uri)).await.unwrap();
    let executor = Executor::new(manager.clone());
    let selection = scenario.selection().unwrap();
    let policy = Policy { timeout: Duration::from_secs(30), retries: 2, ..Policy::default() };
    let plan = executor.plan(&selection, Operation::Scenario(Arc::new(scenario)), policy).await.unwrap();
    (manager, executor.run(plan, control))
}

async fn run(text: &str) -> Outcome {
    let (_manager, run) = start(text, &RunControl::default()).await;
    run.outcomes().await.remove(0)
}

/// Returns when so much was asked of the host: the listing comes first, and then what the steps ask.
async fn asked(manager: &TransportManager, requests: u64) {
    while manager.pool("demo").unwrap().stats().total_requests < requests {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn report(outcome: &Outcome) -> &ScenarioReport {
    match &outcome.data {
        Some(Data::Scenario(report)) => report,
        other => panic!("{other:?}"),
    }
}

/// `name status` of each step, and of each of the teardown.
fn steps(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
    let report = report(outcome);
    let line = |step: &atp_executor::StepReport| format!("{} {}", step.name, step.status);
    (report.steps.iter().map(line).collect(), report.teardown.iter().map(line).collect())
}

#[tokio::test]
async fn steps_follow_one_another_and_a_teardown_them() {
    let text = with_steps(
        "  - {name: look, vm: info, capture: seen}\n  - {name: named, assert: {stdout: '\"name\":\"test\"', state: running}}\n  \
         - vm: suspend\n  - {name: paused, wait: {state: paused}, timeout: 9s}\nteardown:\n  - vm: resume\n  - assert: {state: running}",
    );
    let outcome = run(&text).await;
    assert_eq!(
        (outcome.status, outcome.effect, outcome.op.as_ref()),
        (Status::Ok, Effect::Done, "run"),
        "{outcome:?}"
    );
    let (done, undone) = steps(&outcome);
    assert_eq!(done, ["look ok", "named ok", "vm-suspend ok", "paused ok"]);
    assert_eq!(undone, ["vm-resume ok", "assert ok"]);
}

#[tokio::test]
async fn after_a_failed_step_only_the_teardown_is_carried_out() {
    let text = with_steps(
        "  - vm: suspend\n  - {name: judge, assert: {state: running}}\n  - vm: destroy\n\
         teardown:\n  - exec: true\n  - vm: resume",
    );
    let outcome = run(&text).await;
    assert_eq!((outcome.status, outcome.effect), (Status::Failed, Effect::Done));
    let (done, undone) = steps(&outcome);
    assert_eq!(done, ["vm-suspend ok", "judge failed"]);
    assert_eq!(undone.len(), 2);
    assert_eq!(undone[1], "vm-resume ok");
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, "assertion-failed");
    assert_eq!(error.message, "step 2 (judge): the VM is paused, not running");
    let causes: Vec<_> = error.causes.iter().filter(|cause| cause.starts_with("teardown step ")).collect();
    assert!(causes.len() == 1 && causes[0].starts_with("teardown step 1 ("), "{:?}", error.causes);
}

#[tokio::test]
async fn a_wait_ends_with_its_own_time() {
    let text = with_steps("  - {wait: {state: shut-off}, timeout: 2s}");
    let outcome = run(&text).await;
    assert_eq!((outcome.status, outcome.effect), (Status::Timeout, Effect::None));
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, "condition-not-met");
    assert!(error.message.ends_with("it is running"), "{}", error.message);
}

#[tokio::test]
async fn a_stopped_run_continues_with_the_teardown() {
    let text = with_steps(
        "  - {wait: {state: paused}, timeout: 60s}\n  - vm: destroy\nteardown:\n  - {name: after, vm: info}\n  \
         - {name: still up, wait: {state: running}}",
    );
    let control = RunControl::default();
    let (manager, run) = start(&text, &control).await;
    asked(&manager, 4).await;
    control.stop.cancel();
    let outcome = run.outcomes().await.remove(0);
    let (done, undone) = steps(&outcome);
    assert_eq!((outcome.status, done), (Status::Cancelled, vec!["wait cancelled".to_owned()]));
    assert_eq!(undone, ["after ok", "still up ok"]);
}

#[tokio::test]
async fn aborted_it_says_how_far_it_was_and_that_there_was_no_teardown() {
    let text = with_steps(
        "  - vm: info\n  - {name: for ever, wait: {state: paused}, timeout: 60s}\nteardown:\n  - vm: info",
    );
    let control = RunControl::default();
    let (manager, run) = start(&text, &control).await;
    asked(&manager, 6).await;
    control.abort.cancel();
    let outcome = run.outcomes().await.remove(0);
    assert_eq!((outcome.status, steps(&outcome).0), (Status::Cancelled, vec!["vm-info ok".to_owned()]));
    assert_eq!((report(&outcome).steps_total, report(&outcome).teardown_total), (2, 1));
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, "aborted");
    let how_far = "it was in step 2 of 2 (for ever), and the teardown was not carried out";
    assert!(error.message.ends_with(how_far), "{}", error.message);
}

#[tokio::test]
async fn a_variable_that_was_not_captured_fails_the_step_that_needs_it() {
    let text = with_steps("  - exec: fails\n    capture: x\nteardown:\n  - exec: echo ${x}");
    let outcome = run(&text).await;
    let undone = &report(&outcome).teardown[0];
    assert_eq!(undone.error.as_ref().unwrap().kind, "step-unfit");
    assert_eq!((undone.attempts, undone.effect), (0, Effect::None));
}

/// A folder with these files.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn load(folder: &tempfile::TempDir) -> Result<Scenario, Vec<ScenarioError>> {
    Scenario::load(&folder.path().join("s.yaml"))
}

#[test]
fn all_problems_of_a_file_and_of_those_that_it_includes_are_found() {
    let folder = files(&[
        (
            "s.yaml",
            "nmae: n\ntargets: 'a['\nstate: off\nsteps:\n  - exce: x\n    capture: a\n  - exec: ${a} ${b}\n  - include: s/one.yaml\n  \
             - wait: boot\nteardown:\n  - name: x\n",
        ),
        ("s/one.yaml", "- exec: ${c}\n- vm: start\n- timeout: 3\n  exec: x\n"),
    ]);
    let errors = load(&folder).unwrap_err();
    let seen: Vec<_> = errors
        .iter()
        .map(|error| {
            let place = error.place.unwrap();
            let file = error.file.as_deref().unwrap_or("");
            format!("{file}:{}:{} {}", place.line, place.column, error.message)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ":1:1 a scenario has no key \"nmae\"",
            ":2:10 selector \"a[\", character 2: expected a ']' to close this '[' (or '\\[' for the character itself)",
            ":3:8 \"off\" is not one of any, running, shut-off, paused, crashed, pmsuspended, io-error, saved, migrating",
            ":5:5 a step has no key \"exce\"",
            ":7:11 there is no variable \"b\" here",
            ":9:11 \"boot\" is not one of agent",
            ":11:5 a step needs an action",
            ":1:1 a scenario needs the key \"name\"",
            "s/one.yaml:1:9 there is no variable \"c\" here",
            "s/one.yaml:3:12 expected a time such as 30s, 2m or 500ms, not a number",
        ]
    );
    assert_eq!(Scenario::load(&folder.path().join("none.yaml")).unwrap_err().len(), 1);
}

#[test]
fn an_included_file_is_in_the_place_of_its_include() {
    let folder = files(&[
        (
            "s.yaml",
            "name: n\ntargets: x\nsteps:\n  - include: {file: s/one.yaml, with: {what: '${vm}'}}\n    for_each: {n: [1, 2]}\n  \
             - exec: echo ${said}\n",
        ),
        ("s/one.yaml", "- exec: echo ${what} ${n}\n  capture: said\n- include: ../two.yaml\n"),
        ("two.yaml", "- vm: info\n"),
    ]);
    let scenario = load(&folder).unwrap();
    let names: Vec<_> = scenario.steps().iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["exec", "vm-info", "exec", "vm-info", "exec"]);
    let included: Vec<_> = scenario.spec().included.keys().map(String::as_str).collect();
    assert_eq!(included, ["s/one.yaml", "two.yaml"]);
    // The texts are all that a journal or a service needs.
    let again = Scenario::prepare(scenario.spec()).unwrap();
    assert_eq!(again, scenario);
    let mut without = scenario.spec().clone();
    without.included.remove("two.yaml");
    let error = Scenario::prepare(&without).unwrap_err();
    assert_eq!(error.file.as_deref(), Some("s/one.yaml"));
    assert!(error.message.contains("two.yaml cannot be included"), "{error}");
    assert!(Scenario::is_included_file(&folder.path().join("two.yaml")));
    assert!(!Scenario::is_included_file(&folder.path().join("s.yaml")));
}

#[test]
fn circles_and_multitudes_of_includes_are_refused() {
    let main = ("s.yaml", "name: n\ntargets: x\nsteps:\n  - include: a.yaml\n");
    let circle =
        files(&[main, ("a.yaml", "- include: b.yaml\n"), ("b.yaml", "- vm: info\n- include: a.yaml\n")]);
    let errors = load(&circle).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].file.as_deref(), errors[0].place.unwrap().line), (Some("b.yaml"), 2));
    assert_eq!(errors[0].message, "a.yaml includes itself: a.yaml includes b.yaml includes a.yaml");

    let values: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let each = |file: &str, name: &str| {
        format!("- include: {file}\n  for_each: {{{name}: [{}]}}\n", values.join(", "))
    };
    let (a, b, c) = (each("b.yaml", "a"), each("c.yaml", "b"), each("d.yaml", "c"));
    let many = files(&[main, ("a.yaml", &a), ("b.yaml", &b), ("c.yaml", &c), ("d.yaml", "- vm: info\n")]);
    let errors = load(&many).unwrap_err();
    assert!(errors[0].message.contains("at most 10000 steps"), "{errors:?}");

    let deep: Vec<_> =
        (0..20).map(|n| (format!("{n}.yaml"), format!("- include: {}.yaml\n", n + 1))).collect();
    let mut all = vec![("s.yaml", "name: n\ntargets: x\nsteps:\n  - include: 0.yaml\n")];
    all.extend(deep.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let errors = load(&files(&all)).unwrap_err();
    assert!(errors[0].message.contains("more than 16 files"), "{errors:?}");
}

#[tokio::test]
async fn a_step_is_skipped_when_its_condition_does_not_hold() {
    let text = with_steps(
        "  - {vm: info, when: {value: '${vm}', equals: other}, capture: seen}\n  - assert: {stdout: nothing}\n  \
         - {name: is it, vm: info, when: {value: '${vm}', matches: ^test$}}\n  - assert: {stdout: '\"name\":\"test\"'}\n\
         teardown:\n  - {vm: suspend, when: {value: '${seen}', not_equals: ''}}\n  - {vm: info, when: {value: x, equals: x}}",
    );
    let outcome = run(&text).await;
    assert_eq!((outcome.status, outcome.effect), (Status::Ok, Effect::None), "{outcome:?}");
    let (done, undone) = steps(&outcome);
    assert_eq!(done, ["vm-info skipped", "assert skipped", "is it ok", "assert ok"]);
    assert_eq!(undone, ["vm-suspend skipped", "vm-info ok"]);
}

#[tokio::test]
async fn a_step_is_carried_out_for_each_value() {
    let text = with_steps(
        "  - {vm: info, name: look, for_each: {field: [name, uuid]}, capture: seen}\n  \
         - {wait: {state: running}, for_each: {n: ['${vm}', b]}, when: {value: '${n}', equals: test}}",
    );
    let outcome = run(&text).await;
    assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
    let (done, _) = steps(&outcome);
    assert_eq!(done, ["look (name) ok", "look (uuid) ok", "wait (${vm}) ok", "wait (b) skipped"]);
    assert_eq!(report(&outcome).steps_total, 4);
}

#[tokio::test]
async fn a_step_that_fails_is_repeated_as_it_says() {
    let text = with_steps("  - {assert: {state: paused}, retry: {times: 2, every: 1ms}}\n");
    let outcome = run(&text).await;
    assert_eq!(outcome.status, Status::Failed);
    assert_eq!(report(&outcome).steps[0].attempts, 3);
    // The time for it is that of all its attempts.
    let scenario =
        parse(&with_steps("  - {vm: info, timeout: 10s, retry: {times: 2, every: 5s}}\n")).unwrap();
    assert_eq!(scenario.budget(Duration::from_secs(1)), Duration::from_secs(40));
}

/// A file that includes another so many times.
fn including(file: &str, times: usize) -> String {
    format!("- include: {file}\n").repeat(times)
}

#[test]
fn includes_that_fail_are_counted_too() {
    let main = ("s.yaml", "name: n\ntargets: x\nsteps:\n  - include: a.yaml\n");
    let (a, b) = (including("b.yaml", 900), including("c.yaml", 900));
    // None of them comes to a step: a list without any, a file that is not there, a circle, no list, a step that is none.
    for c in ["[]", "- include: none.yaml", "- include: a.yaml\n- include: b.yaml", "x: 1", "- {}", "- x: ["]
    {
        let files = files(&[main, ("a.yaml", &a), ("b.yaml", &b), ("c.yaml", c)]);
        let errors = load(&files).unwrap_err();
        assert!(errors.len() < 300, "{c}: {} errors", errors.len());
        assert!(
            errors.iter().any(|error| error.message.contains("200 problems or more")),
            "{c}: {:?}",
            errors.last()
        );
    }
    let large = format!("- exec: '{}'\n", "x".repeat(500_000));
    let errors =
        load(&files(&[main, ("a.yaml", &including("b.yaml", 200)), ("b.yaml", &large)])).unwrap_err();
    assert!(errors[0].message.contains("at most 32 MiB of text"), "{:?}", errors[0].message);
    let many: Vec<_> = (0..1_001).map(|n| (format!("f{n}.yaml"), "- vm: info\n".to_owned())).collect();
    let a: String = many.iter().map(|(name, _)| including(name, 1)).collect();
    let mut all = vec![main, ("a.yaml", &*a)];
    all.extend(many.iter().map(|(name, text)| (&**name, &**text)));
    let errors = load(&files(&all)).unwrap_err();
    assert!(errors[0].message.contains("at most 1000 files"), "{errors:?}");
}

#[tokio::test]
async fn values_that_grow_with_each_include_are_refused() {
    let twice = |outer: &str, inner: &str, file: &str| {
        let with = format!("{{{inner}: '{}'}}", format!("${{{outer}}}").repeat(32));
        format!("- include: {{file: {file}, with: {with}}}\n")
    };
    let texts: Vec<_> = (0..8)
        .map(|n| {
            (format!("{n}.yaml"), twice(&format!("v{n}"), &format!("v{}", n + 1), &format!("{}.yaml", n + 1)))
        })
        .chain([("8.yaml".to_owned(), "- exec: echo ${v8}\n- {cp: {push: '${v8}', to: /x}}\n".to_owned())])
        .collect();
    let main = "name: n\ntargets: 'test'\nvariables: {v0: 32 letters make 32 TiB together.}\nsteps:\n  - include: 0.yaml\n";
    let mut all = vec![("s.yaml", main)];
    all.extend(texts.iter().map(|(name, text)| (&**name, &**text)));
    let scenario = load(&files(&all)).unwrap();
    assert_eq!(scenario.pushed(None), [Err("${v8}".to_owned())]);
    let (_manager, run) = start_scenario(scenario, &RunControl::default()).await;
    let outcome = run.outcomes().await.remove(0);
    let step = report(&outcome).steps[0].error.clone().unwrap();
    assert_eq!(step.kind, "step-unfit");
    assert!(step.message.contains("larger than 1 MiB"), "{}", step.message);
}

#[tokio::test]
async fn what_is_captured_during_the_run_is_what_loops_and_includes_see() {
    let text = format!(
        "name: n\ntargets: '*'\nvariables: {{x: of the file}}\nsteps:\n{}",
        "  - {vm: info, capture: x}\n  - {name: 'value', for_each: {y: ['${x}']}, vm: info, when: {value: '${y}', matches: '\"name\"'}}\n  \
         - {name: 'file', for_each: {y: ['${x}']}, vm: info, when: {value: '${y}', equals: of the file}}\n"
    );
    let outcome = run(&text).await;
    assert_eq!(steps(&outcome).0[1..], ["value (${x}) ok", "file (${x}) skipped"], "{outcome:?}");
}
