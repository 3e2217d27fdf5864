//! Rules on who may know whom: over what cargo links, and over the names that
//! sources use.

use std::fs;

use super::{Finding, Tree};
use crate::metadata::{Linked, Member, Workspace};
use crate::source::{Source, names};

/// Crates in which time, random bytes and bytes from the network come in as
/// arguments, so that every order of events can be replayed.
const PURE: [&str; 6] = [
    "adit-model",
    "adit-wire",
    "adit-link-proto",
    "adit-http1",
    "adit-routing",
    "adit-config",
];

/// What a pure crate's own sources must not name outside its tests, and why.
const IMPURE_NAMES: [(&str, &str); 14] = [
    ("tokio", "a runtime"),
    ("async", "a runtime"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixStream", "a socket"),
    ("ToSocketAddrs", "a name server"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("std::env", "the environment"),
    ("std::fs", "files"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("thread_local", "a thread"),
];

/// What a crate must not be linked with, however indirectly, and why.
struct Ban {
    crates: &'static [&'static str],
    must_not_reach: &'static [&'static str],
    because: &'static str,
}

const BANS: [Ban; 6] = [
    Ban {
        crates: &PURE,
        must_not_reach: &[
            "tokio",
            "mio",
            "socket2",
            "async-io",
            "hickory-resolver",
            "rand",
            "getrandom",
        ],
        because: "a pure crate gets time, random bytes and bytes as arguments",
    },
    Ban {
        crates: &["adit-link"],
        must_not_reach: &[
            "adit-edge",
            "adit-agent",
            "adit-routing",
            "adit-http1",
            "adit-config",
        ],
        because: "the link carries streams and does not know what they carry",
    },
    Ban {
        crates: &["adit-edge"],
        must_not_reach: &["adit-agent"],
        because: "edge and agent share nothing but the link",
    },
    Ban {
        crates: &["adit-agent"],
        must_not_reach: &["adit-edge", "adit-store"],
        because: "edge and agent share nothing but the link, and an agent has no database",
    },
    Ban {
        crates: &["adit-store"],
        must_not_reach: &["hyper", "axum", "adit-http1"],
        because: "the store does not know HTTP",
    },
    Ban {
        crates: &["adit", "adit-edge", "adit-agent", "adit-link"],
        must_not_reach: &["ring", "openssl", "openssl-sys", "native-tls"],
        because: "there is one provider of cryptography in the tree",
    },
];

/// Libraries that one module wraps, by the names their crates have in sources.
const WRAPPED: [(&str, &[&str], &str); 2] = [
    (
        "the SSH library",
        &["russh", "russh_keys", "thrussh", "ssh2"],
        "crates/edge/src/ssh",
    ),
    (
        "the WebRTC library",
        &["str0m", "webrtc", "rtc"],
        "crates/home",
    ),
];

/// Crates that may depend on the edge or the agent.
const TOPS: [&str; 5] = [
    "adit",
    "adit-fuzz",
    "adit-testkit",
    "adit-bench",
    "adit-desktop",
];

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let mut findings = direction(&tree.workspace);
    for member in &tree.workspace.members {
        if BANS
            .iter()
            .any(|ban| ban.crates.contains(&member.name.as_str()))
        {
            let linked = Linked::load(tree.place, &member.name)?;
            findings.extend(reach(&member.name, &linked));
        }
        let own: Vec<&Source> = tree
            .sources
            .iter()
            .filter(|s| s.path.starts_with(&member.folder))
            .collect();
        findings.extend(unused(member, &own));
        if PURE.contains(&member.name.as_str()) {
            own.iter().for_each(|source| impure(source, &mut findings));
        }
        let manifest = member.folder.join("Cargo.toml");
        let text = fs::read_to_string(tree.place.root.join(&manifest))
            .map_err(|e| format!("{} cannot be read: {e}", manifest.display()))?;
        if !text.contains("[lints]\nworkspace = true") {
            let why = "takes the lints of the workspace: `[lints]` with `workspace = true`";
            findings.push(Finding::new(manifest.display(), why));
        }
    }
    tree.sources
        .iter()
        .for_each(|source| wrapped(source, &mut findings));
    findings.extend(unused_in_root(tree)?);
    Ok(findings)
}

fn reach(name: &str, linked: &Linked) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ban in BANS.iter().filter(|ban| ban.crates.contains(&name)) {
        for to in ban.must_not_reach {
            if let Some(way) = linked.way(to) {
                let why = format!("reaches {to} ({}): {}", way.join(" -> "), ban.because);
                findings.push(Finding::new(name, why));
            }
        }
    }
    findings
}

fn direction(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in workspace
        .members
        .iter()
        .filter(|m| !TOPS.contains(&m.name.as_str()))
    {
        for dependency in &member.dependencies {
            if ["adit-edge", "adit-agent"].contains(&dependency.package.as_str()) {
                let why = format!(
                    "depends on {}: only the binaries and the test worlds stand above edge and agent",
                    dependency.package
                );
                findings.push(Finding::new(&member.name, why));
            }
        }
    }
    findings
}

