//! The leases against a model that derives everything from history.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use adit_link_proto::{Holder, LeaseLimits, Leases, Owner};
use adit_model::{InstanceId, LinkId, PublicKey, TunnelName};
use adit_sim::{LeaseModel, Rng};

const GRACE: Duration = Duration::from_secs(60);

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let limits = LeaseLimits {
        grace: GRACE,
        ..LeaseLimits::default()
    };
    let (mut leases, mut model) = (Leases::new(limits), LeaseModel::new(GRACE));
    let mut now = Instant::now();
    let names: Vec<TunnelName> = ["a", "b", "c"]
        .iter()
        .map(|text| TunnelName::parse(text).unwrap())
        .collect();
    let mut links: Vec<Holder> = Vec::new();
    let mut next = 0;
    for _ in 0..400 {
        now += Duration::from_millis(rng.below(15_000));
        let name = &names[rng.index(names.len())];
        match rng.below(10) {
            0..=2 => {
                next += 1;
                let identity = rng.below(4) as u8;
                links.push(Holder {
                    link: LinkId(next),
                    identity: PublicKey([identity; 32]),
                    instance: InstanceId([rng.below(2) as u8; 16]),
                    owner: if identity == 3 {
                        Owner::Account(1)
                    } else {
                        Owner::Shared
                    },
                });
            }
            3..=6 if !links.is_empty() => {
                let holder = links[rng.index(links.len())];
                let exclusive = rng.chance(25);
                let real = leases.claim(name, holder, exclusive, now);
                let expected = model.claim(name, holder, exclusive, now);
                let fenced = real.map(|claim| claim.fenced.into_iter().collect());
                assert_eq!(fenced, expected);
            }
            7 | 8 if !links.is_empty() => {
                let gone = links.swap_remove(rng.index(links.len()));
                leases.release(gone.link, now);
                model.release(gone.link, now);
            }
            9 if !links.is_empty() => {
                let holder = links[rng.index(links.len())];
                let held = model.holders(name).contains(&holder.link);
                assert_eq!(leases.close(holder.link, name, now), held);
                model.close(holder.link, name, now);
            }
            _ => leases.expire(now),
        }
        model.check(&leases, &names, now);
    }
}

#[test]
fn leases_are_what_their_history_says() {
    for seed in 0..300 {
        let told = std::panic::catch_unwind(|| run(seed));
        assert!(told.is_ok(), "seed {seed}");
    }
}
