//! Sessions between real endpoints over loopback.

mod certificates;
mod limits;
mod sessions;
mod streams;
mod support;
