use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use adit_model::{Carrier, CarrierDoor, Credential, JoinString, Psk, PublicKey};

use super::{DataFolder, Joining, StateError, WAYS, file};

fn folder() -> (tempfile::TempDir, DataFolder) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataFolder::open(&dir.path().join("data")).unwrap();
    (dir, data)
}

fn join_string() -> JoinString {
    JoinString {
        addresses: vec!["edge.test:7400".into()],
        doors: Vec::new(),
        edge: PublicKey([7; 32]),
        credential: Credential::Shared(Psk::from_random([9; 32])),
    }
}

#[test]
fn an_identity_is_made_once() {
    let (_dir, data) = folder();
    let first = data.identity().unwrap().public();
    let again = DataFolder::open(data.path()).unwrap();
    assert_eq!(again.identity().unwrap().public(), first);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (_dir, data) = folder();
    data.identity().unwrap();
    data.join(&join_string()).unwrap();
    let held = data.hold_name(&PublicKey([7; 32]), "3000").unwrap();
    for folder in ["", "edges", "names"] {
        assert_eq!(mode(&data.path().join(folder)), 0o700, "{folder}");
    }
    let record = file::list(&data.path().join("edges")).unwrap().remove(0);
    for path in [
        data.path().join("identity.json"),
        data.path().join("joined"),
        data.path().join("lock"),
        data.path().join("names").join(held.name().as_str()),
        record,
    ] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }

    let identity = data.path().join("identity.json");
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o640)).unwrap();
    let error = data.identity().unwrap_err();
    assert!(matches!(error, StateError::Exposed { .. }), "{error}");
}

#[test]
fn joining_gives_way_to_the_agents_own_secret() {
    let (_dir, data) = folder();
    assert!(data.joined().unwrap().is_none());
    let join = join_string();
    assert_eq!(data.join(&join).unwrap(), Joining::New);
    let known = data.joined().unwrap().unwrap();
    assert_eq!(known.join, Some(join.clone()));
    assert_eq!(known.addresses, join.addresses);
    assert!(known.secret.is_none());

    let own = Psk::from_random([3; 32]);
    data.save_secret(&join.edge, &join.addresses, &own).unwrap();
    let known = data.joined().unwrap().unwrap();
    assert_eq!(known.secret, Some(own.clone()));
    assert_eq!(known.join, None, "the join string is not kept beside it");

    let moved = JoinString {
        addresses: vec!["elsewhere.test:7400".into()],
        doors: Vec::new(),
        ..join
    };
    assert_eq!(data.join(&moved).unwrap(), Joining::Known);
    let known = data.edge(&moved.edge).unwrap().unwrap();
    assert_eq!(
        (known.secret, known.addresses),
        (Some(own), moved.addresses)
    );
    assert_eq!(data.known_edges().unwrap().len(), 1);
}

#[test]
fn a_forgotten_edge_is_gone() {
    let (_dir, data) = folder();
    let edge = join_string().edge;
    assert!(!data.forget(&edge).unwrap());
    data.join(&join_string()).unwrap();
    assert!(data.forget(&edge).unwrap());
    assert!(data.joined().unwrap().is_none());
    assert!(data.edge(&edge).unwrap().is_none());
}

#[test]
fn damaged_files_are_named_and_left_alone() {
    let (_dir, data) = folder();
    data.join(&join_string()).unwrap();
    let record = file::list(&data.path().join("edges")).unwrap().remove(0);
    let identity = data.path().join("identity.json");
    data.identity().unwrap();
    for (path, bytes) in [
        (&record, b"{\"format\":1".as_slice()),
        (&record, b"\xff\xfe"),
        (&record, b"{\"format\":2,\"edge\":\"\",\"addresses\":[]}"),
        (&identity, b""),
        (
            &identity,
            b"{\"format\":1,\"public\":\"\",\"private\":\"short\"}",
        ),
    ] {
        fs::write(path, bytes).unwrap();
        let error = if *path == record {
            let read = data.joined().map(|_| ()).unwrap_err();
            data.join(&join_string()).unwrap_err();
            read
        } else {
            data.identity().map(|_| ()).unwrap_err()
        };
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert!(
            error.to_string().contains(&*path.to_string_lossy()),
            "{error}"
        );
        assert_eq!(fs::read(path).unwrap(), bytes, "left as it was");
    }
    // Its owner can still say that it is to go.
    assert!(data.forget(&join_string().edge).unwrap());
    assert_eq!(data.join(&join_string()).unwrap(), Joining::New);
}

#[test]
fn a_name_outlives_its_holder_and_is_held_once() {
    let (_dir, data) = folder();
    let edge = PublicKey([7; 32]);
    let first = data.hold_name(&edge, "http://localhost:3000").unwrap();
    let second = data.hold_name(&edge, "http://localhost:3000").unwrap();
    let other = data.hold_name(&edge, "http://localhost:4000").unwrap();
    let elsewhere = data
        .hold_name(&PublicKey([8; 32]), "http://localhost:3000")
        .unwrap();
    let names: BTreeSet<_> = [&first, &second, &other, &elsewhere]
        .map(|held| held.name().clone())
        .into();
    assert_eq!(names.len(), 4);
    assert!(first.name().as_str().len() >= 16, "80 bits in base32");

    let (a, b) = (first.name().clone(), second.name().clone());
    drop((first, second));
    let again = data.hold_name(&edge, "http://localhost:3000").unwrap();
    let beside = data.hold_name(&edge, "http://localhost:3000").unwrap();
    assert_eq!(
        (again.name(), beside.name()),
        (&a, &b),
        "the same, in order"
    );
}

