//! Calls over the wire, from a gateway that says what a test wants.

use axum::Extension;
use drover_api::kinds::{Cluster, Enrolment, Holder, Process};
use drover_api::snapshot::Document;
use drover_policy::ClusterId;
use drover_sync::{Code, Following};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::listener::Peer;
use crate::rest::tests::{Served, served};
use crate::routes::router;

const DEADLINE: Duration = Duration::from_secs(20);

struct Wire {
    following: Following,
    _server: AbortOnDropHandle<()>,
}

/// A call of a process, which has what it says.
async fn call(served: &Served, peer: Option<Process>, has: Option<Revision>) -> Result<Wire, Status> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let holder = peer.map(|process| Holder::new(process, ENROLMENT));
    if let Some(Holder { process, .. }) = &holder {
        enrol(served, process).await;
    }
    let service = TowerToHyperService::new(router(served.control.clone()).layer(Extension(Peer(holder))));
    let server = async move {
        let builder = auto::Builder::new(TokioExecutor::new());
        // The test's end of the wire ends it.
        drop(builder.serve_connection(TokioIo::new(theirs), service).await);
    };
    let server = AbortOnDropHandle::new(tokio::spawn(server));
    let hello = FromGateway::Hello { format: FORMAT, revision: has };
    let following = timeout(DEADLINE, drover_sync::follow(ours, hello)).await.unwrap()?;
    Ok(Wire { following, _server: server })
}

/// Of every process here.
const ENROLMENT: &str = "e1";

async fn enrol(served: &Served, process: &Process) {
    let now = Timestamp::now();
    let (id, process) = (ENROLMENT.to_owned(), process.clone());
    let enrolment = Enrolment { id, process, enrolled_at: now, renewed_at: now, keys: vec![] };
    served.control.objects.put(&enrolment, None).await.unwrap();
    drop(served.control.begin_write().await.unwrap());
}

fn gateway(name: &str) -> Option<Process> {
    Some(Process::Gateway(name.to_owned()))
}

impl Wire {
    async fn next(&mut self) -> Result<FromControl, Status> {
        timeout(DEADLINE, self.following.next()).await.unwrap()
    }

    async fn whole(&mut self) -> Document {
        let mut text = String::new();
        loop {
            match self.next().await.unwrap() {
                FromControl::Chunk { text: part, last } => {
                    text.push_str(&part);
                    if last {
                        return Document::parse(text.as_bytes()).unwrap();
                    }
                }
                FromControl::Delta(delta) => panic!("the whole state was expected: {delta:?}"),
            }
        }
    }

    async fn delta(&mut self) -> Box<Delta> {
        match self.next().await.unwrap() {
            FromControl::Delta(delta) => delta,
            FromControl::Chunk { .. } => panic!("a delta was expected"),
        }
    }

    async fn applied(&self, revision: Revision) {
        self.following.answer(FromGateway::Applied { revision }).await.unwrap();
    }

    async fn refuses(&self, revision: Revision) {
        let problem = "because".to_owned();
        self.following.answer(FromGateway::Refused { revision, problem }).await.unwrap();
    }
}

fn published(served: &Served) -> Revision {
    served.control.snapshots.published().borrow().revision
}

async fn change(served: &Served, name: &str) -> Revision {
    let cluster = Cluster {
        name: name.to_owned(),
        id: format!("c-{name}"),
        projects: Default::default(),
        groups_listed: None,
    };
    let revision = served.control.objects.create(&cluster, None).await.unwrap().metadata.revision;
    let mut published = served.control.snapshots.published();
    timeout(DEADLINE, published.wait_for(|published| published.revision >= revision)).await.unwrap().unwrap();
    revision
}

#[tokio::test]
async fn a_gateway_gets_the_whole_state_then_what_changed_and_is_waited_for() {
    let served = served().await;
    change(&served, "first").await;
    let mut wire = call(&served, gateway("g"), None).await.unwrap();
    let whole = wire.whole().await;
    wire.applied(whole.revision).await;
    let revision = change(&served, "three").await;
    let mut delta = wire.delta().await;
    assert_eq!(delta.from, whole.revision);
    while delta.revision < revision {
        // That a gateway follows is a change as well, of nothing that gateways see.
        assert!(delta.clusters.is_empty());
        wire.applied(delta.revision).await;
        delta = wire.delta().await;
    }
    assert_eq!(delta.clusters.put.len(), 1);

    let gateways = served.control.gateways.clone();
    let waiting = tokio::spawn(async move { gateways.wait_applied(revision, DEADLINE).await });
    assert!(!waiting.is_finished());
    wire.applied(delta.revision).await;
    assert_eq!(timeout(DEADLINE, waiting).await.unwrap().unwrap(), Vec::<String>::new());

    let next = change(&served, "four").await;
    wire.delta().await;
    let late = served.control.gateways.wait_applied(next, Duration::from_millis(1)).await;
    assert_eq!(late, ["g"], "what it was sent it has not applied");
    drop(wire);
    let late = served.control.gateways.wait_applied(next, Duration::from_millis(1)).await;
    assert_eq!(late, ["g"], "it may serve from what it has");
}

