//! Real Kubernetes, throwaway certificates and fleets of real processes, for the tests, the newcomer's
//! local fleet (`drover-local`) and comparison runs.

pub mod api_server;
pub mod client;
pub mod control_plane;
pub mod directories;
pub mod fleet;
pub mod floods;
pub mod hostile;
pub mod image;
pub mod installation;
pub mod keyring;
pub mod kubeconfig;
pub mod local;
pub mod nodes;
pub mod pki;
pub mod process;
pub mod roster;
