//! The labels' values: all known when the program is built.

use super::kinds::labels;

labels!(
    /// A public listener.
    Door "door":
    /// Visitors over HTTP.
    Http = "http",
    /// Agents.
    Link = "link",
    /// Metrics and health.
    Api = "api",
    /// Visitors of TCP tunnels, on all their ports.
    Tcp = "tcp",
    /// Visitors of TLS tunnels.
    Tls = "tls",
    /// Visitors over HTTPS.
    Https = "https",
    /// Agents over QUIC, a stream at a time.
    Quic = "quic",
    /// Agents over WebSocket; their connections came through another door.
    WebSocket = "websocket",
);
labels!(
    /// Which way bytes flow.
    Direction "direction":
    /// From the visitor to the service.
    In = "in",
    /// From the service to the visitor.
    Out = "out",
);
labels!(
    /// The class of a response's status.
    StatusClass "class":
    /// 1xx, an upgrade.
    Informational = "1xx",
    /// 2xx.
    Success = "2xx",
    /// 3xx.
    Redirection = "3xx",
    /// 4xx.
    ClientError = "4xx",
    /// 5xx.
    ServerError = "5xx",
    /// The connection ended before a status was sent.
    Nothing = "none",
);
labels!(
    /// Why the HTTP door itself refused a request.
    HttpRefusal "reason":
    /// The request breaks the grammar or the framing rules.
    Malformed = "malformed",
    /// Head or body above a limit.
    TooLarge = "too_large",
    /// The head or the body came too slowly.
    Slow = "slow",
    /// No route has this host name.
    UnknownHost = "unknown_host",
    /// The host is known, no agent serves it now.
    NoBackend = "no_backend",
    /// Above the address's request rate, or banned.
    Limited = "limited",
    /// Basic authentication is asked for and was not right.
    Unauthorized = "unauthorized",
);
labels!(
    /// How a backend failed a request.
    BackendFailure "reason":
    /// The agent could not reach its target, or an upstream refused.
    Unreachable = "unreachable",
    /// The stream ended before a whole answer.
    Cut = "cut",
    /// The answer breaks the grammar or the framing rules.
    Malformed = "malformed",
    /// No answer in time.
    Timeout = "timeout",
);
labels!(
    /// Why an address was turned away.
    LimitRefusal "reason":
    /// It is banned.
    Banned = "banned",
    /// The edge has as many connections as it can hold.
    Full = "full",
    /// Too many open connections of one address.
    Connections = "connections",
    /// Too many requests.
    Requests = "requests",
);
labels!(
    /// Why a first message or a channel header got silence.
    ProofFailure "cause":
    /// It names no secret that the edge knows.
    Unknown = "unknown",
    /// Its MAC is wrong.
    Mac = "mac",
    /// Its timestamp is outside the window.
    Stale = "stale",
    /// It was seen before, or a channel number was used twice.
    Replayed = "replayed",
    /// The table of seen proofs is full or could not be written.
    Busy = "busy",
    /// It did not come in time or the connection ended.
    Incomplete = "incomplete",
    /// Its address is banned.
    Banned = "banned",
);
labels!(
    /// How an admission ended. All but the first are one refusal to the agent.
    AdmissionOutcome "outcome":
    /// The link is live.
    Admitted = "admitted",
    /// Its key is not on the list.
    NotListed = "not_listed",
    /// The PIN was wrong.
    WrongPin = "wrong_pin",
    /// PIN attempts are bounded for now.
    PinBudget = "pin_budget",
    /// The token is expired.
    TokenExpired = "token_expired",
    /// The token is bound to another identity or spent.
    TokenTaken = "token_taken",
    /// The agent secret belongs to another identity.
    WrongIdentity = "wrong_identity",
    /// The secret was revoked or rotated during the handshake.
    Revoked = "revoked",
    /// As many agents are live as may be.
    TooManyAgents = "too_many_agents",
    /// As many identities are remembered as may be.
    BooksFull = "books_full",
    /// The edge could not save the agent's secret.
    NotSaved = "not_saved",
);
labels!(
    /// Why a visitor of a TCP or TLS tunnel found nobody.
    TcpRefusal "reason":
    /// Its TLS asks for no name that a tunnel has.
    NoName = "no_name",
    /// No agent took it.
    NoBackend = "no_backend",
);
labels!(
    /// How a connection of the HTTPS door began.
    TlsOutcome "result":
    /// Its handshake was done here.
    Done = "done",
    /// It was passed on to a TLS tunnel.
    Passed = "passed",
    /// It is no TLS.
    NotTls = "not_tls",
    /// Nothing that both sides speak, or a broken message.
    Failed = "failed",
    /// The visitor ended it by an alert: it does not trust the certificate.
    Refused = "refused",
    /// It took too long.
    Slow = "slow",
    /// The visitor went away.
    Gone = "gone",
    /// Its address makes more than it may.
    Limited = "limited",
);
labels!(
    /// Why datagrams of a UDP tunnel were dropped.
    UdpDrop "reason":
    /// Nobody could be answered at their sender's address.
    Source = "source",
    /// Their address is banned.
    Banned = "banned",
    /// The owner's rule turned their visitor away.
    Rule = "rule",
    /// There are as many flows as may be.
    Flows = "flows",
    /// No agent took their flow.
    NoBackend = "no_backend",
    /// Too much waited already.
    Queue = "queue",
    /// Larger than the network takes.
    TooLarge = "too_large",
    /// The system did not send them for another reason.
    Unsendable = "unsendable",
    /// Their flow ended before they were read.
    Late = "late",
);
