//! The name of this host. The kernel is asked by a system call: the packaged services hide `/proc/sys`
//! (`ProcSubset=pid`), so a file there is missing exactly where these programs usually run.

/// The host's own name, if it has one that is text.
pub fn name() -> Option<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_the_one_that_the_kernel_tells() {
        let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(super::name().unwrap_or_default(), told.trim());
    }
}
