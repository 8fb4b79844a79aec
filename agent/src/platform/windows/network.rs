//! The addresses that this host needs, from its adapters.

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::NetworkManagement::IpHelper::{
    GAA_FLAG_INCLUDE_GATEWAYS, GAA_FLAG_SKIP_ANYCAST, GAA_FLAG_SKIP_MULTICAST, GetAdaptersAddresses,
    IP_ADAPTER_ADDRESSES_LH,
};
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, AF_UNSPEC, SOCKADDR_IN, SOCKADDR_IN6, SOCKET_ADDRESS,
};

/// Enough for the adapters of a large host, in words of eight bytes; the system asks for more if it
/// is not.
const FIRST_TRY: usize = 4 * 1024;
/// The system's status for a buffer that is too small.
const TOO_SMALL: u32 = 111;

/// The addresses that this host needs, with what each is.
pub fn needed() -> Vec<(IpAddr, &'static str)> {
    read(true)
}

/// The addresses of this host itself.
pub fn own_addresses() -> Vec<(IpAddr, &'static str)> {
    read(false)
}

/// What an isolated host keeps beside its manager: its DHCP servers, and its resolvers if it needs
/// names.
pub fn kept_for_isolation(needs_names: bool) -> Vec<IpAddr> {
    let is_kept = |what: &str| what == DHCP_SERVER || needs_names && what == RESOLVER;
    let mut kept: Vec<IpAddr> =
        read(true).into_iter().filter(|(_, what)| is_kept(what)).map(|(address, _)| address).collect();
    kept.retain(|address| !address.is_loopback());
    kept.sort_unstable();
    kept.dedup();
    kept
}

const DHCP_SERVER: &str = "the DHCP server of this host";
const RESOLVER: &str = "a resolver of this host";

#[expect(unsafe_code, reason = "the system's call, and the lists that it returns")]
fn read(with_others: bool) -> Vec<(IpAddr, &'static str)> {
    let flags = GAA_FLAG_INCLUDE_GATEWAYS | GAA_FLAG_SKIP_ANYCAST | GAA_FLAG_SKIP_MULTICAST;
    let mut buffer = vec![0_u64; FIRST_TRY];
    let mut found = Vec::new();
    for _ in 0..3 {
        let mut length = u32::try_from(buffer.len() * 8).unwrap_or(u32::MAX);
        let adapters = buffer.as_mut_ptr().cast::<IP_ADAPTER_ADDRESSES_LH>();
        // SAFETY: `length` is the size of the buffer, which is aligned to eight bytes.
        let status =
            unsafe { GetAdaptersAddresses(u32::from(AF_UNSPEC), flags, std::ptr::null(), adapters, &raw mut length) };
        if status == TOO_SMALL {
            buffer.resize(usize::try_from(length).unwrap_or(FIRST_TRY) / 8 + 1, 0);
            continue;
        }
        if status != 0 {
            return found;
        }
        let mut next: *const IP_ADAPTER_ADDRESSES_LH = adapters;
        // SAFETY: the system has linked the adapters and their lists within the buffer; each ends with null.
        while let Some(adapter) = unsafe { next.as_ref() } {
            let mut add = |address: &SOCKET_ADDRESS, what| found.extend(parse(address).map(|address| (address, what)));
            let mut unicast = adapter.FirstUnicastAddress;
            // SAFETY: as above.
            while let Some(entry) = unsafe { unicast.as_ref() } {
                add(&entry.Address, "an address of this host");
                unicast = entry.Next;
            }
            let mut gateway = adapter.FirstGatewayAddress;
            // SAFETY: as above.
            while let Some(entry) = unsafe { gateway.as_ref() }.filter(|_| with_others) {
                add(&entry.Address, "a gateway of this host");
                gateway = entry.Next;
            }
            let mut resolver = adapter.FirstDnsServerAddress;
            // SAFETY: as above.
            while let Some(entry) = unsafe { resolver.as_ref() }.filter(|_| with_others) {
                add(&entry.Address, RESOLVER);
                resolver = entry.Next;
            }
            if with_others {
                add(&adapter.Dhcpv4Server, DHCP_SERVER);
            }
            next = adapter.Next;
        }
        return found;
    }
    found
}

#[expect(unsafe_code, reason = "the system returns addresses by pointer")]
fn parse(address: &SOCKET_ADDRESS) -> Option<IpAddr> {
    let socket = address.lpSockaddr.cast::<c_void>();
    if socket.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family, and has the form of that family.
    unsafe {
        match (*address.lpSockaddr).sa_family {
            AF_INET => {
                let v4 = socket.cast::<SOCKADDR_IN>().read_unaligned();
                Some(IpAddr::V4(Ipv4Addr::from(v4.sin_addr.S_un.S_addr.to_ne_bytes())))
            }
            AF_INET6 => {
                let v6 = socket.cast::<SOCKADDR_IN6>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.u.Byte)).to_canonical())
            }
            _ => None,
        }
    }
}
