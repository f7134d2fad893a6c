//! Every kubectl of the last years: what it prints through the gateway is what it prints directly.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;

use drover_testkit::control_plane::ControlPlane;
use drover_testkit::image::BUSYBOX;
use regex::Regex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::pods::noded;
use crate::system::{Fleet, clusters, soon};

/// Where `deploy/local/kubernetes/kubectls` put them; `./test` sets it.
const VERSIONS_VARIABLE: &str = "DROVER_KUBECTLS";

const OBJECTS: &str = r#"
{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"in-matrix"},"data":{"key":"zoë"}}
{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"in-matrix"},"spec":{"replicas":0,
 "selector":{"matchLabels":{"app":"in-matrix"}},"template":{"metadata":{"labels":{"app":"in-matrix"}},
 "spec":{"containers":[{"name":"a","image":"b"}]}}}}
"#;
/// In this order, and all of it undone at the end.
const COMMANDS: [&str; 37] = [
    "version",
    "cluster-info",
    "api-versions",
    "api-resources --sort-by=name",
    "explain deployment.spec.strategy",
    "explain pods --output=plaintext-openapiv2",
    "create namespace in-matrix",
    "apply -n in-matrix -f -",
    "apply -n in-matrix -f -",
    "diff -n in-matrix -f -",
    "apply -n in-matrix --server-side --force-conflicts -f -",
    "get -n in-matrix deployments,configmaps -o wide",
    "get -n in-matrix configmap in-matrix -o yaml",
    "get -n in-matrix configmap in-matrix -o json",
    "get -n in-matrix configmap in-matrix -o jsonpath={.data.key}",
    "get -n in-matrix configmaps -o name --chunk-size=1",
    "get -n in-matrix deployment in-matrix --show-managed-fields -o name",
    "get -n in-matrix configmap absent",
    "get nonsense",
    "describe -n in-matrix configmap in-matrix",
    "label -n in-matrix configmap in-matrix a=b",
    "annotate -n in-matrix configmap in-matrix a=b",
    "patch -n in-matrix configmap in-matrix --type=json --patch='[{\"op\":\"remove\",\"path\":\"/data/key\"}]'",
    "scale -n in-matrix deployment in-matrix --replicas=0",
    "set image -n in-matrix deployment in-matrix a=c",
    "rollout history -n in-matrix deployment in-matrix",
    "rollout status -n in-matrix deployment in-matrix --timeout=30s",
    "create -n in-matrix configmap in-matrix",
    "replace -n in-matrix -f -",
    "create -n in-matrix secret generic in-matrix --from-literal=a=b --dry-run=server -o name",
    "wait -n in-matrix deployment in-matrix --for=jsonpath={.spec.replicas}=0 --timeout=30s",
    "auth can-i delete nodes",
    "auth can-i --list",
    "get --raw '/readyz?verbose'",
    "get --raw '/api/v1/namespaces/in-matrix/configmaps?limit=nonsense'",
    "get events -n in-matrix --field-selector=type=Nothing",
    "delete namespace in-matrix",
];
const COMMANDS_ON_A_POD: [&str; 7] = [
    "get pod in-matrix -o jsonpath={.status.phase}",
    "exec in-matrix -- sh -c 'echo out; exit 7'",
    "exec -i in-matrix -- wc -c",
    "exec in-matrix -- /absent",
    "logs in-matrix",
    "logs in-matrix -c absent",
    "delete pod in-matrix --now",
];

/// What the gateway says where a path has no cluster in it.
const NO_CLUSTER: &str = "no cluster is named: use /k8s/clusters/<name>/...";

/// kubectl up to 1.33 leaves the server's own path out of `--raw`: it needs a host name for each cluster.
fn drops_the_prefix(kubectl: &str, command: &str) -> bool {
    kubectl == "kubectl-1.33" && command.starts_with("get --raw")
}

fn kubectls() -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os(VERSIONS_VARIABLE) else {
        eprintln!("skipped: {VERSIONS_VARIABLE} is not set, ./test sets it");
        return Vec::new();
    };
    let programs = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut programs: Vec<_> = programs.collect();
    programs.sort();
    programs
}

