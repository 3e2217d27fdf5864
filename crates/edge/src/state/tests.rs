use std::os::unix::fs::PermissionsExt;

use adit_model::PublicKey;

use super::*;

fn open(path: &Path) -> Result<(Store, Seen), StateError> {
    Store::open(path, None)
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn enrol(store: &Store, n: u8) -> Psk {
    let fresh = Psk::from_random(random().unwrap());
    store.change(|books| {
        let agent = books.enrol(key(n), AdmittedBy::SharedSecret, fresh, 1000);
        (Keep::Now, agent.unwrap().secret.clone())
    })
}

#[test]
fn a_new_folder_is_made_whole_and_opened_again() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("data");
    let (store, seen) = open(&path).unwrap();
    assert!(!seen.rebooted);
    let (public, secret) = (store.identity().public(), store.shared_secret());
    let agent_secret = enrol(&store, 1);
    store.save().unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    drop(store);
    let (store, _) = open(&path).unwrap();
    assert_eq!(store.identity().public(), public);
    assert_eq!(store.shared_secret(), secret);
    let again = store.read(|books| books.agent(&key(1)).unwrap().secret.clone());
    assert_eq!(again, agent_secret);
}

#[test]
fn the_secret_file_is_the_text_that_a_configuration_would_name() {
    let top = tempfile::tempdir().unwrap();
    let (store, _) = open(top.path()).unwrap();
    let text = std::fs::read_to_string(top.path().join("secret")).unwrap();
    assert_eq!(Psk::parse(&text).unwrap(), store.shared_secret());
}

#[test]
fn rotating_makes_a_new_secret_and_leaves_agents_in() {
    let top = tempfile::tempdir().unwrap();
    let (store, _) = open(top.path()).unwrap();
    enrol(&store, 1);
    store.save().unwrap();
    let old = store.shared_secret();
    let new = store.rotate_secret().unwrap();
    assert_ne!(old, new);
    assert_eq!(store.shared_secret(), new);
    drop(store);
    let (store, _) = open(top.path()).unwrap();
    assert_eq!(store.shared_secret(), new);
    assert!(store.read(|books| books.agent(&key(1)).is_some()));
    drop(store);
    let configured = Psk::from_random([9; 32]);
    let (store, _) = Store::open(top.path(), Some(configured.clone())).unwrap();
    assert_eq!(store.shared_secret(), configured);
    let error = store.rotate_secret().unwrap_err();
    assert!(matches!(error, StateError::SecretIsConfigured));
}

#[test]
fn damaged_and_newer_files_are_named_and_left_as_they_are() {
    let damages: &[(&str, &[u8], bool)] = &[
        ("format", b"adit edge data, format 2\n", true),
        ("format", b"adit agent data, format 1\n", false),
        ("format", b"", false),
        ("identity.json", b"{\"format\":1,", false),
        ("identity.json", b"", false),
        ("identity.json", b"{\"format\":7,\"x\":1}", true),
        ("secret", b"short\n", false),
        ("secret", b"\xff\xfe", false),
        ("agents.json", b"{}", false),
        ("agents.json", b"{\"format\":2}", true),
        ("seen", b"something else\n", false),
    ];
    for (name, bytes, is_newer) in damages {
        let top = tempfile::tempdir().unwrap();
        drop(open(top.path()).unwrap());
        let path = top.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = open(top.path()).unwrap_err();
        assert_eq!(matches!(error, StateError::Newer(_)), *is_newer, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), *bytes);
    }
}

#[test]
fn a_lost_identity_is_not_replaced_while_agents_know_it() {
    let top = tempfile::tempdir().unwrap();
    let (store, _) = open(top.path()).unwrap();
    let public = store.identity().public();
    drop(store);
    std::fs::remove_file(top.path().join("identity.json")).unwrap();
    let (store, _) = open(top.path()).unwrap();
    assert_ne!(store.identity().public(), public);
    enrol(&store, 1);
    store.save().unwrap();
    drop(store);
    std::fs::remove_file(top.path().join("identity.json")).unwrap();
    let error = open(top.path()).unwrap_err();
    assert!(matches!(error, StateError::IdentityMissing(_)), "{error}");
    std::fs::remove_file(top.path().join("format")).unwrap();
    let error = open(top.path()).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
}

#[test]
fn exposed_secrets_are_refused() {
    let top = tempfile::tempdir().unwrap();
    drop(open(top.path()).unwrap());
    for name in ["identity.json", "secret"] {
        let path = top.path().join(name);
        let with = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        with(0o644);
        let error = open(top.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        with(0o600);
    }
    assert!(open(top.path()).is_ok());
}

#[test]
fn seen_proofs_come_back_in_this_boot_only() {
    let top = tempfile::tempdir().unwrap();
    let at_boot = |boot: &str| Store::open_at_boot(top.path(), None, boot.into()).unwrap();
    let proof = SeenProof {
        id: [1; 8],
        nonce: [2; 16],
        stamp: 3,
    };
    let (store, seen) = at_boot("b1");
    assert_eq!(seen, Seen::default());
    store.remember_proof(&proof, 0).unwrap();
    drop(store);
    let (store, seen) = at_boot("b1");
    assert_eq!((seen.proofs, seen.rebooted), (vec![proof], false));
    drop(store);
    assert!(at_boot("b2").1.rebooted);
}

#[tokio::test]
async fn many_commits_share_few_writes() {
    let top = tempfile::tempdir().unwrap();
    let store = Arc::new(open(top.path()).unwrap().0);
    let mut commits = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = Arc::clone(&store);
        commits.spawn(async move {
            enrol(&store, n);
            store.commit().await.unwrap();
            let bytes = std::fs::read(store.path_of(BOOKS)).unwrap();
            let on_disk = records::read_books(&bytes).map_err(|_| ()).unwrap();
            assert!(on_disk.agent(&key(n)).is_some());
        });
    }
    while let Some(done) = commits.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.read(|books| books.agents().len()), 200);
}

#[test]
fn what_was_not_committed_is_not_on_disk() {
    let top = tempfile::tempdir().unwrap();
    let (store, _) = open(top.path()).unwrap();
    enrol(&store, 1);
    store.save().unwrap();
    enrol(&store, 2);
    drop(store);
    let (store, _) = open(top.path()).unwrap();
    assert_eq!(store.read(|books| books.agents().len()), 1);
}

#[tokio::test]
async fn what_can_wait_goes_with_the_next_change_or_a_flush() {
    let top = tempfile::tempdir().unwrap();
    let store = Arc::new(open(top.path()).unwrap().0);
    let on_disk = || {
        let bytes = std::fs::read(store.path_of(BOOKS)).unwrap();
        let books = records::read_books(&bytes).map_err(|_| ()).unwrap();
        books.agent(&key(1)).unwrap().last_seen
    };
    let seen = |now| {
        store.change(|books| {
            books.agent_seen(&key(1), now);
            (Keep::Later, ())
        });
    };
    enrol(&store, 1);
    store.commit().await.unwrap();
    seen(2000);
    store.commit().await.unwrap();
    assert_eq!(on_disk(), 1000);
    store.flush().await.unwrap();
    assert_eq!(on_disk(), 2000);
    seen(3000);
    enrol(&store, 2);
    store.commit().await.unwrap();
    assert_eq!(on_disk(), 3000);
}