fn impure(source: &Source, findings: &mut Vec<Finding>) {
    for (name, what) in IMPURE_NAMES {
        for at in names(&source.live, name) {
            let why = format!("names {name}: a pure crate is not to know {what}");
            findings.push(Finding::at(source, at, why));
        }
    }
}

fn wrapped(source: &Source, findings: &mut Vec<Finding>) {
    for (what, crates, folder) in WRAPPED {
        if source.path.starts_with(folder) {
            continue;
        }
        for name in crates {
            for at in names(&source.code, &format!("{name}::")) {
                let why = format!("names {what}, which only {folder} knows");
                findings.push(Finding::at(source, at, why));
            }
        }
    }
}

fn unused(member: &Member, own: &[&Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dependency in &member.dependencies {
        let used = own.iter().any(|source| {
            // Examples in documentation are tests of their own.
            let text = if dependency.auxiliary {
                &source.text
            } else {
                &source.code
            };
            !names(text, &dependency.ident).is_empty()
        });
        if !used {
            let why = format!("depends on {} and never names it", dependency.package);
            findings.push(Finding::new(
                member.folder.join("Cargo.toml").display(),
                why,
            ));
        }
    }
    findings
}

/// Entries of the root manifest's dependency table that no member takes; our
/// own crates stand there whoever takes them.
fn unused_in_root(tree: &Tree) -> Result<Vec<Finding>, String> {
    let manifest = tree.place.root.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).map_err(|e| format!("Cargo.toml cannot be read: {e}"))?;
    let used = |name: &str| {
        let members = tree.workspace.members.iter();
        members
            .flat_map(|m| &m.dependencies)
            .any(|d| d.package == name || d.ident == name.replace('-', "_"))
    };
    Ok(root_table(&text)
        .filter(|name| !name.starts_with("adit-") && !used(name))
        .map(|name| {
            Finding::new(
                "Cargo.toml",
                format!("lists {name}, which no crate of the workspace depends on"),
            )
        })
        .collect())
}

fn root_table(manifest: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            inside = line.trim() == "[workspace.dependencies]";
        }
        let (name, _) = line.split_once('=').filter(|_| inside)?;
        let name = name.trim();
        (!name.starts_with('#') && !name.contains(' ')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::workspace;
    use crate::source::tests::source;

    #[test]
    fn a_pure_crate_that_reaches_a_runtime_is_told_the_way() {
        let tree = "0adit-wire v0\n1adit-model v0\n2helper v1\n3tokio v1\n";
        let found = reach("adit-wire", &Linked::read(tree));
        assert_eq!(found.len(), 1);
        let way = "adit-wire -> adit-model -> helper -> tokio";
        assert!(found[0].why.contains(way), "{found:?}");
        assert!(reach("adit-edge", &Linked::read(tree)).is_empty());
    }

    #[test]
    fn only_the_tops_depend_on_edge_and_agent() {
        let found = direction(&workspace(&[
            ("adit-link", &["adit-edge"]),
            ("adit", &["adit-edge"]),
            ("adit-testkit", &["adit-agent"]),
        ]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "adit-link");
    }

    #[test]
    fn clocks_are_found_in_live_code_only() {
        let text = "//! Instant::now is not for us.\nfn a(now: Instant) {}\n#[cfg(test)]\nmod tests { fn t() { Instant::now(); } }\n";
        let mut findings = Vec::new();
        impure(&source("a.rs", text), &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        impure(
            &source("a.rs", "fn a() { std::time::Instant::now(); }"),
            &mut findings,
        );
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn wrapped_libraries_are_named_in_their_module_only() {
        let mut findings = Vec::new();
        wrapped(
            &source("crates/edge/src/ssh/server.rs", "use russh::server;"),
            &mut findings,
        );
        assert!(findings.is_empty());
        wrapped(
            &source("crates/edge/src/accept.rs", "use russh::server;"),
            &mut findings,
        );
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn a_dependency_is_used_when_its_name_stands_in_code() {
        let found = workspace(&[("adit-model", &["some-lib"])]);
        let member = found.member("adit-model").unwrap();
        let commented = source("a.rs", "// some_lib\n");
        assert_eq!(unused(member, &[&commented]).len(), 1);
        let used = source("a.rs", "use some_lib::Thing;\n");
        assert!(unused(member, &[&used]).is_empty());
    }

    #[test]
    fn the_root_table_is_read_to_its_end() {
        let text = "[workspace]\na = 1\n[workspace.dependencies]\n# b = 2\nc = \"1\"\nd-e = { path = \"x\" }\n[profile.dev]\nf = 1\n";
        assert_eq!(root_table(text).collect::<Vec<_>>(), ["c", "d-e"]);
    }
}
