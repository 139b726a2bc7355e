//! The connection of one thread to a Redis: commands in, answers out, all of it before a deadline.
//!
//! It opens and opens again what it needs, follows a failover and a Cluster that moves its slots, and gives a
//! script to a server that does not have it. After a failure it does not try again before a pause, so it may be
//! called at any rate. A command may reach the server twice.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redis::{FromRedisValue, RedisError, ServerError, Value};

mod find;

use super::{
    command::Command,
    dial::{Login, bounded, dial, fault, kind_of_code},
    fault::{RedisFault, RedisFaultKind},
    landing::{OpenConnection, SeenServers},
    route::{SlotMap, redirected},
    settings::{RedisForm, RedisNode, RedisSettings},
};
use crate::state::store::StateError;

/// The answer to a command: a value, or why there is none.
pub(in crate::state) type Answer = Result<Value, RedisFault>;

/// Time for all answers of a call.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest part of it for a new connection: a host that drops packets takes no more from the others.
const CONNECT: Duration = Duration::from_millis(700);

/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Pause before a command is sent again to a server that is not ready for it.
const NOT_READY: Duration = Duration::from_millis(20);

/// Most times that a command is sent in a call: to a node that was closed, one that it moved to, one that moves
/// it on, one that lacks the script.
const ROUNDS: usize = 8;

/// A connection to a Redis, of one thread.
pub(in crate::state) struct RedisConnection {
    settings: Arc<RedisSettings>,
    links: HashMap<RedisNode, Link>,
    route: Option<Route>,
    /// Times that the servers were found: at first, and after each trouble.
    found: u64,
    /// Nodes of the Cluster that were known last.
    known: Vec<RedisNode>,
    /// The Sentinel that is asked first.
    first: usize,
    /// After a search without success.
    search: Pause,
    patience: Duration,
    /// Servers that it has come to, if commands tell them.
    seen: Option<SeenServers>,
}

enum Route {
    One(RedisNode),
    Slots(SlotMap),
}

/// A connection to one server, or why there is none.
#[derive(Default)]
struct Link {
    connection: Option<OpenConnection>,
    pause: Pause,
}

/// Time in which nothing is tried.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
    fault: Option<RedisFault>,
}

/// A command that has no answer yet.
struct Task {
    index: usize,
    /// The node that it goes to, whatever the route says.
    target: Option<RedisNode>,
    /// True if that node has its key for now, and is told to look.
    is_asking: bool,
    /// The script goes before it.
    loads: bool,
    /// It was sent on a connection that turned out to be closed.
    is_repeated: bool,
    /// Reason for which it is sent again.
    fault: Option<RedisFault>,
}

/// Tasks that a round leaves.
#[derive(Default)]
struct Rest {
    tasks: Vec<Task>,
    is_moved: bool,
    must_wait: bool,
}

impl Pause {
    fn check(&self, now: Instant) -> Result<(), RedisFault> {
        match (&self.fault, self.until) {
            (Some(fault), Some(until)) if now < until => Err(fault.clone()),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, fault: RedisFault) {
        let (first, longest) = PAUSES;
        let pause = first
            .saturating_mul(1 << self.failures.min(10))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + pause);
        self.fault = Some(fault);
    }
}

impl RedisConnection {
    /// A connection. Nothing is opened yet.
    pub(in crate::state) fn new(settings: &Arc<RedisSettings>) -> Self {
        Self {
            settings: Arc::clone(settings),
            links: HashMap::new(),
            route: None,
            found: 0,
            known: Vec::new(),
            first: 0,
            search: Pause::default(),
            patience: PATIENCE,
            seen: None,
        }
    }

    /// Asks each server for its run, for commands that tell it.
    pub(in crate::state) fn naming(mut self) -> Self {
        self.seen = Some(SeenServers::default());
        self
    }

    /// Name of a key, as [`RedisSettings::key`] gives it.
    pub(in crate::state) fn key(&self, tag: &str, rest: &str) -> String {
        self.settings.key(tag, rest)
    }

    /// Times that the servers were found.
    pub(in crate::state) fn found(&self) -> u64 {
        self.found
    }

    /// The servers as a text.
    pub(in crate::state) fn place(&self) -> String {
        self.settings.place()
    }

    /// Sends commands, those of a server together, and gives their answers in order.
    ///
    /// # Errors
    /// No command had an answer. What was sent may have been done.
    pub(in crate::state) fn send(
        &mut self,
        commands: &[Command],
    ) -> Result<Vec<Answer>, StateError> {
        self.send_within(self.patience, commands)
    }

