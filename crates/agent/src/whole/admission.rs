//! How an agent is let in: secrets, refusals, the PIN, joining.

use super::*;

#[tokio::test]
async fn the_agents_own_secret_replaces_the_join_string_for_good() {
    let mut world = World::new().await;
    {
        let mut policy = world.edge.policy();
        policy.hand_out = Some(secret(2));
        policy.secrets.push(secret(2));
    }
    let mut agent = world.agent();
    assert_eq!(world.edge.next().await.secret, secret(1));
    agent.live().await;
    world.edge.kill().await;
    world.edge.restart().await;
    assert_eq!(
        world.edge.next().await.secret,
        secret(2),
        "from the next link on"
    );
    agent.stop().await;

    // Revoked: the join string would still be good, and is not tried.
    world
        .edge
        .policy()
        .secrets
        .retain(|known| *known != secret(2));
    let mut agent = world.agent();
    for _ in 0..2 {
        let refusal = agent
            .event(|event| match event {
                AgentEvent::Refused(refusal) => Some(refusal),
                _ => None,
            })
            .await;
        assert_eq!(refusal.kind, RefusalKind::Silent);
        assert!(refusal.own_secret && refusal.retry_in.is_some());
        assert!(refusal.causes()[0].contains("adit edge forget"));
    }
    agent.stop().await;
    assert!(world.edge.joined.try_recv().is_err());

    // Forgotten, the join string is used again.
    let data = DataFolder::open(world.data.path()).unwrap();
    assert!(data.forget(&world.edge.join_string().edge).unwrap());
    let agent = world.agent();
    assert_eq!(world.edge.next().await.secret, secret(1));
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_ends_the_agent() {
    let world = World::new().await;
    world.edge.policy().refuse = true;
    let agent = world.agent();
    let error = agent.ended().await.unwrap_err();
    let AgentError::Refused(refusal) = &error else {
        panic!("{error}")
    };
    assert_eq!(refusal.retry_in, None);
    assert_eq!(error.code().to_string(), "ADIT-3006");
    assert_eq!(world.edge.dials(), 1);
}

fn pin(n: u32) -> Pin {
    Pin::from_random([n; 6])
}

#[tokio::test]
async fn the_pin_is_asked_only_when_it_is_wanted() {
    let mut world = World::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let source: adit_link::agent::PinSource = Arc::new(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Some(pin(n)) })
    });
    let with_pin = |pin| {
        let mut settings = world.settings();
        settings.pin = pin;
        settings
    };
    let asking = || PinFrom::Asked(Arc::clone(&source));
    let (unasked, wanted, fixed) = (
        with_pin(asking()),
        with_pin(asking()),
        with_pin(PinFrom::Fixed(pin(7))),
    );
    let absent = with_pin(PinFrom::Nowhere);

    let agent = Running::start(unasked);
    world.edge.next().await;
    agent.stop().await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    // The second one typed is right.
    world.edge.policy().pin = Some(pin(1));
    let mut agent = Running::start(wanted);
    let retry = agent
        .event(|event| match event {
            AgentEvent::Refused(refusal) => Some(refusal.retry_in),
            _ => None,
        })
        .await;
    assert!(retry.is_some());
    world.edge.next().await;
    agent.stop().await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    // A fixed one that is wrong is not tried again, it would ban the address.
    let dials = world.edge.dials();
    let error = Running::start(fixed).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::Refused(_)), "{error}");
    assert_eq!(world.edge.dials(), dials + 1);

    let error = Running::start(absent).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::PinAbsent), "{error}");
}

#[tokio::test]
async fn joining_proves_the_string_and_remembers_the_edge() {
    let mut world = World::new().await;
    let data = DataFolder::open(world.data.path()).unwrap();
    let join = |world: &World, from| {
        crate::join(
            world.edge.join_string(),
            world.data.path().to_owned(),
            from,
            Carriage::default(),
        )
    };

    world.edge.policy().refuse = true;
    let error = join(&world, PinFrom::Nowhere).await.unwrap_err();
    assert!(matches!(error, AgentError::Refused(_)), "{error}");
    assert!(data.joined().unwrap().is_none(), "nothing is remembered");
    let targets = std::slice::from_ref(&world.target);
    let unjoined = Running::start(settings(None, world.data.path(), targets));
    let error = unjoined.ended().await.unwrap_err();
    assert!(matches!(error, AgentError::NotJoined), "{error}");

    {
        let mut policy = world.edge.policy();
        policy.refuse = false;
        policy.pin = Some(pin(3));
        policy.hand_out = Some(secret(2));
        policy.secrets.push(secret(2));
    }
    let fixed = || PinFrom::Fixed(pin(3));
    let (edge, joining) = join(&world, fixed()).await.unwrap();
    assert_eq!(
        (edge, joining),
        (world.edge.join_string().edge, Joining::New)
    );
    world.edge.next().await;
    let known = data.joined().unwrap().unwrap();
    assert_eq!((known.secret, known.join), (Some(secret(2)), None));

    let (_, joining) = join(&world, fixed()).await.unwrap();
    assert_eq!(joining, Joining::Known);
    // What is given counts, should what is remembered be revoked.
    let given = world.edge.join_string().credential.psk().clone();
    assert_eq!(world.edge.next().await.secret, given);

    // From now on no join string is needed.
    world.edge.policy().pin = None;
    let mut agent = Running::start(settings(None, world.data.path(), targets));
    assert_eq!(world.edge.next().await.secret, secret(2));
    agent.live().await;
    agent.stop().await;
}
