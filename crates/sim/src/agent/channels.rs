//! The agent's data channels: dialled, and answering streams.

use std::time::Instant;

use adit_link_proto::{ProvedChannel, Purpose, Role};
use adit_model::{ConnId, PublicKey};
use adit_wire::{DataConnReady, FrameKind, Start};

use super::{Agent, State};
use crate::channel::{Frame, Sealed};
use crate::net::{Conn, Net, Side};

pub(super) enum Channel {
    /// The header is sent; the edge's 16 bytes are awaited.
    Dialled {
        made: ProvedChannel,
        for_visitor: Option<ConnId>,
        input: Vec<u8>,
    },
    Open {
        sealed: Box<Sealed>,
        stream: u32,
    },
}

impl Agent {
    pub(super) fn dial_channel(
        &mut self,
        for_visitor: Option<ConnId>,
        now: Instant,
        net: &mut Net,
    ) {
        let State::Live(link) = &mut self.state else {
            return;
        };
        let (number, random) = (link.next_number, self.rng.bytes());
        link.next_number += 1;
        let unix = self.clock.wall(now);
        let (header, made) = link
            .keys
            .channel_header(number, random, unix, Purpose::Streams);
        let conn = net.connect();
        net.send(conn, Side::Agent, &header, now);
        let input = Vec::new();
        link.heard.insert(conn, now);
        link.channels.insert(
            conn,
            Channel::Dialled {
                made,
                for_visitor,
                input,
            },
        );
    }

    pub(super) fn on_channel(&mut self, conn: Conn, bytes: &[u8], now: Instant, net: &mut Net) {
        let State::Live(link) = &mut self.state else {
            return;
        };
        let Some(channel) = link.channels.get_mut(&conn) else {
            return;
        };
        link.heard.insert(conn, now);
        let mut out = Vec::new();
        let done = match channel {
            Channel::Dialled {
                made,
                for_visitor,
                input,
            } => {
                input.extend_from_slice(bytes);
                let Some((edge_random, rest)) = input.split_first_chunk::<16>() else {
                    return;
                };
                match link.keys.channel(made, *edge_random, Role::Agent) {
                    Err(_) => Err(()),
                    Ok(pair) => {
                        let rest = rest.to_vec();
                        let mut sealed = Box::new(Sealed::new(pair));
                        if let Some(conn) = for_visitor {
                            let mut body = Vec::new();
                            DataConnReady { conn: *conn }.encode(&mut body);
                            sealed.seal(FrameKind::DATA_CONN_READY, 0, &body, &mut out);
                        }
                        let mut stream = 0;
                        let who = self.identity.public();
                        let done = serve(&mut sealed, &mut stream, &rest, who, &mut out);
                        *channel = Channel::Open { sealed, stream };
                        done
                    }
                }
            }
            Channel::Open { sealed, stream } => {
                serve(sealed, stream, bytes, self.identity.public(), &mut out)
            }
        };
        if done.is_ok() {
            net.send(conn, Side::Agent, &out, now);
        } else {
            self.drop_channel(conn, now, net);
        }
    }

    /// Closes a channel and dials another in its place.
    pub(super) fn drop_channel(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        if let State::Live(link) = &mut self.state {
            link.channels.remove(&conn);
            link.heard.remove(&conn);
        }
        net.close(conn, Side::Agent, now);
        self.dial_channel(None, now, net);
    }
}

/// Answers what came: each stream gets the agent's key and its own words back.
fn serve(
    sealed: &mut Sealed,
    stream: &mut u32,
    bytes: &[u8],
    who: PublicKey,
    out: &mut Vec<u8>,
) -> Result<(), ()> {
    for Frame {
        kind,
        stream: number,
        payload,
    } in sealed.open(bytes).map_err(|_| ())?
    {
        match kind {
            FrameKind::PING => sealed.seal(FrameKind::PONG, *stream, &[], out),
            FrameKind::START => {
                if stream.checked_add(1) != Some(number) || Start::decode(&payload).is_err() {
                    return Err(());
                }
                *stream = number;
                sealed.seal(FrameKind::ACCEPTED, number, &[], out);
            }
            _ if number != *stream => return Err(()),
            FrameKind::DATA => {
                let answer = [&who.0[..], &payload].concat();
                sealed.seal(FrameKind::DATA, number, &answer, out);
            }
            FrameKind::FIN => {
                sealed.seal(FrameKind::FIN, number, &[], out);
                sealed.seal(FrameKind::DONE, number, &[], out);
            }
            FrameKind::DONE => {}
            _ => return Err(()),
        }
    }
    Ok(())
}
