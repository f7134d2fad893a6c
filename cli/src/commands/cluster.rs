//! Clusters.

use std::path::Path;

use anyhow::{Context, bail};
use drover_api::enrolment::GATEWAY_NAME;
use drover_api::kinds::{self, Object, Process, RegistrationToken};
use drover_api::manifest;
use drover_api::rest::{CreateCluster, CreateRegistrationToken};
use serde_json::Value;

use super::agent::Agent;
use crate::args::{Cluster, Import, Output};
use crate::client::Client;
use crate::config::Kept;
use crate::files;
use crate::output::{Columns, print};

const COLUMNS: Columns<Object<kinds::Cluster>> = (&["NAME", "ID", "CREATED"], row);

pub(super) fn run(kept: &Kept, command: Cluster, output: Output) -> anyhow::Result<()> {
    let client = Client::new(&kept.config)?;
    match command {
        Cluster::Create { name } => {
            let created = client.create::<kinds::Cluster>(&CreateCluster { name: name.clone() })?;
            print(output, &[created.object], COLUMNS)?;
            if output == Output::Table {
                println!("Next: drover cluster import {name} | kubectl apply -f -");
            }
            Ok(())
        }
        Cluster::List => print(output, &client.list::<kinds::Cluster>()?, COLUMNS),
        Cluster::Agents { delete: Some(id), .. } => {
            client.delete::<kinds::Enrolment>(&id)?;
            println!("Ended: its sessions are closed, and it takes a new registration token to come back.");
            Ok(())
        }
        Cluster::Agents { name, delete: None } => agents(&client, name.as_deref(), output),
        Cluster::Delete { name } => {
            client.delete::<kinds::Cluster>(&name)?;
            println!(
                "Cluster {name} forgotten. What its agent was given is left there: kubectl delete namespace {}",
                manifest::NAMESPACE
            );
            Ok(())
        }
        Cluster::Import(import) => {
            if let Some(kubeconfig) = &import.kubeconfig {
                return run_agent(kept, &client, &import, kubeconfig);
            }
            let text = serde_json::to_string_pretty(&objects(kept, &client, &import)?)?;
            println!("{text}");
            Ok(())
        }
    }
}

const AGENTS: Columns<Object<kinds::Enrolment>> = (&["ID", "CLUSTER", "ENROLLED", "RENEWED"], agent_row);

fn agents(client: &Client, name: Option<&str>, output: Output) -> anyhow::Result<()> {
    let cluster = name.map(|name| client.read::<kinds::Cluster>(name)).transpose()?;
    let mut enrolments = client.list::<kinds::Enrolment>()?;
    enrolments.retain(|enrolment| match (&enrolment.spec.process, &cluster) {
        (Process::Agent(id), Some(cluster)) => id.as_str() == cluster.spec.id,
        (Process::Agent(_), None) => true,
        (Process::Gateway(_), _) => false,
    });
    print(output, &enrolments, AGENTS)
}

fn agent_row(enrolment: &Object<kinds::Enrolment>) -> Vec<String> {
    let spec = &enrolment.spec;
    let cluster = match &spec.process {
        Process::Agent(cluster) => cluster.to_string(),
        Process::Gateway(_) => String::new(),
    };
    vec![spec.id.clone(), cluster, spec.enrolled_at.to_string(), spec.renewed_at.to_string()]
}

fn run_agent(kept: &Kept, client: &Client, import: &Import, kubeconfig: &Path) -> anyhow::Result<()> {
    let (server, gateways) = addresses(kept, import)?;
    let state = match &import.state {
        Some(state) => state.clone(),
        None => files::folder("XDG_DATA_HOME", ".local/share")?.join("agents").join(&import.name),
    };
    // Refused here rather than by the path above.
    client.read::<kinds::Cluster>(&import.name)?;
    let agent = Agent {
        cluster: &import.name,
        kubeconfig,
        state,
        server,
        gateways,
        impersonation: impersonation(import),
    };
    agent.run(client, || registration_token(client, &import.name))
}

/// Everything that the cluster needs, as one list.
fn objects(kept: &Kept, client: &Client, import: &Import) -> anyhow::Result<Value> {
    let (server, gateways) = addresses(kept, import)?;
    let token = registration_token(client, &import.name)?;
    let agent = manifest::agent(&manifest::Agent {
        image: import.image.clone(),
        gateways,
        gateway_name: GATEWAY_NAME.to_owned(),
        server,
        token,
    });
    let mut list = manifest::rbac(impersonation(import));
    let items = list["items"].as_array_mut().context("the roles are no list")?;
    items.extend(agent["items"].as_array().cloned().unwrap_or_default());
    Ok(list)
}

fn impersonation(import: &Import) -> manifest::Impersonation {
    if import.constrained_impersonation {
        manifest::Impersonation::Constrained
    } else {
        manifest::Impersonation::Any
    }
}

/// Where agents reach Drover's API, and gateways.
fn addresses(kept: &Kept, import: &Import) -> anyhow::Result<(String, Vec<String>)> {
    let server = match &import.server {
        Some(server) => server.clone(),
        None => kept.config.server_address()?,
    };
    let gateways =
        if import.gateways.is_empty() { kept.config.tunnels.clone() } else { import.gateways.clone() };
    if gateways.is_empty() {
        bail!("where agents reach gateways is not known: give --gateway HOST:PORT");
    }
    Ok((server, gateways))
}

fn registration_token(client: &Client, cluster: &str) -> anyhow::Result<String> {
    let id = client.read::<kinds::Cluster>(cluster)?.spec.id;
    let process = Process::try_from(format!("cluster/{id}/agent"))?;
    let created =
        client.create::<RegistrationToken>(&CreateRegistrationToken { process, lifetime_s: None })?;
    created.secret.context("the server gave no registration token")
}

fn row(cluster: &Object<kinds::Cluster>) -> Vec<String> {
    let kinds::Cluster { name, id, .. } = &cluster.spec;
    vec![name.clone(), id.clone(), cluster.metadata.created_at.to_string()]
}
