//! Fakes and fixtures for the end-to-end tests. What can run for real runs for real; a fake stands in only for a
//! vendor's cloud.

pub mod conversation;
pub mod corpus;
pub mod docker;
pub mod fixture;
pub mod gateway;
pub mod guest;
pub mod internet;
pub mod leftovers;
pub mod mail;
pub mod model_server;
pub mod peer;
pub mod podman;
pub mod processes;
pub mod telegram;
