//! What an edge says when its doors are open.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use adit_edge::Facts;
use adit_edge::config::{EdgeConfig, KeyPolicy, PinPolicy};
use adit_model::PortRanges;

use crate::commands::place::EdgePlace;
use crate::terminal;

/// What the configuration says that the running edge does not.
pub(super) struct About {
    domain: String,
    data: PathBuf,
    pin: PinPolicy,
    keys: KeyPolicy,
    has_proxies: bool,
    /// Ports that TCP tunnels may open, and where.
    ports: Option<(PortRanges, IpAddr)>,
    udp_ports: Option<(PortRanges, IpAddr)>,
    flags: String,
}

impl About {
    pub(super) fn of(config: &EdgeConfig, place: &EdgePlace) -> Self {
        let mut flags = String::new();
        if let Some(file) = &place.config {
            let _ = write!(flags, " --config {}", file.display());
        }
        if let Some(data) = &place.data {
            let _ = write!(flags, " --data {}", data.display());
        }
        Self {
            domain: config.server.domain.host().to_string(),
            data: config.server.data.clone(),
            pin: config.admission.pin,
            keys: config.admission.keys,
            has_proxies: !config.doors.trusted_proxies.is_empty(),
            ports: (!config.doors.tcp_ports.is_empty())
                .then(|| (config.doors.tcp_ports.clone(), config.doors.tcp_bind)),
            udp_ports: (!config.doors.udp_ports.is_empty())
                .then(|| (config.doors.udp_ports.clone(), config.doors.udp_bind)),
            flags,
        }
    }
}

/// Lines for scripts.
pub(super) fn for_scripts(facts: &Facts) -> String {
    let mut text = format!(
        "listening http {}\nlistening link {}\n",
        facts.http, facts.link
    );
    if let Some(quic) = facts.quic {
        let _ = writeln!(text, "listening quic {quic}");
    }
    if let Some(tls) = facts.tls {
        let _ = writeln!(text, "listening tls {tls}");
    }
    if let Some(https) = facts.https {
        let _ = writeln!(text, "listening https {https}");
    }
    if let Some(api) = facts.api {
        let _ = writeln!(text, "listening api {api}");
    }
    if let Some(certificate) = &facts.certificate {
        let _ = writeln!(text, "certificate {certificate}");
    }
    let _ = write!(text, "fingerprint {}", facts.fingerprint);
    text
}

/// What whoever reads the log only must know.
pub(super) fn into_log(facts: &Facts, about: &About) {
    let (program, flags) = (terminal::program(), &about.flags);
    tracing::info!(
        target: "adit",
        visitors = open_to(facts.http),
        agents = open_to(facts.link),
        admits = admits(about.keys),
        pin = asks(about.pin),
        "join string: {program} server --print-join{flags}; PIN: {program} server --print-pin{flags}"
    );
    if let (Some(door), Some(sha256)) = (facts.https, &facts.certificate) {
        tracing::info!(target: "adit", %door, sha256, "visitors are served over HTTPS; names without a certificate of yours get this one");
    } else if facts.http.ip().is_loopback() {
        tracing::info!(target: "adit", door = %facts.http, "visitors are served in plain HTTP, for a TLS proxy on this machine");
    } else {
        tracing::warn!(target: "adit", door = %facts.http, "visitors are served in plain HTTP: put the HTTP door behind your TLS proxy");
    }
}

/// The whole account, with join string and PIN: for a terminal only.
pub(super) fn for_people(facts: &Facts, about: &About) -> String {
    let program = terminal::program();
    let mut text = format!("Adit edge for {}\n\n", about.domain);
    text += &doors(facts, about);
    text += "\n";
    text += &row("tunnels", &facts.url_pattern.replace("{name}", "NAME"));
    text += &row("fingerprint", &facts.fingerprint.to_string());
    if let Some(certificate) = &facts.certificate {
        text += &row("certificate", &format!("SHA-256 {certificate}"));
        text += &row("", "for names without one of yours");
    }
    text += &row("data", &about.data.display().to_string());
    text += "\n";
    text += &row("admits", admits(about.keys));
    let pin = match (&facts.pin, about.pin) {
        (Some(pin), PinPolicy::EveryStart) => format!("{}  asked of every agent", pin.expose()),
        (Some(pin), _) => format!("{}  asked of agents not seen before", pin.expose()),
        (None, _) => "none is asked".to_owned(),
    };
    text += &row("PIN", &pin);
    let _ = write!(
        text,
        "\nOn the machine of a service: adit join, which asks for this string (it holds\nthe shared secret), then adit http 3000 --name app\n\n  {}\n\n",
        facts.join.expose()
    );
    let _ = writeln!(
        text,
        "A string for one agent only: {program} server token new{}\n",
        about.flags
    );
    text += &warning(facts, about);
    text
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<12} {value}\n")
}

