use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use adit_model::TunnelName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::{Client, Place};
use super::*;
use crate::admission::{AdmissionSettings, PinPolicy, SystemClock, TokenWish};
use crate::limits::{LimitSettings, Limits};
use crate::metrics::Metrics;
use crate::rules::{RuleSpec, Rules};
use crate::state::{AdmittedBy, Keep, Store};

struct Said;

impl Status for Said {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "links": [] })
    }
}

struct World {
    admission: Arc<Admission>,
    tasks: Tasks,
}

fn start(data: &Path, settings: AdmissionSettings) -> World {
    let (store, seen) = Store::open(data, None).unwrap();
    let metrics = Arc::new(Metrics::new());
    let limits = Limits::new(
        LimitSettings::default(),
        Arc::clone(&metrics),
        Instant::now(),
    );
    let clock = Arc::new(SystemClock);
    let admission = Admission::new(
        settings,
        Arc::new(store),
        &seen,
        Arc::clone(&limits),
        metrics,
        clock,
    );
    let admission = Arc::new(admission.unwrap());
    let tasks = Tasks::new();
    let reached = Reached {
        addresses: vec!["edge.example.test:7400".to_owned()],
        doors: Vec::new(),
    };
    let guests_only = RuleSpec {
        guests_only: true,
        ..RuleSpec::default()
    };
    let ssh = TunnelName::parse("ssh").unwrap();
    let rules = Rules::new([(ssh, guests_only)], None, Vec::new(), Instant::now());
    let control = Control::new(
        Arc::clone(&admission),
        reached,
        Arc::new(Said),
        (Arc::new(rules), limits),
    );
    listen(&tasks, control).unwrap();
    World { admission, tasks }
}

fn place(data: &Path) -> Place {
    Place {
        data: data.to_owned(),
        reached: Reached {
            addresses: vec!["127.0.0.1:7400".to_owned()],
            doors: Vec::new(),
        },
        secret: None,
    }
}

/// The client blocks, as a command does.
async fn client<R: Send + 'static>(
    data: &Path,
    work: impl FnOnce(Client) -> R + Send + 'static,
) -> R {
    let place = place(data);
    tokio::task::spawn_blocking(move || work(Client::open(place, true).unwrap()))
        .await
        .unwrap()
}

fn enrol(store: &Store, n: u8, token: Option<crate::state::TokenId>) {
    let key = adit_model::PublicKey([n; 32]);
    let psk = Psk::from_random(adit_link::entropy::random().unwrap());
    store.change(|books| {
        let by = token.map_or(AdmittedBy::SharedSecret, AdmittedBy::Token);
        books.enrol(key, by, psk, u64::from(n)).unwrap();
        (Keep::Now, ())
    });
}

fn long_folder() -> (TempDir, std::path::PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let data = top.path().join("d".repeat(100)).join("e".repeat(100));
    (top, data)
}

#[tokio::test]
async fn a_running_edge_answers_its_owner() {
    let (_top, data) = long_folder();
    let world = start(&data, AdmissionSettings::default());
    let socket = std::fs::metadata(data.join(SOCKET)).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    let (pin, join, status) = client(&data, |c| {
        assert!(c.is_running());
        (c.pin().unwrap(), c.join().unwrap(), c.status().unwrap())
    })
    .await;
    assert_eq!(pin, world.admission.current_pin());
    assert_eq!(join.addresses, ["edge.example.test:7400"]);
    let secret = world.admission.store().shared_secret();
    assert_eq!(join.credential, Credential::Shared(secret.clone()));
    assert_eq!(status["links"], serde_json::json!([]));

    let token = client(&data, |c| {
        let wish = TokenWish {
            scope: Some(TunnelName::parse("app").unwrap()),
            label: Some("laptop".into()),
            life: Some(Duration::from_secs(60)),
        };
        c.new_token(&wish).unwrap()
    })
    .await;
    let id = token.id.parse().unwrap();
    let kept = world.admission.store().read(|b| b.token(id).cloned());
    let kept = kept.unwrap();
    let join: JoinString = token.join.parse().unwrap();
    assert_eq!(join.credential, Credential::Token(kept.secret));
    assert_eq!(
        (kept.expires, token.scope.as_deref()),
        (token.expires, Some("app"))
    );

    enrol(world.admission.store(), 1, Some(id));
    enrol(world.admission.store(), 2, None);
    let agents = client(&data, |c| c.agents().unwrap()).await;
    let names: Vec<_> = agents.iter().map(|a| a.name.as_deref()).collect();
    assert_eq!(names, [Some("laptop"), None]);
    let revoked = client(&data, |c| c.revoke("laptop").unwrap()).await;
    assert_eq!((revoked.links, &revoked.key), (Some(0), &agents[0].key));
    let error = client(&data, |c| c.revoke("laptop").unwrap_err()).await;
    assert_eq!(error.code(), Code::NO_SUCH_AGENT);
    assert!(error.to_string().contains("laptop"), "{error}");

    let join = client(&data, |c| c.rotate_secret().unwrap()).await;
    let new = world.admission.store().shared_secret();
    assert_ne!(new, secret);
    assert_eq!(join.credential, Credential::Shared(new));
    assert!(world.tasks.close(Duration::from_secs(5)).await);
    assert!(!data.join(SOCKET).exists());
}

