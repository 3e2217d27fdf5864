//! From the declared keys to an [`AgentConfig`], and what no single key can
//! know.

use std::time::Duration;

use adit_config::{
    Document, Input, Key, LOG_FORMAT, LOG_LEVEL, Mistakes, Number, SecretRef, Section, default_data,
};
use adit_link::proxy::Proxy;
use adit_model::{Carrier, Code, JoinError, JoinString, Pin};

use super::tunnels::{forwards, tunnels};
use super::{Agent, AgentConfig, Log, keys};
use crate::allowed::AllowedTargets;

pub(super) fn agent(input: Input<'_>) -> Result<AgentConfig, Mistakes> {
    let document = Document::read(&keys::SPEC, input);
    // Each part reports its own mistakes before any of them ends the whole.
    let allowed = allowed(&document.section(&keys::AGENT));
    let agent = own(&document, allowed.clone());
    let tunnels = tunnels(&document, allowed.as_ref());
    let forwards = forwards(&document);
    let log = log(&document.section(&keys::LOG));
    let config = (|| {
        Some(AgentConfig {
            agent: agent?,
            tunnels: tunnels?,
            forwards: forwards?,
            log: log?,
        })
    })();
    document.finish(config)
}

fn own(document: &Document<'_>, allowed: Option<AllowedTargets>) -> Option<Agent> {
    let section = document.section(&keys::AGENT);
    let edge = edge(document, &section);
    let pin = pin(document, &section);
    let proxy = proxy(document, &section);
    let carrier = section.get(&keys::CARRIER);
    if let (Some(Some(Carrier::Quic)), Some(Some(_))) = (carrier, &proxy) {
        let sentence = "`carrier` is \"quic\", and no `proxy` carries that";
        let help = Some("leave one of both out");
        section.complain(Code::CONFIG_CONFLICT, "carrier", sentence, help);
    }
    let data = match section.given(&keys::DATA) {
        Some(given) => Some(document.path(&given.value, &given.place)),
        None if section.is_given("data") => None,
        None => default_data(&|name| document.variable(name), "agent").or_else(|| {
            let sentence = "no data folder: neither `data` nor HOME is set";
            let help = Some("set data = \"/var/lib/adit-agent\" under [agent]");
            section.complain(Code::CONFIG_MISSING, "data", sentence, help);
            None
        }),
    };
    Some(Agent {
        edge: edge?,
        data: data?,
        pin: pin?,
        allowed_targets: allowed?,
        carrier: carrier?,
        proxy: proxy?,
        workers: number(&section, &keys::WORKERS)? as usize,
        drain: Duration::from_secs(u64::from(number(&section, &keys::DRAIN)?)),
    })
}

/// `None`: a mistake was recorded.
fn allowed(section: &Section<'_>) -> Option<AllowedTargets> {
    match section.given(&keys::ALLOWED) {
        Some(given) => Some(AllowedTargets::only(given.value)),
        None => (!section.is_given("allowed_targets")).then(AllowedTargets::default),
    }
}

/// The outer `None`: a mistake was recorded.
fn edge(document: &Document<'_>, section: &Section<'_>) -> Option<Option<JoinString>> {
    let Some(given) = section.given(&keys::EDGE) else {
        return (!section.is_given("edge")).then_some(None);
    };
    let text = document.reveal("edge", &given)?;
    match text.parse::<JoinString>() {
        Ok(join) => Some(Some(join)),
        Err(why) => {
            let (code, help) = match why {
                JoinError::Newer => (Code::JOIN_NEWER, "update this program"),
                _ => (
                    Code::JOIN_DAMAGED,
                    "copy it whole from the edge: adit server --print-join",
                ),
            };
            let sentence = format!("`edge` is refused: {why}");
            document.complain(code, &given.place, &sentence, Some(help));
            None
        }
    }
}

/// The outer `None`: a mistake was recorded.
fn pin(document: &Document<'_>, section: &Section<'_>) -> Option<Option<SecretRef>> {
    let Some(given) = section.given(&keys::PIN) else {
        return (!section.is_given("pin")).then_some(None);
    };
    if let SecretRef::Literal(text) = &given.value
        && let Err(why) = Pin::parse(text)
    {
        let sentence = format!("`pin` is refused: {why}");
        let help = Some("print it on the edge: adit server --print-pin");
        document.complain(Code::BAD_PIN, &given.place, &sentence, help);
        return None;
    }
    Some(Some(document.settled(&given)))
}

/// The outer `None`: a mistake was recorded.
fn proxy(document: &Document<'_>, section: &Section<'_>) -> Option<Option<Proxy>> {
    let Some(given) = section.given(&keys::PROXY) else {
        return (!section.is_given("proxy")).then_some(None);
    };
    let text = document.reveal("proxy", &given)?;
    match text.trim().parse() {
        Ok(proxy) => Some(Some(proxy)),
        Err(why) => {
            let sentence = format!("`proxy` is not understood: {why}");
            let help = Some("write it like \"http://proxy.lan:3128\"");
            document.complain(Code::CONFIG_BAD_VALUE, &given.place, &sentence, help);
            None
        }
    }
}

fn number(section: &Section<'_>, key: &Key<Number>) -> Option<u32> {
    section.get(key)
}

fn log(section: &Section<'_>) -> Option<Log> {
    Some(Log {
        format: section.get(&LOG_FORMAT)?,
        level: section.get(&LOG_LEVEL)?,
    })
}
