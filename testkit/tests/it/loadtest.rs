//! The comparison runs work; their figures are not judged here.

use std::time::Duration;

use drover_testkit::fleet::Programs;
use tokio::process::Command;
use tokio::time::timeout;

use crate::system::folder;

#[tokio::test]
async fn a_comparison_measures_every_case_on_every_way() {
    let programs = Programs::of_this_build().unwrap();
    let program = programs.gateway.with_file_name("drover-loadtest");
    let json = folder("loadtest").join("report.json");
    let mut command = Command::new(program);
    command.args(["compare", "--rounds", "1", "--seconds", "1", "--json"]).arg(&json).kill_on_drop(true);
    let output = timeout(Duration::from_secs(80), command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("| get 1 KiB, 64 connections | drover |"), "{table}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    for case in [
        "get 1 KiB, 1 connection",
        "get 1 KiB, 64 connections",
        "get 1 KiB, 2000/s due on 64 connections",
        "list 10 MiB, 4 connections",
    ] {
        for setup in ["direct", "drover"] {
            let row = rows.iter().find(|row| row["case"] == case && row["setup"] == setup).unwrap();
            assert!(row["requests_per_second"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    let nginx = rows.iter().any(|row| row["setup"] == "two nginx");
    assert_eq!(nginx, report["skipped"].as_array().unwrap().is_empty(), "what is missing is said: {report}");
}
