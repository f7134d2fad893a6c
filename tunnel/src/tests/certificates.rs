//! Who may hold a session.

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use super::support::{AGENT, Authority, GATEWAY, SERVER_NAME, loopback, soon};
use crate::{Dialer, Limits, Listener, Tls};

/// Whether a session comes up between the two; a dialer may learn of a refusal only after its own handshake.
async fn check(gateway: &Tls, agent: &Tls, server_name: &str, expected: bool) {
    let listener = Listener::bind(loopback(), gateway, Limits::default()).unwrap();
    let dialer = Dialer::new(agent, Limits::default()).unwrap();
    let dialled = soon(dialer.dial(listener.local_addr().unwrap(), server_name)).await;
    assert_eq!(dialled.is_ok(), expected, "{dialled:?}");
    if expected {
        assert_eq!(soon(listener.accept()).await.unwrap().peer().as_str(), "cluster/c-1/agent");
        assert_eq!(dialled.unwrap().peer().as_str(), "gateway/g1");
    }
}

#[tokio::test]
async fn certificates_of_one_authority_make_a_session() {
    let authority = Authority::new();
    check(&authority.gateway(), &authority.agent(), SERVER_NAME, true).await;
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    check(&ours.gateway(), &theirs.agent(), SERVER_NAME, false).await;
    check(&ours.gateway(), &theirs.tls_that_trusts(&[AGENT], ClientAuth, ours.root()), SERVER_NAME, false)
        .await;
    check(&theirs.tls_that_trusts(&[GATEWAY], ServerAuth, ours.root()), &ours.agent(), SERVER_NAME, false)
        .await;
}

#[tokio::test]
async fn a_certificate_for_the_other_use_is_refused() {
    let authority = Authority::new();
    check(&authority.gateway(), &authority.tls(&[AGENT], ServerAuth), SERVER_NAME, false).await;
    check(&authority.tls(&[GATEWAY], ClientAuth), &authority.agent(), SERVER_NAME, false).await;
}

#[tokio::test]
async fn a_certificate_with_no_name_or_two_is_refused() {
    let authority = Authority::new();
    check(&authority.gateway(), &authority.tls(&[], ClientAuth), SERVER_NAME, false).await;
    let two = authority.tls(&[AGENT, "spiffe://drover/cluster/c-2/agent"], ClientAuth);
    check(&authority.gateway(), &two, SERVER_NAME, false).await;
    check(
        &authority.gateway(),
        &authority.tls(&["https://drover/cluster/c-1/agent"], ClientAuth),
        SERVER_NAME,
        false,
    )
    .await;
}

#[tokio::test]
async fn a_gateway_of_another_name_is_refused() {
    let authority = Authority::new();
    check(&authority.gateway(), &authority.agent(), "elsewhere.drover", false).await;
}
