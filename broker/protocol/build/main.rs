//! The build script: generates the Kafka messages from `schema/*.json` and the controller RPC from
//! `proto/controller.proto`.
//!
//! It runs at build time only and never uses the network. protox compiles the proto file, so no
//! protoc is needed.

mod codec;
mod schema;
mod structs;

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

#[expect(clippy::print_stdout, reason = "how a build script talks to cargo")]
fn main() -> Result<()> {
    for input in ["build", "schema", "proto"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let messages = read_messages(Path::new("schema"))?;
    fs::write(out.join("messages.rs"), structs::file(&messages)?).context("write messages.rs")?;
    let controller = protox::compile(["proto/controller.proto"], ["proto"])
        .context("compile controller.proto")?;
    tonic_prost_build::configure().compile_fds(controller).context("generate the controller RPC")
}

/// Every message definition in `dir`, in the order of the file names so that the output is stable.
fn read_messages(dir: &Path) -> Result<Vec<schema::Message>> {
    let mut paths =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
        .iter()
        .map(|path| schema::Message::read(path).with_context(|| format!("read {}", path.display())))
        .collect()
}
