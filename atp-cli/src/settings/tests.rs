//! Settings as a whole: layers, origins, and messages about mistakes.

use std::fs;
use std::path::Path;

use atp_executor::Portion;
use atp_transport::Engine;

use super::*;
use crate::args::PolicyArgs;

/// A file in a folder of its own, removed with it.
struct File {
    folder: PathBuf,
}

impl File {
    fn new(name: &str, text: &str) -> Self {
        let folder = env::temp_dir().join(format!("atp-settings-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("atp.toml"), text).unwrap();
        File { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("atp.toml")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn sources(files: &[&File], variables: &[(&str, &str)], flags: GlobalArgs) -> Sources {
    Sources {
        files: files.iter().map(|file| file.path()).collect(),
        is_explicit: true,
        must_exist: true,
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags,
    }
}

fn entry<'a>(settings: &'a Settings, key: &str) -> &'a Entry {
    settings.entries.iter().find(|entry| entry.key == key).unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn without_anything_there_are_the_defaults() {
    let settings = Settings::resolve(&Sources::default()).unwrap();
    assert_eq!(settings.transport.pool.min_connections_per_host, 0);
    assert_eq!(settings.policy, Policy::default());
    assert!(settings.hosts.is_empty() && !settings.has_inventory);
    assert!(settings.entries.iter().all(Entry::is_default));
}

#[test]
fn flags_win_over_variables_over_files_over_defaults() {
    let system =
        File::new("layers-system", "parallel = 1\ntimeout = \"1s\"\noutput = \"json\"\ncolor = \"never\"\n");
    let user = File::new("layers-user", "parallel = 2\ntimeout = \"2s\"\noutput = \"jsonl\"\n");
    let flags = GlobalArgs { parallel: Some(4), ..GlobalArgs::default() };
    let variables = [("ATP_PARALLEL", "3"), ("ATP_TIMEOUT", "3s")];
    let settings = Settings::resolve(&sources(&[&system, &user], &variables, flags)).unwrap();

    assert_eq!(settings.policy.parallel, 4);
    assert_eq!(settings.policy.timeout, Duration::from_secs(3));
    assert_eq!(settings.output, OutputFormat::Jsonl);
    assert_eq!(settings.color, ColorMode::Never);
    assert_eq!(entry(&settings, "parallel").origin, "--parallel");
    assert_eq!(entry(&settings, "timeout").origin, "ATP_TIMEOUT");
    assert_eq!(entry(&settings, "output").origin, format!("{}:3", user.path().display()));
    assert_eq!(entry(&settings, "color").origin, format!("{}:4", system.path().display()));
    assert_eq!(entry(&settings, "log_format").origin, "default");
}

#[test]
fn limits_of_a_run_come_from_every_layer_and_none_takes_them_away() {
    let file = File::new(
        "limits",
        "per_host = 2\ndeadline = \"10m\"\nretries = 1\nmax_failures = \"10%\"\nserial = 3\n",
    );
    let resolve = |variables: &[(&str, &str)], policy: PolicyArgs| {
        let flags = GlobalArgs { policy, ..GlobalArgs::default() };
        Settings::resolve(&sources(&[&file], variables, flags)).unwrap()
    };
    let of_file = resolve(&[], PolicyArgs::default());
    let expected = Policy {
        per_host: Some(2),
        deadline: Some(Duration::from_secs(600)),
        retries: 1,
        max_failures: Some(Portion::Percent(10)),
        serial: Some(Portion::Count(3)),
        ..Policy::default()
    };
    assert_eq!(of_file.policy, expected);
    assert_eq!(entry(&of_file, "serial").origin, format!("{}:5", file.path().display()));

    let typed = |text: &str| Some(text.to_owned());
    let flags = PolicyArgs {
        deadline: typed("none"),
        max_failures: typed("4"),
        retries: Some(2),
        ..PolicyArgs::default()
    };
    let variables = [("ATP_PER_HOST", "none"), ("ATP_SERIAL", "50%"), ("ATP_RETRIES", "7")];
    let settings = resolve(&variables, flags);
    let expected = Policy {
        retries: 2,
        max_failures: Some(Portion::Count(4)),
        serial: Some(Portion::Percent(50)),
        ..Policy::default()
    };
    assert_eq!(settings.policy, expected);
    for (key, value, origin) in [
        ("per_host", "none", "ATP_PER_HOST"),
        ("deadline", "none", "--deadline"),
        ("max_failures", "4", "--max-failures"),
        ("serial", "50%", "ATP_SERIAL"),
        ("retries", "2", "--retries"),
    ] {
        let entry = entry(&settings, key);
        let shown = entry.value.as_str().map_or_else(|| entry.value.to_string(), str::to_owned);
        assert_eq!((shown.as_str(), entry.origin.as_str()), (value, origin), "{key}");
    }

    let none =
        resolve(&[], PolicyArgs { serial: typed("none"), per_host: typed("1"), ..PolicyArgs::default() });
    assert_eq!((none.policy.serial, none.policy.per_host), (None, Some(1)));
}

#[test]
fn transport_settings_come_from_every_layer() {
    let file = File::new(
        "transport",
        "[transport]\ncall_timeout = \"7s\"\n[transport.pool]\nmax_connections_per_host = 3\n",
    );
    let variables = [("ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST", "5")];
    let settings = Settings::resolve(&sources(&[&file], &variables, GlobalArgs::default())).unwrap();
    assert_eq!(settings.transport.call_timeout, Duration::from_secs(7));
    assert_eq!(settings.transport.pool.max_connections_per_host, 5);
    assert_eq!(settings.transport.connect_timeout, TransportConfig::default().connect_timeout);
    let origin = &entry(&settings, "transport.pool.max_connections_per_host").origin;
    assert_eq!(origin, "ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST");
}

#[test]
fn hosts_have_all_their_fields_and_flags_add_more() {
    let file = File::new(
        "hosts",
        "[hosts.\"node.1\"]\nuri = \"test:///default\"\naddress = \"10.0.0.1\"\ngroups = [\"a\", \"b\"]\nweight = 3\n\
         labels = { site = \"berlin\" }\n[hosts.node2]\naddress = \"10.0.0.2\"\n",
    );
    let flag = |id: &str| crate::args::AdHocHost { id: id.parse().unwrap(), uri: "test:///other".to_owned() };
    let flags = GlobalArgs { hosts: vec![flag("node.1"), flag("demo")], ..GlobalArgs::default() };
    let settings = Settings::resolve(&sources(&[&file], &[], flags)).unwrap();

    let ids: Vec<_> = settings.hosts.iter().map(|host| host.id.as_str()).collect();
    assert_eq!(ids, ["demo", "node.1", "node2"]);
    let node1 = &settings.hosts[1];
    assert_eq!(node1.effective_uri(), "test:///other");
    assert_eq!((node1.address.as_str(), node1.weight), ("10.0.0.1", 3));
    assert_eq!(node1.groups, ["a", "b"]);
    assert_eq!(node1.labels["site"], "berlin");
    assert_eq!(settings.hosts[2].effective_uri(), "qemu+tcp://10.0.0.2/system");
    assert_eq!(settings.origin_of_host("node.1"), Some("--host"));
}

#[test]
fn every_problem_of_every_source_is_reported() {
    let file = File::new(
        "problems",
        "paralel = 3\n[transport.pool]\nmax_connections_per_host = 0\n[transport.reconnect]\nmultiplier = 0.5\n\
         [hosts.\"a b\"]\nuri = \"test:///default\"\n[hosts.bare]\nweight = 2\n",
    );
    let variables = [("ATP_TIMEOUT", "soon")];
    let problems = Settings::resolve(&sources(&[&file], &variables, GlobalArgs::default())).unwrap_err();
    let text: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    for (line, part) in [
        (Some(1), "`paralel`"),
        (Some(3), "`transport.pool.max_connections_per_host`"),
        (Some(5), "`transport.reconnect.multiplier`"),
        (Some(6), "`hosts.\"a b\"`"),
        (Some(8), "host bare has neither"),
        (None, "ATP_TIMEOUT"),
    ] {
        let at = line.map_or_else(String::new, |line| format!("{}:{line}", file.path().display()));
        assert!(text.iter().any(|text| text.contains(part) && text.contains(&at)), "{part} {at}: {text:#?}");
    }
    assert!(problems.iter().all(|problem| problem.hint.is_some()), "{problems:#?}");
}

#[test]
fn the_engine_is_set_for_all_hosts_and_for_one() {
    let file = File::new(
        "engine",
        "[transport]\nengine = \"library\"\n[hosts.node1]\nuri = \"qemu:///system\"\n\
         [hosts.node1.transport]\nengine = \"auto\"\n[hosts.node2]\nuri = \"qemu:///system\"\n",
    );
    let flags = GlobalArgs { engine: Some("native".to_owned()), ..GlobalArgs::default() };
    let settings = Settings::resolve(&sources(&[&file], &[], flags)).unwrap();
    assert_eq!(settings.transport.engine, Engine::Native);
    assert_eq!(settings.hosts[0].config.as_ref().unwrap().engine, Engine::Auto);
    assert_eq!(settings.hosts[1].config, None);
    let shown = entry(&settings, "transport.engine");
    assert_eq!((shown.value.as_str(), shown.origin.as_str()), (Some("native"), "--engine"));
    let variables = [("ATP_TRANSPORT__ENGINE", "fast")];
    let problems = Settings::resolve(&sources(&[], &variables, GlobalArgs::default())).unwrap_err();
    assert!(problems[0].message.contains("`transport.engine`"), "{problems:?}");
}

#[test]
fn a_host_has_transport_settings_of_its_own_over_the_common_ones() {
    let file = File::new(
        "own",
        "[transport]\ncall_timeout = \"7s\"\n[hosts.node1]\nuri = \"test:///default\"\n\
         [hosts.node1.transport]\nconnect_timeout = \"2s\"\n[hosts.node2]\nuri = \"test:///default\"\n",
    );
    let variables = [("ATP_HOSTS__NODE1__TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST", "3")];
    let settings = Settings::resolve(&sources(&[&file], &variables, GlobalArgs::default())).unwrap();
    let own = settings.hosts[0].config.as_ref().unwrap();
    assert_eq!(own.call_timeout, Duration::from_secs(7));
    assert_eq!(own.connect_timeout, Duration::from_secs(2));
    assert_eq!((own.pool.max_connections_per_host, own.pool.min_connections_per_host), (3, 0));
    assert_eq!(settings.hosts[1].config, None);
    let origin = &entry(&settings, "hosts.node1.transport.connect_timeout").origin;
    assert_eq!(*origin, format!("{}:6", file.path().display()));
}

#[test]
fn what_is_wrong_with_a_host_s_own_settings_is_named_in_full() {
    let file = File::new(
        "own-problems",
        "[transport.pool]\nmin_connections_per_host = 5\n[hosts.node1]\nuri = \"test:///default\"\n\
         [hosts.node1.transport]\ncall_timeout = \"0s\"\n[hosts.node1.transport.pool]\nstrategy = \"fastest\"\n\
         max_connections_per_host = 2\n[hosts.node1.transport.calls]\nmax_threads = 3\n",
    );
    let problems = Settings::resolve(&sources(&[&file], &[], GlobalArgs::default())).unwrap_err();
    let path = file.path();
    let mut expected = [
        (2, "`hosts.node1.transport.pool.min_connections_per_host` is 5, more than"),
        (6, "`hosts.node1.transport.call_timeout` is 0s"),
        (8, "`hosts.node1.transport.pool.strategy` is \"fastest\""),
        (11, "unknown key `hosts.node1.transport.calls.max_threads`"),
    ]
    .map(|(line, text)| format!("{}:{line}: {text}", path.display()))
    .into_iter();
    for problem in &problems {
        let expected = expected.next().unwrap();
        assert!(problem.message.starts_with(&expected), "{expected}: {problems:#?}");
    }
    assert_eq!(expected.next(), None, "{problems:#?}");
    assert_eq!(problems[3].hint.as_deref(), Some("did you mean `transport.calls.max_threads`?"));
}

#[test]
fn a_word_that_is_none_of_the_transport_s_is_named() {
    let file = File::new("strategy", "[transport.pool]\nstrategy = \"fastest\"\n");
    let problems = Settings::resolve(&sources(&[&file], &[], GlobalArgs::default())).unwrap_err();
    let [problem] = &problems[..] else { panic!("{problems:#?}") };
    assert!(
        problem.message.contains("`transport.pool.strategy`") && problem.message.contains("round_robin"),
        "{problem:?}"
    );
}

#[test]
fn secrets_of_uris_are_not_among_the_entries() {
    let file = File::new("secrets", "[hosts.a]\nuri = \"qemu+ssh://me:hunter2@h/system\"\n");
    let settings = Settings::resolve(&sources(&[&file], &[], GlobalArgs::default())).unwrap();
    assert_eq!(entry(&settings, "hosts.a.uri").value, "qemu+ssh://me:***@h/system");
    assert_eq!(settings.hosts[0].effective_uri(), "qemu+ssh://me:hunter2@h/system");
}

#[test]
fn a_file_that_was_named_must_be_there_and_others_need_not() {
    let missing = PathBuf::from("/nonexistent/atp.toml");
    let named = Sources { files: vec![missing.clone()], must_exist: true, ..Sources::default() };
    let problems = Settings::resolve(&named).unwrap_err();
    assert!(problems[0].message.contains("/nonexistent/atp.toml"), "{problems:?}");
    let found = Sources { files: vec![missing], ..Sources::default() };
    assert!(Settings::resolve(&found).unwrap().files.is_empty());
}

#[test]
fn a_hosts_section_is_an_inventory_even_if_it_is_empty() {
    let file = File::new("empty", "[hosts]\n");
    let mut sources = sources(&[&file], &[], GlobalArgs::default());
    sources.is_explicit = false;
    assert!(Settings::resolve(&sources).unwrap().has_inventory);
}

#[test]
fn nothing_is_read_from_the_current_folder() {
    let variables = |xdg: &str, home: &str| {
        vec![("XDG_CONFIG_HOME".to_owned(), xdg.to_owned()), ("HOME".to_owned(), home.to_owned())]
    };
    assert_eq!(user_file(&variables("/x", "/h")).as_deref(), Some(Path::new("/x/atp/config.toml")));
    assert_eq!(user_file(&variables("", "/h")).as_deref(), Some(Path::new("/h/.config/atp/config.toml")));
    assert_eq!(user_file(&variables("here", "/h")).as_deref(), Some(Path::new("/h/.config/atp/config.toml")));
    assert_eq!(user_file(&variables("here", "there")), None);
}

/// The example configuration in the repository.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/atp.toml")
}

/// The example configuration, with the settings that are commented out in it.
fn every_setting() -> String {
    // A setting that is commented out follows its '#' at once; prose has a space between.
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let uncommented = |line: &str| format!("{}\n", if is_setting(line) { &line[1..] } else { line });
    fs::read_to_string(example()).unwrap().lines().map(uncommented).collect()
}

#[test]
fn a_file_that_is_accepted_here_is_accepted_where_a_fleet_is_followed() {
    const HOST: &str = "[hosts.a]\nuri = \"test:///default\"\n";
    for (name, text) in [
        ("followed-example", every_setting()),
        ("followed-top", format!("output = \"json\"\ndeadline = \"none\"\nmax_failures = \"25%\"\n{HOST}")),
        ("followed-plain", HOST.to_owned()),
    ] {
        let file = File::new(name, &text);
        let settings = Settings::resolve(&sources(&[&file], &[], GlobalArgs::default())).unwrap();
        let fleet = Fleet::from_file(file.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ids = |hosts: &[HostInfo]| hosts.iter().map(|host| host.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&fleet.hosts), ids(&settings.hosts));
    }

    // With the command line's own defaults and variables too, it is the same fleet.
    let file = File::new("followed-min", &format!("{HOST}[transport.pool]\nmin_connections_per_host = 20\n"));
    let sources = sources(&[&file], &[("ATP_TRANSPORT__CALL_TIMEOUT", "3s")], GlobalArgs::default());
    let settings = Settings::resolve(&sources).unwrap();
    let fleet = Fleet::load(&sources.for_loader(Vec::new(), 0).unwrap()).unwrap();
    assert_eq!((fleet.config, fleet.hosts), (settings.transport, settings.hosts));
    assert!(Fleet::from_file(file.path()).is_err(), "the library's default maximum is below 20");
}

#[test]
fn the_example_in_the_repository_is_valid_and_complete() {
    let path = example();
    let example = Sources { files: vec![path], is_explicit: true, ..Sources::default() };
    let settings = Settings::resolve(&example).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(!settings.hosts.is_empty());

    // What is commented out in it is valid too, and then every setting there is has its place in the file.
    let file = File::new("example", &every_setting());
    let settings = Settings::resolve(&sources(&[&file], &[], GlobalArgs::default()))
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let missing: Vec<_> =
        settings.entries.iter().filter(|entry| entry.is_default()).map(|entry| &entry.key).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");

    // The defaults it shows are the defaults.
    for default in Settings::resolve(&Sources::default()).unwrap().entries {
        assert_eq!(entry(&settings, &default.key).value, default.value, "{}", default.key);
    }
}