/// Runs one kubectl, with a command as a shell reads it.
async fn run(program: &Path, kubeconfig: &Path, more: &[&str], command: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {command}")).arg(program).args(more);
    shell.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", kubeconfig.with_extension("cache"));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut running = shell.spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    // Most commands do not read it.
    _ = input.write_all(OBJECTS.as_bytes()).await;
    drop(input);
    soon(running.wait_with_output()).await.unwrap()
}

/// What lasts of what kubectl said: nothing of the moment, and no address.
fn lasting(output: &Output, server: &str) -> String {
    static OF_THE_MOMENT: LazyLock<Regex> = LazyLock::new(|| {
        let container = "[0-9a-f]{64}";
        let uid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";
        let time = r"\d{4}-\d\d-\d\dT[0-9:.]+Z|\w{3}, \d\d \w{3} \d{4} [0-9:]+ \S+";
        let version = r#"(resourceVersion"?: *"?|generation: )\d+"#;
        // In columns, whose width is that of what is in them.
        let age = r"\b\d+(\.\d+)?(ms|s|m|h)\b *";
        let differ = "(LIVE|MERGED)-[0-9]+";
        // kubectl's own log lines begin with the time and the number of its process.
        let logged = r"(?m)^[EWI]\d{4} [0-9:.]+ +\d+ ";
        Regex::new(&[container, uid, time, version, age, differ, logged].join("|")).unwrap()
    });
    let text = format!(
        "{:?}\n{}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    OF_THE_MOMENT.replace_all(&text.replace(server, "SERVER"), "*").into_owned()
}

async fn compare(fleet: &Fleet, plane: &ControlPlane, cluster: &str, commands: &[&str]) {
    let through = fleet.gateway.kubeconfig(&fleet.admin, &[cluster]).unwrap();
    let acting = ["--as=admin", "--as-group=drover:cluster-owner", "--as-group=local:group/platform"];
    let mut differences = Vec::new();
    for program in kubectls() {
        // One after the other: the second finds what the first did not undo.
        let mut said = Vec::new();
        for (kubeconfig, more, server) in [
            (&plane.admin_kubeconfig, &acting[..], plane.server.url.clone()),
            (&through, &[][..], fleet.gateway.cluster_url(cluster)),
        ] {
            if commands == COMMANDS_ON_A_POD {
                let image =
                    format!("run in-matrix --restart=Never --image-pull-policy=Never --image={BUSYBOX}");
                run(&program, &plane.admin_kubeconfig, &[], &image).await;
                let wait = "wait pod in-matrix --for=condition=Ready --timeout=50s";
                assert!(run(&program, &plane.admin_kubeconfig, &[], wait).await.status.success());
            }
            let mut each = Vec::new();
            for command in commands {
                each.push(lasting(&run(&program, kubeconfig, more, command).await, &server));
            }
            said.push(each);
        }
        for (number, command) in commands.iter().enumerate() {
            let (direct, through) = (&said[0][number], &said[1][number]);
            let name = program.file_name().unwrap().to_string_lossy();
            if direct != through && !(drops_the_prefix(&name, command) && through.contains(NO_CLUSTER)) {
                differences.push(format!("{name} {command}\n{direct:.1500}\n--- through:\n{through:.1500}"));
            }
        }
        println!("{}: {} commands compared", program.display(), commands.len());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[tokio::test]
async fn every_kubectl_prints_what_it_prints_directly() {
    let fleet = Fleet::start("matrix").await;
    compare(&fleet, &clusters().two.plane, "two", &COMMANDS).await;
}

#[tokio::test]
async fn every_kubectl_works_with_pods_as_it_does_directly() {
    let Some(noded) = noded() else { return };
    let fleet = Fleet::in_front_of("matrix-pods", &[&noded.target], |_| {}).await;
    compare(&fleet, &noded.plane, "noded", &COMMANDS_ON_A_POD).await;
}
