//! What must not stand in the source.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// These panic when the reader is gone, and lose what they could not write.
#[test]
fn nothing_but_stdio_writes_to_standard_output_or_standard_error() {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 50, "the sources are there");
    for path in found.iter().filter(|path| !path.ends_with("src/stdio.rs")) {
        let text = std::fs::read_to_string(path).expect("read");
        for (number, line) in text.lines().enumerate() {
            let writes = ["print!(", "println!(", "io::stdout().lock", "io::stderr().lock"];
            let written = writes.iter().find(|macro_name| line.contains(**macro_name));
            assert!(written.is_none(), "{}:{}: {}", path.display(), number + 1, line.trim());
        }
    }
}
