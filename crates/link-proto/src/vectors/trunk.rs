//! Vectors of a trunk and its lines.

use adit_wire::{FrameKind, Piece, PieceKind};
use serde_json::{Value, json};

use super::derived::open;
use super::{Live, UNIX, World, data, direction, hex};
use crate::keys::{Secret, expand};
use crate::{First, Opener, Purpose, Role, SessionKeys};

impl World {
    /// The same connection as a trunk: its header, the keys of line 3, and
    /// what may stand on it.
    pub(super) fn trunk(
        &self,
        live: &Live,
        prk: &Secret,
        (number, epoch): (u64, u32),
        (agent_random, edge_random): ([u8; 16], [u8; 16]),
    ) -> Value {
        const LINE: u32 = 3;
        let (agent, edge) = (&live.agent.keys, &live.edge.keys);
        let (header, made) = agent.channel_header(number, agent_random, UNIX, Purpose::Trunk);
        let proved = edge.prove_channel(&First::parse(&header)).unwrap();
        assert_eq!(proved, made);
        let context = |line: u32| {
            let (number, epoch) = (number.to_be_bytes(), epoch.to_be_bytes());
            [&number[..], &epoch, &line.to_be_bytes()].concat()
        };
        let step = |prk: Secret, line| expand(&prk, "adit/1 next line", &[&context(line)]);
        let prk = (1..LINE).fold(prk.clone(), step);
        let to_edge = expand(&prk, "adit/1 line agent to edge", &[&context(LINE)]);
        let to_agent = expand(&prk, "adit/1 line edge to agent", &[&context(LINE)]);
        let lines = |keys: &SessionKeys, role| {
            let mut trunk = keys.trunk(&made, edge_random).unwrap();
            for _ in 1..LINE {
                trunk.next_line(role).unwrap();
            }
            let (line, pair) = trunk.next_line(role).unwrap();
            assert_eq!(line, LINE);
            pair
        };
        let (mut agent_seals, _) = lines(agent, Role::Agent);
        let (mut edge_seals, _) = lines(edge, Role::Edge);
        let (up, down) = (data(&mut agent_seals), data(&mut edge_seals));
        for (secret, frame) in [(&to_edge, &up), (&to_agent, &down)] {
            let mut opener = Opener::new(self.suite, **secret).unwrap();
            assert_eq!(open(&mut opener, frame).kind, FrameKind::DATA.0);
        }
        let mut pieces = Vec::new();
        for (kind, line, count) in [
            (PieceKind::Open, LINE, 0),
            (PieceKind::Ping, 0, 0),
            (PieceKind::Pong, 0, 0),
            (PieceKind::Credit, LINE, 64),
            (PieceKind::Data, LINE, u16::try_from(up.len()).unwrap()),
            (PieceKind::Close, LINE, 0),
        ] {
            pieces.extend(Piece { kind, line, count }.bytes());
            if kind == PieceKind::Data {
                pieces.extend(&up);
            }
        }
        json!({
            "header": hex(header),
            "line": LINE,
            "agent_to_edge": direction(&to_edge),
            "edge_to_agent": direction(&to_agent),
            "agent_frame": hex(&up),
            "edge_frame": hex(&down),
            "pieces": hex(&pieces),
        })
    }
}
