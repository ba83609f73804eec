//! OxiBot's main process: the command line, the configuration, providers and the agent loop.
//!
//! It holds the secrets and talks to the world; it starts no program, opens no file of a workspace and decides nothing
//! about what a tool may do. All of that is asked of the toolhost over one socket.
#![forbid(unsafe_code)]

pub mod agent;
mod backoff;
pub mod broker;
pub mod channels;
pub mod cli;
pub mod commands;
pub mod config;
pub mod confine;
pub mod demo;
pub mod exit;
pub mod explain;
pub mod gateway;
pub mod launch;
pub mod logging;
pub mod model;
pub mod provider;
pub mod redaction;
pub mod render;
pub mod repl;
pub mod store;
mod trust;
