//! The schema of the settings and that of the transport: keys, types, and errors.
#![expect(clippy::unwrap_used, reason = "a test may")]

use atp_settings::{ConfigProblem, Kind, Layer, Schema, table_of, values};
use atp_transport::TransportConfig;
use config::{Config, Map, Value};

/// A schema as a program with hosts has.
fn schema() -> Schema {
    let host = Schema::section([
        ("uri", Schema::Value(Kind::Text)),
        ("groups", Schema::Value(Kind::TextList)),
        ("labels", Schema::Each(Box::new(Schema::Value(Kind::Text)))),
        ("transport", TransportConfig::host_schema()),
    ]);
    let none = Kind::Choice(vec!["none".to_owned()]);
    Schema::section([
        ("output", Schema::Value(Kind::Choice(vec!["table".to_owned(), "jsonl".to_owned()]))),
        ("parallel", Schema::Value(Kind::AtLeastOne)),
        ("timeout", Schema::Value(Kind::Timeout)),
        ("most", Schema::Value(Kind::AnyOf(vec![Kind::AtLeastOne, Kind::Percent, none]))),
        ("transport", TransportConfig::schema()),
        ("hosts", Schema::Each(Box::new(host))),
    ])
}

fn problems_of(text: &str) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    schema().check(Layer::toml("f.toml", text).unwrap(), &mut problems);
    problems
}

fn problems_of_variable(name: &str, value: &str) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    schema().check(Layer::environment("ATP", [(name.to_owned(), value.to_owned())]), &mut problems);
    problems
}

#[test]
fn an_unknown_key_gets_the_nearest_known_one() {
    for (text, unknown, suggestion) in [
        ("paralel = 3", "paralel", "`parallel`"),
        (
            "[transport.pool]\nmax_conections_per_host = 3",
            "transport.pool.max_conections_per_host",
            "`max_connections_per_host`",
        ),
        (
            "[transport]\nmax_connections_per_host = 3",
            "transport.max_connections_per_host",
            "`transport.pool.max_connections_per_host`",
        ),
        (
            "[hosts.h1.transport]\nmax_connections_per_host = 3",
            "hosts.h1.transport.max_connections_per_host",
            "`hosts.h1.transport.pool.max_connections_per_host`",
        ),
        (
            "[hosts.h1.transport.calls]\nmax_threads = 3",
            "hosts.h1.transport.calls.max_threads",
            "`transport.calls.max_threads`",
        ),
        ("[transprot]\ncall_timeout = \"3s\"", "transprot", "`transport`"),
        ("[hosts.\"a.b\"]\nurl = \"x\"", "hosts.\"a.b\".url", "`uri`"),
        ("[hosts.h1]\ngroup = [\"x\"]", "hosts.h1.group", "`groups`"),
    ] {
        let [problem] = &problems_of(text)[..] else { panic!("{text}: {:?}", problems_of(text)) };
        assert_eq!(problem.path, unknown);
        assert!(problem.to_string().starts_with("f.toml:"), "{problem}");
        assert_eq!(problem.hint.as_deref(), Some(&*format!("did you mean {suggestion}?")));
    }
}

#[test]
fn a_key_unlike_any_other_gets_no_suggestion() {
    let [problem] = &problems_of("zzzzzz = 1")[..] else { panic!() };
    assert_eq!(problem.hint, None);
}

#[test]
fn values_of_the_wrong_type_are_named_with_what_was_expected() {
    for (text, key, expectation) in [
        ("parallel = \"many\"", "`parallel`", "at least 1"),
        ("parallel = 0", "`parallel`", "at least 1"),
        ("parallel = 99999999999999999999", "`parallel`", "at least 1"),
        ("parallel.x = 1", "`parallel`", "at least 1"),
        ("timeout = 30", "`timeout`", "30s"),
        ("timeout = \"0s\"", "`timeout`", "longer than 0"),
        ("output = \"xml\"", "`output`", "\"jsonl\""),
        ("most = 0", "`most`", "at least 1, or a share such as \"25%\", or \"none\""),
        ("most = \"101%\"", "`most`", "a share"),
        ("most = \"3\"", "`most`", "a share"),
        ("transport = 3", "`transport`", "section"),
        ("[transport]\nauto_reconnect = \"yes\"", "`transport.auto_reconnect`", "true or false"),
        (
            "[transport.pool]\nmax_connections_per_host = -1",
            "`transport.pool.max_connections_per_host`",
            "whole number",
        ),
        ("[transport.reconnect]\nmultiplier = \"x\"", "`transport.reconnect.multiplier`", "a number"),
        ("[hosts]\nh1 = \"test:///default\"", "`hosts.h1`", "section"),
        ("[hosts.h1]\ngroups = \"a\"", "`hosts.h1.groups`", "list"),
        ("[hosts.h1.labels]\nrack = 2", "`hosts.h1.labels.rack`", "quotes"),
    ] {
        let [problem] = &problems_of(text)[..] else { panic!("{text}: {:?}", problems_of(text)) };
        assert!(problem.problem.contains(key) && problem.problem.contains(expectation), "{problem:?}");
    }
}

