//! Control: what is kept, who may enrol, and what gateways serve from.

pub mod config;
pub mod run;

pub mod store;

pub mod seal;

pub mod objects;

pub mod passwords;

pub mod authority;

pub mod enrolment;

pub mod placed;

pub mod authorizer;

pub mod signer;
pub mod snapshots;

pub mod gateways;

mod attempts;
mod bootstrap;
mod console;
mod devices;
mod group_names;
mod issuers;
mod listener;
mod people;
mod providers;
mod refresh;
mod renewals;
mod rest;
mod routes;
mod sweep;
mod uses;
