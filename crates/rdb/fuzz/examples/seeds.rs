//! Writes seeds for the fuzz targets: `cargo run --example seeds -- CORPUS FILE.rdb ...` puts those of each target into a
//! folder of its name below CORPUS, where cargo-fuzz looks for them (`corpus`).

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let Some(corpus) = args.next() else {
        return Err(io::Error::other("usage: seeds CORPUS FILE.rdb ..."));
    };
    for path in args {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for (index, (target, seed)) in (0_u32..).zip(rdb::fuzzing::seeds(&fs::read(&path)?)) {
            let folder = corpus.join(target);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("{name}-{index}")), seed)?;
        }
    }
    Ok(())
}
