//! The configuration file: errors are words, and a configuration that was taken is taken again when
//! written as JSON, with the same meaning.

#[allow(dead_code, unreachable_pub, missing_docs, reason = "the module of the binary, as it is")]
#[path = "../../crates/palisade/src/config/mod.rs"]
mod config;

use std::path::PathBuf;
use std::sync::OnceLock;

fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let name = format!("palisade-fuzz-{}.yaml", std::process::id());
        let memory = PathBuf::from("/dev/shm");
        if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) }
    })
}

fn load(text: &[u8], variable: &str) -> Result<config::Config, config::ConfigError> {
    std::fs::write(file(), text).expect("a scratch file can be written");
    let variables = [("PALISADE_PIPELINE__COMMIT_AGE".to_owned(), variable.to_owned())];
    config::load(Some(file()), variables.into_iter().filter(|(_, value)| !value.is_empty()))
}

pub fn run(data: &[u8]) {
    match load(data, "") {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(first) => {
            let written = serde_json::to_vec(&first).expect("a configuration can be written");
            let again = load(&written, "").expect("what was written is taken");
            assert_eq!(again, first);
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && !text.contains('\0')
    {
        let _ = load(b"", text);
    }
}
