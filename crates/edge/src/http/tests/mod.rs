//! The door with real sockets: raw visitors in front, hand-made services
//! behind it.

mod bodies;
mod corpus;
mod deadlines;
mod retries;
mod rules;
mod secure;
mod upgrades;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use adit_http1::{Body, Framing, Limits as HeadLimits, RequestHead};
use adit_link::tasks::Tasks;
use adit_model::{Domain, HostName, TunnelName};
use adit_routing::{PathPrefix, Route, RouteOptions, RouteTable, Target, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::backend::{Backend, BackendId};
use crate::limits::{LimitSettings, Limits};
use crate::metrics::Metrics;
use crate::registry::Picked;

/// The host that most tests ask for.
const HOST: &str = "app.example.test";

/// What services read, one entry a connection.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u8>>>>);

impl Seen {
    fn open(&self) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    }

    fn add(&self, connection: usize, bytes: &[u8]) {
        self.0.lock().unwrap()[connection].extend_from_slice(bytes);
    }

    /// Forgets the bytes; open connections stay.
    fn forget(&self) {
        self.0.lock().unwrap().iter_mut().for_each(Vec::clear);
    }

    fn connections(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn all(&self) -> Vec<u8> {
        self.0.lock().unwrap().concat()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.all()).into_owned()
    }
}

/// One connection of a service, recorded.
struct Service {
    socket: TcpStream,
    seen: Seen,
    number: usize,
    held: Vec<u8>,
}

impl Service {
    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        let mut bytes = vec![0; 65_536];
        let count = self.socket.read(&mut bytes).await.unwrap_or(0);
        self.seen.add(self.number, &bytes[..count]);
        self.held.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// The next request's head, with its method and target; `None` at the end.
    async fn head(&mut self) -> Option<(RequestHead, Vec<u8>)> {
        let mut head = RequestHead::default();
        while !head.parse(&self.held, &HeadLimits::default()).unwrap() {
            if !self.more().await {
                return None;
            }
        }
        let bytes = self.held.drain(..head.length()).collect();
        Some((head, bytes))
    }

    /// The body of that request.
    async fn body(&mut self, framing: Framing) -> Vec<u8> {
        let (mut body, mut data) = (Body::new(framing), Vec::new());
        while !body.is_done() {
            let step = body.decode(&self.held).unwrap();
            data.extend_from_slice(&self.held[step.data.clone()]);
            self.held.drain(..step.consumed);
            if step.consumed == 0 && !step.done && !self.more().await {
                break;
            }
        }
        data
    }

    /// The path of the next request, its body read and dropped.
    async fn request(&mut self) -> Option<String> {
        let (head, bytes) = self.head().await?;
        let request = head.view(&bytes);
        let path = String::from_utf8_lossy(request.target().path).into_owned();
        let framing = request.framing();
        self.body(framing).await;
        Some(path)
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The door may have gone: that is the test's business.
        let _ = self.socket.write_all(bytes.as_ref()).await;
    }
}

/// Live tunnels, by hand.
#[derive(Default)]
struct FakePools {
    pools: Mutex<HashMap<String, Vec<Arc<Backend>>>>,
    turn: AtomicU64,
}

impl Pools for FakePools {
    fn pick(&self, name: &TunnelName, tried: &[BackendId]) -> Picked {
        let pools = self.pools.lock().unwrap();
        let Some(pool) = pools.get(name.as_str()) else {
            return Picked::Unknown;
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        (0..pool.len())
            .map(|n| &pool[(turn + n) % pool.len()])
            .find(|backend| !tried.contains(&backend.id()))
            .map_or(Picked::Empty, |backend| {
                Picked::Backend(Arc::clone(backend))
            })
    }

    fn has_other(&self, name: &TunnelName, tried: &[BackendId]) -> bool {
        let pools = self.pools.lock().unwrap();
        let pool = pools.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        pool.iter().any(|backend| !tried.contains(&backend.id()))
    }
}

/// One password, slow to check and counted.
#[derive(Default)]
struct FakePasswords {
    checks: AtomicU64,
    known: Mutex<Vec<String>>,
}

impl Passwords for FakePasswords {
    fn recall(&self, hash: &str, user: &str, password: &str) -> Option<bool> {
        let key = format!("{hash} {user} {password}");
        self.known.lock().unwrap().contains(&key).then_some(true)
    }

