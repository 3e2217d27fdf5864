//! What the edge's owner does, and what is due from time to time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::REPLAY_WINDOW;
use adit_model::{Pin, Psk, PublicKey, TunnelName};
use tokio::sync::watch;

use super::audit::Entry;
use super::policy::Way;
use super::{Admission, lock};
use crate::state::{BooksFull, Keep, StateError, Token, TokenId, TokenState};
use adit_link::entropy::random;

/// How often what could wait is written and old things are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How long a join token admits when nothing else is said.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Secrets that get new ids under one lock.
const REFRESH_BATCH: usize = 64;

/// Why something was not done at the owner's word.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// No agent has this key.
    #[error("no agent with the key {0} is enrolled: adit agents list shows them all")]
    NoSuchAgent(PublicKey),
    /// A table is full.
    #[error(transparent)]
    Full(#[from] BooksFull),
    /// It could not be written. A revocation holds until the edge restarts.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a new join token shall be.
#[derive(Clone, Debug, Default)]
pub struct TokenWish {
    /// The only tunnel that whoever joins by it may open.
    pub scope: Option<TunnelName>,
    /// The name of the agent that joins by it.
    pub label: Option<String>,
    /// How long it admits; `None` = [`TOKEN_LIFE`].
    pub life: Option<Duration>,
}

impl Admission {
    /// The PIN now; `None` when none is asked for.
    #[must_use]
    pub fn current_pin(&self) -> Option<Pin> {
        lock(&self.pin).current()
    }

    /// Follows the PIN, for the edge's terminal and nothing else.
    #[must_use]
    pub fn watch_pin(&self) -> watch::Receiver<Option<Pin>> {
        lock(&self.pin).watch()
    }

    /// Identities with a live link.
    #[must_use]
    pub fn live_agents(&self) -> Vec<PublicKey> {
        self.seats.identities()
    }

    /// Live links of an identity.
    #[must_use]
    pub fn links_of(&self, identity: &PublicKey) -> usize {
        self.seats.links_of(identity)
    }

    /// Takes an agent's way in; its live links are told to end at once. Tells
    /// how many those were.
    ///
    /// # Errors
    /// [`ManageError::NoSuchAgent`]; [`ManageError::State`] when it could not
    /// be written: it then holds until the edge restarts.
    pub async fn revoke(&self, identity: &PublicKey) -> Result<usize, ManageError> {
        let known = self.store.change(|books| match books.revoke(identity) {
            Some(agent) => (Keep::Now, Some(agent)),
            None => (Keep::Nothing, None),
        });
        if known.is_none() {
            return Err(ManageError::NoSuchAgent(*identity));
        }
        lock(&self.secrets).remove(Way::AgentSecret(*identity));
        lock(&self.pin).forget(identity);
        let links = self.seats.revoke(identity);
        let entry = Entry::new(self.unix_now(), "revoke", "done").agent(identity);
        self.audit.write(&entry);
        self.store.commit().await?;
        Ok(links)
    }

    /// Makes a one-time join token.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn new_token(&self, wish: TokenWish) -> Result<Token, ManageError> {
        let token = make_token(wish, self.unix_now())?;
        let added = token.clone();
        self.store.change(|books| match books.add_token(added) {
            Ok(()) => (Keep::Now, Ok(())),
            Err(full) => (Keep::Nothing, Err(full)),
        })?;
        self.store.commit().await?;
        let way = Way::Token(token.id);
        lock(&self.secrets).insert(way, &token.secret);
        let entry = Entry::new(self.unix_now(), "token", "made").way(way);
        self.audit.write(&entry);
        Ok(token)
    }

    /// Makes a new shared secret; enrolled agents stay in, links go on.
    ///
    /// # Errors
    /// [`StateError::SecretIsConfigured`], or that it could not be written.
    pub async fn rotate_secret(&self) -> Result<Psk, StateError> {
        let store = Arc::clone(&self.store);
        let rotated = tokio::task::spawn_blocking(move || store.rotate_secret()).await;
        let psk = rotated.map_err(|gone| {
            let path = self.store.path_of("secret");
            StateError::of(&path, std::io::Error::other(gone))
        })??;
        lock(&self.secrets).insert(Way::SharedSecret, &psk);
        self.audit
            .write(&Entry::new(self.unix_now(), "secret", "rotated"));
        Ok(psk)
    }

    /// What is due now; to be called about once a second.
    pub async fn maintain(&self, now: Instant) {
        let (boot, wall) = (self.source.since_boot(), self.source.wall());
        let change = {
            // Nobody reads the new time before old stamps are refused.
            let mut time = lock(&self.time);
            let change = time.clock.feed(boot, wall);
            if change.is_some() {
                lock(&self.replay).reanchor(time.clock.not_before());
            }
            change
        };
        if let Some(change) = change {
            let cause = format!("clock moved from {} to {}", change.from, change.to);
            tracing::warn!(%cause, "agents that dial within 35 s have to try again");
            self.audit
                .write(&Entry::new(change.to, "clock", "anchored").because(&cause));
        }
        lock(&self.pin).tick(now);
        self.refresh_ids();
        let is_due = {
            let mut time = lock(&self.time);
            let since = |then| now.saturating_duration_since(then);
            let is_due = time.tidied.is_none_or(|then| since(then) >= TIDY_EVERY);
            if is_due {
                time.tidied = Some(now);
            }
            is_due
        };
        if is_due {
            self.tidy().await;
        }
    }

    /// Gives all secrets the ids of a new epoch, a few at a time: strangers
    /// wait for the same lock.
    fn refresh_ids(&self) {
        let unix = self.unix_now();
        let ways = lock(&self.secrets).begin_refresh(unix);
        for batch in ways.chunks(REFRESH_BATCH) {
            let psks: Vec<_> = batch.iter().map(|&way| (way, self.psk_of(way))).collect();
            let mut secrets = lock(&self.secrets);
            for (way, psk) in psks {
                match psk {
                    Some(psk) => secrets.refresh(way, &psk),
                    None => secrets.remove(way),
                }
            }
        }
    }

    async fn tidy(&self) {
        let now = self.unix_now();
        let live = self.seats.identities();
        let old = self.store.change(|books| {
            for identity in &live {
                books.agent_seen(identity, now);
            }
            let old = books.forget_old_tokens(now);
            let is_change = !old.is_empty() || !live.is_empty();
            let keep = if is_change {
                Keep::Later
            } else {
                Keep::Nothing
            };
            (keep, old)
        });
        for id in old {
            lock(&self.secrets).remove(Way::Token(id));
        }
        if let Err(error) = self.flush().await {
            tracing::error!(%error, "the edge's data could not be saved");
        }
    }

    /// Writes everything that could wait; for the edge's end, too.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn flush(&self) -> Result<(), StateError> {
        self.store.flush().await?;
        let oldest = self.unix_now().saturating_sub(REPLAY_WINDOW);
        let store = Arc::clone(&self.store);
        let compacted = tokio::task::spawn_blocking(move || store.compact_proofs(oldest)).await;
        compacted.unwrap_or_else(|gone| {
            let path = self.store.path_of("seen");
            Err(StateError::of(&path, std::io::Error::other(gone)))
        })
    }
}

/// A token with fresh random bytes.
pub(crate) fn make_token(wish: TokenWish, now: u64) -> Result<Token, StateError> {
    let life = wish.life.unwrap_or(TOKEN_LIFE);
    Ok(Token {
        id: TokenId(random().map_err(StateError::Random)?),
        secret: Psk::from_random(random().map_err(StateError::Random)?),
        made: now,
        expires: now.saturating_add(life.as_secs()),
        scope: wish.scope,
        label: wish.label,
        state: TokenState::Open,
    })
}
