//! Every mistake with its golden text, and what right configurations become.

use std::num::NonZeroU16;
use std::path::Path;

use adit_model::{Credential, Psk, PublicKey};

use super::*;
use crate::settings::{By, Carries};

const GOLDEN: &str = include_str!("../../testdata/client-mistakes.md");

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<AgentConfig, Mistakes> {
    let variable = |name: &str| {
        let all = variables.iter().chain(&[("HOME", "/home/ann")]);
        all.into_iter()
            .find(|v| v.0 == name)
            .map(|v| v.1.to_owned())
    };
    AgentConfig::parse(Input {
        text,
        file: Some(Path::new("client.toml")),
        variable: &variable,
        read: &|_| Err("no such file".to_owned()),
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
    assert!(cases.len() > 10);
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

fn join() -> JoinString {
    JoinString {
        addresses: vec!["edge.example.test:7400".to_owned()],
        doors: Vec::new(),
        edge: PublicKey([9; 32]),
        credential: Credential::Shared(Psk::from_random(std::array::from_fn(|i| (i * 37) as u8))),
    }
}

#[test]
fn values_become_what_they_mean() {
    let text = r#"
        [agent]
        edge = "env:JOIN"
        pin = "file:pin"
        [[tunnel]]
        name = "App"
        target = "https://nas.lan"
        insecure_target = true
        host_header = "nas.lan"
        auth = "ann:open sesame"
        exclusive = true
        [[tunnel]]
        target = "3000"
        [log]
        format = "json"
    "#;
    let config = parse(text, &[("JOIN", &join().expose())]).unwrap();
    assert_eq!(config.agent.edge, Some(join()));
    assert_eq!(config.agent.pin, Some(SecretRef::File("pin".into())));
    assert_eq!(
        config.agent.data.to_str(),
        Some("/home/ann/.local/share/adit/agent")
    );
    let [nas, local] = &config.tunnels[..] else {
        panic!("two tunnels")
    };
    assert_eq!(nas.name.as_ref().unwrap().as_str(), "app");
    assert_eq!(nas.carries.label(), "https://nas.lan:443");
    assert!(nas.carries.insecure_tls() == Some(true) && nas.exclusive);
    assert_eq!(local.name, None);
    assert_eq!(local.carries.label(), "http://localhost:3000");
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(!format!("{config:?}").contains("sesame"));
}

#[test]
fn a_tcp_tunnel_has_a_port_or_the_edge_chooses() {
    let text = r#"
        [agent]
        allowed_targets = ["localhost:22", "192.168.1.0/24:5432"]
        [[tunnel]]
        kind = "tcp"
        target = "22"
        port = 2222
        [[tunnel]]
        kind = "tcp"
        target = "db.lan:5432"
    "#;
    let config = parse(text, &[]).unwrap();
    let told: Vec<_> = config
        .tunnels
        .iter()
        .map(|tunnel| match &tunnel.carries {
            Carries::Bytes {
                target,
                by: By::Port(port),
                ..
            } => (target.label(), port.map(NonZeroU16::get)),
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted = [("localhost:22", Some(2222)), ("db.lan:5432", None)];
    assert_eq!(told, wanted.map(|(target, port)| (target.to_owned(), port)));

    // The same list from the environment, where commas separate.
    let variable = ("ADIT_AGENT_ALLOWED_TARGETS", "localhost:22, 10.0.0.0/8:22");
    let told = parse(text, &[variable]).unwrap_err().to_string();
    assert!(
        told.contains("leads to db.lan:5432, which `allowed_targets` forbids"),
        "{told}"
    );
    // All that is wrong in it is told.
    let variable = (
        "ADIT_AGENT_ALLOWED_TARGETS",
        "http://nas.lan,db.lan,fd00::/8:22",
    );
    let told = parse("", &[variable]).unwrap_err().to_string();
    assert!(
        told.contains("not `http://nas.lan`") && told.contains("not `fd00::/8:22`"),
        "{told}"
    );
}

#[test]
fn a_pin_that_is_not_there_yet_is_no_mistake() {
    let config = parse("[agent]\npin = \"env:ADIT_PIN\"", &[]).unwrap();
    assert_eq!(
        config.agent.pin,
        Some(SecretRef::Variable("ADIT_PIN".to_owned()))
    );
    assert!(config.agent.edge.is_none() && config.tunnels.is_empty());
}

#[test]
fn the_example_is_right_and_complete() {
    let config = parse(EXAMPLE, &[]).unwrap();
    assert_eq!((config.tunnels.len(), config.forwards.len()), (5, 1));
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
            assert!(key.help().ends_with('.'), "{}", key.name());
        }
    }
}

/// The form of file that scripts write.
const SURFACE: &str = include_str!("../../testdata/surface.toml");

#[test]
fn the_least_file_that_scripts_write_is_right() {
    let config = parse(&SURFACE.replace("adit1…", &join().expose()), &[]).unwrap();
    assert_eq!(config.agent.edge, Some(join()));
    assert_eq!(config.agent.data.to_str(), Some("/var/lib/adit-agent"));
    let [tunnel] = &config.tunnels[..] else {
        panic!("one tunnel")
    };
    assert_eq!(tunnel.name.as_ref().unwrap().as_str(), "app");
    assert_eq!(tunnel.carries.label(), "http://127.0.0.1:3000");
}