#[tokio::test]
async fn a_gap_or_a_refused_delta_gets_the_whole_state_and_a_refused_whole_state_the_end() {
    let served = served().await;
    change(&served, "three").await;
    let ahead = published(&served) + 100;
    let mut wire = call(&served, gateway("ahead"), Some(ahead)).await.unwrap();
    assert!(wire.whole().await.revision < ahead);

    let mut wire = call(&served, gateway("refuses"), Some(published(&served))).await.unwrap();
    let delta = wire.delta().await;
    wire.refuses(delta.revision).await;
    let whole = wire.whole().await;
    wire.refuses(whole.revision).await;
    assert_eq!(wire.next().await.unwrap_err().code(), Code::FailedPrecondition);

    let mut wire = call(&served, gateway("talks"), Some(published(&served))).await.unwrap();
    wire.delta().await;
    wire.applied(7_000_000).await;
    assert_eq!(wire.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_a_gateways_certificate_may_follow() {
    let served = served().await;
    for peer in [None, Some(Process::Agent(ClusterId::parse("c-1").unwrap()))] {
        let refused = match call(&served, peer, None).await {
            Err(status) => status,
            Ok(mut wire) => wire.next().await.unwrap_err(),
        };
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn gateways_of_before_a_restart_are_named_until_they_follow() {
    let served = served().await;
    let mut wire = call(&served, gateway("g"), None).await.unwrap();
    let whole = wire.whole().await;
    wire.applied(whole.revision).await;
    let again = Gateways::load(
        served.control.objects.clone(),
        served.control.uses.clone(),
        DEADLINE,
        CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(again.wait_applied(1, Duration::from_millis(1)).await, ["g"]);
}

#[tokio::test]
async fn regression_a_gateway_that_is_gone_for_good_is_forgotten_by_a_word_and_costs_little_until_then() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", drover_api::kinds::Domain::Global)]).await;
    let owner = served.user("owner", &[("cluster-owner", drover_api::kinds::Domain::Global)]).await;
    let mut wire = call(&served, gateway("g"), None).await.unwrap();
    let whole = wire.whole().await;
    wire.applied(whole.revision).await;
    let gateways = served.control.gateways.clone();
    let follows =
        async || served.ask(&admin, "GET", "/v1/gateways", None).await.1["items"][0]["gone_s"].is_null();
    assert!(follows().await);
    drop(wire);
    while follows().await {
        tokio::task::yield_now().await;
    }
    let revision = change(&served, "three").await;
    // With the clock stopped, what is waited for is what there is a limit for.
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    assert_eq!(gateways.wait_applied(revision, DEADLINE).await, ["g"]);
    assert!(begin.elapsed() <= GONE_AWAITED_FOR * 2, "{:?}", begin.elapsed());
    tokio::time::resume();
    assert_eq!(served.ask(&owner, "DELETE", "/v1/gateways/g", None).await.0, 403);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/gateways/g", None).await.0, 200);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/gateways/g", None).await.0, 404);
    assert_eq!(gateways.wait_applied(revision, DEADLINE).await, Vec::<String>::new());
    assert!(served.control.objects.list::<kept::Gateway>().await.unwrap().is_empty());
}

#[tokio::test]
async fn regression_a_gateway_whose_enrolment_is_deleted_follows_no_more() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", drover_api::kinds::Domain::Global)]).await;
    let owner = served.user("owner", &[("cluster-owner", drover_api::kinds::Domain::Global)]).await;
    for path in ["/v1/enrolments/e1", "/v1/gateways/g"] {
        let mut wire = call(&served, gateway("g"), None).await.unwrap();
        let whole = wire.whole().await;
        assert!(whole.enrolments.as_ref().unwrap().contains(ENROLMENT));
        wire.applied(whole.revision).await;
        let (_, enrolments) = served.ask(&admin, "GET", "/v1/enrolments", None).await;
        assert_eq!(enrolments["items"][0]["spec"]["process"], "gateway/g");
        assert_eq!(served.ask(&owner, "GET", "/v1/enrolments", None).await.1["items"], serde_json::json!([]));
        assert_eq!(served.ask(&owner, "DELETE", "/v1/enrolments/e1", None).await.0, 404);
        let ended = async {
            loop {
                match wire.next().await {
                    Ok(FromControl::Delta(delta)) => wire.applied(delta.revision).await,
                    Ok(FromControl::Chunk { .. }) => panic!("a delta was expected"),
                    Err(status) => return status,
                }
            }
        };
        let (ended, (code, answer)) =
            futures_util::future::join(ended, served.ask(&admin, "DELETE", path, None)).await;
        assert_eq!((code, ended.code()), (200, Code::PermissionDenied), "{path}: {answer}");
        let service = call_without_enrolling(&served, gateway("g")).await;
        assert_eq!(service.err().unwrap().code(), Code::PermissionDenied);
    }
    assert!(served.control.gateways.list().is_empty());
}

async fn call_without_enrolling(served: &Served, peer: Option<Process>) -> Result<Wire, Status> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let holder = peer.map(|process| Holder::new(process, ENROLMENT));
    let service = TowerToHyperService::new(router(served.control.clone()).layer(Extension(Peer(holder))));
    let server = async move {
        drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(theirs), service).await);
    };
    let server = AbortOnDropHandle::new(tokio::spawn(server));
    let hello = FromGateway::Hello { format: FORMAT, revision: None };
    let following = timeout(DEADLINE, drover_sync::follow(ours, hello)).await.unwrap()?;
    Ok(Wire { following, _server: server })
}
