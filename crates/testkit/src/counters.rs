//! What a process holds (descriptors, memory, threads, read from `/proc`) and what
//! an edge has counted.

use std::fs;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: usize,
    /// Resident memory in KiB.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
}

/// Counts what a process holds; `self` for this one.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn held(process: &str) -> Held {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .unwrap_or_else(|e| panic!("status of process {process}: {e}"));
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap_or_else(|e| panic!("descriptors of process {process}: {e}"))
        .count();
    Held {
        // Reading the folder of our own descriptors opens one.
        descriptors: descriptors - usize::from(process == "self"),
        memory: field(&status, "VmRSS:"),
        threads: field(&status, "Threads:"),
    }
}

/// A number of an edge's page of metrics, by its name and labels.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn metric(page: &str, name: &str) -> f64 {
    page.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or_else(|| panic!("no metric {name} in:\n{page}"))
}

fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("the status of a process has {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_counted() {
        let before = held("self");
        let files: Vec<_> = (0..20).map(|_| tempfile::tempfile().unwrap()).collect();
        let during = held("self");
        // Other tests of this process open and close files beside us.
        assert!(during.descriptors + 10 > before.descriptors + files.len());
        assert!(during.memory > 100 && during.threads >= 1);
    }
}
