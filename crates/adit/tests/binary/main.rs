//! The program as its user meets it: what it prints, how it ends, what outlives
//! it, what it refuses, and what never leaves it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "code for tests alone, where a panic is how a test fails"
)]

mod codes;
mod doors;
mod forget;
mod lab;
mod mistakes;
mod people;
mod python;
mod ready;
mod restart;
mod secrets;
mod smuggling;
mod words;
