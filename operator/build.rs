//! Generates the stubs of the local administration service.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/local.proto";
    println!("cargo:rerun-if-changed={proto}");
    tonic_prost_build::configure().compile_fds(protox::compile([proto], ["proto"])?)?;
    Ok(())
}
