//! The admission rules: facts in, a decision out. Pure.

use std::collections::HashSet;

use adit_model::PublicKey;

use crate::metrics::AdmissionOutcome;
use crate::state::{TokenId, TokenRefused};

/// Most links of one identity: its processes, and old links that are not known
/// to be dead yet.
pub(super) const MAX_LINKS: usize = 64;

/// Who is asked for the PIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinPolicy {
    /// Whoever comes by the shared secret with an identity that was never
    /// admitted. A join token is as fresh a word of the edge's owner as the
    /// PIN, so that its holder is not asked.
    #[default]
    Enrol,
    /// Every identity, once after each start of the edge.
    EveryStart,
    /// Nobody.
    Off,
}

/// Which identities may join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Each that passes the other checks; it is remembered.
    #[default]
    Enrolled,
    /// These only.
    Listed(HashSet<PublicKey>),
}

/// The rules of one edge.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Who is asked for the PIN.
    pub pin: PinPolicy,
    /// Which identities may join.
    pub keys: KeyPolicy,
    /// Most identities with a live link; 0 = no limit.
    pub max_agents: usize,
}

/// Which pre-shared secret an agent proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The edge's shared secret.
    SharedSecret,
    /// A join token.
    Token(TokenId),
    /// The secret that this agent was given when it joined.
    AgentSecret(PublicKey),
}

/// What became of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinCheck {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// Right or wrong, this address or all together have tried too often.
    Later,
}

/// Everything that is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) identity: PublicKey,
    pub(super) way: Way,
    /// The secret still stands: it was not rotated or revoked meanwhile.
    pub(super) is_current: bool,
    /// The identity was admitted before.
    pub(super) is_enrolled: bool,
    /// The identity has proved the PIN since the edge started.
    pub(super) proved_pin_before: bool,
    pub(super) pin: Option<PinCheck>,
    /// Whether the token would admit; `Ok` on the other ways.
    pub(super) token: Result<(), TokenRefused>,
    /// Other identities with a live link.
    pub(super) others: usize,
    /// Live links of this identity.
    pub(super) own: usize,
}

/// Why an agent was not admitted: for the edge's owner. The agent is told no
/// more than that there are too many, and only when nothing else is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// See [`KeyPolicy::Listed`].
    #[error("its key is not listed")]
    NotListed,
    /// The PIN was wrong, or none was given.
    #[error("the PIN was wrong")]
    WrongPin,
    /// Too many PINs were tried.
    #[error("too many PINs were tried")]
    PinBudget,
    /// The token's time is over.
    #[error("its join token is expired")]
    TokenExpired,
    /// The token belongs to another identity or is spent.
    #[error("its join token is taken")]
    TokenTaken,
    /// The agent secret was given to another identity.
    #[error("it used the secret of another agent")]
    WrongIdentity,
    /// The secret was revoked or rotated during the handshake.
    #[error("its secret was revoked")]
    Revoked,
    /// See [`Policy::max_agents`].
    #[error("as many agents are live as may be")]
    TooManyAgents,
    /// As many as one identity may have.
    #[error("it has as many links as an agent may have")]
    TooManyLinks,
    /// As many identities are remembered as may be.
    #[error("no more agents can be enrolled")]
    BooksFull,
    /// The edge could not save what it had to.
    #[error("the edge could not save its secret")]
    NotSaved,
}

impl Cause {
    /// The cause as a metric's label.
    #[must_use]
    pub fn outcome(self) -> AdmissionOutcome {
        match self {
            Self::NotListed => AdmissionOutcome::NotListed,
            Self::WrongPin => AdmissionOutcome::WrongPin,
            Self::PinBudget => AdmissionOutcome::PinBudget,
            Self::TokenExpired => AdmissionOutcome::TokenExpired,
            Self::TokenTaken => AdmissionOutcome::TokenTaken,
            Self::WrongIdentity => AdmissionOutcome::WrongIdentity,
            Self::Revoked => AdmissionOutcome::Revoked,
            Self::TooManyAgents | Self::TooManyLinks => AdmissionOutcome::TooManyAgents,
            Self::BooksFull => AdmissionOutcome::BooksFull,
            Self::NotSaved => AdmissionOutcome::NotSaved,
        }
    }
}

/// Whether the PIN is to be asked for.
pub(super) fn needs_pin(
    policy: PinPolicy,
    way: Way,
    is_enrolled: bool,
    proved_pin_before: bool,
) -> bool {
    match policy {
        PinPolicy::Off => false,
        PinPolicy::Enrol => way == Way::SharedSecret && !is_enrolled,
        PinPolicy::EveryStart => !proved_pin_before,
    }
}