/// Who comes in where.
fn doors(facts: &Facts, about: &About) -> String {
    let mut text = String::new();
    text += &row(
        "HTTP door",
        &format!("http://{}  visitors: {}", facts.http, open_to(facts.http)),
    );
    if let Some(https) = facts.https {
        text += &row(
            "HTTPS door",
            &format!("https://{https}  visitors: {}", open_to(https)),
        );
    }
    if let Some(tls) = facts.tls {
        text += &row(
            "TLS door",
            &format!("{tls}  passed on by name, visitors: {}", open_to(tls)),
        );
    }
    for (kind, ports) in [("TCP ports", &about.ports), ("UDP ports", &about.udp_ports)] {
        if let Some((ports, ip)) = ports {
            let to = open_to_ip(*ip);
            text += &row(kind, &format!("{ports}  for tunnels, visitors: {to}"));
        }
    }
    text += &row(
        "link door",
        &format!("{}  agents: {}", facts.link, open_to(facts.link)),
    );
    if let Some(quic) = facts.quic {
        text += &row(
            "QUIC door",
            &format!("{quic} (UDP)  agents: {}", open_to(quic)),
        );
    }
    if let Some(api) = facts.api {
        text += &row(
            "API door",
            &format!("http://{api}  metrics, no login: {}", open_to(api)),
        );
    }
    text
}

fn asks(pin: PinPolicy) -> &'static str {
    match pin {
        PinPolicy::Enrol => "asked of agents not seen before",
        PinPolicy::EveryStart => "asked of every agent after each start",
        PinPolicy::Off => "none is asked",
    }
}

fn admits(keys: KeyPolicy) -> &'static str {
    match keys {
        KeyPolicy::Enrolled => "agents with the join string",
        KeyPolicy::Listed => "agents with the join string whose key is in allowed_keys",
    }
}

/// Who reaches a listener at this address.
fn open_to(address: SocketAddr) -> String {
    open_to_ip(address.ip())
}

fn open_to_ip(ip: IpAddr) -> String {
    if ip.is_loopback() {
        "this machine only".to_owned()
    } else if ip.is_unspecified() {
        "everybody who reaches this machine".to_owned()
    } else {
        format!("everybody who reaches {ip}")
    }
}

fn warning(facts: &Facts, about: &About) -> String {
    if facts.https.is_some() {
        return agents_warning(facts).to_owned();
    }
    let mut text =
        String::from("Visitors are served in plain HTTP: put the HTTP door behind your TLS proxy");
    text += match (facts.http.ip().is_loopback(), about.has_proxies) {
        (_, true) => ".\n",
        (true, false) => "\nand name the proxy in trusted_proxies.\n",
        (false, false) => {
            ",\nname the proxy in trusted_proxies, and let nobody else reach the door.\n"
        }
    };
    text + agents_warning(facts)
}

