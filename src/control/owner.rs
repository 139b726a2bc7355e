//! Owner of a local connection: a user's program, or a service.
//!
//! A reverse proxy may pass on whatever its client says and add nothing of its own (nginx does, since
//! 1.29.7), so nothing in a request tells it from curl. What tells it is the account that it runs under,
//! which Linux has in its table of connections. Elsewhere nothing is known, and nothing is refused.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    net::{IpAddr, SocketAddr},
};

/// Tells whether the client at this address is a service under an account of its own, such as `www-data`.
/// Reads the tables of connections, which may take a while.
pub(super) fn is_service(client: SocketAddr) -> bool {
    let status = fs::read_to_string("/proc/self/status");
    let Some(own) = status.ok().as_deref().and_then(effective) else {
        return false;
    };
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .into_iter()
        .any(|path| {
            File::open(path).is_ok_and(|file| names_service(BufReader::new(file), client, own))
        })
}

/// The account that a process acts for: `Uid:`, then real, effective, … (proc_pid_status(5)).
fn effective(status: &str) -> Option<u32> {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Tells whether a table has a service's connection that begins at this address.
fn names_service(table: impl io::BufRead, client: SocketAddr, own: u32) -> bool {
    let client = (client.ip().to_canonical(), client.port());
    table
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| owner(&line, client))
        .any(|uid| !is_user(uid, own))
}

/// The owner in a line of a table (proc_pid_net(5)), if its connection begins at this address:
/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid …`.
fn owner(line: &str, client: (IpAddr, u16)) -> Option<u32> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (address, port) = columns.next()?.split_once(':')?;
    if u16::from_str_radix(port, 16) != Ok(client.1) || self::address(address)? != client.0 {
        return None;
    }
    let state = columns.nth(1)?;
    let uid = columns.nth(3)?.parse().ok()?;
    // one that is over has no owner any more: it says 0
    (state != TIME_WAIT).then_some(uid)
}

const TIME_WAIT: &str = "06";

/// An address as the tables have it: each 32 bits in the order of this machine.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(IpAddr::from(word(0)?));
    }
    let mut octets = [0; 16];
    for (at, four) in octets.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(8 * at)?);
    }
    Some(IpAddr::from(octets).to_canonical())
}

/// Tells whether people use an account: root, that of this process, or a user's own. Below 1000 are those of
/// services, and systemd makes some (`DynamicUser=`, `nobody`) at the end of 16 bits.
fn is_user(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own || (uid >= 1000 && !(61_184..=65_535).contains(&uid))
}

#[cfg(test)]
mod tests {
    use std::{
        io::BufRead as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[cfg(target_endian = "little")]
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F98 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 14 1 0 100 0
   1: 0100007F:A001 0100007F:1F98 01 00000000:00000000 00:00000000 00000000    33        0 15 1 0 20 4
   2: 0100007F:A002 0100007F:1F98 01 00000000:00000000 00:00000000 00000000  1000        0 16 1 0 20 4
   3: 0100007F:A003 0100007F:1F98 06 00000000:00000000 00:00000000 00000000    33        0 17 1 0 20 4
   4: 0000000000000000FFFF00000100007F:A004 0000000000000000FFFF00000100007F:1F98 01 00000000:00000000 00:00000000 00000000    33        0 18 1 0 20 4
   5: 00000000000000000000000001000000:A005 00000000000000000000000001000000:1F98 01 00000000:00000000 00:00000000 00000000   101        0 19 1 0 20 4
   6: broken
";

    #[cfg(target_endian = "little")]
    #[test]
    fn services_are_told_by_their_account() {
        for (client, expected) in [
            ("127.0.0.1:40961", true),
            ("[::ffff:127.0.0.1]:40961", true),
            ("127.0.0.1:40962", false),
            ("127.0.0.1:40963", false),
            ("127.0.0.1:40964", true),
            ("[::1]:40965", true),
            ("127.0.0.1:40965", false),
            ("127.0.0.2:40961", false),
            ("127.0.0.1:1", false),
        ] {
            let found = names_service(TABLE.as_bytes(), client.parse().unwrap(), 7);
            assert_eq!(found, expected, "{client}");
        }
        let same = names_service(TABLE.as_bytes(), "127.0.0.1:40961".parse().unwrap(), 33);
        assert!(!same, "a program of our own account");
    }

    #[test]
    fn accounts_of_people_are_told_from_those_of_services() {
        for (uid, expected) in [
            (0, true),
            (1, false),
            (33, false),
            (101, false),
            (999, false),
            (1000, true),
            (60_513, true),
            (61_184, false),
            (65_534, false),
            (65_536, true),
            (100_101, true),
        ] {
            assert_eq!(is_user(uid, 7), expected, "{uid}");
        }
    }

    #[test]
    fn a_process_acts_for_its_effective_account() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(effective(status), Some(2));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn a_connection_of_ours_is_found_and_no_service() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap();
        assert!(!is_service(address));
        let table = File::open("/proc/self/net/tcp").map(BufReader::new);
        let Ok(table) = table else { return };
        let key = (address.ip(), address.port());
        let mut owners = table.lines().map_while(Result::ok);
        assert!(owners.any(|line| owner(&line, key).is_some()));
    }
}
