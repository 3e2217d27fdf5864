//! Requests that are longer than what fits between door and agent.

use adit_testkit::between::Between;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;
use adit_testkit::world::{AgentPlan, World};

/// With no least rate nothing but the acceptance itself goes on with the body.
#[test]
fn a_body_goes_on_when_the_agent_is_slow_to_accept() {
    let world = World::with("[limits]\nbody_bytes_per_second = 0\n");
    let target = origin(|mut socket: Socket| {
        let head = socket.head();
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        socket.exactly(length);
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let between = Between::start(world.link());
    let plan = AgentPlan::new(&world, "app", target).by(&world, between.address);
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    for length in [100_000, 200_000, 2_000_000] {
        let opened = world.metric("adit_streams_total");
        between.freeze(true);
        let mut visitor = Socket::dial(world.http());
        let head = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {length}\r\n\r\n");
        let writing = std::thread::spawn(move || {
            visitor.send(head);
            visitor.send(vec![b'x'; length]);
            visitor
        });
        until_true("a stream is begun", || {
            world.metric("adit_streams_total") > opened
        });
        between.freeze(false);
        let mut visitor = writing.join().unwrap();
        assert!(visitor.head().starts_with("HTTP/1.1 200 "), "{length}");
    }
}
