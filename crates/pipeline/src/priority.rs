//! Which threads yield when there is more to do than there are cores.

/// How far threads in the background yield, as nice values of POSIX.1-2024 `setpriority`; a step is about a
/// fifth of the share of a core, so a tenth is left to them beside one busy thread. At 5 the latencies of
/// acknowledgements doubled while rows were sealed; at 19 a machine that others keep busy would seal hardly anything.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lets the calling thread yield to all others, in addition to the niceness of the process: for sealing,
/// compaction and retention. They have seconds before their bounds are reached, and then the others
/// wait, so that they get the cores that they need. Where the system refuses, everything works as well, at equal shares.
pub fn yield_to_others() {
    // On Linux this is of the calling thread only; elsewhere of the whole process, which must not be.
    #[cfg(target_os = "linux")]
    {
        let own = rustix::process::getpriority_process(None).unwrap_or(0);
        let nice = own.saturating_add(NICE).min(19);
        if let Err(error) = rustix::process::setpriority_process(None, nice) {
            tracing::debug!(%error, "a thread keeps its priority");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_yields_and_the_others_do_not() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let of_thread = std::thread::spawn(|| {
            yield_to_others();
            rustix::process::getpriority_process(None).unwrap()
        });
        assert_eq!(of_thread.join().unwrap(), (before + 10).min(19));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