    /// As [`Self::send`], with another time for the answers: for a change of very many keys.
    ///
    /// # Errors
    /// No command had an answer. What was sent may have been done.
    pub(in crate::state) fn send_within(
        &mut self,
        patience: Duration,
        commands: &[Command],
    ) -> Result<Vec<Answer>, StateError> {
        let answers = self.exchange(commands, self.settings.usage.deadline(patience));
        let failed = answers.iter().all(Result::is_err);
        match answers.first() {
            Some(Err(fault)) if failed => Err(StateError::Redis(fault.clone())),
            _ => Ok(answers),
        }
    }

    /// Sends a command, and converts its answer.
    ///
    /// # Errors
    /// It had none, or another one than a `T`.
    pub(in crate::state) fn query<T: FromRedisValue>(
        &mut self,
        command: &Command,
    ) -> Result<T, StateError> {
        let deadline = self.settings.usage.deadline(self.patience);
        let mut answers = self.exchange(std::slice::from_ref(command), deadline);
        let answer = answers.pop().unwrap_or(Ok(Value::Nil));
        let value = answer.map_err(StateError::Redis)?;
        self.converted(value)
    }

    /// The value as a `T`.
    ///
    /// # Errors
    /// It is none.
    pub(in crate::state) fn converted<T: FromRedisValue>(
        &self,
        value: Value,
    ) -> Result<T, StateError> {
        redis::from_redis_value(value).map_err(|error| {
            StateError::Redis(RedisFault {
                kind: RedisFaultKind::Other,
                place: self.settings.place(),
                detail: bounded(format!("an answer of another form: {error}")),
            })
        })
    }

    /// All primaries that have keys.
    ///
    /// # Errors
    /// They are not known.
    pub(in crate::state) fn primaries(&mut self) -> Result<Vec<RedisNode>, StateError> {
        let found = self.find(self.settings.usage.deadline(self.patience));
        found.map_err(StateError::Redis)?;
        Ok(match &self.route {
            Some(Route::One(node)) => vec![node.clone()],
            Some(Route::Slots(map)) => map.nodes(),
            None => Vec::new(),
        })
    }

    /// Sends a command to each primary.
    ///
    /// # Errors
    /// They are not known.
    pub(in crate::state) fn send_to_all(
        &mut self,
        command: impl Fn() -> Command,
    ) -> Result<Vec<Answer>, StateError> {
        let nodes = self.primaries()?;
        let commands: Vec<_> = nodes.iter().map(|_| command()).collect();
        let tasks = nodes.into_iter().enumerate().map(|(index, node)| Task {
            target: Some(node),
            ..Task::new(index)
        });
        let deadline = self.settings.usage.deadline(self.patience);
        Ok(self.run(&commands, tasks.collect(), deadline))
    }

