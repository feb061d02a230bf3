//! The listening sockets of the broker and the operator.
//!
//! `[::]` stands for every address of this machine, IPv4 and IPv6. The socket option makes it so,
//! whatever `net.ipv6.bindv6only` says. A kernel without IPv6 has only IPv4 addresses, so `[::]`
//! stands for those. `0.0.0.0` is every IPv4 address, and any other address is just that one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// Listens on an address with a non-blocking socket. Port 0 picks a free port.
///
/// # Errors
/// When this machine does not have the address, or the port is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_on(address, |family| Socket::new(family, Type::STREAM, Some(Protocol::TCP)))
}

fn listen_on(
    address: SocketAddr,
    socket: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<TcpListener> {
    let is_all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bind(address, &socket) {
        Err(error) if is_all && is_without_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), &socket)
        }
        bound => bound,
    }
}

fn bind(
    address: SocketAddr,
    socket: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<TcpListener> {
    let socket = socket(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted process can bind its port at once, even while old connections linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether the error is that of a kernel built or started without IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const ALL: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    /// Whether a client that connects to `host` reaches this listener.
    fn answers(listener: &TcpListener, host: &str) -> bool {
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(false).unwrap();
        TcpStream::connect((host, port)).is_ok_and(|stream| {
            let (_, peer) = listener.accept().unwrap();
            peer.port() == stream.local_addr().unwrap().port()
        })
    }

    fn has_ipv6() -> bool {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    #[test]
    fn all_addresses_are_those_of_both_families() {
        let listener = listen(ALL).unwrap();
        assert!(answers(&listener, "127.0.0.1"));
        assert_eq!(answers(&listener, "::1"), has_ipv6());
    }

    #[test]
    fn a_machine_without_ipv6_is_listened_to_on_all_that_it_has() {
        // The two errors of such kernels: one at `socket`, the other at `bind`.
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let without = |family| match family {
                Domain::IPV4 => Socket::new(family, Type::STREAM, Some(Protocol::TCP)),
                _ => Err(io::Error::from_raw_os_error(errno.raw_os_error())),
            };
            let listener = listen_on(ALL, without).unwrap();
            assert!(
                listener.local_addr().unwrap().ip() == Ipv4Addr::UNSPECIFIED
                    && answers(&listener, "127.0.0.1")
            );
            // A single IPv6 address has no fallback.
            let one = listen_on((Ipv6Addr::LOCALHOST, 0).into(), without);
            assert_eq!(one.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
        }
        // Other errors are returned.
        let error =
            listen_on(ALL, |_| Err(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())))
                .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }

    #[test]
    fn an_address_is_that_one() {
        let ipv4 = listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        assert!(answers(&ipv4, "127.0.0.1") && !answers(&ipv4, "::1"));
        let taken = listen(ipv4.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        if has_ipv6() {
            let ipv6 = listen((Ipv6Addr::LOCALHOST, 0).into()).unwrap();
            assert!(answers(&ipv6, "::1") && !answers(&ipv6, "127.0.0.1"));
        }
    }
}
