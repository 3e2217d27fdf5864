mod world;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_link_proto::FIRST_LEN;

use self::world::{Dialled, TestAgent, WALL, World};
use super::*;
use crate::state::TokenId;

fn no_pin() -> Policy {
    Policy {
        pin: PinPolicy::Off,
        ..Policy::default()
    }
}

#[tokio::test]
async fn a_new_identity_needs_the_pin_once() {
    let world = World::new(Policy::default());
    let (secret, agent) = (world.edge().store().shared_secret(), TestAgent::new(1));
    let refused = agent.dial_without_pin(&world, &secret).await.refused();
    assert_eq!(refused, Cause::WrongPin);
    let pin = world.edge().current_pin().unwrap();
    let first = agent.dial(&world, &secret, Some(&pin)).await.admitted();
    assert_eq!(first.owner, Owner::Shared);
    assert_ne!(world.edge().current_pin().unwrap(), pin);
    // Known now, by the shared secret and by its own.
    let again = agent.dial_without_pin(&world, &secret).await.admitted();
    assert_eq!(again.agent_secret, first.agent_secret);
    let own = first.agent_secret.unwrap();
    let third = agent.dial_without_pin(&world, &own).await.admitted();
    assert_eq!(third.agent_secret, None);
    let other = TestAgent::new(2).dial(&world, &secret, Some(&pin)).await;
    assert_eq!(other.refused(), Cause::WrongPin);
    assert_eq!(world.outcome(AdmissionOutcome::Admitted), 3);
    assert_eq!(world.outcome(AdmissionOutcome::WrongPin), 2);
    let audit = world.audit();
    assert_eq!(audit.lines().count(), 5, "{audit}");
    assert!(audit.contains("\"cause\":\"the PIN was wrong\""));
    let secrets = [secret.expose(), own.expose(), &pin.expose()];
    assert!(secrets.iter().all(|secret| !audit.contains(secret)));
}

#[tokio::test]
async fn an_enrolled_agent_survives_a_killed_edge_and_a_new_secret() {
    let mut world = World::new(no_pin());
    let agent = TestAgent::new(1);
    let shared = world.edge().store().shared_secret();
    let own = agent.dial_without_pin(&world, &shared).await.admitted();
    let own = own.agent_secret.unwrap();
    world.restart();
    agent.dial_without_pin(&world, &own).await.admitted();
    let rotated = world.edge().rotate_secret().await.unwrap();
    let old = agent.dial_without_pin(&world, &shared).await;
    assert!(matches!(old, Dialled::Silence(ProofFailure::Unknown)));
    agent.dial_without_pin(&world, &own).await.admitted();
    let newcomer = TestAgent::new(2).dial_without_pin(&world, &rotated).await;
    newcomer.admitted();
}

#[tokio::test]
async fn every_start_asks_all_once_a_start() {
    let mut world = World::new(Policy {
        pin: PinPolicy::EveryStart,
        ..Policy::default()
    });
    let agent = TestAgent::new(1);
    let shared = world.edge().store().shared_secret();
    let pin = world.edge().current_pin().unwrap();
    let own = agent.dial(&world, &shared, Some(&pin)).await.admitted();
    let own = own.agent_secret.unwrap();
    agent.dial_without_pin(&world, &own).await.admitted();
    world.restart();
    assert_ne!(world.edge().current_pin().unwrap(), pin);
    let refused = agent.dial_without_pin(&world, &own).await.refused();
    assert_eq!(refused, Cause::WrongPin);
    let pin = world.edge().current_pin().unwrap();
    agent.dial(&world, &own, Some(&pin)).await.admitted();
    // It enrolled nobody, so that the others may use it too.
    assert_eq!(world.edge().current_pin().unwrap(), pin);
}

#[tokio::test]
async fn listed_keys_admit_nobody_else_by_any_way() {
    let listed = TestAgent::new(1);
    let world = World::new(Policy {
        keys: KeyPolicy::Listed(HashSet::from([listed.identity.public()])),
        ..no_pin()
    });
    let shared = world.edge().store().shared_secret();
    listed.dial_without_pin(&world, &shared).await.admitted();
    let other = TestAgent::new(2);
    let token = world.edge().new_token(TokenWish::default()).await.unwrap();
    for psk in [&shared, &token.secret] {
        let refused = other.dial_without_pin(&world, psk).await.refused();
        assert_eq!(refused, Cause::NotListed);
    }
    // The token was not used up by the refusal.
    listed
        .dial_without_pin(&world, &token.secret)
        .await
        .admitted();
}

