//! An edge's admission with a clock of the test's own, and agents that do the
//! real handshake in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, FIRST_LEN, Suites,
};
use adit_model::Pin;
use tempfile::TempDir;

use super::super::*;
use crate::limits::LimitSettings;

pub(super) const WALL: u64 = 1_800_000_000;
const PEER: &str = "192.0.2.7:5000";

#[derive(Debug)]
pub(super) struct TestClock {
    pub(super) boot: AtomicU64,
    pub(super) wall: AtomicU64,
}

impl TestClock {
    pub(super) fn pass(&self, seconds: u64) {
        self.boot.fetch_add(seconds, Ordering::Relaxed);
        self.wall.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl TimeSource for TestClock {
    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.boot.load(Ordering::Relaxed))
    }
    fn wall(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }
}

pub(super) struct World {
    admission: Option<Admission>,
    pub(super) clock: Arc<TestClock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) now: Instant,
    settings: AdmissionSettings,
    pub(super) data: TempDir,
}

impl World {
    pub(super) fn new(policy: Policy) -> Self {
        let mut world = Self {
            admission: None,
            clock: Arc::new(TestClock {
                boot: AtomicU64::new(1000),
                wall: AtomicU64::new(WALL),
            }),
            metrics: Arc::new(Metrics::new()),
            now: Instant::now(),
            settings: AdmissionSettings {
                policy,
                ..AdmissionSettings::default()
            },
            data: tempfile::tempdir().unwrap(),
        };
        world.restart();
        world
    }

    /// As after kill -9: nothing is flushed.
    pub(super) fn restart(&mut self) {
        self.admission = None;
        let (store, seen) = Store::open(self.data.path(), None).unwrap();
        let limits = Limits::new(
            LimitSettings::default(),
            Arc::clone(&self.metrics),
            self.now,
        );
        let admission = Admission::new(
            self.settings.clone(),
            Arc::new(store),
            &seen,
            limits,
            Arc::clone(&self.metrics),
            Arc::clone(&self.clock) as Arc<dyn TimeSource>,
        );
        self.admission = Some(admission.unwrap());
    }

    pub(super) fn edge(&self) -> &Admission {
        self.admission.as_ref().unwrap()
    }

    pub(super) fn audit(&self) -> String {
        std::fs::read_to_string(self.data.path().join("audit.log")).unwrap()
    }

    pub(super) fn outcome(&self, outcome: AdmissionOutcome) -> u64 {
        self.metrics.link.admissions.of(outcome).get()
    }
}

/// An agent that does the real handshake in memory.
pub(super) struct TestAgent {
    pub(super) identity: Arc<Identity>,
    pub(super) peer: SocketAddr,
}

/// How a dial ended for the agent.
#[derive(Debug)]
pub(super) enum Dialled {
    Silence(ProofFailure),
    Refused(Cause),
    In(Admitted),
}

impl Dialled {
    pub(super) fn admitted(self) -> Admitted {
        match self {
            Self::In(admitted) => admitted,
            other => panic!("not admitted: {other:?}"),
        }
    }

    pub(super) fn refused(self) -> Cause {
        match self {
            Self::Refused(cause) => cause,
            other => panic!("not refused: {other:?}"),
        }
    }
}

impl TestAgent {
    pub(super) fn new(n: u8) -> Self {
        Self {
            identity: Arc::new(Identity::from_seed([n; 32]).unwrap()),
            peer: PEER.parse().unwrap(),
        }
    }

    pub(super) fn handshake(&self, world: &World, psk: &Psk) -> (AgentHandshake, [u8; FIRST_LEN]) {
        let fresh = AgentFresh {
            ephemeral: random().unwrap(),
            nonce: random().unwrap(),
        };
        let mut agent = AgentHandshake::start(
            &PskKeys::new(psk),
            world.edge().identity().public(),
            Arc::clone(&self.identity),
            InstanceId([1; 16]),
            world.edge().unix_now(),
            fresh,
            Suites { aes: true },
            "1.0",
        )
        .unwrap();
        let first = agent.poll_transmit().unwrap();
        (agent, first.try_into().unwrap())
    }

    /// Dials; `pin` is given when the edge asks.
    pub(super) async fn dial(&self, world: &World, psk: &Psk, pin: Option<&Pin>) -> Dialled {
        let (mut agent, first) = self.handshake(world, psk);
        let admission = world.edge();
        let first = First::parse(&first);
        let (proved, candidate) = match admission.prove(&first, self.peer, world.now) {
            Ok(proved) => proved,
            Err(failure) => return Dialled::Silence(failure),
        };
        let mut edge = EdgeHandshake::start(
            &proved,
            candidate.keys(),
            admission.identity(),
            EdgeFresh {
                ephemeral: random().unwrap(),
                nonce: random().unwrap(),
            },
            Suites { aes: true },
            world.now,
        )
        .unwrap();
        self.decide(world, &candidate, &mut agent, &mut edge, pin)
            .await
    }

    /// Carries bytes between both sides until the edge has its verdict.
    async fn decide(
        &self,
        world: &World,
        candidate: &Candidate,
        agent: &mut AgentHandshake,
        edge: &mut EdgeHandshake,
        pin: Option<&Pin>,
    ) -> Dialled {
        let (admission, mut applicant, mut check) = (world.edge(), None, None);
        loop {
            while let Some(bytes) = edge.poll_transmit() {
                agent.handle_input(&bytes).unwrap();
            }
            if agent.poll_event() == Some(AgentEvent::PinWanted) {
                let wrong = Pin::parse("222222").unwrap();
                agent.offer_pin(pin.unwrap_or(&wrong)).unwrap();
            }
            while let Some(bytes) = agent.poll_transmit() {
                edge.handle_input(&bytes).unwrap();
            }
            match edge.poll_event().unwrap() {
                EdgeEvent::AgentProved {
                    identity,
                    instance,
                    version,
                } => {
                    applicant = Some(Applicant {
                        identity,
                        instance,
                        version,
                        peer: self.peer,
                    });
                    if admission.needs_pin(&identity, candidate) {
                        edge.ask_pin().unwrap();
                        continue;
                    }
                }
                EdgeEvent::PinOffered(proof) => {
                    let applicant = applicant.as_ref().unwrap();
                    check = Some(admission.check_pin(applicant, &proof, world.now));
                }
            }
            let applicant = applicant.unwrap();
            return match admission.admit(&applicant, candidate, check).await {
                Ok(admitted) => Dialled::In(admitted),
                Err(cause) => Dialled::Refused(cause),
            };
        }
    }

    pub(super) async fn dial_without_pin(&self, world: &World, psk: &Psk) -> Dialled {
        self.dial(world, psk, None).await
    }
}
