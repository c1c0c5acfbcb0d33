//! Amounts as `docker run` takes them: memory with a unit, processors with a fraction.

use super::RunError;

/// Least memory of a container, MiB: Docker's.
const LEAST_MEMORY: u32 = 6;
/// Least size of a disk, MiB: an image and the file system itself have to fit.
const LEAST_DISK: u32 = 128;

/// What a VM has beyond its container, MiB, and one part in so many of that: for the kernel with its tables and
/// buffers, the agent, and the reserve that the agent keeps. Measured with 6.1 it takes 83 MiB of a VM of 192,
/// 194 of 1024, 452 of 4096.
const VM_MEMORY: u32 = 192;
const VM_PART: u32 = 12;

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What the container may use, bytes.
    pub container: u64,
    /// What its VM has, MiB.
    pub vm: u32,
}

/// The memory that a container is to have, such as `512m`, `1g` or `1.5GiB`; without a unit it is bytes. Units are
/// powers of 1024, as Docker has them.
///
/// # Errors
/// When it is no amount, or less than a container can do with.
pub fn memory(text: &str) -> Result<Memory, RunError> {
    let mebibytes = mebibytes(text, LEAST_MEMORY, "memory")?;
    Ok(Memory { container: bytes(text)?, vm: mebibytes + mebibytes / VM_PART + VM_MEMORY })
}

/// MiB of a disk of that size, rounded up.
///
/// # Errors
/// When it is no amount, or too little for a disk.
pub fn disk(text: &str) -> Result<u32, RunError> {
    mebibytes(text, LEAST_DISK, "room on a disk")
}

fn mebibytes(text: &str, least: u32, what: &'static str) -> Result<u32, RunError> {
    let fault = || RunError::Memory(text.to_owned());
    let mebibytes = bytes(text)?.div_ceil(1 << 20);
    let mebibytes = u32::try_from(mebibytes).ok().filter(|n| *n <= 8 << 20).ok_or_else(fault)?;
    if mebibytes < least {
        return Err(RunError::TooLittle { given: text.to_owned(), what, least });
    }
    Ok(mebibytes)
}

/// Bytes of an amount such as [`memory`] takes, however few.
///
/// # Errors
/// When it is no amount.
pub fn bytes(text: &str) -> Result<u64, RunError> {
    let fault = || RunError::Memory(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = match unit.trim_start().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(fault()),
    };
    let bytes = (number.parse::<f64>().map_err(|_| fault())? * unit as f64).ceil();
    // Where f64 still counts every byte.
    if (0.0..=(1u64 << 53) as f64).contains(&bytes) { Ok(bytes as u64) } else { Err(fault()) }
}

/// Processors of a number such as `2` or `1.5`: a VM has whole ones, so it is rounded up.
///
/// # Errors
/// When it is no number, or none that a VM can have.
pub fn cpus(text: &str) -> Result<u32, RunError> {
    match text.trim().parse::<f64>() {
        Ok(number) if (0.01..=255.0).contains(&number) => Ok(number.ceil() as u32),
        _ => Err(RunError::Cpus(text.to_owned())),
    }
}

/// What of its whole processors a container may use, in billionths: 0, for all, when the number is whole.
///
/// # Errors
/// As for [`cpus`].
pub fn nano_cpus(text: &str) -> Result<u64, RunError> {
    let whole = cpus(text)?;
    let number: f64 = text.trim().parse().map_err(|_| RunError::Cpus(text.to_owned()))?;
    let is_whole = (f64::from(whole) - number).abs() < 1e-9;
    Ok(if is_whole { 0 } else { (number * 1e9) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_dockers() {
        let check = |text: &str, expected: u32| assert_eq!(disk(text).unwrap(), expected, "{text}");
        check("512m", 512);
        check("1g", 1024);
        check("1.5GiB", 1536);
        check("256MB", 256);
        check("300000k", 293);
        check("536870912", 512);
        check("536870913b", 513);
        for bad in ["", "m", "12x", "-1g", "1..5g", "99999999g", "nan", "1e9g"] {
            assert!(matches!(memory(bad), Err(RunError::Memory(_))), "{bad}");
        }
        let text = disk("6m").unwrap_err().to_string();
        assert!(text.contains("at least 128m"), "{text}");
    }

    #[test]
    fn a_container_has_what_it_is_given_and_its_vm_more() {
        assert_eq!(memory("256m").unwrap(), Memory { container: 256 << 20, vm: 256 + 21 + 192 });
        assert_eq!(memory("6m").unwrap().container, 6 << 20);
        let text = memory("1m").unwrap_err().to_string();
        assert!(text.contains("too little memory; at least 6m"), "{text}");
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!(bytes("1").unwrap(), 1);
        assert!(bytes("99999999t").is_err());
    }

    #[test]
    fn a_part_of_a_processor_is_kept() {
        assert_eq!(nano_cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(nano_cpus("0.25").unwrap(), 250_000_000);
        assert_eq!(nano_cpus("2").unwrap(), 0);
        assert!(nano_cpus("0").is_err());
    }

    #[test]
    fn processors_are_whole() {
        assert_eq!(cpus("1.5").unwrap(), 2);
        assert_eq!(cpus("0.5").unwrap(), 1);
        assert_eq!(cpus("4").unwrap(), 4);
        for bad in ["0", "-1", "256", "many", "nan"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
