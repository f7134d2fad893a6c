//! Gateways that follow control, or did.

use drover_api::rest::GatewayStatus;

use crate::args::{Gateway, Output};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<GatewayStatus> = (&["NAME", "REVISION", "STATE"], row);

pub(super) fn run(client: &Client, command: Gateway, output: Output) -> anyhow::Result<()> {
    match command {
        Gateway::List => print(output, &client.gateways()?.items, COLUMNS),
        Gateway::Delete { name } => {
            client.forget_gateway(&name)?;
            println!(
                "Ended. What it has it may serve from until that is stale, to agents that it still reaches."
            );
            Ok(())
        }
    }
}

fn row(gateway: &GatewayStatus) -> Vec<String> {
    let revision = gateway.revision.map_or_else(|| "unknown".to_owned(), |revision| revision.to_string());
    let state = gateway.gone_s.map_or_else(|| "follows".to_owned(), |gone_s| format!("gone for {gone_s} s"));
    vec![gateway.name.clone(), revision, state]
}
