//! Who may join: enrolled agents and one-time join tokens, in memory.
//!
//! Pure: times and random bytes come in. Invariants: an agent has one secret
//! for as long as it is enrolled, so that two processes of one identity that
//! join at once are handed the same; a token admits one identity, the first
//! that completes; both tables are bounded.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use adit_model::{Psk, PublicKey, TunnelName};

/// Most agents enrolled.
pub const MAX_AGENTS: usize = 65_536;
/// Most tokens kept, spent and expired ones included.
pub const MAX_TOKENS: usize = 4096;
/// A token that no longer admits is remembered for so many seconds, so that
/// its holder gets the refusal and not silence.
pub const TOKEN_MEMORY: u64 = 7 * 24 * 3600;
/// A bound token may be repeated by its identity for at least so many seconds.
const REPEAT: u64 = 24 * 3600;

/// Names a token to people; says nothing about its secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 4]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not 8 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is named by 8 hexadecimal digits")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let is_hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).map_err(|_| NotATokenId)?;
        is_hex
            .then_some(Self(number.to_be_bytes()))
            .ok_or(NotATokenId)
    }
}

/// How an agent got in the last time it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmittedBy {
    /// By the shared secret.
    SharedSecret,
    /// By a join token.
    Token(TokenId),
}

/// An enrolled agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its identity.
    pub key: PublicKey,
    /// What people call it; the token's label.
    pub name: Option<String>,
    /// How it joined.
    pub admitted_by: AdmittedBy,
    /// The only tunnel it may open, when its token said so.
    pub scope: Option<TunnelName>,
    /// Its own secret.
    pub secret: Psk,
    /// It has come back with its own secret at least once.
    pub used: bool,
    /// First join, unix seconds.
    pub first_seen: u64,
    /// Last admission or end of a link, unix seconds.
    pub last_seen: u64,
}

/// What has become of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Nobody used it.
    Open,
    /// This identity did; it alone may repeat it.
    Bound(PublicKey),
    /// It admits nobody any more.
    Spent,
}

/// A one-time join token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// The secret in the join string.
    pub secret: Psk,
    /// Unix seconds.
    pub made: u64,
    /// Unix seconds; from then on it admits nobody.
    pub expires: u64,
    /// The only tunnel that whoever joins by it may open.
    pub scope: Option<TunnelName>,
    /// The name of the agent that joins by it.
    pub label: Option<String>,
    /// What has become of it.
    pub state: TokenState,
}

/// Why a token does not admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not, or no longer, known.
    #[error("unknown token")]
    Unknown,
    /// Its time is over.
    #[error("token is expired")]
    Expired,
    /// Another identity has it, or it is spent.
    #[error("token is taken")]
    Taken,
}

/// A table is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BooksFull {
    /// [`MAX_AGENTS`] are enrolled.
    #[error("{MAX_AGENTS} agents are enrolled: revoke those that are gone")]
    Agents,
    /// [`MAX_TOKENS`] are kept.
    #[error("{MAX_TOKENS} tokens are open: wait until some are used or expire")]
    Tokens,
}

/// Agents and tokens.
#[derive(Clone, Debug, Default)]
pub struct Books {
    agents: HashMap<PublicKey, Agent>,
    tokens: BTreeMap<TokenId, Token>,
}

impl Books {
    pub(super) fn from_parts(agents: Vec<Agent>, tokens: Vec<Token>) -> Self {
        Self {
            agents: agents.into_iter().map(|a| (a.key, a)).collect(),
            tokens: tokens.into_iter().map(|t| (t.id, t)).collect(),
        }
    }

    /// All agents, in no order.
    pub fn agents(&self) -> impl ExactSizeIterator<Item = &Agent> {
        self.agents.values()
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.values()
    }

    /// An enrolled agent.
    #[must_use]
    pub fn agent(&self, key: &PublicKey) -> Option<&Agent> {
        self.agents.get(key)
    }

