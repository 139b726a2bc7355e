//! The server that a command goes to: the only one, the primary that Sentinels name, or the node of a Cluster
//! that has the slot of the key.

use redis::Value;

use super::settings::RedisNode;

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// Slots and the nodes that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// First and last slot, and the primary, in the order of the slots.
    ranges: Vec<(u16, u16, RedisNode)>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS` of a node. Where a host is missing, it is the one that was asked.
    pub(super) fn read(value: &Value, asked: &RedisNode) -> Option<Self> {
        let Value::Array(rows) = value else {
            return None;
        };
        let mut ranges: Vec<_> = rows.iter().filter_map(|row| range(row, asked)).collect();
        ranges.sort_by_key(|(first, ..)| *first);
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// The node that has the slot of a key, or any one without a key.
    pub(super) fn node(&self, key: Option<&str>) -> Option<&RedisNode> {
        let Some(key) = key else {
            return self.ranges.first().map(|(_, _, node)| node);
        };
        let slot = slot(key.as_bytes());
        let before = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, node) = self.ranges.get(before.checked_sub(1)?)?;
        (slot <= *last).then_some(node)
    }

    /// All primaries.
    pub(super) fn nodes(&self) -> Vec<RedisNode> {
        let mut nodes: Vec<_> = self
            .ranges
            .iter()
            .map(|(_, _, node)| node.clone())
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

fn range(row: &Value, asked: &RedisNode) -> Option<(u16, u16, RedisNode)> {
    let Value::Array(row) = row else {
        return None;
    };
    let number = |value: Option<&Value>| match value {
        Some(Value::Int(number)) => u16::try_from(*number).ok(),
        _ => None,
    };
    let (first, last) = (number(row.first())?, number(row.get(1))?);
    let Some(Value::Array(primary)) = row.get(2) else {
        return None;
    };
    let host = match primary.first() {
        Some(Value::BulkString(host)) => std::str::from_utf8(host).ok()?,
        Some(Value::SimpleString(host)) => host,
        _ => "",
    };
    let host = match host {
        "" | "?" => asked.host.clone(),
        host => host.to_owned(),
    };
    let port = number(primary.get(1))?;
    Some((first, last, RedisNode { host, port }))
}

/// Reads `host:port` of an answer MOVED or ASK; the host that was asked stands in for a missing one.
pub(super) fn redirected(detail: &str, asked: &RedisNode) -> Option<RedisNode> {
    let target = detail.split_ascii_whitespace().nth(1)?;
    let (host, port) = target.rsplit_once(':')?;
    let host = match host.trim_matches(['[', ']']) {
        "" | "?" => asked.host.clone(),
        host => host.to_owned(),
    };
    let port = port.parse().ok()?;
    Some(RedisNode { host, port })
}

/// The slot of a key: CRC-16 (XMODEM) of it, or of its hash tag.
fn slot(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        memchr::memchr(b'}', rest)
            .filter(|end| *end > 0)
            .map(|end| &rest[..end])
    });
    let mut crc: u16 = 0;
    for octet in tag.unwrap_or(key) {
        crc ^= u16::from(*octet) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> RedisNode {
        RedisNode {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"ap:{foo}:b:2026-11"), 12182);
        assert_eq!(slot(b"a{}b"), slot(b"a{}b"));
        assert_ne!(slot(b"a{}b"), slot(b"b"));
        assert_eq!(slot(b"{foo}{bar}"), 12182);
    }

    #[test]
    fn a_map_is_read_and_gives_the_node_of_a_key() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let row = |first, last, host: Value, port| {
            let replica = Value::Array(vec![text("r"), Value::Int(9), text("id")]);
            let primary = Value::Array(vec![host, Value::Int(port), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
        };
        let asked = node("asked", 1);
        let answer = Value::Array(vec![
            row(12001, 16383, Value::Nil, 3),
            row(0, 8000, text("a"), 1),
            row(8002, 12000, text("b"), 2),
        ]);
        let map = SlotMap::read(&answer, &asked).unwrap();
        assert_eq!(map.node(Some("foo")), Some(&node("asked", 3)));
        assert_eq!(map.node(None), Some(&node("a", 1)));
        assert_eq!(map.nodes(), [node("a", 1), node("asked", 3), node("b", 2)]);
        let hole = (0..).map(|n| n.to_string());
        let hole = hole.into_iter().find(|key| slot(key.as_bytes()) == 8001);
        assert_eq!(map.node(hole.as_deref()), None);
        assert_eq!(SlotMap::read(&Value::Array(Vec::new()), &asked), None);
        assert_eq!(SlotMap::read(&Value::Nil, &asked), None);
    }

    #[test]
    fn redirections_are_read() {
        let asked = node("asked", 1);
        let read = |text: &str| redirected(text, &asked);
        assert_eq!(read("3999 127.0.0.1:6381"), Some(node("127.0.0.1", 6381)));
        assert_eq!(read("3999 ::1:6381"), Some(node("::1", 6381)));
        assert_eq!(read("3999 :6381"), Some(node("asked", 6381)));
        assert_eq!(read("3999"), None);
        assert_eq!(read("3999 a:b"), None);
    }
}
