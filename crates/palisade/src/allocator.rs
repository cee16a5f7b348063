//! Settings of the allocator for a server, and for what works as long as one.
//!
//! mimalloc reads its settings from the environment before `main`, and changing them later needs
//! unsafe code. So a server starts itself once more, in the same process, with them in its
//! environment. By default mimalloc gives memory back to the kernel in pieces of 64 KiB a second after
//! it was freed; frames and segments come and go within seconds, so the kernel then spends a third of
//! a server's CPU time on taking huge pages apart and zeroing pages (`docs/benchmarks.md`).

use std::os::unix::process::CommandExt;
use std::process::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 2: memory is given back in whole huge pages. And only after it was free for ten seconds.
const SETTINGS: [(&str, &str); 2] =
    [("MIMALLOC_ALLOW_THP", "2"), ("MIMALLOC_PURGE_DELAY", "10000")];

/// Starts this program again with the settings of a server, unless they are set already, by this or
/// by whoever started it. When that is not possible, everything works as well without.
pub(crate) fn restart_with_settings() {
    let missing: Vec<_> =
        SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).envs(missing).exec();
    eprintln!("palisade: goes on with the allocator's own settings: {error}");
}
