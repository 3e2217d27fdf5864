//! The program as its user meets it: what it prints, how it ends, what outlives
//! it, what it refuses, what never leaves it, and how it bears faults.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "code for tests alone, where a panic is how a test fails"
)]

mod carriers;
mod chaos;
mod codes;
mod controls;
mod demo;
mod doors;
mod forget;
mod https;
mod kill;
mod lab;
mod lines;
mod mistakes;
mod networks;
mod people;
mod private;
mod python;
mod rates;
mod ready;
mod restart;
mod secrets;
mod shared_name;
mod smuggling;
mod status;
mod status_agent;
mod stuck;
mod tcp;
mod udp;
mod words;
