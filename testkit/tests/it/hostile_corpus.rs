//! Thousands of requests that try to be somebody else's: the verdict is the API server's own audit log.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use drover_testkit::client::{Client, status};
use drover_testkit::hostile::{Allowed, FAMILIES, Family, Generator, Hostile};
use drover_testkit::process::until;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::system::{DEADLINE, Fleet, clusters, soon};

/// Of a run beside other tests; the variable asks for more.
const REQUESTS: usize = 4_500;
const REQUESTS_VARIABLE: &str = "DROVER_HOSTILE_REQUESTS";
const CLIENTS: usize = 16;
/// How long bytes behind a request are watched.
const QUIET: Duration = Duration::from_millis(60);
const SEED: u64 = 14;

/// What was sent, by its mark.
struct Sent {
    family: Family,
    allowed: Allowed,
    caller: String,
    status: Option<u16>,
}

/// Sends one and says with which status it was answered; none where the connection ended instead.
async fn send(client: &Client, hostile: &Hostile) -> Option<u16> {
    let mut stream = client.connect().await.ok()?;
    // Refused early, the rest cannot be written.
    if stream.write_all(&hostile.bytes).await.is_ok() {
        _ = stream.flush().await;
    }
    let (mut read, mut part) = (Vec::new(), vec![0; 16 << 10]);
    let mut wait = DEADLINE;
    while let Ok(Ok(count @ 1..)) = timeout(wait, stream.read(&mut part)).await {
        read.extend_from_slice(&part[..count]);
        wait = QUIET;
        let behind = [Family::Framing, Family::Upgrades, Family::Duplicates, Family::Trailers];
        if !behind.contains(&hostile.family) && read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            break;
        }
    }
    status(&String::from_utf8_lossy(&read)).ok()
}

/// The same over HTTP/2.
async fn send_http2(client: &Client, hostile: &Hostile) -> Option<u16> {
    let (sender, driver) = h2::client::handshake(client.connect().await.ok()?).await.ok()?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(driver));
    let mut request = http::Request::get(format!("https://localhost{}", hostile.path));
    for (name, value) in &hostile.fields {
        request = request.header(name, value);
    }
    let mut sender = sender.ready().await.ok()?;
    let (answer, _) = sender.send_request(request.body(()).ok()?, true).ok()?;
    let answer = timeout(DEADLINE, answer).await.ok()?.ok()?;
    drop(driver);
    Some(answer.status().as_u16())
}

