//! Whole-system tests, in one binary.

#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not cover their helpers")]

mod agent;
mod architecture;
mod audit;
mod browser;
mod bursts;
mod console;
mod control;
mod control_plane;
mod deployment;
mod directories;
mod failures;
mod floods;
mod groups;
mod hostile_corpus;
mod hostile_gateway;
mod http2;
mod isolation;
mod jwts;
mod keyring;
mod kubectl;
mod kubectl_matrix;
mod loadtest;
mod local;
mod logins;
mod members;
mod nodes;
mod operations;
mod pods;
mod providers;
mod references;
mod request_path;
mod revocation;
mod streams;
mod system;
mod upgrades;
mod wire;
