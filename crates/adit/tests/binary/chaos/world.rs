//! What the faults happen to: an edge, two agents, a relay, visitors.

use std::process::Command;
use std::time::{Duration, Instant};

use adit_model::JoinString;
use adit_sim::Rng;
use adit_testkit::between::Between;
use adit_testkit::curl;
use adit_testkit::wait::until_true;

use super::load::{Load, service};
use crate::lab::{Edge, Lab, Running};

/// A half-open link is noticed after two seconds.
const TABLES: &str = "drain_seconds = 5\n\
    [link]\nheartbeat_seconds = 1\ndead_seconds = 2\n\
    [admission]\npin = \"off\"\n\
    [limits]\nrequests_per_second = 0\n\
    [log]\naccess = false\n";
/// After its cause has ended a fault may be felt for this long.
const BACK: Duration = Duration::from_secs(2);
/// Names whose link a fault of the relay concerns.
pub(super) const APP: &[&str] = &["app"];
/// All names.
pub(super) const ALL: &[&str] = &["app", "calm"];

pub(super) struct World {
    pub(super) load: Load,
    pub(super) between: Between,
    rng: Rng,
    edge: Option<Edge>,
    doors: [String; 3],
    app: Option<Running>,
    calm: Option<Running>,
    targets: [String; 2],
    /// The last to go: a failing test shows the logs in its folder.
    lab: Lab,
}

impl World {
    pub(super) fn start(seed: u64) -> Self {
        let lab = Lab::new();
        let edge = edge_at(&lab, &["127.0.0.1:0"; 3].map(str::to_owned));
        let between = Between::start(edge.link);
        let mut join: JoinString = edge.join(&lab).parse().unwrap();
        for (who, address) in [("app", between.address), ("calm", edge.link)] {
            join.addresses = vec![address.to_string()];
            let (join, data) = (join.expose(), lab.text_of(who));
            let variables = [("ADIT_EDGE", join.as_str())];
            lab.run_with(&["join", "--data", &data], &variables).done();
        }
        let names = ["app", "app", "app", "calm"];
        let begun = Instant::now();
        let mut world = Self {
            load: Load::start(edge.http, seed, &names),
            between,
            rng: Rng::new(seed),
            doors: edge.doors(),
            edge: Some(edge),
            app: None,
            calm: None,
            targets: ALL
                .iter()
                .map(|name| service(name).to_string())
                .collect::<Vec<_>>()
                .try_into()
                .unwrap(),
            lab,
        };
        world.start_app();
        world.start_calm();
        world.load.trouble(ALL, begun);
        world
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.rng.below(end)
    }

    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            things.swap(at, self.rng.index(at + 1));
        }
    }

    pub(super) fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    pub(super) fn app(&self) -> &Running {
        self.app.as_ref().unwrap()
    }

    fn agent(&self, who: &str, target: &str) -> Running {
        let arguments = [target, "--name", who, "--log-level", "info"];
        self.lab.agent_with(who, &arguments, &[])
    }

    /// Starts the agent of `app`, and waits until it is live.
    pub(super) fn start_app(&mut self) {
        self.app = Some(self.agent("app", &self.targets[0]));
        self.app().live("app");
    }

    pub(super) fn start_calm(&mut self) {
        let calm = self.agent("calm", &self.targets[1]);
        calm.live("calm");
        self.calm = Some(calm);
    }

    /// `kill -9` of the agent of `app`; it stays away.
    pub(super) fn kill_app(&mut self) {
        drop(self.app.take().unwrap().process.kill());
    }

    /// The same of the edge.
    pub(super) fn kill_edge(&mut self) {
        drop(self.edge.take().unwrap().running.process.kill());
    }

    /// Starts the edge where it was.
    pub(super) fn start_edge(&mut self) {
        self.edge = Some(edge_at(&self.lab, &self.doors));
    }

    /// Ends the edge in order.
    pub(super) fn stop_edge(&mut self) {
        let (code, said) = self.edge.take().unwrap().running.stop();
        assert_eq!(code, Some(0), "{said:?}");
    }

    /// Ends both agents in order.
    pub(super) fn stop_agents(&mut self) {
        for agent in [&mut self.app, &mut self.calm] {
            let (code, said) = agent.take().unwrap().stop();
            assert_eq!(code, Some(0), "{said:?}");
        }
    }

    /// Waits until curl gets the right answer for these names; the cause of
    /// their absence ended at `ended`.
    pub(super) fn back(&self, names: &[&str], ended: Instant) {
        let door = self.edge().http;
        for name in names {
            until_true(&format!("{name} is back"), || {
                let url = format!("http://{name}.test/probe");
                let mut visitor: Command = curl::command(door);
                visitor.args(["--fail", "--max-time", "2", "-H", "X-Wanted: 1000", &url]);
                let visited = visitor.output().unwrap();
                let right = super::bytes::body(&format!("{name} probe"), 1000);
                assert!(
                    !visited.status.success() || visited.stdout == right,
                    "curl got something else: {visited:?}"
                );
                visited.status.success()
            });
        }
        let took = ended.elapsed();
        println!("  back after {took:?}");
        assert!(took < BACK, "{names:?} were back only after {took:?}");
    }

    /// Ends all of it in order.
    pub(super) fn end(mut self) {
        let (done, failed) = self.load.end();
        println!("{done} right answers, {failed} requests failed during faults");
        for agent in [&mut self.app, &mut self.calm] {
            if let Some(agent) = agent.take() {
                let (code, said) = agent.stop();
                assert_eq!(code, Some(0), "{said:?}");
            }
        }
        if let Some(edge) = self.edge.take() {
            let (code, said) = edge.running.stop();
            assert_eq!(code, Some(0), "{said:?}");
        }
    }
}

/// An edge with one way in, the one that is going to be spoilt.
fn edge_at(lab: &Lab, doors: &[String; 3]) -> Edge {
    lab.edge_with(doors, TABLES, &[("ADIT_DOORS_QUIC", "off")])
}