#[test]
fn text_that_may_hold_a_password_is_not_shown() {
    for text in ["[hosts]\nh1 = \"qemu+ssh://me:hunter2@h/system\"", "[hosts.h1]\ngroups = \"me:hunter2@h\""]
    {
        let [problem] = &problems_of(text)[..] else { panic!("{text}") };
        assert!(!format!("{problem:?}").contains("hunter2"), "{problem:?}");
    }
}

#[test]
fn all_problems_of_a_source_are_reported_and_the_rest_is_used() {
    let mut problems = Vec::new();
    let text = "paralel = 3\nparallel = 4\ntimeout = 3\n[transport]\ncall_timeout = 5\n";
    let usable = schema().check(Layer::toml("f.toml", text).unwrap(), &mut problems);
    assert_eq!(problems.len(), 3);
    let [(path, value)] = &usable.values()[..] else { panic!() };
    assert_eq!(
        (&path[..], value.origin(), value.to_string()),
        (&["parallel"][..], Some("f.toml:2"), "4".to_owned())
    );
}

#[test]
fn text_of_the_environment_is_converted_to_the_type_of_the_key() {
    for (name, value) in [
        ("ATP_PARALLEL", "8"),
        ("ATP_TIMEOUT", "5s"),
        ("ATP_MOST", "3"),
        ("ATP_MOST", "100%"),
        ("ATP_MOST", "none"),
        ("ATP_TRANSPORT__AUTO_RECONNECT", "false"),
        ("ATP_TRANSPORT__RECONNECT__MULTIPLIER", "1.5"),
        ("ATP_TRANSPORT__RECONNECT__MULTIPLIER", "2"),
        ("ATP_HOSTS__H1__GROUPS", "a, b"),
        ("ATP_HOSTS__H1__LABELS__RACK", "2"),
    ] {
        assert_eq!(problems_of_variable(name, value), [], "{name}={value}");
    }
    let [problem] = &problems_of_variable("ATP_PARALLEL", "many")[..] else { panic!() };
    assert!(problem.to_string().starts_with("ATP_PARALLEL: `parallel` is \"many\""), "{problem}");
}

#[test]
fn variables_that_are_not_settings() {
    for (name, suggestion) in [
        (
            "ATP_TRANSPORT__POOL__MAX_CONECTIONS_PER_HOST",
            "did you mean `ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST`?",
        ),
        (
            "ATP_TRANSPORT__POOL__MAX_CONNECTIONS",
            "did you mean `ATP_TRANSPORT__POOL__MAX_CONNECTIONS_PER_HOST`?",
        ),
        ("ATP_TRANSPROT__CALL_TIMEOUT", "did you mean `ATP_TRANSPORT`?"),
        ("ATP_PARALEL", "did you mean `ATP_PARALLEL`?"),
    ] {
        let [problem] = &problems_of_variable(name, "3")[..] else { panic!("{name}") };
        assert_eq!(problem.origin.as_deref(), Some(name));
        assert_eq!(problem.hint.as_deref(), Some(suggestion));
    }
    assert_eq!(problems_of_variable("ATP_RANKINGS", "tennis"), []);
}

#[test]
fn a_table_and_the_data_agree() {
    let mut config = TransportConfig::default();
    config.pool.max_connections_per_host = usize::MAX;
    let by_config = Config::try_from(&config).unwrap().cache.into_table().unwrap();
    let text = |table: &Map<String, Value>| -> Vec<_> {
        let values = values(table);
        values.into_iter().map(|(path, value)| (path.join("."), value.to_string())).collect()
    };
    assert_eq!(text(&table_of(&config).unwrap()), text(&by_config));
    assert!(table_of(&"text").is_err());
}
