//! The search for the servers: the only one, the primary that Sentinels name, or the nodes of a Cluster.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Value;

use super::{
    super::{
        dial::{Login, ask, bounded, dial},
        fault::{RedisFault, RedisFaultKind},
        landing::OpenConnection,
        route::SlotMap,
        settings::{RedisForm, RedisNode, RedisSettings},
    },
    CONNECT, Link, Pause, RedisConnection, Route, left,
};

impl RedisConnection {
    /// Finds the servers, if they are not known.
    pub(super) fn find(&mut self, deadline: Instant) -> Result<(), RedisFault> {
        if self.route.is_some() {
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        let found = match &settings.form {
            RedisForm::Single => match settings.nodes.first() {
                Some(node) => Ok(Route::One(node.clone())),
                None => Err(self.no_node()),
            },
            RedisForm::Sentinel { master } => {
                self.search.check(Instant::now())?;
                self.primary(master, deadline).map(Route::One)
            }
            RedisForm::Cluster => {
                self.search.check(Instant::now())?;
                self.slots(deadline).map(Route::Slots)
            }
        };
        match found {
            Ok(route) => {
                self.route = Some(route);
                self.found += 1;
                self.search = Pause::default();
                Ok(())
            }
            Err(fault) => {
                self.search.failed(fault.clone());
                Err(fault)
            }
        }
    }

    /// Asks the Sentinels for the primary, and the primary if it is one.
    fn primary(&mut self, master: &str, deadline: Instant) -> Result<RedisNode, RedisFault> {
        let settings = Arc::clone(&self.settings);
        let count = settings.nodes.len();
        let mut last = self.no_node();
        for at in 0..count {
            let at = (self.first + at) % count;
            let Some(sentinel) = settings.nodes.get(at) else {
                continue;
            };
            let patience = share(deadline, count);
            let found = named_primary(&settings, sentinel, master, patience).and_then(|node| {
                let mut connection = dial(&settings, &node, Login::Full, share(deadline, 1))?;
                let role = ask(&mut connection, &node, &redis::cmd("ROLE"))?;
                let role = match &role {
                    Value::Array(role) => role.first(),
                    _ => None,
                };
                match role {
                    Some(Value::BulkString(role)) if role == b"master" => Ok((node, connection)),
                    _ => Err(RedisFault {
                        kind: RedisFaultKind::NoPrimary,
                        place: sentinel.to_string(),
                        detail: format!("{node} is no primary yet"),
                    }),
                }
            });
            match found {
                Ok((node, connection)) => {
                    self.first = at;
                    let link = Link {
                        connection: Some(connection.into()),
                        pause: Pause::default(),
                    };
                    self.links.clear();
                    self.links.insert(node.clone(), link);
                    return Ok(node);
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Asks nodes of the Cluster for the slots, first those that answered last.
    fn slots(&mut self, deadline: Instant) -> Result<SlotMap, RedisFault> {
        let settings = Arc::clone(&self.settings);
        let mut nodes = std::mem::take(&mut self.known);
        for node in &settings.nodes {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let now = Instant::now();
        // stable: those that just failed come last
        nodes.sort_by_key(|node| {
            let link = self.links.get(node);
            link.is_some_and(|link| link.pause.check(now).is_err())
        });
        let mut last = self.no_node();
        let count = nodes.len();
        for node in &nodes {
            let link = self.links.entry(node.clone()).or_default();
            let mut asked = link.connection.take().map_or_else(
                || {
                    let dialled = dial(&settings, node, Login::Full, share(deadline, count));
                    dialled.map(OpenConnection::from)
                },
                Ok,
            );
            let slots = match &mut asked {
                Ok(connection) => {
                    let redis = &mut connection.redis;
                    let _ = redis.set_read_timeout(Some(share(deadline, count)));
                    let mut slots = redis::cmd("CLUSTER");
                    slots.arg("SLOTS");
                    ask(redis, node, &slots)
                }
                Err(fault) => Err(fault.clone()),
            };
            match slots {
                Ok(slots) => {
                    link.connection = asked.ok();
                    if let Some(map) = SlotMap::read(&slots, node) {
                        self.known = nodes;
                        let serving = map.nodes();
                        self.links.retain(|node, _| serving.contains(node));
                        return Ok(map);
                    }
                    last = RedisFault {
                        kind: RedisFaultKind::NotReady,
                        place: node.to_string(),
                        detail: "no node has slots".to_owned(),
                    };
                }
                Err(mut fault) => {
                    if fault.detail.contains("cluster support disabled") {
                        fault.kind = RedisFaultKind::WrongForm;
                    }
                    link.pause.failed(fault.clone());
                    last = fault;
                }
            }
        }
        self.known = nodes;
        Err(last)
    }
}

/// The primary that a Sentinel names.
fn named_primary(
    settings: &RedisSettings,
    sentinel: &RedisNode,
    master: &str,
    patience: Duration,
) -> Result<RedisNode, RedisFault> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let mut asked = dial(settings, sentinel, Login::Nothing, patience)
        .and_then(|mut connection| ask(&mut connection, sentinel, &question));
    if let Err(fault) = &asked
        && fault.kind == RedisFaultKind::Refused
        && settings.password.is_some()
    {
        asked = dial(settings, sentinel, Login::NoDatabase, patience)
            .and_then(|mut connection| ask(&mut connection, sentinel, &question));
    }
    let named = asked.map_err(|mut fault| {
        if fault.detail.contains("unknown command") {
            fault.kind = RedisFaultKind::WrongForm;
            fault.detail = "it is no Sentinel".to_owned();
        }
        fault
    })?;
    let named: Option<(String, u16)> = redis::from_redis_value(named).unwrap_or_default();
    let (host, port) = named.ok_or_else(|| RedisFault {
        kind: RedisFaultKind::NoPrimary,
        place: sentinel.to_string(),
        detail: bounded(format!("it knows no {master}")),
    })?;
    Ok(RedisNode { host, port })
}

/// One of some equal parts of the time that is left.
fn share(deadline: Instant, count: usize) -> Duration {
    let parts = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let part = left(deadline, Instant::now()) / parts;
    part.clamp(Duration::from_millis(50), CONNECT)
}
