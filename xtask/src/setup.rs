//! Installs what the tests need and a Rust toolchain does not bring: programs
//! of the system, a Python environment, cargo tools.
//!
//! Only the system's packages go outside the target folder, and only as root
//! or by `sudo`; without either the one line to run is printed instead.
//! Everything is named before it is installed, and what is there already is
//! left alone.

use std::fs;

use crate::shell::{Place, Run, has_program};

/// A program that tests run as a peer, and the Debian package that has it.
struct Peer {
    program: &'static str,
    package: &'static str,
    used: &'static str,
}

const PEERS: [Peer; 14] = [
    Peer {
        program: "nginx",
        package: "nginx-light",
        used: "a real origin behind tunnels",
    },
    Peer {
        program: "curl",
        package: "curl",
        used: "a real visitor",
    },
    Peer {
        program: "python3",
        package: "python3",
        used: "origins, the second implementation of the link protocol",
    },
    Peer {
        program: "ip",
        package: "iproute2",
        used: "networks that tests make, and break",
    },
    Peer {
        program: "nsenter",
        package: "util-linux",
        used: "programs inside such a network",
    },
    Peer {
        program: "sysctl",
        package: "procps",
        used: "its kernel parameters",
    },
    Peer {
        program: "tinyproxy",
        package: "tinyproxy-bin",
        used: "a proxy that is the only way out",
    },
    Peer {
        program: "microsocks",
        package: "microsocks",
        used: "another, of SOCKS5",
    },
    Peer {
        program: "sshd",
        package: "openssh-server",
        used: "a real service behind TCP tunnels",
    },
    Peer {
        program: "ssh",
        package: "openssh-client",
        used: "its visitor",
    },
    Peer {
        program: "postgres",
        package: "postgresql",
        used: "a database behind private tunnels, and psql, its visitor",
    },
    Peer {
        program: "dnsmasq",
        package: "dnsmasq-base",
        used: "a real service behind UDP tunnels",
    },
    Peer {
        program: "dig",
        package: "bind9-dnsutils",
        used: "its visitor",
    },
    Peer {
        program: "unshare",
        package: "util-linux",
        used: "namespaces without root, and a disk that is full",
    },
];

/// Debian keeps the module that makes environments apart from Python.
const VENV_PACKAGE: &str = "python3-venv";
/// The version the committed `deny.toml` is written for.
const DENY_VERSION: &str = "0.20.2";
/// What the Python environment holds, each pinned.
const REQUIREMENTS: &str = "crates/testkit/requirements.txt";

/// Installs what is missing.
pub(crate) fn install(place: &Place) -> Result<(), String> {
    packages(place)?;
    python(place)?;
    cargo_deny(place)
}

fn packages(place: &Place) -> Result<(), String> {
    let mut missing = Vec::new();
    for peer in PEERS.iter().filter(|peer| !has_program(peer.program)) {
        println!("missing: {} ({})", peer.program, peer.used);
        missing.push(peer.package);
    }
    if !can_make_environments(place) {
        println!("missing: Python's venv module (the environment of the tests' peers)");
        missing.push(VENV_PACKAGE);
    }
    if missing.is_empty() {
        println!("system packages: nothing is missing");
        return Ok(());
    }
    let list = missing.join(" ");
    if !has_program("apt-get") {
        return Err(format!(
            "this is not a Debian system: install what Debian calls {list}, then run this again"
        ));
    }
    let Some(elevated) = elevation(place) else {
        return Err(format!(
            "installing system packages takes root: run this, then try again\n\n  \
             su -c 'apt-get update && apt-get install --yes --no-install-recommends {list}'\n"
        ));
    };
    println!("installing the Debian packages {list}");
    let apt = |arguments: &[&str]| {
        let mut words = elevated.to_vec();
        words.extend([
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "--quiet",
        ]);
        words.extend(arguments);
        Run::program(place, words[0]).args(&words[1..]).done()
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)?;
    match PEERS.iter().find(|peer| !has_program(peer.program)) {
        None => Ok(()),
        Some(peer) => Err(format!(
            "{} was installed but {} is still not found",
            peer.package, peer.program
        )),
    }
}

fn can_make_environments(place: &Place) -> bool {
    has_program("python3")
        && Run::program(place, "python3")
            .args(["-c", "import ensurepip, venv"])
            .output()
            .is_ok()
}

/// The words before a command that make it root's; nothing where we are root,
/// `None` where there is no way that asks no question.
fn elevation(place: &Place) -> Option<&'static [&'static str]> {
    let id = Run::program(place, "id").args(["-u"]).output().ok()?;
    if id.trim() == "0" {
        return Some(&[]);
    }
    let sudo = Run::program(place, "sudo").args(["-n", "true"]).output();
    sudo.is_ok().then_some(&["sudo", "-n"])
}

fn python(place: &Place) -> Result<(), String> {
    let wanted = fs::read_to_string(place.root.join(REQUIREMENTS))
        .map_err(|e| format!("{REQUIREMENTS} cannot be read: {e}"))?;
    let venv = place.venv();
    let stamp = venv.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("Python packages: nothing is missing");
        return Ok(());
    }
    println!("installing into {}:", venv.display());
    for line in wanted.lines().filter(|line| !line.starts_with('#')) {
        println!("  {line}");
    }
    Run::program(place, "python3")
        .args(["-m", "venv", "--clear"])
        .args([&venv])
        .done()?;
    Run::program(place, venv.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--requirement", REQUIREMENTS])
        .done()?;
    fs::write(&stamp, wanted).map_err(|e| format!("{} cannot be written: {e}", stamp.display()))
}

fn cargo_deny(place: &Place) -> Result<(), String> {
    let tools = place.tools();
    let program = tools.join("bin").join("cargo-deny");
    let installed = Run::program(place, &program).args(["--version"]).output();
    if installed.is_ok_and(|said| said.trim().ends_with(DENY_VERSION)) {
        println!("cargo tools: nothing is missing");
        return Ok(());
    }
    println!(
        "installing cargo-deny {DENY_VERSION} into {}",
        tools.display()
    );
    let build = tools.join("build");
    let versioned = format!("cargo-deny@{DENY_VERSION}");
    // Unoptimised: it runs for two seconds, and builds in a third of the time.
    Run::cargo(
        place,
        &["install", "--quiet", "--locked", "--debug", &versioned],
    )
    .args(["--root".as_ref(), tools.as_os_str()])
    .args(["--target-dir".as_ref(), build.as_os_str()])
    .done()?;
    fs::remove_dir_all(&build).map_err(|e| format!("{} cannot be removed: {e}", build.display()))
}
