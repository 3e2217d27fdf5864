//! Frames as they cross the wire, and the keys after the answer, derived from
//! the protocol page's formulas.

use serde_json::{Value, json};

use super::{World, direction, hex, private};
use crate::keys::{Secret, expand, extract, sha256, share_of, shared};
use crate::{Opener, Suite};

/// What crosses the wire in a handshake.
pub(super) struct Sent {
    pub(super) first: Vec<u8>,
    pub(super) answer: Vec<u8>,
    /// Edge's hello, agent's hello, PIN wanted, PIN proof.
    pub(super) proofs: [Vec<u8>; 4],
    pub(super) verdict: Vec<u8>,
    pub(super) auth_ok: Vec<u8>,
}

/// One frame and what is in it.
pub(super) struct Shown {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
    pub(super) frame: Vec<u8>,
}

impl Shown {
    pub(super) fn value(&self) -> Value {
        json!({ "type": self.kind, "body": hex(&self.body), "frame": hex(&self.frame) })
    }
}

pub(super) fn open(opener: &mut Opener, frame: &[u8]) -> Shown {
    let mut buffer = frame.to_vec();
    let opened = opener.open(&mut buffer).unwrap();
    Shown {
        kind: opened.kind.0,
        body: buffer[opened.payload].to_vec(),
        frame: frame.to_vec(),
    }
}

pub(super) fn entry(t: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    sha256(&[t, &length, bytes]).to_vec()
}

/// The keys after the answer, from the page's formulas.
pub(super) struct Derived {
    pub(super) t: Vec<u8>,
    pub(super) dh: Secret,
    pub(super) prk: Secret,
    pub(super) to_edge: Secret,
    pub(super) to_agent: Secret,
    pub(super) master: Secret,
}

impl Derived {
    pub(super) fn new(world: &World, first: &[u8], answer: &[u8]) -> Self {
        let t = sha256(&[b"adit/1 link transcript"]);
        let t = entry(&entry(&t, first), answer);
        let dh = shared(&private(5), &share_of(&private(7)).unwrap()).unwrap();
        let prk = extract(&t, &[dh.as_slice(), world.psk.bytes()]);
        Self {
            to_edge: expand(&prk, "adit/1 handshake agent to edge", &[]),
            to_agent: expand(&prk, "adit/1 handshake edge to agent", &[]),
            master: expand(&prk, "adit/1 master", &[]),
            t,
            dh,
            prk,
        }
    }

    pub(super) fn value(&self, sent: &Sent) -> Value {
        json!({
            "first_message": hex(&sent.first),
            "agent_share": hex(share_of(&private(5)).unwrap()),
            "edge_share": hex(share_of(&private(7)).unwrap()),
            "answer": hex(&sent.answer),
            "dh": hex(*self.dh),
            "prk": hex(*self.prk),
            "agent_to_edge": direction(&self.to_edge),
            "edge_to_agent": direction(&self.to_agent),
            "edge_finished": hex(*expand(&self.prk, "adit/1 edge finished", &[])),
            "agent_finished": hex(*expand(&self.prk, "adit/1 agent finished", &[])),
            "master": hex(*self.master),
        })
    }

    pub(super) fn opener(&self, suite: Suite, secret: &Secret) -> Opener {
        Opener::new(suite, **secret).unwrap()
    }
}
