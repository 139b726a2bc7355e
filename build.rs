//! Embeds the dashboard's files compressed with brotli and gzip, once and at the best level, or as they are where
//! that is shorter: `$OUT_DIR/files.rs` is the table of them.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Its own folders are what there is to serve.
const ROOT: &str = "static";

/// Ends of the names of files for developers alone.
const LEFT_OUT: [&str; 3] = [".d.ts", "/jsconfig.json", "/dashboard.png"];

/// Folders for operators, which are not served.
const FOLDERS_LEFT_OUT: [&str; 3] = ["static/deploy", "static/packages", "static/systemd"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut files = Vec::new();
    list(Path::new(ROOT), &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for (index, path) in files.iter().enumerate() {
        let content = fs::read(path)?;
        let name = path.strip_prefix(ROOT).unwrap_or(path);
        let name = name.to_string_lossy().replace('\\', "/");
        let [brotli, gzip] = [brotli(&content)?, gzip(&content)?];
        if content.len() <= brotli.len() {
            let original = fs::canonicalize(path)?;
            table += &format!("    ({name:?}, \"identity\", include_bytes!({original:?})),\n");
        }
        for (coding, compressed) in [("br", brotli), ("gzip", gzip)] {
            // what does not become smaller is sent as it is
            if compressed.len() >= content.len() {
                continue;
            }
            let place = out.join(format!("{index}.{coding}"));
            fs::write(&place, compressed)?;
            table += &format!("    ({name:?}, {coding:?}, include_bytes!({place:?})),\n");
        }
    }
    table += "]\n";
    fs::write(out.join("files.rs"), table)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !FOLDERS_LEFT_OUT.iter().any(|folder| path.ends_with(folder)) {
                list(&path, files)?;
            }
        } else if !LEFT_OUT
            .iter()
            .any(|end| path.to_string_lossy().ends_with(end))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn brotli(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 64 * 1024, 11, 22);
    writer.write_all(content)?;
    writer.flush()?;
    Ok(writer.into_inner())
}

fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(content)?;
    writer.finish()
}