#[tokio::test]
async fn a_token_admits_the_first_and_is_gone_with_its_secret_used() {
    let mut world = World::new(Policy::default());
    let wish = TokenWish {
        scope: Some(TunnelName::parse("app").unwrap()),
        label: Some("laptop".into()),
        life: None,
    };
    let token = world.edge().new_token(wish).await.unwrap();
    world.restart();
    let (first, second) = (TestAgent::new(1), TestAgent::new(2));
    let own = first
        .dial_without_pin(&world, &token.secret)
        .await
        .admitted();
    assert_eq!(own.scope.as_ref().unwrap().as_str(), "app");
    let taken = second.dial_without_pin(&world, &token.secret).await;
    assert_eq!(taken.refused(), Cause::TokenTaken);
    // Its answer was lost: the same secret comes again, over a kill too.
    world.restart();
    let again = first
        .dial_without_pin(&world, &token.secret)
        .await
        .admitted();
    assert_eq!(again.agent_secret, own.agent_secret);
    let secret = own.agent_secret.unwrap();
    let back = first.dial_without_pin(&world, &secret).await.admitted();
    assert_eq!(back.scope, own.scope);
    world.restart();
    let spent = first.dial_without_pin(&world, &token.secret).await;
    assert_eq!(spent.refused(), Cause::TokenTaken);
}

#[tokio::test]
async fn an_expired_token_is_refused_and_later_silent() {
    let world = World::new(Policy::default());
    let wish = TokenWish {
        life: Some(Duration::from_secs(100)),
        ..TokenWish::default()
    };
    let token = world.edge().new_token(wish).await.unwrap();
    let agent = TestAgent::new(1);
    world.clock.pass(101);
    let expired = agent.dial_without_pin(&world, &token.secret).await;
    assert_eq!(expired.refused(), Cause::TokenExpired);
    world.clock.pass(crate::state::TOKEN_MEMORY);
    world.edge().maintain(world.now).await;
    let gone = agent.dial_without_pin(&world, &token.secret).await;
    assert!(matches!(gone, Dialled::Silence(ProofFailure::Unknown)));
}

#[tokio::test]
async fn a_revoked_agent_is_out_at_once_and_for_good() {
    let mut world = World::new(no_pin());
    let agent = TestAgent::new(1);
    let key = agent.identity.public();
    let token = world.edge().new_token(TokenWish::default()).await.unwrap();
    let admitted = agent
        .dial_without_pin(&world, &token.secret)
        .await
        .admitted();
    let own = admitted.agent_secret.clone().unwrap();
    assert_eq!(world.edge().links_of(&key), 1);
    assert_eq!(world.edge().revoke(&key).await.unwrap(), 1);
    admitted.seat.revoked().await;
    for _ in 0..2 {
        let silent = agent.dial_without_pin(&world, &own).await;
        assert!(matches!(silent, Dialled::Silence(ProofFailure::Unknown)));
        let refused = agent.dial_without_pin(&world, &token.secret).await;
        assert_eq!(refused.refused(), Cause::TokenTaken);
        world.restart();
    }
    let unknown = world.edge().revoke(&key).await.unwrap_err();
    assert!(matches!(unknown, ManageError::NoSuchAgent(_)));
}

#[tokio::test]
async fn an_agent_secret_is_of_use_to_its_agent_only() {
    let world = World::new(no_pin());
    let shared = world.edge().store().shared_secret();
    let own = TestAgent::new(1)
        .dial_without_pin(&world, &shared)
        .await
        .admitted();
    let thief = TestAgent::new(2);
    let refused = thief
        .dial_without_pin(&world, &own.agent_secret.unwrap())
        .await
        .refused();
    assert_eq!(refused, Cause::WrongIdentity);
}

#[tokio::test]
async fn max_agents_counts_identities_that_are_live() {
    let world = World::new(Policy {
        max_agents: 1,
        ..no_pin()
    });
    let shared = world.edge().store().shared_secret();
    let (first, second) = (TestAgent::new(1), TestAgent::new(2));
    let one = first.dial_without_pin(&world, &shared).await.admitted();
    // The same agent again, before its old link is known to be dead.
    let two = first.dial_without_pin(&world, &shared).await.admitted();
    let refused = second.dial_without_pin(&world, &shared).await.refused();
    assert_eq!(refused, Cause::TooManyAgents);
    drop((one, two));
    second.dial_without_pin(&world, &shared).await.admitted();
}

#[tokio::test]
async fn a_first_message_works_once_over_kill_and_epochs() {
    let mut world = World::new(no_pin());
    let agent = TestAgent::new(1);
    let shared = world.edge().store().shared_secret();
    let (_, early) = agent.handshake(&world, &shared);
    world.clock.pass(36);
    let stale = world
        .edge()
        .prove(&First::parse(&early), agent.peer, world.now);
    assert_eq!(stale.map(drop), Err(ProofFailure::Stale));
    let (_, first) = agent.handshake(&world, &shared);
    let first = First::parse(&first);
    let prove = |world: &World| {
        let proved = world.edge().prove(&first, agent.peer, world.now);
        proved.map(drop).unwrap_err()
    };
    let proved = world.edge().prove(&first, agent.peer, world.now);
    assert!(proved.is_ok());
    assert_eq!(prove(&world), ProofFailure::Replayed);
    world.restart();
    assert_eq!(prove(&world), ProofFailure::Replayed);
    let failures = &world.metrics.link.proof_failures;
    assert_eq!(failures.of(ProofFailure::Replayed).get(), 2);
    assert!(world.audit().contains("seen before"));
    // Ids change, the secret goes on.
    for _ in 0..5 {
        world.clock.pass(600);
        world.edge().maintain(world.now).await;
        agent.dial_without_pin(&world, &shared).await.admitted();
    }
}

