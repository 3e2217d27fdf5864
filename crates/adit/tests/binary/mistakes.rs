//! What is wrong is said in one sentence with what, where and what to do; the
//! exit status fits, and nothing is half-written.

use std::fs;
use std::net::TcpListener;

use adit_testkit::raw::{Socket, nobody, origin};

use crate::lab::{Lab, files, own};

fn doors(http: &str) -> [String; 3] {
    [http, "127.0.0.1:0", "127.0.0.1:0"].map(str::to_owned)
}

#[test]
fn a_port_in_use_is_named_with_its_door() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = lab.server_file(&doors(&address), "");
    let said = lab.run(&["server", "--config", &file]);
    said.refused(1, "ADIT-2001", &["HTTP door", &address]);
    // It starts once the port is free.
    drop(taken);
    let edge = lab.edge_at(&doors(&address), "");
    assert_eq!(edge.running.stop().0, Some(0));
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let lab = Lab::new();
    let inside = format!("{}/edge", lab.file("file", "a file"));
    let arguments = [
        "server",
        "--http",
        "127.0.0.1:0",
        "--link",
        "127.0.0.1:0",
        "--api",
        "off",
    ];
    let said = lab.run(&[&arguments[..], &["--data", &inside]].concat());
    said.refused(1, "ADIT-2101", &[&inside]);
    let said = lab
        .agent_with("file/agent", &["3000", "--name", "app"], &[])
        .ended();
    said.refused(1, "ADIT-2101", &["file/agent"]);
    assert_eq!(fs::read_to_string(lab.path("file")).unwrap(), "a file");
}

/// Each file in turn: the program names it and leaves it as it is.
#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let lab = Lab::new();
    let edge = lab.edge("");
    lab.join(&edge, "agent");
    edge.running.stop();
    for (name, junk) in [
        ("identity.json", "{\"format\": 1, \"public\""),
        ("secret", "short"),
        ("agents.json", "[]"),
        ("format", "something else"),
    ] {
        let path = lab.path(&format!("edge/{name}"));
        let good = fs::read(&path).unwrap();
        fs::write(&path, junk).unwrap();
        let before = contents(&lab, "edge");
        let said = lab.run(&["server", "--config", "server.toml"]);
        said.refused(1, "ADIT-2105", &[name]);
        assert_eq!(contents(&lab, "edge"), before, "{name}");
        fs::write(&path, good).unwrap();
    }
    let edge = lab.edge("");
    for file in files(&lab.path("agent")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == "lock" {
            continue;
        }
        let good = fs::read(&file).unwrap();
        fs::write(&file, "{").unwrap();
        let said = lab
            .agent_with("agent", &["3000", "--name", "app"], &[])
            .ended();
        said.refused(1, "ADIT-2105", &[name]);
        assert_eq!(fs::read(&file).unwrap(), b"{", "{name}");
        fs::write(&file, good).unwrap();
    }
    drop(edge);
}

fn contents(lab: &Lab, folder: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = files(&lab.path(folder)).into_iter();
    files
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect()
}