    fn verify(&self, hash: &str, user: &str, password: &str) -> bool {
        self.checks.fetch_add(1, Ordering::Relaxed);
        let right = hash == format!("{user}:hash of {password}");
        if right {
            let key = format!("{hash} {user} {password}");
            self.known.lock().unwrap().push(key);
        }
        right
    }
}

struct FakeStats;

impl SyncStats for FakeStats {
    fn answer(&self, request: &StatsRequest<'_>) -> Option<Vec<u8>> {
        (request.signature == b"right").then(|| b"sealed".to_vec())
    }
}

/// A door, what is behind it, and who owns the tasks.
struct World {
    door: Arc<HttpDoor>,
    address: SocketAddr,
    tasks: Tasks,
    stop: CancellationToken,
    pools: Arc<FakePools>,
    passwords: Arc<FakePasswords>,
    seen: Seen,
}

impl World {
    /// A door in front of one service for [`HOST`], which `serve` plays.
    async fn new<F, Fut>(serve: F) -> Self
    where
        F: Fn(Service) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::with(
            serve,
            |_| {},
            LimitSettings::default(),
            RouteOptions::default(),
        )
        .await
    }

    async fn with<F, Fut>(
        serve: F,
        change: impl FnOnce(&mut DoorParts),
        limits: LimitSettings,
        options: RouteOptions,
    ) -> Self
    where
        F: Fn(Service) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (tasks, seen) = (Tasks::new(), Seen::default());
        let port = service(&tasks, seen.clone(), serve).await.port();
        let routes = vec![Route {
            host: HostName::parse(HOST).unwrap(),
            path: PathPrefix::default(),
            target: Target::Upstream(Upstream {
                host: HostName::parse("127.0.0.1").unwrap(),
                port,
            }),
            options,
        }];
        Self::routed(routes, tasks, seen, change, limits).await
    }

    async fn routed(
        routes: Vec<Route>,
        tasks: Tasks,
        seen: Seen,
        change: impl FnOnce(&mut DoorParts),
        limits: LimitSettings,
    ) -> Self {
        let table = RouteTable::new(Domain::parse("example.test").unwrap(), routes).unwrap();
        let metrics = Arc::new(Metrics::new());
        let (pools, passwords) = (Arc::<FakePools>::default(), Arc::<FakePasswords>::default());
        let now = tokio::time::Instant::now().into_std();
        let mut parts = DoorParts {
            settings: HttpSettings::default(),
            pools: Arc::clone(&pools) as Arc<dyn Pools>,
            limits: Limits::new(limits, Arc::clone(&metrics), now),
            metrics,
            places: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            balancers: Balancers::default(),
            passwords: Arc::clone(&passwords) as Arc<dyn Passwords>,
            stats: Arc::new(FakeStats),
            log: None,
            tasks: tasks.clone(),
            workers: 1,
        };
        change(&mut parts);
        let door = HttpDoor::new(parts, table);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (door2, tasks2, stop2) = (Arc::clone(&door), tasks.clone(), stop.clone());
        tasks.spawn_until_stopped(async move {
            loop {
                let (socket, peer) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let task = serve_connection(socket, peer, Arc::clone(&door2), stop2.clone());
                tasks2.spawn_until_stopped(task);
            }
        });
        Self {
            door,
            address,
            tasks,
            stop,
            pools,
            passwords,
            seen,
        }
    }

    async fn visit(&self) -> Guest {
        Guest {
            socket: TcpStream::connect(self.address).await.unwrap(),
            held: Vec::new(),
        }
    }

    /// A GET's whole answer.
    async fn get(&self, path: &str) -> String {
        let mut guest = self.visit().await;
        guest.get(path).await;
        guest.answer().await
    }

    fn metrics(&self) -> &Metrics {
        &self.door.parts.metrics
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

/// Starts a service on a free port.
async fn service<F, Fut>(tasks: &Tasks, seen: Seen, serve: F) -> SocketAddr
where
    F: Fn(Service) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let owner = tasks.clone();
    tasks.spawn_until_stopped(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let number = seen.open();
            owner.spawn_until_stopped(serve(Service {
                socket,
                seen: seen.clone(),
                number,
                held: Vec::new(),
            }));
        }
    });
    address
}