#[tokio::test]
async fn strangers_and_altered_messages_get_silence_and_a_ban() {
    let world = World::new(no_pin());
    let agent = TestAgent::new(1);
    let shared = world.edge().store().shared_secret();
    let (_, bytes) = agent.handshake(&world, &shared);
    let prove = |bytes: &[u8; FIRST_LEN]| {
        let proved = world
            .edge()
            .prove(&First::parse(bytes), agent.peer, world.now);
        proved.map(|_| ())
    };
    for at in 8..FIRST_LEN {
        let mut altered = bytes;
        altered[at] ^= 1;
        let failure = prove(&altered).unwrap_err();
        let expected = [ProofFailure::Mac, ProofFailure::Banned];
        assert!(expected.contains(&failure), "{at} {failure:?}");
    }
    assert_eq!(prove(&bytes), Err(ProofFailure::Banned));
    let far = TestAgent {
        peer: "192.0.2.8:1".parse().unwrap(),
        ..agent
    };
    far.dial_without_pin(&world, &shared).await.admitted();
    let stranger = far
        .dial_without_pin(&world, &Psk::from_random([9; 32]))
        .await;
    assert!(matches!(stranger, Dialled::Silence(ProofFailure::Unknown)));
    assert!(world.audit().contains("failed proofs"));
}

#[tokio::test]
async fn five_wrong_pins_ban_the_address() {
    let world = World::new(Policy::default());
    let (shared, agent) = (world.edge().store().shared_secret(), TestAgent::new(1));
    for _ in 0..5 {
        let refused = agent.dial_without_pin(&world, &shared).await.refused();
        assert_eq!(refused, Cause::WrongPin);
    }
    let banned = agent.dial_without_pin(&world, &shared).await;
    assert!(matches!(banned, Dialled::Silence(ProofFailure::Banned)));
    assert!(world.audit().contains("wrong PINs"));
}

#[tokio::test]
async fn a_clock_that_jumps_neither_opens_nor_closes_the_window() {
    let world = World::new(no_pin());
    let agent = TestAgent::new(1);
    let shared = world.edge().store().shared_secret();
    let (_, captured) = agent.handshake(&world, &shared);
    let captured = First::parse(&captured);
    let proved = world.edge().prove(&captured, agent.peer, world.now);
    assert!(proved.is_ok());
    // Wall time jumps back and forth: the anchored clock goes on.
    world.clock.wall.fetch_sub(60, Ordering::Relaxed);
    world.edge().maintain(world.now).await;
    agent.dial_without_pin(&world, &shared).await.admitted();
    // It stays there: after a minute the edge gives in, and only stamps newer
    // than the change count.
    world.clock.pass(61);
    world.edge().maintain(world.now).await;
    assert_eq!(world.edge().unix_now(), WALL + 1);
    let replayed = world.edge().prove(&captured, agent.peer, world.now);
    assert!(replayed.is_err());
    let early = agent.dial_without_pin(&world, &shared).await;
    assert!(matches!(early, Dialled::Silence(ProofFailure::Stale)));
    world.clock.pass(36);
    agent.dial_without_pin(&world, &shared).await.admitted();
    assert!(world.audit().contains("clock moved"));
}

#[tokio::test]
async fn an_agent_is_not_told_what_is_not_on_disk() {
    let world = World::new(no_pin());
    let shared = world.edge().store().shared_secret();
    // A folder in the place of the file to be written: renaming onto it fails.
    std::fs::create_dir(world.data.path().join("agents.json")).unwrap();
    let refused = TestAgent::new(1).dial_without_pin(&world, &shared).await;
    assert_eq!(refused.refused(), Cause::NotSaved);
    std::fs::remove_dir(world.data.path().join("agents.json")).unwrap();
    TestAgent::new(1)
        .dial_without_pin(&world, &shared)
        .await
        .admitted();
    let unknown = TokenId([9; 4]);
    assert!(
        world
            .edge()
            .store()
            .read(|books| books.token(unknown).is_none())
    );
}

#[tokio::test]
async fn many_agents_join_at_once() {
    let mut world = World::new(no_pin());
    let shared = world.edge().store().shared_secret();
    for n in 0..60 {
        let agent = TestAgent::new(n);
        agent.dial_without_pin(&world, &shared).await.admitted();
    }
    world.edge().flush().await.unwrap();
    world.restart();
    let enrolled = world.edge().store().read(|books| books.agents().len());
    assert_eq!(enrolled, 60);
}
