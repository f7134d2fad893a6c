//! Real directories, each a server of the test's own.

use std::path::{Path, PathBuf};

use anyhow::ensure;

mod glewlwyd;
mod oidc_provider;
mod openldap;
mod samba;

/// Set where their programs are not installed: `testkit/packages` says so.
pub const SKIP_VARIABLE: &str = "DROVER_NO_DIRECTORIES";

pub use glewlwyd::Glewlwyd;
pub use oidc_provider::OidcProvider;
pub use openldap::OpenLdap;
pub use samba::Samba;

/// The folder of those that are programs of Node's, with their packages.
fn node() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
    ensure!(folder.join("node_modules").is_dir(), "their packages are missing: testkit/packages install");
    Ok(folder)
}