/// A service that answers every request with its path.
async fn plain(mut service: Service) {
    while let Some(path) = service.request().await {
        let length = path.len();
        service
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"
            ))
            .await;
    }
}

/// An address that nothing listens on.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A visitor with a raw socket.
struct Guest {
    socket: TcpStream,
    held: Vec<u8>,
}

impl Guest {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await;
    }

    async fn more(&mut self) -> std::io::Result<bool> {
        let mut bytes = vec![0; 65_536];
        let count = self.socket.read(&mut bytes).await?;
        self.held.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    /// Everything up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .held
                .windows(end.len())
                .position(|w| w == end.as_bytes());
            if let Some(at) = found {
                let part = self.held.drain(..at + end.len()).collect();
                return String::from_utf8(part).unwrap();
            }
            let more = self.more().await.unwrap();
            assert!(
                more,
                "ended before {end:?}: {:?}",
                self.held.escape_ascii().to_string()
            );
        }
    }

    /// Exactly so many bytes.
    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.held.len() < count {
            assert!(self.more().await.unwrap(), "ended early");
        }
        self.held.drain(..count).collect()
    }

    /// A head.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// A head and its body of known length, or in chunks (as they came).
    async fn answer(&mut self) -> String {
        let mut text = self.head().await;
        let lower = text.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let length = rest.split("\r\n").next().unwrap().parse().unwrap();
            text += &String::from_utf8(self.exactly(length).await).unwrap();
        } else if lower.contains("transfer-encoding: chunked") {
            text += &self.until("0\r\n\r\n").await;
        }
        text
    }

    /// Everything to the end, which must be a clean one.
    async fn rest(&mut self) -> String {
        while self.more().await.unwrap() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    async fn finish(&mut self) {
        self.socket.shutdown().await.unwrap();
    }
}

fn status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"))
}

#[tokio::test]
async fn an_idle_visitor_is_small() {
    let world = World::new(plain).await;
    let (_client, socket) = tokio::join!(TcpStream::connect(world.address), async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (socket, _) = tokio::join!(listener.accept(), TcpStream::connect(address));
        socket.unwrap().0
    });
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let door = Arc::clone(&world.door);
    let task = serve_connection(socket, peer, door, world.stop.clone());
    let size = size_of_val(&task);
    // Beside it: the timer, the socket's registration, the task's header.
    assert!(size <= 1440, "{size}");
}

#[tokio::test]
async fn a_stop_ends_idle_visitors_and_lets_requests_end() {
    let gate = Arc::new(Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let world = World::new(move |mut service| {
        let gate = Arc::clone(&inner);
        async move {
            while let Some(path) = service.request().await {
                if path == "/slow" {
                    gate.acquire().await.unwrap().forget();
                }
                service
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    let (mut idle, mut busy) = (world.visit().await, world.visit().await);
    idle.get("/").await;
    assert_eq!(status(&idle.answer().await), 200);
    busy.get("/slow").await;
    while !world.seen.text().contains("/slow") {
        tokio::task::yield_now().await;
    }
    world.stop.cancel();
    assert_eq!(idle.rest().await, "");
    gate.add_permits(1);
    assert!(busy.rest().await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn every_request_is_counted() {
    let world = World::new(plain).await;
    world.get("/a").await;
    let mut guest = world.visit().await;
    guest.send("BAD\r\n\r\n").await;
    guest.rest().await;
    let page = world
        .metrics()
        .render(&crate::metrics::ProcessFacts::default());
    for line in [
        "adit_http_requests_total{class=\"2xx\"} 1",
        "adit_http_requests_total{class=\"4xx\"} 1",
        "adit_http_refusals_total{reason=\"malformed\"} 1",
        "adit_http_requests_active 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

/// Lets paused time pass.
async fn pass(time: Duration) {
    let nothing = std::future::pending::<()>();
    let _ = tokio::time::timeout(time, nothing).await;
}