async fn attack(fleet: &Fleet, requests: usize) -> HashMap<String, Sent> {
    // An id that is known, with a secret that is well formed and another's.
    let (_, strange) = fleet.viewer.token.rsplit_once('_').unwrap();
    let (known, _) = fleet.admin.token.rsplit_once('_').unwrap();
    let good = [("admin", fleet.admin.token.clone()), ("viewer", fleet.viewer.token.clone())];
    let bad = [("nobody", "drv_0123456789ab_nobody".to_owned()), ("nobody", format!("{known}_{strange}"))];
    let callers: Vec<_> =
        bad.into_iter().flat_map(|bad| good.iter().cloned().cycle().take(4).chain([bad])).collect();
    let mut generator = Generator::new(SEED, "/k8s/clusters/two");
    let mut made: Vec<Vec<(Hostile, String)>> = (0..CLIENTS).map(|_| Vec::new()).collect();
    for number in 0..requests {
        // By turns that no family has a share in.
        let (caller, token) = &callers[number / FAMILIES.len() % callers.len()];
        made[number % CLIENTS].push((generator.next(token), (*caller).to_owned()));
    }
    let mut clients = JoinSet::new();
    for mine in made {
        let client = Client::offering(&fleet.gateway, &[b"http/1.1"]).unwrap();
        let http2 = Client::offering(&fleet.gateway, &[b"h2"]).unwrap();
        clients.spawn(async move {
            let mut sent = Vec::new();
            for (hostile, caller) in mine {
                let status = match hostile.family {
                    Family::Http2 => send_http2(&http2, &hostile).await,
                    _ => send(&client, &hostile).await,
                };
                let Hostile { family, allowed, mark, .. } = hostile;
                sent.push((mark, Sent { family, allowed, caller, status }));
            }
            sent
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// The mark that a request carries, wherever in its URI.
fn mark(event: &Value) -> Option<&str> {
    let uri = event["requestURI"].as_str()?;
    let at = uri.find("hostile-")?;
    uri.get(at..at + "hostile-0000000".len())
}

fn complete(log: &str) -> impl Iterator<Item = Value> + '_ {
    let marked = log.lines().filter(|line| line.contains("hostile-") && line.contains("ResponseComplete"));
    marked.filter_map(|line| serde_json::from_str(line).ok())
}

/// Every file of the API server's, which begins a new one after 100 MB.
fn cluster_log() -> String {
    let newest = &clusters().two.plane.audit_log;
    let entries = std::fs::read_dir(newest.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("audit") && name.ends_with(".log")
    });
    logs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn names(of: &Value) -> Vec<&str> {
    of.as_array().map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect())
}

/// What is wrong with one request that the API server saw.
fn fault(theirs: &Value, ours: &HashMap<String, Value>, sent: &HashMap<String, Sent>) -> Option<String> {
    let Some(sent) = mark(theirs).and_then(|mark| sent.get(mark)) else {
        return Some("nobody sent it".to_owned());
    };
    let Some(ours) = theirs["auditID"].as_str().and_then(|id| ours.get(id)) else {
        return Some("the gateway has no record of it".to_owned());
    };
    let (seen, recorded) = (&theirs["impersonatedUser"], &ours["user"]);
    let mut groups = names(&seen["groups"]);
    groups.retain(|group| *group != "system:authenticated");
    let mut expected = names(&recorded["groups"]);
    expected.sort_unstable();
    groups.sort_unstable();
    let uri = ours["requestURI"].as_str().unwrap_or_default();
    let uri = uri.split_once("/k8s/clusters/two").map_or(uri, |(_, rest)| rest);
    match () {
        () if seen.is_null() => Some("it ran as the agent".to_owned()),
        () if seen["username"] != recorded["username"] || seen["uid"] != recorded["uid"] => {
            Some("it ran as another than the gateway recorded".to_owned())
        }
        () if groups != expected => Some(format!("groups {groups:?}, recorded {expected:?}")),
        () if seen["username"] != sent.caller.as_str() => {
            Some("it ran as another than the caller".to_owned())
        }
        () if sent.allowed == Allowed::Never => Some("it was never to arrive".to_owned()),
        () if theirs["requestURI"] != uri => Some(format!("the gateway decided about {uri}")),
        () => None,
    }
}

#[tokio::test]
async fn no_request_runs_as_anybody_but_its_caller() {
    let asked = std::env::var(REQUESTS_VARIABLE).ok().map(|count| count.parse().unwrap());
    let requests: usize = asked.unwrap_or(REQUESTS);
    let fleet = Fleet::start("hostile").await;
    let sent = attack(&fleet, requests).await;
    assert_eq!(sent.len(), requests);
    let of = |chosen: &dyn Fn(&Sent) -> bool| sent.values().filter(|sent| chosen(sent)).count();
    let succeeded = |sent: &Sent| sent.status.is_some_and(|status| status / 100 == 2 || status == 101);
    let good = of(&succeeded);
    // What succeeded is in both records, sooner or later.
    let recorded = until("both records", DEADLINE, async || {
        let cluster = cluster_log();
        let served = complete(&cluster).filter(|event| event["responseStatus"]["code"] == 200).count();
        let log = std::fs::read_to_string(fleet.gateway.audit_log())?;
        let ours: HashMap<_, _> =
            complete(&log).filter_map(|event| Some((event["auditID"].as_str()?.to_owned(), event))).collect();
        Ok((served >= good).then_some((cluster, ours)))
    });
    let (cluster, ours) = recorded.await.unwrap();
    let mut seen = BTreeMap::<Family, usize>::new();
    let mut faults = Vec::new();
    for theirs in complete(&cluster) {
        if let Some(sent) = mark(&theirs).and_then(|mark| sent.get(mark)) {
            *seen.entry(sent.family).or_default() += 1;
        }
        if let Some(fault) = fault(&theirs, &ours, &sent) {
            faults.push(format!("{fault}: {theirs:.600}"));
        }
    }
    println!(
        "{requests} requests, {good} answered 2xx or 101; of each family, those that the API server saw: {seen:?}"
    );
    assert!(faults.is_empty(), "{} faults, the first: {}", faults.len(), faults[0]);
    let wrong = of(&|sent| succeeded(sent) && sent.allowed == Allowed::Never);
    assert_eq!(wrong, 0, "answered, and never to arrive");
    assert!(good * 2 >= requests, "only {good} of {requests} were served: the corpus attacks nothing");
    for family in FAMILIES {
        let count = seen.get(&family).copied().unwrap_or_default();
        assert!(count * 100 >= requests, "{family:?}: {count}");
    }
    soon(fleet.connected("two")).await;
}
