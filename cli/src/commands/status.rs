//! What keeps Drover itself from being whole.

use drover_api::rest::{DroverStatus, SetAside};

use crate::args::Output;
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<SetAside> = (&["KIND", "NAME", "PROBLEM"], row);

pub(super) fn run(client: &Client, output: Output) -> anyhow::Result<()> {
    let status = client.status()?;
    if output != Output::Table {
        let all: Columns<DroverStatus> = (&[], |_| Vec::new());
        return print(output, &[status], all);
    }
    let DroverStatus { set_aside, set_aside_total } = status;
    if set_aside.is_empty() {
        println!("Every object is in force as it was written.");
        return Ok(());
    }
    print(output, &set_aside, COLUMNS)?;
    println!();
    println!(
        "{set_aside_total} in all are set aside: they give nobody anything, and deny everything to those for whom a role or a \
         binding was. Change them, or delete them."
    );
    Ok(())
}

fn row(aside: &SetAside) -> Vec<String> {
    vec![aside.kind.clone(), aside.key.clone(), aside.problem.clone()]
}
