//! The tool broker: everything that judges, starts, watches and ends what a model asked for.
//!
//! Reading order: [`roles`] (which process am I), [`supervise`] (the small synchronous broker), [`wall`] (the
//! confinement: what can a tool do?), [`files`] (the file tools, in a worker that can do nothing else), [`tools`]
//! (names and arguments), [`egress`] (the way out of a call that has one), [`audit`] (the log as it lies on disk),
//! [`fetcher`] (starts the fetch worker), [`facts`] (what `doctor` has tried for it), [`wire`] (what our own processes say to each
//! other), [`sys`] (the only unsafe code), `idle` (giving back memory),
//! [`notify`] (what a service manager is told).
//! There is no async runtime, no TLS, no HTTP but for the heads an egress reads, and no provider key in this crate.
#![deny(unsafe_code)]

pub mod audit;
pub mod egress;
pub mod facts;
pub mod fetcher;
pub mod files;
mod idle;
pub mod notify;
pub mod roles;
pub mod shell;
pub mod supervise;
pub mod sys;
pub mod tools;
pub mod wall;
pub mod wire;
