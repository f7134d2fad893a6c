//! What the parts say to each other: resource kinds, the snapshot that control pushes, tokens, the
//! identity that travels in a stream's header, and their conversions into policy types.

pub mod assertion;
pub mod bootstrap;
pub mod enrolment;
pub mod headers;
pub mod identity;
pub mod impersonate;
pub mod kinds;
pub mod manifest;
pub mod openapi;
pub mod rest;
pub mod roster;
pub mod signed;
pub mod snapshot;
pub mod status;
pub mod sync;
pub mod texts;
pub mod token;
