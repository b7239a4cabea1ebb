//! CPU time of processes as Linux counts it: the one instrument for both sides of a ratio. And their memory.

use std::fs;
use std::time::Duration;

use crate::BenchError;

/// One tick of `/proc`: USER_HZ, which programs see as 100 whatever the kernel's own is.
const TICK_MS: u64 = 10;
/// Places of `utime` and `stime` behind the program's name in `/proc/PID/stat` (proc_pid_stat(5)).
const UTIME: usize = 11;
const STIME: usize = 12;

/// User and system time that these processes have used since they began, all together.
///
/// # Errors
/// If one is gone, or this is not Linux.
pub fn of(processes: &[u32]) -> Result<Duration, BenchError> {
    let mut sum = Duration::ZERO;
    for process in processes {
        sum = sum.saturating_add(read(&process.to_string())?);
    }
    Ok(sum)
}

/// What this process has used.
///
/// # Errors
/// If this is not Linux.
pub fn own() -> Result<Duration, BenchError> {
    read("self")
}

fn read(process: &str) -> Result<Duration, BenchError> {
    let path = format!("/proc/{process}/stat");
    let failed = |reason: String| BenchError::Cpu { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    used(&text).ok_or_else(|| failed("it is not as proc_pid_stat(5) says".to_owned()))
}

/// The memory that a process has in RAM, in bytes.
///
/// # Errors
/// If it is gone, or this is not Linux.
pub fn memory(process: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{process}/status");
    let failed = |reason: String| BenchError::Cpu { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    resident(&text).ok_or_else(|| failed("it has no line `VmRSS`".to_owned()))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn used(stat: &str) -> Option<Duration> {
    // a program's name may hold spaces and parentheses
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let both = ticks(UTIME)?.checked_add(ticks(STIME)?)?;
    Some(Duration::from_millis(both.checked_mul(TICK_MS)?))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn user_and_system_time_are_read_behind_any_name() {
        let fields = "S 1 2 3 4 -1 4194560 10 11 12 13 250 7 99 98 20 0 9 0 1234 5678 90";
        for name in ["enclave", "a b", "x) R (y"] {
            let stat = format!("4242 ({name}) {fields}");
            assert_eq!(used(&stat), Some(Duration::from_millis(2_570)), "{name}");
        }
        for broken in ["", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 7 1"] {
            assert_eq!(used(broken), None, "{broken}");
        }
    }

    #[test]
    fn own_time_grows_with_work() {
        let (before, mut number) = (own().unwrap(), 0_u64);
        while own().unwrap() < before.saturating_add(Duration::from_millis(20)) {
            for _ in 0..100_000 {
                number = black_box(number.wrapping_mul(31).wrapping_add(7));
            }
        }
        let again = of(&[std::process::id()]).unwrap();
        assert!(again >= before.saturating_add(Duration::from_millis(20)));
    }

    #[test]
    fn process_that_is_gone_is_an_error_that_names_it() {
        let error = of(&[u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }

    #[test]
    fn memory_is_read_from_its_line() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
        assert!(memory(std::process::id()).unwrap() > 1 << 20);
    }
}