#[tokio::test]
async fn without_an_edge_the_files_are_worked_on() {
    let (_top, data) = long_folder();
    let (join, token) = client(&data, |c| {
        assert!(!c.is_running());
        for refused in [c.pin().map(drop), c.status().map(drop)] {
            assert_eq!(refused.unwrap_err().code(), Code::NO_EDGE_RUNNING);
        }
        (
            c.join().unwrap(),
            c.new_token(&TokenWish::default()).unwrap(),
        )
    })
    .await;
    assert_eq!(join.addresses, ["127.0.0.1:7400"]);
    {
        let (store, _) = Store::open(&data, None).unwrap();
        assert_eq!(join.edge, store.identity().public());
        assert!(store.read(|b| b.token(token.id.parse().unwrap()).is_some()));
        enrol(&store, 3, None);
        store.save().unwrap();
    }
    let agents = client(&data, |c| c.agents().unwrap()).await;
    assert_eq!((agents.len(), agents[0].links), (1, None));
    let key = agents[0].key.clone();
    client(&data, move |c| c.revoke(&key).unwrap()).await;
    let rotated = client(&data, |c| c.rotate_secret().unwrap()).await;
    let (store, _) = Store::open(&data, None).unwrap();
    assert_eq!(store.read(|b| b.agents().len()), 0);
    let secret = Credential::Shared(store.shared_secret());
    assert_eq!(rotated.credential, secret);
    assert_ne!(join.credential, secret);
}

#[test]
fn a_mistyped_folder_is_not_made() {
    let top = tempfile::tempdir().unwrap();
    let data = top.path().join("nowhere");
    let error = Client::open(place(&data), false).err().unwrap();
    assert_eq!(error.code(), Code::NO_EDGE_RUNNING);
    assert!(!data.exists());
}

#[test]
fn a_holder_that_does_not_answer_is_named() {
    let top = tempfile::tempdir().unwrap();
    let _held = Store::open(top.path(), None).unwrap();
    let error = Client::open(place(top.path()), true).err().unwrap();
    assert_eq!(error.code(), Code::DATA_IN_USE);
}

#[tokio::test]
async fn a_dead_edge_leaves_no_obstacle() {
    let top = tempfile::tempdir().unwrap();
    let stale = std::os::unix::net::UnixListener::bind(top.path().join(SOCKET)).unwrap();
    drop(stale);
    let offline = client(top.path(), |c| c.is_running()).await;
    assert!(!offline);
    let world = start(top.path(), AdmissionSettings::default());
    assert!(client(top.path(), |c| c.is_running()).await);
    assert!(world.tasks.close(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn nonsense_is_answered_and_bounded() {
    let top = tempfile::tempdir().unwrap();
    let mut settings = AdmissionSettings::default();
    settings.policy.pin = PinPolicy::Off;
    let world = start(top.path(), settings);
    let ask = async |line: &str| {
        let mut socket = UnixStream::connect(top.path().join(SOCKET)).await.unwrap();
        let _ = socket.write_all(line.as_bytes()).await;
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer).await;
        answer
    };
    for line in [
        "\n",
        "{}\n",
        "{\"do\":\"dance\"}\n",
        "{\"do\":\"revoke\"}\n",
        "{\"do\":\"new-token\",\"seconds\":0}\n",
        "{\"do\":\"new-token\",\"seconds\":99999999999}\n",
        "{\"do\":\"new-token\",\"scope\":\"a.b\"}\n",
        "{\"do\":\"new-token\",\"label\":\"\\u0007\"}\n",
        &"x".repeat(100_000),
    ] {
        let answer = ask(line).await;
        assert!(
            answer.starts_with("{\"error\":{\"code\":"),
            "{line} {answer}"
        );
    }
    assert_eq!(
        ask("{\"do\":\"pin\"}\n").await,
        "{\"ok\":{\"pin\":{\"pin\":null}}}\n"
    );
    assert!(world.tasks.close(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn guests_are_let_in_and_out() {
    let data = TempDir::new().unwrap();
    let world = start(data.path(), AdmissionSettings::default());
    let place = place(data.path());
    let [ssh, app] = ["ssh", "app"].map(|name| TunnelName::parse(name).unwrap());
    let guest = "192.0.2.7".parse().unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        let client = Client::open(place, false).unwrap();
        client.let_in(&ssh, guest, Duration::from_secs(60)).unwrap();
        assert!(client.shut_out(&ssh, guest).unwrap());
        assert!(!client.shut_out(&ssh, guest).unwrap());
        client
            .let_in(&app, guest, Duration::from_secs(60))
            .unwrap_err()
    });
    let refused = answered.await.unwrap();
    assert!(
        refused.to_string().contains("guests_only = true"),
        "{refused}"
    );
    world.tasks.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn bans_are_spoken_listed_and_lifted() {
    let data = TempDir::new().unwrap();
    let world = start(data.path(), AdmissionSettings::default());
    let place = place(data.path());
    let (one, own) = ("2001:db8::7".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let answered = tokio::task::spawn_blocking(move || {
        let client = Client::open(place, false).unwrap();
        assert_eq!(client.bans().unwrap(), []);
        client.ban(one, Duration::from_secs(3600)).unwrap();
        let bans = client.bans().unwrap();
        assert_eq!(bans.len(), 1);
        assert_eq!(bans[0].address, "2001:db8::/64");
        assert!((3500..=3600).contains(&bans[0].seconds_left), "{bans:?}");
        assert!(client.lift(one).unwrap());
        assert!(!client.lift(one).unwrap());
        let never = client.ban(own, Duration::from_secs(60)).unwrap_err();
        (never, client.ban(one, Duration::ZERO).unwrap_err())
    });
    let (never, short) = answered.await.unwrap();
    assert!(never.to_string().contains("never banned"), "{never}");
    assert!(short.to_string().contains("366 days"), "{short}");
    world.tasks.close(Duration::from_secs(5)).await;
}
