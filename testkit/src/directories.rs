//! Real directories, each a server of the test's own.

mod github;
mod glewlwyd;
mod node;
mod oidc_provider;
mod openldap;
mod samba;

/// Set where their programs are not installed: `testkit/packages` says so.
pub const SKIP_VARIABLE: &str = "DROVER_NO_DIRECTORIES";

pub use github::Github;
pub use glewlwyd::Glewlwyd;
pub use oidc_provider::OidcProvider;
pub use openldap::OpenLdap;
pub use samba::Samba;