#[test]
fn a_second_edge_on_one_folder_is_refused() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let second = lab.run(&["server", "--config", "server.toml"]);
    second.refused(1, "ADIT-2104", &["edge"]);
    assert_eq!(edge.running.stop().0, Some(0));
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once() {
    let lab = Lab::new();
    let file = lab.file(
        "server.toml",
        "[server]\ndomian = \"example.test\"\ndrain_seconds = -1\n\
         [doors]\nhttp = \"8080 please\"\n[limits]\nhead_seconds = \"ten\"\n\
         [admission]\nsecret = \"file:/no/such/file\"\n\
         [[route]]\nhost = \"a b\"\n",
    );
    let said = lab.run(&["server", "--config", &file]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    let places = [
        "server.toml:2",
        "server.toml:3",
        "server.toml:5",
        "server.toml:7",
        "server.toml:9",
        "server.toml:11",
    ];
    for place in places {
        assert!(said.err.contains(place), "{place} in {}", said.err);
    }
    for word in ["domain", "/no/such/file", "nothing was started"] {
        assert!(said.err.contains(word), "{word} in {}", said.err);
    }
    assert!(!lab.path("edge").exists() && !lab.path("home").exists());
    // The same from the command that only looks.
    let checked = lab.run(&["config", "check", &file]);
    assert_eq!(checked.code, 2, "{checked:?}");
    let missing = lab.run(&["client", "--config", "no-such.toml"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(
        missing.err.contains("no-such.toml") && missing.err.contains("ADIT-1101"),
        "{missing:?}"
    );
}

#[test]
fn a_damaged_join_string_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let join = edge.join(&lab);
    let cut = &join[..join.len() - 1];
    let last = if join.ends_with('a') { "b" } else { "a" };
    for damaged in [
        cut.to_owned(),
        format!("{cut}{last}"),
        "adit1".to_owned(),
        "hello".to_owned(),
    ] {
        let said = lab.run_with(&["join", "--data", "agent"], &[("ADIT_EDGE", &damaged)]);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        assert!(said.err.contains("ADIT-1201"), "{said:?}");
        assert!(
            !said.err.contains(&damaged[4..]) || damaged.len() < 8,
            "it is a secret: {said:?}"
        );
        assert!(!lab.path("agent").exists());
    }
}

#[test]
fn wrong_use_of_a_tcp_tunnel_is_told() {
    let lab = Lab::new();
    let url = ["tcp", "https://nas.lan", "--data", "agent"];
    lab.run(&url)
        .refused(2, "ADIT-1002", &["carries bytes as they are", "nas.lan"]);
    assert!(lab.run(&url).err.contains("write nas.lan:443"));
    for (arguments, code, word) in [
        (["tcp", "nas.lan", "--name", "nas"], "ADIT-1002", "nas.lan"),
        (["tcp", "22", "--name", "my_nas"], "ADIT-1003", "--name"),
        (["tcp", "22", "--data", "agent"], "ADIT-1203", "join"),
    ] {
        lab.run(&arguments).refused(2, code, &[word]);
    }
    for arguments in [
        &["tcp"][..],
        &["tcp", "22", "--target", "22"],
        &["tcp", "22", "--port", "0"],
        &["tcp", "22", "--host-header", "nas.lan"],
    ] {
        let said = lab.run(arguments);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        assert!(said.err.starts_with("error ADIT-1001: "), "{said:?}");
    }
    let list = [("ADIT_AGENT_ALLOWED_TARGETS", "192.168.1.0/24:22")];
    for command in ["http", "tcp"] {
        let said = lab.run_with(&[command, "--", "22"], &list);
        said.refused(2, "ADIT-1109", &["localhost:22", "ALLOWED_TARGETS"]);
    }
}

/// The tunnel is up, the service behind it is not: only the owner learns it.
#[test]
fn a_target_that_is_down_or_no_http_is_told_to_its_owner() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let other = origin(|mut socket: Socket| {
        socket.send("220 mail.example ESMTP\r\n");
        socket.rest();
    });
    for (name, target, code, words) in [
        (
            "down",
            nobody().to_string(),
            "ADIT-4101",
            "the service behind it is not",
        ),
        ("mail", other.to_string(), "ADIT-4105", "status line"),
    ] {
        let agent = lab.agent(&edge, name, &[&target, "--name", name]);
        agent.live(name);
        let (status, answer) = edge.get(&format!("{name}.test"), "/");
        assert_eq!(status, 502, "{answer}");
        let lower = answer.to_lowercase();
        for word in ["adit", "tunnel", "agent", "127.0.0.1", "service"] {
            assert!(!lower.contains(word), "{answer}");
        }
        let line = agent.logged(code);
        assert!(line.contains(name) && line.contains(words), "{line}");
        assert_eq!(agent.stop().0, Some(0));
    }
}

/// A volume without room: the old file stands whole, and the sentence says so.
#[test]
fn a_full_disk_leaves_what_was_there() {
    let lab = Lab::new();
    fs::create_dir(lab.path("edge")).unwrap();
    // A volume of our own, seen by this process alone, filled to the last block.
    let shell = "--mount sh -c 'mount -t tmpfs -o size=64k,mode=0700 none edge \
                 && { dd if=/dev/zero of=edge/filler bs=1k count=4096 2>/dev/null; \"$0\" \"$@\"; \
                 code=$?; ls edge >&2; exit $code; }' \"$0\" \"$@\"";
    let shell = format!("exec {} {shell}", own());
    let file = lab.server_file(&doors("127.0.0.1:0"), "");
    let said = lab
        .start_in(&shell, &["server", "--config", &file], &[])
        .ended();
    said.refused(1, "ADIT-2103", &["edge"]);
    let left = said
        .err
        .lines()
        .rev()
        .take_while(|line| !line.starts_with("    "));
    for name in left {
        assert!(
            !["identity.json", "secret", "agents.json"].contains(&name),
            "{said:?}"
        );
        assert!(!name.contains("tmp"), "{said:?}");
    }
}
