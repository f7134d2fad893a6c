//! No request reaches another cluster than the one it names, or runs as anybody else.

use std::time::Duration;

use drover_api::kinds::{Domain, TokenScope};
use drover_testkit::process::until;
use tokio::task::JoinSet;

use crate::system::{DEADLINE, Fleet, clusters, soon};

/// Requests of each pair of user and cluster, at once.
const ROUNDS: usize = 20;
/// A query that the API server ignores, and writes into its audit log.
const MARK: &str = "isolation";

#[tokio::test]
async fn every_request_reaches_its_own_cluster_as_its_own_user() {
    let mut tokens = Vec::new();
    let fleet = Fleet::start_with("isolation", |roster| {
        // Each may look at one cluster, and each at another.
        let ann = roster.user("ann", &["local:group/a"]).unwrap();
        let bob = roster.user("bob", &["local:group/b"]).unwrap();
        roster.bind(&ann.principal, "cluster-owner", Domain::Cluster("c-one1".to_owned()));
        roster.bind("local:group/b", "cluster-viewer", Domain::Cluster("c-two2".to_owned()));
        tokens = vec![ann.token, bob.token];
    })
    .await;
    let client = fleet.client();
    let mut requests = JoinSet::new();
    for round in 0..ROUNDS {
        for (user, token, cluster, allowed) in [
            ("ann", &tokens[0], "one", true),
            ("ann", &tokens[0], "two", false),
            ("bob", &tokens[1], "one", false),
            ("bob", &tokens[1], "two", true),
        ] {
            let (client, token) = (client.clone(), token.clone());
            requests.spawn(async move {
                let path = format!("/api/v1/namespaces/default?{MARK}={user}-{round}");
                let (status, body) = client.get(cluster, &path, &token).await.unwrap();
                assert_eq!(status, if allowed { 200 } else { 403 }, "{user} {cluster}: {body}");
            });
        }
    }
    while let Some(ended) = soon(requests.join_next()).await {
        ended.unwrap();
    }
    for (cluster, user) in [(&clusters().one, "ann"), (&clusters().two, "bob")] {
        let served = until("the audit log", DEADLINE, async || {
            let served = cluster.audited(&format!("{MARK}="));
            Ok((served.len() >= ROUNDS).then_some(served))
        });
        let served = served.await.unwrap();
        assert_eq!(served.len(), ROUNDS, "each request reaches its cluster once");
        for event in served {
            assert!(event["requestURI"].as_str().unwrap().contains(&format!("{MARK}={user}-")), "{event}");
            assert_eq!(event["impersonatedUser"]["username"], user, "{event}");
            assert_eq!(event["impersonatedUser"]["uid"], format!("local:user/{user}"), "{event}");
            assert_eq!(
                event["user"]["username"], "system:serviceaccount:drover-system:drover-agent",
                "{event}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_is_good_where_its_scope_says_and_until_it_expires() {
    let mut tokens = Vec::new();
    let fleet = Fleet::start_with("scope", |roster| {
        let principal = "local:user/admin";
        let one = TokenScope::Clusters(vec!["c-one1".to_owned()]);
        tokens.push(roster.token(principal, one, Duration::from_secs(60)).unwrap());
        tokens.push(roster.token(principal, TokenScope::All, Duration::ZERO).unwrap());
    })
    .await;
    let client = fleet.client();
    let ask = async |cluster: &str, token: &str| {
        let (status, body) = client.get(cluster, "/version", token).await.unwrap();
        (status, body["details"]["causes"][0]["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("one", &tokens[0]).await.0, 200);
    assert_eq!(ask("two", &tokens[0]).await, (403, "TokenScope".to_owned()));
    assert_eq!(ask("one", &tokens[1]).await, (401, "TokenExpired".to_owned()));
    assert_eq!(ask("one", "drv_nonsense").await, (401, "CredentialMalformed".to_owned()));
    assert_eq!(ask("nowhere", &fleet.admin.token).await, (404, "ClusterUnknown".to_owned()));
}
