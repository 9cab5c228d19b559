//! Compiles the `.proto` files in pure Rust: no protoc, no other system package.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;

    // Comments become Rust docs, so code is made from the set that still has them; clients of reflection get the set
    // without. protox's own encoding keeps options that prost's types would drop.
    let with_comments = compiler.file_descriptor_set();
    let mut plain = protox::Compiler::new([root])?;
    plain.include_imports(true).include_source_info(false);
    plain.open_files(&files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), plain.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .codec_path("crate::codec::WireCodec")
        // Our own Struct reads what prost's 100 levels refuse, without risk to the stack.
        .extern_path(".google.protobuf.Struct", "crate::value::Struct")
        // A record that is sent may be bytes already.
        .extern_path(".agntcy.dir.core.v1.Record", "crate::record::Record")
        .bytes("agntcy.dir.sign.v1.SignWithKey.password")
        .compile_fds(with_comments)?;
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
