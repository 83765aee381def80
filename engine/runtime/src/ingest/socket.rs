//! The UDP socket of the QUIC door, and what the kernel had to drop for want of room in it.
//!
//! Every connection shares the one socket. While the thread that reads it waits for a core, a few
//! dozen senders fill the kernel's default buffer of 208 KiB within a millisecond; the kernel then
//! drops what comes, and each sender takes that for congestion: it sends again, and less at a time.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::SockRef;

/// Receive buffer that is asked for, in bytes: a few milliseconds of a gigabit link, or of as much
/// as two cores can take. Kernels grant less where `net.core.rmem_max` is lower.
pub const RECEIVE_BUFFER: usize = 4 << 20;
/// Send buffer that is asked for, in bytes: acknowledgements are small.
const SEND_BUFFER: usize = 1 << 20;

/// A UDP socket bound to `address`, with room for bursts.
///
/// # Errors
/// If the address cannot be bound. A kernel that grants less room is none: see
/// [`receive_buffer`].
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let options = SockRef::from(&socket);
    // Linux grants what it may; others refuse more than they may grant, and keep what was there.
    let _ = options.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = options.set_send_buffer_size(SEND_BUFFER);
    Ok(socket)
}

/// Bytes that the kernel keeps for what came and was not read yet, in the unit of
/// [`RECEIVE_BUFFER`].
///
/// # Errors
/// If the system does not say.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    let bytes = SockRef::from(socket).recv_buffer_size()?;
    // Linux doubles what is set, for its own books, and tells the double.
    Ok(if cfg!(target_os = "linux") {
        bytes / 2
    } else {
        bytes
    })
}

/// Finds the drop count of one socket in the kernel's table.
#[derive(Clone, Copy, Debug)]
pub struct SocketDrops {
    inode: u64,
}

impl SocketDrops {
    /// Of this socket, for as long as it is open; `None` where the system counts none.
    pub fn of(socket: &UdpSocket) -> Option<Self> {
        let inode = rustix::fs::fstat(socket).ok()?.st_ino;
        let drops = Self { inode };
        drops.datagrams().map(|_| drops)
    }

    /// Packets that the kernel dropped since the socket was bound, because its buffer was full.
    /// (Packets that it holds as one, of one sender's burst, count once.)
    pub fn datagrams(self) -> Option<u64> {
        ["/proc/self/net/udp", "/proc/self/net/udp6"]
            .into_iter()
            .find_map(|table| dropped(&std::fs::read_to_string(table).ok()?, self.inode))
    }
}

/// The drops of the socket with this inode, in a table as `/proc/net/udp` has it.
fn dropped(table: &str, inode: u64) -> Option<u64> {
    // sl local rem st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let of: u64 = words.nth(9)?.parse().ok()?;
        (of == inode).then(|| words.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             17: 0100007F:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 70 2 0000000000000000 3\n\
             18: 0100007F:1152 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71 2 0000000000000000 41\n";
        assert_eq!(dropped(table, 71), Some(41));
        assert_eq!(dropped(table, 72), None);
        assert_eq!(dropped("", 71), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_buffer_drops_and_the_drops_are_counted() {
        let socket = bind(ANY.parse().unwrap()).unwrap();
        let drops = SocketDrops::of(&socket).unwrap();
        assert_eq!(drops.datagrams(), Some(0));
        let room = receive_buffer(&socket).unwrap();
        let sender = UdpSocket::bind(ANY).unwrap();
        let to = socket.local_addr().unwrap();
        let packet = [0_u8; 32 << 10];
        for _ in 0..(4 * room / packet.len()) {
            sender.send_to(&packet, to).unwrap();
        }
        assert!(drops.datagrams().unwrap() > 0);
    }
}
