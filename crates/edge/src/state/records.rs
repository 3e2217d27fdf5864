//! What stands in the files: types of their own, so that a change of a model
//! type never changes a file by accident.

use std::borrow::Cow;

use adit_model::{Identity, Psk, PublicKey, TunnelName};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::books::{AdmittedBy, Agent, Books, Token, TokenState};

/// The format of every file of this version.
pub(super) const FORMAT: u32 = 1;

/// Why a file's text was not understood.
#[derive(Debug)]
pub(super) enum RecordError {
    /// Of a later format.
    Newer,
    /// This does not fit.
    Damaged(String),
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        // The place and the kind only: the message may quote a secret.
        let (line, column) = (error.line(), error.column());
        let kind = match error.classify() {
            serde_json::error::Category::Eof => "the end is missing",
            serde_json::error::Category::Syntax => "not JSON",
            _ => "a field is missing, unknown or wrong",
        };
        Self::Damaged(format!("line {line} column {column}: {kind}"))
    }
}

fn damaged(problem: impl std::fmt::Display) -> RecordError {
    RecordError::Damaged(problem.to_string())
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

fn check_format(bytes: &[u8]) -> Result<(), RecordError> {
    let head: Head = serde_json::from_slice(bytes)?;
    match head.format {
        FORMAT => Ok(()),
        0 => Err(damaged("format 0")),
        _ => Err(RecordError::Newer),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRecord<'a> {
    format: u32,
    #[serde(borrow)]
    public: Cow<'a, str>,
    #[serde(borrow)]
    private: Cow<'a, str>,
}

pub(super) fn write_identity(identity: &Identity) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let private = data_encoding::BASE64URL_NOPAD.encode(identity.expose_seed());
    let private = Zeroizing::new(private);
    to_json(&IdentityRecord {
        format: FORMAT,
        public: identity.public().to_string().into(),
        private: private.as_str().into(),
    })
}

pub(super) fn read_identity(bytes: &[u8]) -> Result<Identity, RecordError> {
    check_format(bytes)?;
    let record: IdentityRecord<'_> = serde_json::from_slice(bytes)?;
    let seed = data_encoding::BASE64URL_NOPAD
        .decode(record.private.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| damaged("the private key is not base64url"))?;
    let seed: [u8; 32] = seed
        .as_slice()
        .try_into()
        .map_err(|_| damaged("the private key has not 32 bytes"))?;
    let identity = Identity::from_seed(seed).map_err(damaged)?;
    if identity.public().to_string() != record.public {
        return Err(damaged("public and private key do not belong together"));
    }
    Ok(identity)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BooksRecord<'a> {
    format: u32,
    #[serde(borrow)]
    tokens: Vec<TokenRecord<'a>>,
    #[serde(borrow)]
    agents: Vec<AgentRecord<'a>>,
}

/// Who admitted an agent; agents of one owner share tunnel names.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OwnerRecord {
    SharedSecret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentRecord<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    owner: OwnerRecord,
    /// The id of the token; absent = by the shared secret.
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    secret: Cow<'a, str>,
    used: bool,
    first_seen: u64,
    last_seen: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    secret: Cow<'a, str>,
    made: u64,
    expires: u64,
    #[serde(borrow)]
    scope: Option<Cow<'a, str>>,
    #[serde(borrow)]
    label: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bound_to: Option<Cow<'a, str>>,
    spent: bool,
}

pub(super) fn write_books(books: &Books) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let mut agents: Vec<&Agent> = books.agents().collect();
    agents.sort_unstable_by_key(|agent| (agent.first_seen, agent.key));
    to_json(&BooksRecord {
        format: FORMAT,
        tokens: books.tokens().map(token_record).collect(),
        agents: agents.into_iter().map(agent_record).collect(),
    })
}

pub(super) fn read_books(bytes: &[u8]) -> Result<Books, RecordError> {
    check_format(bytes)?;
    let record: BooksRecord<'_> = serde_json::from_slice(bytes)?;
    let agents: Vec<Agent> = record
        .agents
        .into_iter()
        .map(read_agent)
        .collect::<Result<_, _>>()?;
    let tokens: Vec<Token> = record
        .tokens
        .into_iter()
        .map(read_token)
        .collect::<Result<_, _>>()?;
    let (agents_given, tokens_given) = (agents.len(), tokens.len());
    let books = Books::from_parts(agents, tokens);
    if books.agents().len() != agents_given || books.tokens().len() != tokens_given {
        return Err(damaged("an agent or a token stands there twice"));
    }
    Ok(books)
}

fn agent_record(agent: &Agent) -> AgentRecord<'_> {
    AgentRecord {
        key: agent.key.to_string().into(),
        name: agent.name.as_deref().map(Cow::from),
        owner: OwnerRecord::SharedSecret,
        token: match agent.admitted_by {
            AdmittedBy::SharedSecret => None,
            AdmittedBy::Token(id) => Some(id.to_string().into()),
        },
        scope: agent.scope.as_ref().map(|s| s.as_str().into()),
        secret: agent.secret.expose().into(),
        used: agent.used,
        first_seen: agent.first_seen,
        last_seen: agent.last_seen,
    }
}

fn read_agent(record: AgentRecord<'_>) -> Result<Agent, RecordError> {
    let OwnerRecord::SharedSecret = record.owner;
    let admitted_by = match record.token {
        None => AdmittedBy::SharedSecret,
        Some(id) => AdmittedBy::Token(id.parse().map_err(damaged)?),
    };
    Ok(Agent {
        key: record.key.parse::<PublicKey>().map_err(damaged)?,
        name: record.name.map(Cow::into_owned),
        admitted_by,
        scope: scope(record.scope)?,
        secret: Psk::parse(&record.secret).map_err(damaged)?,
        used: record.used,
        first_seen: record.first_seen,
        last_seen: record.last_seen,
    })
}

