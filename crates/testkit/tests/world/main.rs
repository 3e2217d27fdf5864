//! End to end: real sockets, real peers, an edge and its agents in this
//! process.

mod agents;
mod compressed;
mod controls;
mod http;
mod https;
mod https_faults;
mod link;
mod network;
mod odd;
mod peers;
mod private;
mod rules;
mod tcp;
mod tcp_faults;
mod udp;
mod uploads;
