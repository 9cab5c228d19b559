//! The official Python SDK as a client of a node in its default mode.
//!
//! The SDK lives in a virtual environment under the target folder. Where it cannot be had the test says so and passes;
//! `DIRNODE_REQUIRE_SDK=1` makes that a failure. `DIRNODE_SAMPLES=DIR` adds a folder of records to walk.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dirnode_tests::program::{Program, binary};
use dirnode_tests::repository;

const SDK: &str = "agntcy-dir==1.0.0";

fn ran(command: &mut Command) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} does not start: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!(
        "{command:?} fails: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The interpreter that knows the SDK.
fn python() -> Result<PathBuf, String> {
    let home = binary()
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("python-sdk");
    let python = home.join("bin/python");
    let knows = |python: &Path| ran(Command::new(python).args(["-c", "import agntcy.dir_sdk.client"]));
    if knows(&python).is_err() {
        ran(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        let install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            SDK,
        ];
        ran(Command::new(&python).args(install))?;
        knows(&python)?;
    }
    Ok(python)
}

fn records(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} cannot be listed: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_sdk_walks_every_call_that_is_served() {
    let python = match python() {
        Ok(python) => python,
        Err(problem) if std::env::var_os("DIRNODE_REQUIRE_SDK").is_some_and(|value| value == "1") => {
            panic!("the Python SDK is required and cannot be had: {problem}")
        }
        Err(problem) => {
            println!("SKIPPED: the Python SDK {SDK} cannot be had here, nothing was tried: {problem}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[], &[]);
    let address = program.listening("grpc").await;
    program.client().await;
    let own = records(&repository().join("tests/records"));
    let others = std::env::var_os("DIRNODE_SAMPLES")
        .map(|folder| records(Path::new(&folder)))
        .unwrap_or_default();
    let mut walk = Command::new(python);
    walk.arg(repository().join("tests/sdk/walk.py"))
        .arg(&address)
        .args(&own)
        .args(&others);
    let output = ran(&mut walk).unwrap_or_else(|problem| panic!("{problem}"));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let walked = said["walked"].as_u64().unwrap();
    println!("python sdk: {walked} records walked");
    assert!(walked >= own.len() as u64);
}
