//! Every mistake with its golden text, and what right configurations become.

use std::path::Path;

use adit_config::{AnyKey, CommandOption, Raw, SectionSpec};
use adit_model::TunnelName;
use adit_routing::Target;

use super::*;

const GOLDEN: &str = include_str!("../../testdata/server-mistakes.md");

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<EdgeConfig, Mistakes> {
    let variable = |name: &str| {
        let all = variables.iter().chain(&[("HOME", "/home/ann")]);
        all.into_iter()
            .find(|v| v.0 == name)
            .map(|v| v.1.to_owned())
    };
    EdgeConfig::parse(Input {
        text,
        file: Some(Path::new("server.toml")),
        variable: &variable,
        read: &|path| match path.strip_prefix("tls").map(Path::to_str) {
            Ok(Some("good.pem")) => Ok(include_str!("../../testdata/tls/good.pem").to_owned()),
            Ok(Some("good.key")) => Ok(include_str!("../../testdata/tls/good.key").to_owned()),
            Ok(Some("other.key")) => Ok(include_str!("../../testdata/tls/other.key").to_owned()),
            Ok(Some("expired.pem")) => {
                Ok(include_str!("../../testdata/tls/expired.pem").to_owned())
            }
            Ok(Some("expired.key")) => {
                Ok(include_str!("../../testdata/tls/expired.key").to_owned())
            }
            Ok(Some("unnamed.pem")) => {
                Ok(include_str!("../../testdata/tls/unnamed.pem").to_owned())
            }
            Ok(Some("unnamed.key")) => {
                Ok(include_str!("../../testdata/tls/unnamed.key").to_owned())
            }
            _ => Err("no such file".to_owned()),
        },
        options: &[],
    })
}

struct Case {
    title: &'static str,
    variables: Vec<(&'static str, &'static str)>,
    text: &'static str,
    wanted: &'static str,
}

fn fenced(part: &'static str, kind: &str) -> &'static str {
    let (_, after) = part.split_once(&format!("```{kind}\n")).unwrap();
    after.split_once("```").unwrap().0
}

fn case(part: &'static str) -> Case {
    let (title, rest) = part.split_once('\n').unwrap();
    let lines = rest.lines().take_while(|line| !line.starts_with("```"));
    Case {
        title,
        variables: lines
            .filter_map(|line| line.strip_prefix("    ")?.split_once('='))
            .collect(),
        text: fenced(rest, "toml"),
        wanted: fenced(rest, "text"),
    }
}

#[test]
fn each_mistake_is_told_as_agreed() {
    let cases: Vec<Case> = GOLDEN.split("\n## ").skip(1).map(case).collect();
    assert!(cases.len() > 60);
    for case in cases {
        let told =
            parse(case.text, &case.variables).map_or_else(|m| m.to_string(), |_| "none".to_owned());
        let title = case.title;
        assert_eq!(
            told.trim_end(),
            case.wanted.trim_end(),
            "\n{title}:\n{told}\n"
        );
    }
}

#[test]
fn nothing_configured_is_a_whole_configuration() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.server.domain.host().as_str(), "localhost");
    assert_eq!(
        config.server.data,
        Path::new("/home/ann/.local/share/adit/edge")
    );
    assert_eq!(config.doors.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.doors.link.to_string(), "127.0.0.1:7400");
    assert_eq!(config.doors.api.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(config.limits.connections_per_address, 2048);
    assert_eq!(config.limits.head, Duration::from_secs(10));
    assert_eq!(config.limits.body_bytes, None);
    assert_eq!(config.admission.pin, PinPolicy::Enrol);
    assert!(config.admission.secret.is_none() && config.routes.is_empty());
    assert_eq!(config.server.workers, None);
}

