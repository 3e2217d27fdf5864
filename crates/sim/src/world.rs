//! The world: hosts, network, time, faults, and the checks after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::PskKeys;
use adit_model::{Psk, TunnelName};

use crate::agent::Agent;
use crate::clock::HostClock;
use crate::edge::{Edge, Outcome};
use crate::net::{Arrival, Conn, Mangle, Net, Side};
use crate::rng::Rng;

/// Something goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A connection of this agent is reset; 0 is its control channel.
    Cut(usize, usize),
    /// Bytes of an agent's connection vanish, towards one side or both.
    Swallow(usize, usize, bool, bool),
    /// An attacker touches bytes of an agent's connection.
    Mangle(usize, usize, Side, Mangle),
    /// An attacker says again what somebody began a connection with.
    Replay(usize),
    /// An agent is killed and started again.
    KillAgent(usize),
    /// The machine of an agent loses its power, and comes back.
    PowerLoss(usize),
    /// The edge is killed and started again.
    KillEdge,
    /// The edge's wall clock is set to be off by this many seconds.
    EdgeClock(i64),
}

/// One edge, some agents, a network, and time.
pub struct World {
    /// The seed of everything.
    pub seed: u64,
    /// The time.
    pub now: Instant,
    /// The edge.
    pub edge: Edge,
    /// The agents.
    pub agents: Vec<Agent>,
    /// The network.
    pub net: Net,
    /// All names that anybody publishes.
    pub names: Vec<TunnelName>,
    owners: BTreeMap<Conn, usize>,
    attackers: BTreeSet<Conn>,
    visitors: u64,
    rng: Rng,
    /// Steps taken.
    pub steps: u64,
    /// When control channels were swallowed: both ends must have noticed
    /// within the dead time.
    half_open: Vec<(Conn, usize, Instant)>,
}

/// Default dead time and room for the longest way of a piece.
const DEAD: Duration = Duration::from_secs(20);

impl World {
    /// A world of `agents` agents that begins at `origin`. Each publishes its
    /// own name and one that all share (or want alone, when `exclusive`).
    #[must_use]
    pub fn new(seed: u64, agents: u8, exclusive: bool, origin: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let psk = Arc::new(PskKeys::new(&Psk::from_random([77; 32])));
        let clock = HostClock::new(origin);
        let edge = Edge::new(Arc::clone(&psk), clock, rng.fork(), origin);
        let name = |text: &str| TunnelName::parse(text).expect("a plain label");
        let mut names = vec![name("shared")];
        let mut made = Vec::new();
        for number in 0..agents {
            let own = name(&format!("own-{number}"));
            names.push(own.clone());
            let mine = vec![own, names[0].clone()];
            let (psk, key) = (Arc::clone(&psk), edge.identity.public());
            let rng = rng.fork();
            made.push(Agent::new(
                number, mine, exclusive, psk, key, clock, rng, origin,
            ));
        }
        Self {
            seed,
            now: origin,
            edge,
            agents: made,
            net: Net::new(rng.fork()),
            names,
            owners: BTreeMap::new(),
            attackers: BTreeSet::new(),
            visitors: 0,
            rng,
            steps: 0,
            half_open: Vec::new(),
        }
    }

