//! The agent as users will have it: two pods inside the cluster.

use std::time::{Duration, Instant};

use drover_api::kinds::Domain;
use drover_testkit::control_plane::ControlPlane;
use drover_testkit::fleet::{Gateway, output};
use drover_testkit::image;
use drover_testkit::nodes;
use drover_testkit::process::until;
use drover_testkit::roster::Roster;
use tokio::task::JoinSet;

use crate::system::{DEADLINE, folder, soon};

const READERS: usize = 4;

#[tokio::test]
async fn one_of_two_agent_pods_goes_under_load_without_a_read_failing() {
    if let Err(reason) = nodes::possible() {
        return eprintln!("skipped: {reason}");
    }
    let folder = folder("deployment");
    let mut roster = Roster::new(&folder.join("snapshot.json"), &[("podded", "c-podded1")]);
    let admin = roster.user("admin", &[]).unwrap();
    roster.bind(&admin.principal, "admin", Domain::Global);
    roster.publish().unwrap();
    let mut gateway = Gateway::prepare(&folder, roster.path()).unwrap();
    let agent = folder.join("agent.tar");
    image::write_agent(&agent, &gateway.programs.agent).unwrap();
    let plane = ControlPlane::start_with_nodes("podded", &folder.join("cluster"), 1, &[agent]).await.unwrap();
    gateway.tunnel_host = plane.nodes_host().unwrap();
    let _running = gateway.start().await.unwrap();
    soon(gateway.deploy_agent(|| plane.kubectl(), "c-podded1")).await.unwrap();
    let client = drover_testkit::client::Client::new(&gateway).unwrap();
    let get = async || client.get("podded", "/api/v1/namespaces/default", &admin.token).await;
    until("requests to be served", DEADLINE, async || Ok((get().await?.0 == 200).then_some(())))
        .await
        .unwrap();

    let pods = ["-n", "drover-system", "get", "pods", "-o", "name"];
    let names = output(plane.kubectl().args(pods)).await.unwrap();
    let names: Vec<_> = names.lines().map(str::to_owned).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let until_then = Instant::now() + Duration::from_secs(6);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (client, token) = (client.clone(), admin.token.clone());
        readers.spawn(async move {
            let mut served = 0;
            while Instant::now() < until_then {
                let (status, body) =
                    client.get("podded", "/api/v1/namespaces/default", &token).await.unwrap();
                assert_eq!(status, 200, "{body}");
                served += 1;
            }
            served
        });
    }
    soon(output(plane.kubectl().args(["-n", "drover-system", "delete", "--wait=false", &names[0]])))
        .await
        .unwrap();
    let mut served = 0;
    while let Some(ended) = soon(readers.join_next()).await {
        served += ended.unwrap();
    }
    assert!(served > READERS * 10, "{served} reads");
    soon(output(plane.kubectl().args(["get", "--raw", "/livez"]))).await.unwrap();
    soon(plane.stop()).await.unwrap();
}
