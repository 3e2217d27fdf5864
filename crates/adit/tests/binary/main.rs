//! The program as its user meets it: what it prints, how it ends, what outlives
//! it, what it refuses, and what never leaves it.

mod doors;
mod lab;
mod mistakes;
mod people;
mod python;
mod ready;
mod restart;
mod secrets;
mod smuggling;
