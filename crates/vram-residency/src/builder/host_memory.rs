//! How much memory the host has: the default limit of what is parked in it is a share of that.

use std::fs;
use std::path::{Path, PathBuf};

use vram_alloc::ByteLen;

/// The limit where the memory of the host cannot be known.
const FALLBACK: ByteLen = ByteLen::from_mib_saturating(4096);

/// The limit of parked shards, if the builder sets none: a quarter of the memory that this process
/// may use.
pub(crate) fn park_limit() -> ByteLen {
    usable().map_or(FALLBACK, |bytes| ByteLen::new(bytes / 4))
}

/// The memory of the host, or the limit of the process's control group where that is less. Only
/// Linux says so, in files.
fn usable() -> Option<u64> {
    let total = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse().ok();
    // A group without a limit says `max`, or a number beyond all memory.
    Some(limit_files(&groups).iter().filter_map(limit).fold(total, u64::min))
}

/// The total in the text of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files with the limits that hold for this process, from the text of `/proc/self/cgroup`: of
/// its groups and of all groups around them.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let files = |line: &str| {
        let (_number, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|one| one == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let within =
            |group: &Path| Some(Path::new(root).join(group.strip_prefix("/").ok()?).join(file));
        Some(Path::new(group).ancestors().filter_map(within).collect::<Vec<_>>())
    };
    groups.lines().filter_map(files).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_and_a_text_that_says_nothing_is_nothing() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        for none in ["", "MemFree: 1 kB", "MemTotal: many kB", "MemTotal: 18446744073709551615 kB"]
        {
            assert_eq!(total(none), None, "{none}");
        }
    }

    #[test]
    fn the_limits_of_a_group_and_of_those_around_it_are_looked_for() {
        let files = |groups| {
            let files = limit_files(groups).into_iter();
            files.map(|file| file.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            files("0::/pod/one\n"),
            [
                "/sys/fs/cgroup/pod/one/memory.max",
                "/sys/fs/cgroup/pod/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            files("7:cpu,cpuacct:/a\n5:memory:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert_eq!(files("nonsense\n\n"), [""; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_host_says_how_much_memory_it_has() {
        let usable = usable().unwrap();
        assert!(usable > 1 << 20 && usable < 1 << 48, "{usable}");
        assert_eq!(park_limit().get(), usable / 4);
    }
}
