//! What the kernel says about this process.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Facts of this process; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// Resident set in bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub open_descriptors: Option<u64>,
    /// The most that may be open.
    pub max_descriptors: Option<u64>,
    /// User and system time used, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessFacts {
    /// Reads `/proc/self` (Linux); a few microseconds.
    #[must_use]
    pub fn read() -> Self {
        let (cpu_seconds, threads) = stat().unzip();
        Self {
            resident_bytes: resident(),
            open_descriptors: descriptors(),
            max_descriptors: getrlimit(Resource::Nofile).current,
            cpu_seconds,
            threads,
        }
    }
}

/// How many descriptors this process may have open.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// proc(5): the second field of statm is the resident set in pages.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Since Linux 6.2 the size of the folder is the number of descriptors; before
/// it is 0 and they have to be counted.
fn descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        count => Some(count),
    }
}

/// proc(5): behind the name, which may hold blanks and ends with the last `)`,
/// utime and stime are fields 14 and 15 in clock ticks, num_threads is 20.
fn stat() -> Option<(f64, u64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some((ticks as f64 / per_second as f64, number(20)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_follow_the_process() {
        let before = ProcessFacts::read();
        let files: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = ProcessFacts::read();
        assert!(before.resident_bytes.unwrap() > 100_000);
        // Other tests of this process open and close files meanwhile.
        assert!(after.open_descriptors.unwrap() >= files.len() as u64);
        assert!(after.max_descriptors.unwrap() > 50);
        assert!(after.cpu_seconds.unwrap() >= before.cpu_seconds.unwrap());
        assert!(after.threads.unwrap() >= 1);
    }
}