fn token_record(token: &Token) -> TokenRecord<'_> {
    TokenRecord {
        id: token.id.to_string().into(),
        secret: token.secret.expose().into(),
        made: token.made,
        expires: token.expires,
        scope: token.scope.as_ref().map(|s| s.as_str().into()),
        label: token.label.as_deref().map(Cow::from),
        bound_to: match token.state {
            TokenState::Bound(key) => Some(key.to_string().into()),
            TokenState::Open | TokenState::Spent => None,
        },
        spent: token.state == TokenState::Spent,
    }
}

fn read_token(record: TokenRecord<'_>) -> Result<Token, RecordError> {
    let state = match (record.bound_to, record.spent) {
        (None, false) => TokenState::Open,
        (Some(key), false) => TokenState::Bound(key.parse().map_err(damaged)?),
        (None, true) => TokenState::Spent,
        (Some(_), true) => return Err(damaged("a token is bound and spent")),
    };
    Ok(Token {
        id: record.id.parse().map_err(damaged)?,
        secret: Psk::parse(&record.secret).map_err(damaged)?,
        made: record.made,
        expires: record.expires,
        scope: scope(record.scope)?,
        label: record.label.map(Cow::into_owned),
        state,
    })
}

fn scope(text: Option<Cow<'_, str>>) -> Result<Option<TunnelName>, RecordError> {
    text.map(|t| TunnelName::parse(&t).map_err(damaged))
        .transpose()
}

fn to_json(record: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let mut bytes = Zeroizing::new(serde_json::to_vec_pretty(record)?);
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::books::TokenId;

    fn psk(n: u8) -> Psk {
        Psk::from_random(std::array::from_fn(|i| (i as u8 + n).wrapping_mul(37)))
    }

    fn books() -> Books {
        let token = |n: u8, state| Token {
            id: TokenId([n; 4]),
            secret: psk(n),
            made: 1,
            expires: 2,
            scope: (n == 1).then(|| TunnelName::parse("app").unwrap()),
            label: (n == 2).then(|| "a \"quoted\" label".into()),
            state,
        };
        let agent = |n: u8, admitted_by| Agent {
            key: PublicKey([n; 32]),
            name: (n == 2).then(|| "laptop".into()),
            admitted_by,
            scope: (n == 1).then(|| TunnelName::parse("app").unwrap()),
            secret: psk(n),
            used: n == 1,
            first_seen: 3,
            last_seen: 4,
        };
        Books::from_parts(
            vec![
                agent(1, AdmittedBy::SharedSecret),
                agent(2, AdmittedBy::Token(TokenId([9; 4]))),
            ],
            vec![
                token(1, TokenState::Open),
                token(2, TokenState::Bound(PublicKey([7; 32]))),
                token(3, TokenState::Spent),
            ],
        )
    }

    fn problem<T>(read: Result<T, RecordError>) -> String {
        match read {
            Err(RecordError::Damaged(problem)) => problem,
            Err(RecordError::Newer) => "newer".into(),
            Ok(_) => "read".into(),
        }
    }

    #[test]
    fn records_survive_their_text() {
        let text = write_books(&books()).unwrap();
        let again = write_books(&read_books(&text).unwrap()).unwrap();
        let (text, again) = (
            String::from_utf8_lossy(&text),
            String::from_utf8_lossy(&again),
        );
        assert_eq!(text, again);
        let identity = Identity::from_seed([5; 32]).unwrap();
        let text = write_identity(&identity).unwrap();
        assert_eq!(read_identity(&text).unwrap().public(), identity.public());
    }

    #[test]
    fn damage_is_named_without_quoting_a_secret() {
        let text = String::from_utf8(write_books(&books()).unwrap().to_vec()).unwrap();
        let secret = psk(1);
        let cases = [
            text[..text.len() / 2].to_owned(),
            text.replace("\"format\": 1", "\"format\": 0"),
            text.replace("\"used\": true", "\"used\": 1"),
            text.replace("\"scope\"", "\"scopes\""),
            text.replace(secret.expose(), "short"),
            text.replace("ed25519:", "ed25519;"),
            text.replace("02020202", "01010101"),
            text.replace("\"spent\": false", "\"spent\": true"),
            String::new(),
            "[]".to_owned(),
        ];
        for case in cases {
            let problem = problem(read_books(case.as_bytes()));
            assert!(!["read", "newer"].contains(&problem.as_str()), "{case}");
            assert!(!problem.contains(secret.expose()), "{problem}");
        }
        let newer = text.replace("\"format\": 1", "\"more\": {}, \"format\": 2");
        assert_eq!(problem(read_books(newer.as_bytes())), "newer");
    }

    #[test]
    fn an_identity_must_fit_its_public_key() {
        let of = |n| write_identity(&Identity::from_seed([n; 32]).unwrap()).unwrap();
        let line = |text: &[u8], key: &str| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            text.lines().find(|l| l.contains(key)).unwrap().to_owned()
        };
        let mixed = format!(
            "{{\"format\":1,{}{}}}",
            line(&of(1), "public"),
            line(&of(2), "private")
        );
        let problem = problem(read_identity(mixed.as_bytes()));
        assert!(problem.contains("do not belong together"), "{problem}");
    }
}
