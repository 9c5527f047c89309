//! The machine that measures: what its processor is and has, and how busy it was.

use std::fs;
use std::path::Path;

use crate::shell;

/// Flags of a processor that the libraries of this workspace choose by.
const FLAGS: [&str; 11] = [
    "aes",
    "pclmulqdq",
    "sha_ni",
    "avx2",
    "vaes",
    "vpclmulqdq",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "asimd",
];

/// What a report says of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) flags: Vec<String>,
    pub(crate) caches: Vec<String>,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) compiler: String,
    pub(crate) commit: String,
    pub(crate) priority: String,
}

impl Machine {
    /// This machine. What it does not tell is `unknown`.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let told = |program: &str, args: &[&str]| {
            let text = shell::program(program, args).read().unwrap_or_default();
            if text.trim().is_empty() { "unknown".to_owned() } else { text.trim().to_owned() }
        };
        let about = read("/proc/cpuinfo");
        let changed = told("git", &["status", "--porcelain", "--untracked-files=no"]) != "unknown";
        let commit = told("git", &["rev-parse", "--short", "HEAD"]);
        Self {
            processor: field(&about, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            flags: flags(&about),
            caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            memory: field(&read("/proc/meminfo"), "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: told("rustc", &["--version"]),
            commit: if changed { format!("{commit}, with changes") } else { commit },
            priority: priority(&read("/proc/self/stat")).to_owned(),
        }
    }

    /// The processor, in one line: what figures are only compared within.
    pub(crate) fn name(&self) -> String {
        let widest = ["avx512f", "vaes", "avx2", "aes"];
        let has = widest.iter().filter(|flag| self.flags.iter().any(|own| own == *flag));
        let has = has.copied().collect::<Vec<_>>().join(" ");
        format!("{}, {} cores ({has})", self.processor, self.cores)
    }

    /// As a table of the report.
    pub(crate) fn markdown(&self) -> String {
        let rows = [
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("flags that matter", self.flags.join(" ")),
            ("caches of a core", self.caches.join(", ")),
            ("memory", self.memory.clone()),
            ("kernel", self.kernel.clone()),
            ("compiler", self.compiler.clone()),
            ("commit", self.commit.clone()),
            ("priority", self.priority.clone()),
        ];
        let rows = rows.map(|(what, is)| format!("| {what} | {is} |\n"));
        format!("| | |\n|---|---|\n{}", rows.concat())
    }
}

/// The load of the last minute: how many wanted to run.
pub(crate) fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Why the figures are not to be trusted, if the machine had other work before this or beside it.
pub(crate) fn busy(begin: Option<f64>, end: Option<f64>, cores: usize) -> Option<String> {
    let cores = u32::try_from(cores).map_or(1.0, f64::from);
    let (begin, end) = (begin?, end?);
    // At the end, the load is that of the benches too: as many as there are cores.
    (begin > cores / 2.0 || end > cores + 1.0).then(|| {
        format!(
            "**The machine was busy** (load {begin:.1} at the beginning, {end:.1} at the end, {cores} cores): \
             rates are too low, and ratios differ from those of a machine at rest. `chrt -f 1 cargo xtask bench` \
             takes precedence over other work."
        )
    })
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    value.unwrap_or_else(|| "unknown".to_owned())
}

fn flags(about: &str) -> Vec<String> {
    let all = [field(about, "flags"), field(about, "Features")].join(" ");
    let has = |flag: &&str| all.split(' ').any(|own| own == *flag);
    FLAGS.iter().filter(|flag| has(flag)).map(|&flag| flag.to_owned()).collect()
}

/// The caches of a core, as the kernel shows them.
fn caches(folder: &Path) -> Vec<String> {
    let index = |at: u32| {
        let read = |name: &str| fs::read_to_string(folder.join(format!("index{at}/{name}"))).ok();
        let (level, kind, size) = (read("level")?, read("type")?, read("size")?);
        Some(format!("L{} {} {}", level.trim(), kind.trim().to_lowercase(), size.trim()))
    };
    (0..8).filter_map(index).collect()
}

/// How the kernel schedules a process, from its `/proc/PID/stat`.
fn priority(stat: &str) -> &'static str {
    // The name, the second field, may hold spaces: it ends with the last parenthesis.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    match after.split_whitespace().nth(38) {
        Some("0") => "as any other program",
        Some("1") => "before all other programs (SCHED_FIFO)",
        Some("2") => "before all other programs (SCHED_RR)",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str = "processor\t: 0\nmodel name\t: AMD  EPYC\nflags\t\t: fpu aes avx2 vaes\n";

    #[test]
    fn the_processor_is_read_as_the_kernel_shows_it() {
        assert_eq!(field(ABOUT, "model name"), "AMD EPYC");
        assert_eq!(field(ABOUT, "Serial"), "unknown");
        assert_eq!(flags(ABOUT), ["aes", "avx2", "vaes"]);
        assert_eq!(flags("Features : fp asimd aes\n"), ["aes", "asimd"]);
    }

    #[test]
    fn caches_are_read_from_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index0");
        fs::create_dir(&index).unwrap();
        for (name, value) in [("level", "2\n"), ("type", "Unified\n"), ("size", "512K\n")] {
            fs::write(index.join(name), value).unwrap();
        }
        assert_eq!(caches(folder.path()), ["L2 unified 512K"]);
    }

    #[test]
    fn a_busy_machine_is_told() {
        assert_eq!(busy(Some(0.2), Some(2.1), 2), None);
        assert!(busy(Some(6.0), Some(2.0), 2).unwrap().contains("6.0"));
        assert!(busy(Some(0.2), Some(5.0), 2).is_some());
        assert_eq!(busy(None, Some(1.0), 2), None);
    }

    #[test]
    fn the_priority_is_found_behind_a_name_with_spaces() {
        let numbers = |policy: &str| format!("7 (a b) c) S{} {policy} 0", " 1".repeat(37));
        assert_eq!(priority(&numbers("0")), "as any other program");
        assert!(priority(&numbers("1")).contains("FIFO"));
        assert_eq!(priority(""), "unknown");
    }
}