/// Judges an agent whose identity is proved.
pub(super) fn decide(policy: &Policy, facts: &Facts) -> Result<(), Cause> {
    if let Way::AgentSecret(owner) = facts.way
        && owner != facts.identity
    {
        return Err(Cause::WrongIdentity);
    }
    if !facts.is_current {
        return Err(Cause::Revoked);
    }
    facts.token.map_err(|refused| match refused {
        TokenRefused::Unknown => Cause::Revoked,
        TokenRefused::Expired => Cause::TokenExpired,
        TokenRefused::Taken => Cause::TokenTaken,
    })?;
    let pin_needed = needs_pin(
        policy.pin,
        facts.way,
        facts.is_enrolled,
        facts.proved_pin_before,
    );
    match facts.pin {
        Some(PinCheck::Right) => {}
        Some(PinCheck::Later) => return Err(Cause::PinBudget),
        Some(PinCheck::Wrong) => return Err(Cause::WrongPin),
        None if pin_needed => return Err(Cause::WrongPin),
        None => {}
    }
    match &policy.keys {
        KeyPolicy::Listed(keys) if !keys.contains(&facts.identity) => {
            return Err(Cause::NotListed);
        }
        KeyPolicy::Listed(_) | KeyPolicy::Enrolled => {}
    }
    if policy.max_agents > 0 && facts.others >= policy.max_agents {
        return Err(Cause::TooManyAgents);
    }
    if facts.own >= MAX_LINKS {
        return Err(Cause::TooManyLinks);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);
    const TOKEN: Way = Way::Token(TokenId([1; 4]));

    fn facts(way: Way) -> Facts {
        Facts {
            identity: ME,
            way,
            is_current: true,
            is_enrolled: true,
            proved_pin_before: false,
            pin: None,
            token: Ok(()),
            others: 0,
            own: 0,
        }
    }

    #[test]
    fn who_is_asked_for_the_pin() {
        use PinPolicy::{Enrol, EveryStart, Off};
        let mine = Way::AgentSecret(ME);
        let cases = [
            (Enrol, Way::SharedSecret, false, false, true),
            (Enrol, Way::SharedSecret, true, false, false),
            (Enrol, TOKEN, false, false, false),
            (Enrol, mine, true, false, false),
            (EveryStart, Way::SharedSecret, false, false, true),
            (EveryStart, TOKEN, false, false, true),
            (EveryStart, mine, true, false, true),
            (EveryStart, mine, true, true, false),
            (Off, Way::SharedSecret, false, false, false),
        ];
        for (policy, way, enrolled, before, expected) in cases {
            let asked = needs_pin(policy, way, enrolled, before);
            assert_eq!(asked, expected, "{policy:?} {way:?} {enrolled} {before}");
        }
    }

    #[test]
    fn each_rule_refuses_by_itself() {
        let policy = Policy {
            keys: KeyPolicy::Listed(HashSet::from([ME])),
            max_agents: 2,
            ..Policy::default()
        };
        let good = facts(Way::SharedSecret);
        assert_eq!(decide(&policy, &good), Ok(()));
        let fresh = Facts {
            is_enrolled: false,
            ..good
        };
        let pin = |pin| Facts { pin, ..fresh };
        let token = |refused| Facts {
            token: Err(refused),
            ..facts(TOKEN)
        };
        let cases = [
            (pin(None), Cause::WrongPin),
            (pin(Some(PinCheck::Wrong)), Cause::WrongPin),
            (pin(Some(PinCheck::Later)), Cause::PinBudget),
            (token(TokenRefused::Expired), Cause::TokenExpired),
            (token(TokenRefused::Taken), Cause::TokenTaken),
            (token(TokenRefused::Unknown), Cause::Revoked),
            (facts(Way::AgentSecret(OTHER)), Cause::WrongIdentity),
            (
                Facts {
                    is_current: false,
                    ..good
                },
                Cause::Revoked,
            ),
            (Facts { others: 2, ..good }, Cause::TooManyAgents),
            (
                Facts {
                    own: MAX_LINKS,
                    ..good
                },
                Cause::TooManyLinks,
            ),
            (
                Facts {
                    identity: OTHER,
                    ..good
                },
                Cause::NotListed,
            ),
        ];
        for (facts, cause) in cases {
            assert_eq!(decide(&policy, &facts), Err(cause), "{facts:?}");
        }
        assert_eq!(decide(&policy, &pin(Some(PinCheck::Right))), Ok(()));
        assert_eq!(decide(&policy, &facts(Way::AgentSecret(ME))), Ok(()));
        assert_eq!(decide(&policy, &facts(TOKEN)), Ok(()));
    }

    #[test]
    fn an_unlisted_key_is_asked_for_the_pin_like_any_other() {
        let policy = Policy {
            keys: KeyPolicy::Listed(HashSet::new()),
            ..Policy::default()
        };
        assert!(needs_pin(policy.pin, Way::SharedSecret, false, false));
        let facts = Facts {
            is_enrolled: false,
            pin: Some(PinCheck::Right),
            ..facts(Way::SharedSecret)
        };
        assert_eq!(decide(&policy, &facts), Err(Cause::NotListed));
    }
}