#[test]
fn remembered_names_are_bounded_and_a_held_one_stays() {
    let (_dir, data) = folder();
    let edge = PublicKey([7; 32]);
    let held = data.hold_name(&edge, "held").unwrap();
    let stranger = data.path().join("names").join("notes");
    fs::write(&stranger, "not a name of ours").unwrap();
    for n in 0..300 {
        data.hold_name(&edge, &format!("target {n}")).unwrap();
    }
    let names = file::list(&data.path().join("names")).unwrap();
    assert!(names.len() <= 256, "{}", names.len());
    assert!(stranger.exists());
    let path = data.path().join("names").join(held.name().as_str());
    assert!(path.exists());
}

#[test]
fn remembered_networks_are_bounded_and_the_newest_stay() {
    let (_dir, data) = folder();
    let join = join_string();
    let doors = [CarrierDoor {
        carrier: Carrier::Quic,
        port: 7400,
    }];
    let way = |n: usize, carrier| (format!("10.0.{n}.0/24 none"), carrier);
    let save = |n, carrier| {
        let (network, carrier) = way(n, carrier);
        data.save_way(&join.edge, &doors, Some((&network, carrier)))
            .unwrap();
    };
    save(0, Carrier::Tcp);
    assert!(data.edge(&join.edge).unwrap().is_none(), "not joined yet");
    data.join(&join).unwrap();
    for n in 0..10 * WAYS {
        save(n, Carrier::Tcp);
    }
    let last = 10 * WAYS - 1;
    // A network that is met again is the newest, and stands there once.
    save(last - 3, Carrier::WebSocket);
    let known = data.edge(&join.edge).unwrap().unwrap();
    assert_eq!((known.ways.len(), known.doors.len()), (WAYS, 1));
    assert_eq!(known.ways[0], way(last - 3, Carrier::WebSocket));
    assert_eq!(known.ways[1], way(last, Carrier::Tcp));
    let again = known
        .ways
        .iter()
        .filter(|(net, _)| *net == way(last - 3, Carrier::Tcp).0);
    assert_eq!(again.count(), 1);
    let size = fs::metadata(data.record(&join.edge)).unwrap().len();
    assert!(size < 4096, "{size}");
    // Joining anew and a secret of its own keep them.
    data.save_secret(&join.edge, &join.addresses, &Psk::from_random([3; 32]))
        .unwrap();
    data.join(&join).unwrap();
    assert_eq!(data.edge(&join.edge).unwrap().unwrap().ways, known.ways);
}

/// Runs one test of this file in a process of its own, where `role` tells it
/// apart from the caller.
fn child(test: &str, role: &str, data: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("state::tests::{test}"), "--nocapture"])
        .env(ROLE, role)
        .env(DATA, data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

const ROLE: &str = "ADIT_TEST_ROLE";
const DATA: &str = "ADIT_TEST_DATA";

fn role() -> Option<(String, DataFolder)> {
    let role = std::env::var(ROLE).ok()?;
    let data = std::env::var_os(DATA).unwrap();
    Some((role, DataFolder::open(Path::new(&data)).unwrap()))
}

/// Tells the parent, then waits until it is done with this process.
fn report_and_wait(what: &str) {
    println!("\nreport={what}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn reported(child: &mut Child) -> String {
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = out.lines().map(Result::unwrap);
    lines
        .find_map(|line| Some(line.strip_prefix("report=")?.to_owned()))
        .expect("the child reports")
}

#[test]
fn processes_share_one_folder() {
    let edge = PublicKey([7; 32]);
    if let Some((_, data)) = role() {
        let identity = data.identity().unwrap().public();
        let held = data.hold_name(&edge, "http://localhost:3000").unwrap();
        report_and_wait(&format!("{identity} {}", held.name()));
        return;
    }
    let (_dir, data) = folder();
    let mut children: Vec<_> = (0..4)
        .map(|_| child("processes_share_one_folder", "hold", data.path()))
        .collect();
    let reports: Vec<_> = children.iter_mut().map(reported).collect();
    let split = reports.iter().map(|r| r.split_once(' ').unwrap());
    let (identities, names): (BTreeSet<_>, BTreeSet<_>) = split.unzip();
    assert_eq!(identities.len(), 1, "one identity, made once");
    assert_eq!(names.len(), 4, "each process has its own name");
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let again = data.hold_name(&edge, "http://localhost:3000").unwrap();
    assert!(names.contains(again.name().as_str()), "free after kill -9");
}

#[test]
fn a_kill_between_write_and_rename_changes_nothing() {
    if let Some((_, data)) = role() {
        let _lock = data.lock().unwrap();
        let path = file::list(&data.edges()).unwrap().remove(0);
        let _staged = file::Staged::write(&path, b"half a rec").unwrap();
        report_and_wait("staged");
        return;
    }
    let (_dir, data) = folder();
    data.join(&join_string()).unwrap();
    let mut child = child(
        "a_kill_between_write_and_rename_changes_nothing",
        "stage",
        data.path(),
    );
    assert_eq!(reported(&mut child), "staged");
    let entries = || fs::read_dir(data.path().join("edges")).unwrap().count();
    assert_eq!(entries(), 2, "the new file lies beside the old one");
    child.kill().unwrap();
    child.wait().unwrap();

    let known = data.joined().unwrap().unwrap();
    assert_eq!(known.join, Some(join_string()));
    assert_eq!(data.known_edges().unwrap().len(), 1);
    let own = Psk::from_random([3; 32]);
    data.save_secret(&known.edge, &known.addresses, &own)
        .unwrap();
    assert_eq!(entries(), 1, "the next write clears what was left");
    assert_eq!(data.joined().unwrap().unwrap().secret, Some(own));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DataFolder::open(&path.join("data")).unwrap_err();
    assert!(matches!(error, StateError::Folder { .. }));
    assert!(error.to_string().contains(&*path.to_string_lossy()));
}