    /// Lets `time` pass, checking after each step.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {
            self.check();
        }
        self.check();
    }

    /// Goes on until `done`, at most for `time`; how long it took.
    pub fn pass_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (begin, until) = (self.now, self.now + time);
        loop {
            if done(self) {
                return Some(self.now - begin);
            }
            if !self.step(until) {
                return None;
            }
            self.check();
        }
    }

    /// The next thing happens; false when nothing does before `until`.
    fn step(&mut self, until: Instant) -> bool {
        let agents = self.agents.iter().filter_map(Agent::due);
        let due = agents.chain(self.edge.due()).chain(self.net.next_arrival());
        let Some(next) = due.min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        self.steps += 1;
        for (conn, side, what) in self.net.take(self.now) {
            self.arrive(conn, side, what);
        }
        self.edge.on_time(self.now, &mut self.net);
        for agent in &mut self.agents {
            agent.on_time(self.now, &mut self.net);
        }
        self.note_owners();
        true
    }

    fn arrive(&mut self, conn: Conn, side: Side, what: Arrival) {
        match side {
            Side::Edge => self.edge.on_arrival(conn, what, self.now, &mut self.net),
            Side::Agent => {
                if self.attackers.contains(&conn) {
                    assert!(matches!(what, Arrival::Closed), "an attacker got an answer");
                } else if let Some(owner) = self.owners.get(&conn) {
                    let agent = &mut self.agents[*owner];
                    if agent.conns().contains(&conn) {
                        agent.on_arrival(conn, what, self.now, &mut self.net);
                    }
                }
            }
        }
        self.note_owners();
    }

    fn note_owners(&mut self) {
        for (number, agent) in self.agents.iter().enumerate() {
            for conn in agent.conns() {
                self.owners.insert(conn, number);
            }
        }
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&mut self) {
        self.edge.check(&self.names, self.now);
        for attacker in &self.attackers {
            assert!(!self.edge.spoken_to.contains(attacker), "the edge spoke");
        }
        let (edge, agents, now) = (&self.edge, &self.agents, self.now);
        self.half_open.retain(|(conn, agent, since)| {
            let open = edge.is_control(*conn) || agents[*agent].conns().contains(conn);
            assert!(!open || now <= *since + DEAD, "half-open for over 20 s");
            open
        });
    }

    /// Something goes wrong.
    pub fn fault(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::Cut(agent, which) => {
                if let Some(conn) = self.conn_of(agent, which) {
                    self.net.cut(conn, now);
                }
            }
            Fault::Swallow(agent, which, to_edge, to_agent) => {
                if let Some(conn) = self.conn_of(agent, which) {
                    if to_edge {
                        self.net.swallow(conn, Side::Edge);
                    }
                    if to_agent {
                        self.net.swallow(conn, Side::Agent);
                    }
                    let live = self.edge.is_control(conn) && self.agents[agent].is_live();
                    if live && (to_edge || to_agent) {
                        self.half_open.push((conn, agent, now));
                    }
                }
            }
            Fault::Mangle(agent, which, to, how) => {
                if let Some(conn) = self.conn_of(agent, which) {
                    self.net.mangle(conn, to, how);
                }
            }
            Fault::Replay(page) => self.replay(page),
            Fault::KillAgent(agent) => {
                for conn in self.agents[agent].conns() {
                    self.net.cut(conn, now);
                }
                self.restart(agent);
            }
            Fault::PowerLoss(agent) => {
                for conn in self.agents[agent].conns() {
                    self.net.swallow(conn, Side::Agent);
                    self.net.swallow(conn, Side::Edge);
                }
                self.restart(agent);
            }
            Fault::KillEdge => self.edge.restart(now, &mut self.net),
            Fault::EdgeClock(step) => self.edge.clock.step = step,
        }
    }

    fn restart(&mut self, agent: usize) {
        let again = self.now + Duration::from_millis(100 + self.rng.below(3000));
        self.agents[agent].restart(again);
    }

    fn conn_of(&self, agent: usize, which: usize) -> Option<Conn> {
        let conns = self.agents[agent].conns();
        (!conns.is_empty()).then(|| conns[which % conns.len()])
    }

    fn replay(&mut self, page: usize) {
        let pages = self.net.notebook().len();
        if pages == 0 {
            return;
        }
        let words = self.net.notebook()[page % pages].clone();
        let conn = self.net.connect();
        self.attackers.insert(conn);
        self.net.send(conn, Side::Agent, &words, self.now);
    }

    /// A fault that the seed picks.
    pub fn random_fault(&mut self) -> Fault {
        let rng = &mut self.rng;
        let agent = rng.index(self.agents.len());
        let which = if rng.chance(50) { 0 } else { rng.index(4) };
        match rng.below(12) {
            0..=2 => Fault::Cut(agent, which),
            3 => Fault::Swallow(agent, which, true, false),
            4 => Fault::Swallow(agent, which, false, true),
            5 => Fault::Swallow(agent, which, true, true),
            6 | 7 => {
                let all = [Mangle::Flip, Mangle::Repeat, Mangle::Remove, Mangle::Swap];
                let how = all[rng.index(all.len())];
                let to = if rng.chance(50) {
                    Side::Edge
                } else {
                    Side::Agent
                };
                Fault::Mangle(agent, which, to, how)
            }
            8 => Fault::Replay(rng.index(1000)),
            9 => Fault::KillAgent(agent),
            10 => Fault::PowerLoss(agent),
            _ if rng.chance(20) => Fault::KillEdge,
            _ => Fault::Replay(rng.index(1000)),
        }
    }

    /// A number below `end` that the seed picks.
    pub fn pick(&mut self, end: u64) -> u64 {
        self.rng.below(end)
    }

    /// A visitor comes for the name of that number; the visitor's number.
    pub fn visit(&mut self, name: usize) -> u64 {
        self.visitors += 1;
        let name = self.names[name % self.names.len()].clone();
        self.edge
            .visit(self.visitors, &name, self.now, &mut self.net);
        self.visitors
    }

    /// Visits a name and waits for the answer.
    pub fn visit_now(&mut self, name: usize) -> Outcome {
        let number = self.visit(name);
        let answered = move |world: &Self| world.outcome(number).is_some();
        let time = self.pass_until(Duration::from_secs(60), answered);
        time.expect("every visitor is told something");
        self.outcome(number).expect("it was told")
    }

    /// What a visitor got.
    #[must_use]
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        self.edge.visits.get(&number).copied().flatten()
    }

    /// Whether every agent is live and has all names that it can have.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let own = |agent: &Agent| self.edge.holders(&agent.names[0]) == [agent.identity.public()];
        self.agents
            .iter()
            .all(|agent| agent.is_live() && own(agent))
            && !self.edge.holders(&self.names[0]).is_empty()
    }

    /// Agents ask again for names that were refused.
    pub fn ask_again(&mut self) {
        for agent in &mut self.agents {
            agent.ask_again(self.now, &mut self.net);
        }
        self.note_owners();
    }
}
