//! The tool broker: everything that judges, starts, watches and ends what a model asked for.
//!
//! Reading order: [`roles`] (which process am I), [`supervise`] (the small synchronous broker), [`wall`] (the
//! confinement: what can a tool do?), [`files`] (the file tools, in a worker that can do nothing else), [`tools`]
//! (names and arguments), [`audit`] (the log as it lies on disk), [`facts`] (what `doctor` has tried for it), [`wire`] (what our own processes say to each
//! other), [`sys`] (the only unsafe code).
//! There is no async runtime, no TLS, no HTTP and no provider key in this crate.
#![deny(unsafe_code)]

pub mod audit;
pub mod egress;
pub mod facts;
pub mod files;
pub mod roles;
pub mod supervise;
pub mod sys;
pub mod tools;
pub mod wall;
pub mod wire;
