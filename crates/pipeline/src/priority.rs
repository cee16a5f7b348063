//! Which threads yield when there is more to do than there are cores.

/// What a thread is for, where that is nothing that anybody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Sealing, compaction, retention: they have seconds before their bounds are reached, and then
    /// the others wait, so that they get the cores that they need.
    Background,
}

impl Priority {
    /// Nice values, POSIX.1-2024 `setpriority`; a step is about a quarter of the share of a core.
    fn nice(self) -> i32 {
        match self {
            Self::Background => 5,
        }
    }

    /// Gives the calling thread this priority, in addition to the niceness of the process. Where the system refuses,
    /// everything works as well, at equal shares.
    pub fn take(self) {
        // On Linux this is of the calling thread only; elsewhere of the whole process, which must not be.
        #[cfg(target_os = "linux")]
        {
            let own = rustix::process::getpriority_process(None).unwrap_or(0);
            let nice = own.saturating_add(self.nice()).min(19);
            if let Err(error) = rustix::process::setpriority_process(None, nice) {
                tracing::debug!(%error, "a thread keeps its priority");
            }
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
            Priority::Background.take();
            rustix::process::getpriority_process(None).unwrap()
        });
        assert_eq!(of_thread.join().unwrap(), (before + 5).min(19));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
