//! The rules of ARCHITECTURE.md that dependencies can break, over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may name what: the packages that alone depend on it directly.
const OWNERS: [(&str, &[&str]); 8] = [
    ("axum", &["drover-control"]),
    ("casbin", &["drover-policy"]),
    ("h2", &["drover-testkit", "drover-tunnel"]),
    ("pingora", &["drover-gateway"]),
    ("quinn", &["drover-tunnel"]),
    ("quinn-proto", &["drover-tunnel"]),
    ("rusqlite", &["drover-control"]),
    ("tonic", &["drover-sync"]),
];
/// Second TLS stacks and providers, and what brings them.
const BANNED: [&str; 6] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "reqwest"];
/// One version each, no older than the one that mended what `security.md`'s peers shipped.
const FLOORS: [(&str, [u64; 3]); 3] =
    [("pingora-core", [0, 9, 1]), ("quinn-proto", [0, 11, 17]), ("rustls", [0, 23, 46])];
const DEPLOYABLES: [&str; 3] = ["drover-control", "drover-gateway", "drover-tunnel-agent"];
/// What each library of ours may use of ours.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("drover-api", &["drover-policy"]),
    // On people's machines, which need not be servers'.
    ("drover-cli", &["drover-api"]),
    ("drover-daemon", &[]),
    ("drover-enrol", &["drover-api", "drover-daemon"]),
    ("drover-policy", &[]),
    ("drover-sync", &["drover-api"]),
    ("drover-tunnel", &[]),
];
/// What a pure decision has no use for.
const IMPURE: [&str; 8] =
    ["futures-util", "hyper", "jiff", "k8s-openapi", "kube", "pingora", "tokio", "tracing"];

struct Graph {
    /// Direct dependencies of our packages, without those of tests.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// Every package that is built, with its versions.
    resolved: BTreeMap<String, BTreeSet<[u64; 3]>>,
}

fn graph() -> Graph {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let arguments = [
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ];
    let output =
        Command::new(env!("CARGO")).args(arguments).args(["--manifest-path", manifest]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = list(&metadata["packages"]);
    let members: BTreeSet<_> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let ours = packages.iter().filter(|package| members.contains(package["id"].as_str().unwrap()));
    let direct_of = |package: &Value| {
        let dependencies = list(&package["dependencies"]);
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        (text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect())
    };
    let built: BTreeSet<_> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
    let mut resolved = BTreeMap::<_, BTreeSet<_>>::new();
    for package in packages.iter().filter(|package| built.contains(package["id"].as_str().unwrap())) {
        resolved
            .entry(text(&package["name"]))
            .or_default()
            .insert(version(package["version"].as_str().unwrap()));
    }
    Graph { direct: ours.map(direct_of).collect(), resolved }
}

fn version(text: &str) -> [u64; 3] {
    let numbers = text.split(['-', '+']).next().unwrap().split('.').map(|part| part.parse().unwrap());
    numbers.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn each_engine_is_named_by_its_owner_alone() {
    for (package, dependencies) in &graph().direct {
        for (engine, owners) in OWNERS {
            let allowed = owners.contains(&package.as_str()) || !dependencies.contains(engine);
            assert!(allowed, "{package} depends on {engine}, which is {owners:?}'s");
        }
    }
}

#[test]
fn no_deployable_depends_on_another() {
    let graph = graph();
    for package in DEPLOYABLES {
        let others: Vec<_> =
            DEPLOYABLES.iter().filter(|other| graph.direct[package].contains(**other)).collect();
        assert!(others.is_empty(), "{package} depends on {others:?}");
    }
}

#[test]
fn libraries_depend_one_way() {
    let graph = graph();
    for (package, allowed) in LIBRARIES {
        let ours = graph.direct[package].iter().filter(|name| name.starts_with("drover-"));
        let extra: Vec<_> = ours.filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(extra.is_empty(), "{package} depends on {extra:?}");
    }
}

#[test]
fn the_policy_is_pure() {
    let graph = graph();
    let impure: Vec<_> =
        IMPURE.iter().filter(|name| graph.direct["drover-policy"].contains(**name)).collect();
    assert!(impure.is_empty(), "drover-policy depends on {impure:?}");
}

#[test]
fn there_is_one_tls_stack_with_one_provider() {
    let graph = graph();
    let banned: Vec<_> = BANNED.iter().filter(|name| graph.resolved.contains_key(**name)).collect();
    assert!(banned.is_empty(), "the workspace builds {banned:?}");
    for (package, floor) in FLOORS {
        let versions = &graph.resolved[package];
        assert!(
            versions.len() == 1 && versions.iter().all(|found| *found >= floor),
            "{package}: {versions:?}"
        );
    }
}

/// Every `file::test` of testkit/SECURITY.md.
#[test]
fn every_test_of_the_security_table_exists() {
    let mut tests = BTreeSet::new();
    let mut folders = vec![drover_testkit::process::repository()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(entry);
            } else if let Some(stem) = name.strip_suffix(".rs") {
                // `x/tests.rs` holds the tests of `x`.
                let above = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let file = if stem == "tests" { above } else { stem.to_owned() };
                let text = std::fs::read_to_string(&entry).unwrap();
                let named = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                tests.extend(named.map(|test| format!("{file}::{test}")));
            }
        }
    }
    let table = include_str!("../../SECURITY.md");
    let (_, rows) = table.split_once("|---|").unwrap();
    let named: Vec<_> = rows.split('`').skip(1).step_by(2).filter(|span| span.contains("::")).collect();
    assert!(named.len() > 40, "{}", named.len());
    let absent: Vec<_> = named.into_iter().filter(|test| !tests.contains(*test)).collect();
    assert!(absent.is_empty(), "{absent:?}");
}