    /// A token.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(&id)
    }

    /// Remembers an identity that passed, and hands out its secret: `fresh`, or
    /// the one it already has. A later way in replaces the earlier one's scope.
    ///
    /// # Errors
    /// [`BooksFull::Agents`].
    pub fn enrol(
        &mut self,
        key: PublicKey,
        admitted_by: AdmittedBy,
        fresh: Psk,
        now: u64,
    ) -> Result<&Agent, BooksFull> {
        if self.agents.len() >= MAX_AGENTS && !self.agents.contains_key(&key) {
            return Err(BooksFull::Agents);
        }
        let token = match admitted_by {
            AdmittedBy::SharedSecret => None,
            AdmittedBy::Token(id) => self.tokens.get(&id),
        };
        let agent = self.agents.entry(key).or_insert_with(|| Agent {
            key,
            name: None,
            admitted_by,
            scope: None,
            secret: fresh,
            used: false,
            first_seen: now,
            last_seen: now,
        });
        (agent.admitted_by, agent.last_seen) = (admitted_by, now);
        agent.scope = token.and_then(|t| t.scope.clone());
        if let Some(label) = token.and_then(|t| t.label.clone()) {
            agent.name = Some(label);
        }
        Ok(agent)
    }

    /// Marks that an agent came with its own secret: tokens bound to it are
    /// spent from now on. True when that is news that must be saved.
    pub fn agent_came(&mut self, key: &PublicKey, now: u64) -> bool {
        let Some(agent) = self.agents.get_mut(key) else {
            return false;
        };
        agent.last_seen = now;
        let is_news = !agent.used;
        agent.used = true;
        if is_news {
            self.spend_tokens_of(key);
        }
        is_news
    }

    /// Notes that an agent was there.
    pub fn agent_seen(&mut self, key: &PublicKey, now: u64) {
        if let Some(agent) = self.agents.get_mut(key) {
            agent.last_seen = now;
        }
    }

    /// Forgets an agent, its secret, and every token it could repeat.
    pub fn revoke(&mut self, key: &PublicKey) -> Option<Agent> {
        self.spend_tokens_of(key);
        self.agents.remove(key)
    }

    fn spend_tokens_of(&mut self, key: &PublicKey) {
        for token in self.tokens.values_mut() {
            if token.state == TokenState::Bound(*key) {
                token.state = TokenState::Spent;
            }
        }
    }

    /// Adds a token. Those that admit nobody any more make room.
    ///
    /// # Errors
    /// [`BooksFull::Tokens`].
    pub fn add_token(&mut self, token: Token) -> Result<(), BooksFull> {
        if self.tokens.len() >= MAX_TOKENS {
            let is_over = |t: &Token| t.state == TokenState::Spent || t.expires <= token.made;
            self.tokens.retain(|_, t| !is_over(t));
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(BooksFull::Tokens);
        }
        self.tokens.insert(token.id, token);
        Ok(())
    }

    /// Forgets tokens that have been over for [`TOKEN_MEMORY`]; tells which.
    pub fn forget_old_tokens(&mut self, now: u64) -> Vec<TokenId> {
        let is_old = |token: &Token| token.expires.saturating_add(TOKEN_MEMORY) <= now;
        let old = self.tokens.values().filter(|t| is_old(t)).map(|t| t.id);
        let old: Vec<TokenId> = old.collect();
        for id in &old {
            self.tokens.remove(id);
        }
        old
    }

    /// Whether a token would admit this identity.
    ///
    /// # Errors
    /// [`TokenRefused`].
    pub fn check_token(&self, id: TokenId, key: &PublicKey, now: u64) -> Result<(), TokenRefused> {
        let token = self.tokens.get(&id).ok_or(TokenRefused::Unknown)?;
        match token.state {
            TokenState::Spent => Err(TokenRefused::Taken),
            TokenState::Bound(bound) if bound != *key => Err(TokenRefused::Taken),
            _ if token.expires <= now => Err(TokenRefused::Expired),
            TokenState::Open | TokenState::Bound(_) => Ok(()),
        }
    }

    /// Binds a token to the first identity that completes.
    ///
    /// # Errors
    /// [`TokenRefused`]; then nothing has changed.
    pub fn bind_token(
        &mut self,
        id: TokenId,
        key: &PublicKey,
        now: u64,
    ) -> Result<(), TokenRefused> {
        self.check_token(id, key, now)?;
        let token = self.tokens.get_mut(&id).ok_or(TokenRefused::Unknown)?;
        if token.state == TokenState::Open {
            token.state = TokenState::Bound(*key);
            token.expires = token.expires.max(now.saturating_add(REPEAT));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn psk(n: u8) -> Psk {
        Psk::from_random([n; 32])
    }

    fn token(n: u8) -> Token {
        Token {
            id: TokenId([n; 4]),
            secret: psk(n),
            made: NOW,
            expires: NOW + 100,
            scope: Some(TunnelName::parse("app").unwrap()),
            label: Some("laptop".into()),
            state: TokenState::Open,
        }
    }

    fn join(books: &mut Books, id: TokenId, key: PublicKey, now: u64) -> Result<Psk, TokenRefused> {
        books.bind_token(id, &key, now)?;
        let by = AdmittedBy::Token(id);
        Ok(books.enrol(key, by, psk(99), now).unwrap().secret.clone())
    }

    #[test]
    fn a_token_belongs_to_the_first_and_may_be_repeated_until_its_secret_is_used() {
        let mut books = Books::default();
        let id = token(1).id;
        books.add_token(token(1)).unwrap();
        let secret = join(&mut books, id, key(1), NOW).unwrap();
        assert_eq!(join(&mut books, id, key(2), NOW), Err(TokenRefused::Taken));
        // Its answer may have been lost: past the expiry too.
        assert_eq!(join(&mut books, id, key(1), NOW + 200), Ok(secret));
        let agent = books.agent(&key(1)).unwrap();
        assert_eq!(agent.scope.as_ref().unwrap().as_str(), "app");
        assert_eq!(agent.name.as_deref(), Some("laptop"));
        assert!(books.agent_came(&key(1), NOW + 300));
        assert!(!books.agent_came(&key(1), NOW + 301));
        assert_eq!(
            join(&mut books, id, key(1), NOW + 302),
            Err(TokenRefused::Taken)
        );
    }

    #[test]
    fn a_token_ends_at_its_time_and_is_forgotten_later() {
        let mut books = Books::default();
        let id = token(1).id;
        books.add_token(token(1)).unwrap();
        assert!(books.check_token(id, &key(1), NOW + 99).is_ok());
        assert_eq!(
            join(&mut books, id, key(1), NOW + 100),
            Err(TokenRefused::Expired)
        );
        assert_eq!(books.forget_old_tokens(NOW + 100), []);
        assert_eq!(books.forget_old_tokens(NOW + 100 + TOKEN_MEMORY), [id]);
        assert_eq!(
            books.check_token(id, &key(1), NOW),
            Err(TokenRefused::Unknown)
        );
    }

    #[test]
    fn a_revoked_agent_cannot_repeat_its_token() {
        let mut books = Books::default();
        let id = token(1).id;
        books.add_token(token(1)).unwrap();
        join(&mut books, id, key(1), NOW).unwrap();
        assert!(books.revoke(&key(1)).is_some());
        assert!(books.revoke(&key(1)).is_none());
        assert_eq!(join(&mut books, id, key(1), NOW), Err(TokenRefused::Taken));
    }

    #[test]
    fn joining_again_keeps_the_secret_and_takes_the_new_scope() {
        let mut books = Books::default();
        books.add_token(token(1)).unwrap();
        let first = join(&mut books, token(1).id, key(1), NOW).unwrap();
        let by = AdmittedBy::SharedSecret;
        let again = books.enrol(key(1), by, psk(50), NOW + 5).unwrap();
        assert_eq!((&again.secret, &again.scope), (&first, &None));
        assert_eq!((again.first_seen, again.last_seen), (NOW, NOW + 5));
    }

    #[test]
    fn tables_are_bounded() {
        let mut books = Books::default();
        for n in 0..MAX_TOKENS as u32 {
            let id = TokenId(n.to_be_bytes());
            books.add_token(Token { id, ..token(1) }).unwrap();
        }
        let more = Token {
            id: TokenId([255; 4]),
            ..token(1)
        };
        assert_eq!(books.add_token(more.clone()), Err(BooksFull::Tokens));
        let later = Token {
            made: NOW + 100,
            ..more
        };
        books.add_token(later).unwrap();
        assert_eq!(books.tokens().len(), 1);
        for n in 0..MAX_AGENTS as u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            let by = AdmittedBy::SharedSecret;
            books.enrol(PublicKey(key), by, psk(1), NOW).unwrap();
        }
        let by = AdmittedBy::SharedSecret;
        let more = books.enrol(key(255), by, psk(1), NOW).unwrap_err();
        assert_eq!(more, BooksFull::Agents);
        assert!(books.enrol(PublicKey([0; 32]), by, psk(1), NOW).is_ok());
    }

    #[test]
    fn token_ids_are_read_as_they_are_written() {
        let id = TokenId([0, 1, 0xab, 0xff]);
        assert_eq!(id.to_string(), "0001abff");
        assert_eq!("0001ABFF".parse(), Ok(id));
        for bad in ["", "0001abf", "+001abff", "0001abfg", "00001abff"] {
            assert_eq!(bad.parse::<TokenId>(), Err(NotATokenId), "{bad}");
        }
    }
}