fn agents_warning(facts: &Facts) -> &'static str {
    if facts.link.ip().is_loopback() {
        "Agents of other machines need link = \"0.0.0.0:7400\" and public = \"HOST:7400\".\n"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use adit_model::{Credential, JoinString, Pin, Psk, PublicKey};

    use super::*;

    fn facts(http: &str, link: &str) -> Facts {
        let link: SocketAddr = link.parse().unwrap();
        Facts {
            http: http.parse().unwrap(),
            tls: Some("127.0.0.1:8443".parse().unwrap()),
            https: None,
            certificate: None,
            quic: Some(link),
            link,
            api: Some("127.0.0.1:9090".parse().unwrap()),
            fingerprint: PublicKey([7; 32]),
            join: JoinString {
                addresses: vec![link.to_string()],
                doors: Vec::new(),
                edge: PublicKey([7; 32]),
                credential: Credential::Shared(Psk::from_random([9; 32])),
            },
            pin: Some(Pin::from_random([0, 1, 2, 3, 4, 5])),
            url_pattern: "http://{name}.example.test:8080".to_owned(),
        }
    }

    fn about() -> About {
        About {
            domain: "example.test".to_owned(),
            data: "/var/lib/adit".into(),
            pin: PinPolicy::Enrol,
            keys: KeyPolicy::Enrolled,
            has_proxies: false,
            ports: Some((
                PortRanges::parse("2000-2999").unwrap(),
                IpAddr::from([0, 0, 0, 0]),
            )),
            udp_ports: Some((
                PortRanges::parse("5000-5999").unwrap(),
                IpAddr::from([127, 0, 0, 1]),
            )),
            flags: " --config server.toml".to_owned(),
        }
    }

    #[test]
    fn scripts_learn_the_doors_and_no_secret() {
        let facts = facts("127.0.0.1:8080", "127.0.0.1:7400");
        let text = for_scripts(&facts);
        assert_eq!(
            text,
            format!(
                "listening http 127.0.0.1:8080\nlistening link 127.0.0.1:7400\nlistening quic 127.0.0.1:7400\nlistening tls 127.0.0.1:8443\nlistening api 127.0.0.1:9090\nfingerprint {}",
                facts.fingerprint
            )
        );
    }

    #[test]
    fn people_learn_what_is_open_to_whom() {
        let facts = facts("0.0.0.0:8080", "192.0.2.7:7400");
        let text = for_people(&facts, &about());
        for line in [
            "  HTTP door    http://0.0.0.0:8080  visitors: everybody who reaches this machine",
            "  TLS door     127.0.0.1:8443  passed on by name, visitors: this machine only",
            "  TCP ports    2000-2999  for tunnels, visitors: everybody who reaches this machine",
            "  UDP ports    5000-5999  for tunnels, visitors: this machine only",
            "  link door    192.0.2.7:7400  agents: everybody who reaches 192.0.2.7",
            "  QUIC door    192.0.2.7:7400 (UDP)  agents: everybody who reaches 192.0.2.7",
            "  API door     http://127.0.0.1:9090  metrics, no login: this machine only",
            "  tunnels      http://NAME.example.test:8080",
            "  PIN          234567  asked of agents not seen before",
            &format!("  {}", facts.join.expose()),
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n\n{text}");
        }
        assert!(
            text.contains("plain HTTP") && text.contains("let nobody else"),
            "{text}"
        );
        assert!(
            text.contains("server token new --config server.toml"),
            "{text}"
        );
        assert!(!text.contains('!'));
    }

    #[test]
    fn a_door_with_tls_is_told_with_its_certificate() {
        let facts = Facts {
            https: Some("0.0.0.0:443".parse().unwrap()),
            certificate: Some("AB:CD".to_owned()),
            ..facts("127.0.0.1:8080", "0.0.0.0:7400")
        };
        let text = for_scripts(&facts);
        assert!(text.contains("\nlistening https 0.0.0.0:443\n"), "{text}");
        assert!(text.contains("\ncertificate AB:CD\n"), "{text}");
        let text = for_people(&facts, &about());
        assert!(
            text.contains("  HTTPS door   https://0.0.0.0:443  visitors: everybody"),
            "{text}"
        );
        assert!(text.contains("  certificate  SHA-256 AB:CD\n"), "{text}");
        assert!(!text.contains("plain HTTP"), "{text}");
    }

    #[test]
    fn commands_name_the_edge_as_it_was_named() {
        let text = for_people(
            &facts("127.0.0.1:8080", "127.0.0.1:7400"),
            &About {
                flags: " --data /srv/edge".to_owned(),
                ..about()
            },
        );
        assert!(
            text.contains("server token new --data /srv/edge\n"),
            "{text}"
        );
    }

    #[test]
    fn doors_for_this_machine_say_how_to_open_them() {
        let text = for_people(&facts("127.0.0.1:8080", "127.0.0.1:7400"), &about());
        assert!(text.contains("visitors: this machine only"));
        assert!(text.contains("link = \"0.0.0.0:7400\""), "{text}");
    }
}