#[test]
fn values_become_what_they_mean() {
    let config = parse(
        r#"
        [server]
        domain = "Example.Test."
        public = "edge.example.test:7400"
        data = "state"
        workers = 3
        [doors]
        api = "off"
        trusted_proxies = ["10.1.2.3/8", "::1"]
        [admission]
        secret = "0f3c9a7b55e14d2f8a6b7c1d9e0f2a4b"
        pin = "every-start"
        keys = "listed"
        allowed_keys = ["ed25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
        [limits]
        body_megabytes = 2
        answer_seconds = 0
        [[route]]
        host = "App.example.test"
        path = "/api/"
        agents = "App"
        exclusive = true
        answer_seconds = 5
        auth = "ann:open sesame"
        "#,
        &[],
    )
    .unwrap();
    assert_eq!(config.server.domain.host().as_str(), "example.test");
    assert_eq!(config.server.data, Path::new("state"));
    assert_eq!(config.server.workers.unwrap().get(), 3);
    assert_eq!(config.doors.api, None);
    let networks: Vec<String> = config
        .doors
        .trusted_proxies
        .iter()
        .map(|n| n.to_string())
        .collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(config.admission.allowed_keys, [PublicKey([1; 32])]);
    assert_eq!(config.limits.body_bytes, Some(2 << 20));
    assert_eq!(config.limits.answer, None);
    let RouteConfig { route, auth } = &config.routes[0];
    assert_eq!(route.host.as_str(), "app.example.test");
    assert_eq!(route.path.as_bytes(), b"/api");
    assert_eq!(
        route.target,
        Target::Tunnel(TunnelName::parse("app").unwrap())
    );
    assert!(route.options.exclusive && route.options.rewrite);
    assert_eq!(route.options.body_limit, Some(2 << 20));
    assert_eq!(route.options.response_timeout, Some(Duration::from_secs(5)));
    assert_eq!(auth.as_ref().unwrap().user, "ann");
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(!format!("{config:?}").contains("0f3c9a7b"));
}

#[test]
fn options_stand_above_variables_and_variables_above_the_file() {
    let text = "[server]\ndomain = \"file.test\"\nworkers = 1\ndrain_seconds = 1";
    let variable = |name: &str| match name {
        "HOME" => Some("/home/ann".to_owned()),
        "ADIT_SERVER_DOMAIN" => Some("variable.test".to_owned()),
        "ADIT_SERVER_WORKERS" => Some("2".to_owned()),
        "ADIT_DOORS_TRUSTED_PROXIES" => Some("10.0.0.1, 10.0.0.2".to_owned()),
        _ => None,
    };
    let domain = |value| {
        EdgeConfig::parse(Input {
            text,
            file: None,
            variable: &variable,
            read: &|_| Err("not read".to_owned()),
            options: &[CommandOption {
                variable: "ADIT_SERVER_DOMAIN",
                name: "--domain",
                value,
            }],
        })
    };
    let config = domain("option.test").unwrap();
    assert_eq!(config.server.domain.host().as_str(), "option.test");
    assert_eq!(config.server.workers.unwrap().get(), 2);
    assert_eq!(config.server.drain, Duration::from_secs(1));
    assert_eq!(config.doors.trusted_proxies.len(), 2);
    let mistakes = domain("a b").unwrap_err().to_string();
    assert!(
        mistakes.starts_with("argument --domain: error ADIT-1106"),
        "{mistakes}"
    );
}

#[test]
fn files_are_read_beside_the_configuration() {
    let read = |path: &Path| match path.to_str() {
        Some("/etc/adit/secret") => Ok("0f3c9a7b55e14d2f8a6b7c1d9e0f2a4b\n".to_owned()),
        _ => Err(format!("asked for {}", path.display())),
    };
    let config = EdgeConfig::parse(Input {
        text: "[server]\ndata = \"state\"\n[admission]\nsecret = \"file:secret\"",
        file: Some(Path::new("/etc/adit/server.toml")),
        variable: &|_| None,
        read: &read,
        options: &[],
    })
    .unwrap();
    assert_eq!(config.server.data, Path::new("/etc/adit/state"));
    let secret = config.admission.secret.unwrap();
    assert_eq!(secret.expose(), "0f3c9a7b55e14d2f8a6b7c1d9e0f2a4b");
}

#[test]
fn without_a_home_the_data_folder_must_be_named() {
    let mistakes = EdgeConfig::parse(Input {
        text: "",
        file: None,
        variable: &|_| None,
        read: &|_| Err(String::new()),
        options: &[],
    });
    assert_eq!(
        mistakes.unwrap_err().to_string(),
        "configuration: error ADIT-1107: no data folder: neither `data` nor HOME is set\n    set data = \"/var/lib/adit\" under [server]"
    );
}

#[test]
fn the_example_is_right_and_complete() {
    let config = parse(EXAMPLE, &[]).unwrap();
    assert_eq!(config.routes.len(), 3);
    for section in keys::SPEC.sections {
        assert!(
            EXAMPLE.contains(&section.heading()),
            "{}",
            section.heading()
        );
        for key in section.keys {
            let shown = EXAMPLE.contains(&format!("\n{} = ", key.name()))
                || EXAMPLE.contains(&format!("\n# {} = ", key.name()));
            assert!(shown, "{} {}", section.heading(), key.name());
        }
    }
}

#[test]
fn every_default_is_a_right_value_and_every_help_a_sentence() {
    let each = |section: &'static SectionSpec| section.keys.iter().copied();
    for key in keys::SPEC.sections.iter().copied().flat_map(each) {
        assert!(key.help().ends_with('.'), "{}", key.name());
        check_default(key);
    }
}

fn check_default(key: &dyn AnyKey) {
    let Some(default) = key.default() else { return };
    let text = format!("x = {default}");
    let table = toml::de::DeTable::parse(&text).unwrap();
    let value = table.get_ref().get("x").unwrap();
    assert_eq!(
        key.complaints(Raw::Toml(value.get_ref())),
        [],
        "{}",
        key.name()
    );
}

#[test]
fn a_cut_or_maimed_file_is_a_mistake_or_a_configuration() {
    let bytes: Vec<char> = EXAMPLE.chars().collect();
    for at in 0..bytes.len() {
        let cut: String = bytes[..at].iter().collect();
        let maimed: String = bytes
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != at)
            .map(|(_, c)| c)
            .collect();
        for text in [cut, maimed] {
            if let Err(mistakes) = parse(&text, &[]) {
                assert!(!mistakes.to_string().is_empty());
            }
        }
    }
}