    /// A further connection to a primary, for a subscription.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::state) fn open(&mut self) -> Result<redis::Connection, StateError> {
        self.search
            .check(Instant::now())
            .map_err(StateError::Redis)?;
        let nodes = self.primaries()?;
        let mut last = Err(self.no_node());
        for node in nodes {
            last = dial(&self.settings, &node, Login::Full, CONNECT);
            if last.is_ok() {
                break;
            }
        }
        last.map_err(|fault| {
            self.lose_route();
            self.search.failed(fault.clone());
            StateError::Redis(fault)
        })
    }

    fn exchange(&mut self, commands: &[Command], deadline: Instant) -> Vec<Answer> {
        let tasks = (0..commands.len()).map(Task::new).collect();
        self.run(commands, tasks, deadline)
    }

    fn run(
        &mut self,
        commands: &[Command],
        mut tasks: Vec<Task>,
        deadline: Instant,
    ) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = commands.iter().map(|_| None).collect();
        for _ in 0..ROUNDS {
            if tasks.is_empty() {
                break;
            }
            if let Err(fault) = self.find(deadline) {
                tasks.iter_mut().for_each(|task| {
                    task.fault.get_or_insert_with(|| fault.clone());
                });
                break;
            }
            let rest = self.round(commands, tasks, deadline, &mut answers);
            tasks = rest.tasks;
            if rest.is_moved {
                self.lose_route();
            }
            if rest.must_wait && !tasks.is_empty() {
                thread::sleep(NOT_READY);
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        for task in tasks {
            let fault = task.fault.unwrap_or_else(|| self.no_node());
            answers[task.index] = Some(Err(fault));
        }
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(|| Err(self.no_node())))
            .collect()
    }

    /// Sends each task to its node, first to those whose connection is open, and takes the answers.
    fn round(
        &mut self,
        commands: &[Command],
        tasks: Vec<Task>,
        deadline: Instant,
        answers: &mut [Option<Answer>],
    ) -> Rest {
        let mut rest = Rest::default();
        let mut by_node: BTreeMap<RedisNode, Vec<Task>> = BTreeMap::new();
        for mut task in tasks {
            let key = commands.get(task.index).and_then(Command::key);
            let node = match (&task.target, &self.route) {
                (Some(target), _) => Some(target.clone()),
                (None, Some(Route::One(node))) => Some(node.clone()),
                (None, Some(Route::Slots(map))) => map.node(key).cloned(),
                (None, None) => None,
            };
            match node {
                Some(node) => by_node.entry(node).or_default().push(task),
                // no node has the slot
                None => {
                    task.fault = Some(self.no_node());
                    rest.is_moved = true;
                    rest.must_wait = true;
                    rest.tasks.push(task);
                }
            }
        }
        let is_open = |links: &HashMap<RedisNode, Link>, node: &RedisNode| {
            links
                .get(node)
                .is_some_and(|link| link.connection.is_some())
        };
        let (open, closed): (Vec<_>, Vec<_>) = by_node
            .into_iter()
            .partition(|(node, _)| is_open(&self.links, node));
        for nodes in [open, closed] {
            let mut sent = Vec::with_capacity(nodes.len());
            for (node, tasks) in nodes {
                let was_open = is_open(&self.links, &node);
                match self.write(&node, commands, &tasks, deadline) {
                    Ok(()) => sent.push((node, tasks, was_open)),
                    Err((fault, is_closed)) => {
                        self.give_up(tasks, fault, was_open && is_closed, &mut rest, answers);
                    }
                }
            }
            for (node, tasks, was_open) in sent {
                self.read(
                    &node, commands, tasks, was_open, deadline, &mut rest, answers,
                );
            }
        }
        rest
    }

    /// Sends the commands of tasks to a node. An error tells if the other side had closed the connection.
    fn write(
        &mut self,
        node: &RedisNode,
        commands: &[Command],
        tasks: &[Task],
        deadline: Instant,
    ) -> Result<(), (RedisFault, bool)> {
        let now = Instant::now();
        let link = self.links.entry(node.clone()).or_default();
        let open = match &mut link.connection {
            Some(open) => open,
            None => {
                link.pause.check(now).map_err(|fault| (fault, false))?;
                let patience = left(deadline, now).min(CONNECT);
                match dial(&self.settings, node, Login::Full, patience) {
                    Ok(connection) => link.connection.insert(connection.into()),
                    Err(fault) => {
                        link.pause.failed(fault.clone());
                        self.lose_route();
                        return Err((fault, false));
                    }
                }
            }
        };
        let named = match &mut self.seen {
            Some(seen) => open.name(node, seen, self.found > 1),
            None => Ok(()),
        };
        if let Err(fault) = named {
            self.lose(node, fault.clone());
            return Err((fault, false));
        }
        let mut octets = Vec::new();
        for task in tasks {
            let Some(command) = commands.get(task.index) else {
                continue;
            };
            if let (true, Some(script)) = (task.loads, command.script()) {
                script.write_load(&mut octets);
            }
            if task.is_asking {
                redis::cmd("ASKING").write_packed_command(&mut octets);
            }
            command.write(&mut octets, open);
        }
        let bound = Some(left(deadline, Instant::now()));
        let connection = &mut open.redis;
        let written = connection
            .set_write_timeout(bound)
            .and_then(|()| connection.set_read_timeout(bound))
            .and_then(|()| connection.send_packed_command(&octets));
        written.map_err(|error| self.broken(node, &error))
    }

    /// Takes the answers of a node.
    #[expect(clippy::too_many_arguments, reason = "the state of one round")]
    fn read(
        &mut self,
        node: &RedisNode,
        commands: &[Command],
        tasks: Vec<Task>,
        was_open: bool,
        deadline: Instant,
        rest: &mut Rest,
        answers: &mut [Option<Answer>],
    ) {
        let mut tasks = tasks.into_iter();
        let mut bounded_at = Instant::now();
        while let Some(task) = tasks.next() {
            let script = commands.get(task.index).and_then(Command::script);
            let before = usize::from(task.loads && script.is_some()) + usize::from(task.is_asking);
            let mut received = None;
            for _ in 0..=before {
                let now = Instant::now();
                let Some(open) = self
                    .links
                    .get_mut(node)
                    .and_then(|it| it.connection.as_mut())
                else {
                    break;
                };
                let connection = &mut open.redis;
                if now - bounded_at > NOT_READY {
                    bounded_at = now;
                    // one that fails shows in what is received
                    let _ = connection.set_read_timeout(Some(left(deadline, now)));
                }
                let answer = received.insert(connection.recv_response());
                if answer.is_err() {
                    break;
                }
            }
            // an earlier answer of the round closed it
            let Some(received) = received else {
                let unanswered = std::iter::once(task).chain(tasks).collect();
                let fault = self.no_node();
                self.give_up(unanswered, fault, true, rest, answers);
                return;
            };
            match received {
                Ok(Value::ServerError(error)) => self.refused(node, task, &error, rest, answers),
                Ok(value) => {
                    if let Some(link) = self.links.get_mut(node) {
                        link.pause = Pause::default();
                    }
                    self.settings.usage.answered();
                    answers[task.index] = Some(Ok(value));
                }
                Err(error) => {
                    let (fault, is_closed) = self.broken(node, &error);
                    let unanswered = std::iter::once(task).chain(tasks).collect();
                    self.give_up(unanswered, fault, was_open && is_closed, rest, answers);
                    return;
                }
            }
        }
    }

    /// Decides what becomes of a command that a server refused.
    fn refused(
        &mut self,
        node: &RedisNode,
        mut task: Task,
        error: &ServerError,
        rest: &mut Rest,
        answers: &mut [Option<Answer>],
    ) {
        let (code, detail) = (error.code(), error.details().unwrap_or_default());
        let fault = RedisFault {
            kind: kind_of_code(code, detail),
            place: node.to_string(),
            detail: bounded(format!("{code} {detail}").trim_end().to_owned()),
        };
        let is_cluster = self.settings.form == RedisForm::Cluster;
        let is_single = self.settings.form == RedisForm::Single;
        if std::mem::take(&mut task.is_asking) {
            task.target = None;
        }
        let mut again = true;
        match code {
            "NOSCRIPT" if !task.loads => task.loads = true,
            "MOVED" if is_cluster => rest.is_moved = true,
            "ASK" if is_cluster => {
                task.target = redirected(detail, node);
                task.is_asking = task.target.is_some();
            }
            "READONLY" if is_single => {
                // if it is the primary again, then with what another one has taken meanwhile
                let link = self.links.get_mut(node);
                if let Some(open) = link.and_then(|link| link.connection.as_mut()) {
                    open.renew();
                }
                again = false;
            }
            "READONLY" => {
                // it was the primary once
                rest.is_moved = true;
                rest.must_wait = true;
                self.links.remove(node);
            }
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" => rest.must_wait = true,
            _ => again = false,
        }
        if fault.kind == RedisFaultKind::Refused {
            // the next connection logs in anew
            self.lose(node, fault.clone());
        }
        match again {
            true => {
                task.fault = Some(fault);
                rest.tasks.push(task);
            }
            false => answers[task.index] = Some(Err(fault)),
        }
    }

    /// Ends tasks with a fault, or sends them again if the connection had been closed before.
    fn give_up(
        &mut self,
        tasks: Vec<Task>,
        fault: RedisFault,
        was_closed: bool,
        rest: &mut Rest,
        answers: &mut [Option<Answer>],
    ) {
        for mut task in tasks {
            match was_closed && !task.is_repeated {
                true => {
                    task.is_repeated = true;
                    task.fault = Some(fault.clone());
                    rest.tasks.push(task);
                }
                false => answers[task.index] = Some(Err(fault.clone())),
            }
        }
    }

    /// Closes a connection that failed; true if the other side had closed it.
    fn broken(&mut self, node: &RedisNode, error: &RedisError) -> (RedisFault, bool) {
        let fault = fault(node, error);
        let is_closed = error.is_connection_dropped();
        match is_closed {
            // no pause: it may be there again already
            true => {
                self.links.remove(node);
                self.lose_route();
            }
            false => self.lose(node, fault.clone()),
        }
        (fault, is_closed)
    }

    fn lose(&mut self, node: &RedisNode, fault: RedisFault) {
        let link = self.links.entry(node.clone()).or_default();
        link.connection = None;
        link.pause.failed(fault);
        self.lose_route();
    }

    /// Has the servers looked for anew: another one may be the primary.
    fn lose_route(&mut self) {
        if let Some(Route::Slots(map)) = &self.route {
            self.known = map.nodes();
        }
        self.route = None;
    }

    fn no_node(&self) -> RedisFault {
        RedisFault {
            kind: RedisFaultKind::NotReady,
            place: self.settings.place(),
            detail: "no server is there for the key".to_owned(),
        }
    }
}

impl Task {
    fn new(index: usize) -> Self {
        Self {
            index,
            target: None,
            is_asking: false,
            loads: false,
            is_repeated: false,
            fault: None,
        }
    }
}

/// Time that is left; never none, which would mean to wait for ever.
fn left(deadline: Instant, now: Instant) -> Duration {
    deadline
        .saturating_duration_since(now)
        .max(Duration::from_millis(1))
}

#[cfg(test)]
impl RedisConnection {
    /// Has the open connections, and at least one, be as those that were opened just now or long ago, from another
    /// server or not.
    pub(super) fn landed(&mut self, is_young: bool, is_moved: bool) {
        let _: String = self.query(&Command::keyless("PING")).unwrap();
        let open = self
            .links
            .values_mut()
            .filter_map(|it| it.connection.as_mut());
        open.for_each(|it| it.landed(is_young, is_moved));
    }
}

#[cfg(test)]
mod tests;