#[test]
fn the_url_of_a_proxy_names_the_domain_too() {
    let config = parse("[server]\nurl = \"https://a.test\"\n", &[]).unwrap();
    assert_eq!(config.server.domain.host().to_string(), "a.test");
    let pattern = config.server.url.unwrap().pattern();
    assert_eq!(pattern, "https://{name}.a.test");
}

/// The form of file that scripts write: every table at its least.
const SURFACE: &str = include_str!("../../testdata/surface.toml");

#[test]
fn a_list_of_keys_may_wait_for_its_policy() {
    let parse = |text: &str| {
        EdgeConfig::parse(Input {
            text,
            file: Some(Path::new("server.toml")),
            variable: &|_| None,
            read: &|path| match path.to_str() {
                Some("/etc/adit/secret") => Ok("0f3c9a7b55e14d2f8a6b7c1d9e0f2a4b\n".to_owned()),
                _ => Err("no such file".to_owned()),
            },
            options: &[],
        })
        .unwrap()
    };
    let config = parse(SURFACE);
    assert_eq!(config.server.data, Path::new("/var/lib/adit"));
    assert_eq!(
        config.server.public.as_deref(),
        Some("edge.example.test:7400")
    );
    assert_eq!(config.admission.keys, KeyPolicy::Enrolled);
    assert_eq!(config.admission.allowed_keys, [PublicKey([1; 32])]);
    assert_eq!(config.limits.connections_per_address, 1000);
    assert_eq!(config.routes.len(), 1);
    let [remark] = config.remarks()[..] else {
        panic!("one remark")
    };
    assert!(remark.contains("`allowed_keys` is set and not looked at"));
    let listed = parse(&SURFACE.replace("keys = \"enrolled\"", "keys = \"listed\""));
    assert!(listed.remarks().is_empty());
}
