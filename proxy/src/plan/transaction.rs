//! A queued transaction: where each command goes, and in how many steps it has to be run; what its node's answer means.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::ops::Range;

use portico_resp::{ErrorCode, Limits, RequestScanner, Scan, is_error, request_ranges};
use portico_slots::{Slot, slot};

use super::{Layout, RequestArgs};
use crate::command::{Args, Command, Flags, Handling, Local, PubSub, Resolved, Table};

/// Where one command of a transaction can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where its keys are.
    Slot(Slot),
    /// Wherever the others of its group run.
    Anywhere,
    /// Not in a node's transaction: on all nodes, in several slots, or in Portico.
    Alone,
}

/// One step of a transaction that cannot run as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commands that one node runs between MULTI and EXEC, by their places in the queue. Without any: only the
    /// question whether a watched key of the slot was touched.
    Group(Slot, Vec<usize>),
    /// One command by itself, by its place in the queue.
    Alone(usize),
}

/// How a transaction is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// As one transaction of one node.
    Native {
        /// Of its keys; any will do if it has none.
        slot: Option<Slot>,
        /// Wakes or tells others.
        signal: bool,
        /// The hash of its keys, 0 for none.
        keys: u32,
    },
    /// Step by step.
    Steps {
        /// In the order in which they are run.
        steps: Vec<Step>,
        /// The slots of all keys.
        slots: Vec<Slot>,
    },
}

impl Plan {
    /// The slots of its keys, each once; for a command with keys in several slots also those.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        match self {
            Self::Native { slot, .. } => slot.iter().copied().collect(),
            Self::Steps { slots, .. } => slots.clone(),
        }
    }
}

/// Reads a queued request.
pub fn with_queued<T>(request: &[u8], read: impl FnOnce(&RequestArgs<'_>) -> T) -> Option<T> {
    let limits =
        Limits { max_bulk_len: u64::MAX, large_bulk: u64::MAX, authenticated: true, ..Limits::default() };
    let mut scanner = RequestScanner::new();
    match scanner.scan(request, &limits) {
        Ok(Scan::Complete { .. }) => Some(read(&RequestArgs::new(request, scanner.args()))),
        _ => None,
    }
}

/// Plans a transaction whose queued requests lie at `ranges` of `requests`.
///
/// A command that cannot run in a node's transaction ends the groups before it: the order of effects is kept. Between
/// two such commands the groups follow one another in the order in which their slots first appear, those that can
/// wake somebody last.
#[must_use]
pub fn plan_transaction(table: &Table, requests: &[u8], ranges: &[Range<usize>]) -> Plan {
    let mut keys = std::hash::DefaultHasher::new();
    let mut slots = Vec::new();
    let mut steps = Vec::new();
    let mut groups: Vec<(Slot, bool, Vec<usize>)> = Vec::new();
    let mut group_of: HashMap<Slot, usize> = HashMap::new();
    let mut anywhere: Vec<usize> = Vec::new();
    let mut signal = false;
    for (at, range) in ranges.iter().enumerate() {
        let placed = with_queued(&requests[range.clone()], |args| {
            let Resolved::Command(command) = table.resolve(args) else { return (Place::Alone, false) };
            let place = place(command, args, &mut slots, &mut keys);
            (place, signals(command, place))
        });
        let (place, signals) = placed.unwrap_or((Place::Alone, false));
        signal |= signals;
        match place {
            Place::Slot(slot) => {
                let index = *group_of.entry(slot).or_insert_with(|| {
                    groups.push((slot, false, Vec::new()));
                    groups.len() - 1
                });
                groups[index].1 |= signals;
                groups[index].2.push(at);
            }
            Place::Anywhere => anywhere.push(at),
            Place::Alone => {
                end_groups(&mut groups, &mut anywhere, &mut steps);
                group_of.clear();
                steps.push(Step::Alone(at));
            }
        }
    }
    slots.sort_unstable();
    slots.dedup();
    if steps.is_empty() && groups.len() <= 1 {
        let slot = groups.first().map(|(slot, ..)| *slot);
        let keys = if slot.is_some() { keys.finish() as u32 | 1 } else { 0 };
        return Plan::Native { slot, signal, keys };
    }
    end_groups(&mut groups, &mut anywhere, &mut steps);
    Plan::Steps { steps, slots }
}

/// Groups become steps; what can run anywhere joins the last of them, since it may tell of what the others did.
fn end_groups(groups: &mut Vec<(Slot, bool, Vec<usize>)>, anywhere: &mut Vec<usize>, steps: &mut Vec<Step>) {
    groups.sort_by_key(|(_, signals, _)| *signals);
    let Some((_, _, last)) = groups.last_mut() else {
        return steps.extend(anywhere.drain(..).map(Step::Alone));
    };
    last.append(anywhere);
    last.sort_unstable();
    steps.extend(groups.drain(..).map(|(slot, _, group)| Step::Group(slot, group)));
}

fn place(
    command: &Command,
    args: &RequestArgs<'_>,
    slots: &mut Vec<Slot>,
    hasher: &mut impl std::hash::Hasher,
) -> Place {
    let native = match command.handling {
        Handling::Key | Handling::KeyUnlessBlock | Handling::Block | Handling::Copy | Handling::Fan(_) => {
            true
        }
        Handling::Wait => true,
        Handling::PubSub(PubSub::Publish | PubSub::Spublish) | Handling::Any => true,
        Handling::Local(what) => matches!(what, Local::Ping | Local::Echo | Local::Time),
        _ => false,
    };
    // With a key that lacks arguments it has an error for an answer.
    let fits = match command.handling {
        Handling::Fan(fan) => Layout::of(fan).fits(args.count()),
        _ => true,
    };
    if !native || !fits {
        return Place::Alone;
    }
    let mut positions = Vec::new();
    if command.key_positions(args, &mut positions).is_err() {
        return Place::Anywhere; // any node has the error for it
    }
    let mut found = positions.iter().map(|&at| args.word(at as usize)).inspect(|key| {
        hasher.write_usize(key.len());
        hasher.write(key);
    });
    let Some(first) = found.next().map(slot) else { return Place::Anywhere };
    slots.push(first);
    let before = slots.len();
    slots.extend(found.map(slot).filter(|other| *other != first));
    if slots.len() > before { Place::Alone } else { Place::Slot(first) }
}

/// Whether a command can wake or tell somebody; a script without keys can do anything.
fn signals(command: &Command, place: Place) -> bool {
    let script = command.is_script() && !command.flags.has(Flags::READONLY);
    command.flags.has(Flags::SIGNAL) || script && place == Place::Anywhere
}

/// What a node's answer to a transaction means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, or will not: this is the reply.
    Answer(Vec<u8>),
    /// It did not run, for the reason that this error line gives.
    Decide(Vec<u8>),
}

/// How many of a group's requests have keys.
#[must_use]
pub fn count_keyed(table: &Table, group: &[u8]) -> usize {
    let has_keys = |args: &RequestArgs<'_>| {
        let Resolved::Command(command) = table.resolve(args) else { return false };
        let mut positions = Vec::new();
        command.key_positions(args, &mut positions).is_ok() && !positions.is_empty()
    };
    let requests = request_ranges(group).into_iter();
    requests.filter(|range| with_queued(&group[range.clone()], has_keys).unwrap_or(false)).count()
}

/// What the replies to MULTI, the queued commands and EXEC mean. `refused`: errors before EXEC's reply, by place;
/// `keyed`: how many of the commands have keys.
#[must_use]
pub fn transaction_outcome(
    refused: &[(u32, Box<[u8]>)],
    reply: &[u8],
    keyed: impl FnOnce() -> usize,
) -> Outcome {
    if !is_error(reply) {
        return Outcome::Answer(reply.to_vec());
    }
    if reply.starts_with(b"-ERR EXEC without MULTI") {
        // Connections are asked whether they may when they are made: the user's rights have changed since.
        return Outcome::Answer(
            b"-UNKNOWN the node refused MULTI: the commands may have run one by one\r\n".to_vec(),
        );
    }
    if !reply.starts_with(b"-EXECABORT") {
        return Outcome::Decide(reply.to_vec());
    }
    let is = |wanted: fn(&ErrorCode<'_>) -> bool| {
        let line = refused
            .iter()
            .map(|(_, line)| line)
            .find(|line| ErrorCode::parse(line).is_some_and(|code| wanted(&code)));
        line.map(|line| line.to_vec())
    };
    if let Some(moved) = is(|code| matches!(code, ErrorCode::Moved { .. })) {
        return Outcome::Decide(moved);
    }
    if let Some(ask) = is(|code| matches!(code, ErrorCode::Ask { .. })) {
        // Followed only if the node has none of the keys; otherwise it has some of them until the slot is closed.
        let asked =
            refused.iter().filter(|(_, line)| matches!(ErrorCode::parse(line), Some(ErrorCode::Ask { .. })));
        let all = asked.count() == keyed();
        return Outcome::Decide(if all { ask } else { TRYAGAIN.to_vec() });
    }
    let waits = |code: &ErrorCode<'_>| {
        use ErrorCode as E;
        matches!(code, E::TryAgain | E::ClusterDown | E::Loading | E::MasterDown | E::ReadOnly | E::NoAuth)
    };
    if let Some(line) = is(waits) {
        return Outcome::Decide(line);
    }
    let Some((_, first)) = refused.first() else { return Outcome::Answer(reply.to_vec()) };
    let why = first.strip_prefix(b"-ERR ").or(first.strip_prefix(b"-")).unwrap_or(first);
    Outcome::Answer([b"-EXECABORT Transaction discarded because of: ", why].concat())
}

const TRYAGAIN: &[u8] = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use portico_resp::encode;

    fn plan(lines: &[&str]) -> Plan {
        let mut requests = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            encode::command(&mut requests, &words);
        }
        plan_transaction(&Table::builtin(), &requests, &request_ranges(&requests))
    }

    fn steps(lines: &[&str]) -> Vec<Step> {
        match plan(lines) {
            Plan::Steps { steps, .. } => steps,
            native @ Plan::Native { .. } => panic!("{native:?}"),
        }
    }

    /// Slots of the keys `a`, `b` and `c`.
    const A: Slot = 15495;
    const B: Slot = 3300;
    const C: Slot = 7365;

    #[test]
    fn one_slot_is_one_transaction_of_its_node() {
        assert!(matches!(plan(&["SET a 1", "INCR a"]), Plan::Native { slot: Some(A), signal: false, .. }));
        assert!(matches!(
            plan(&["SET a 1", "PUBLISH c x"]),
            Plan::Native { slot: Some(A), signal: true, .. }
        ));
        assert!(matches!(plan(&["BLPOP a 0", "WAIT 1 0"]), Plan::Native { slot: Some(A), .. }));
        assert!(matches!(plan(&["PING", "TIME"]), Plan::Native { slot: None, keys: 0, .. }));
        assert!(plan(&[]).slots().is_empty());
        let [first, again, other] = [["INCR a"], ["INCR a"], ["INCR {a}x"]].map(|lines| plan(&lines));
        assert_eq!(first, again);
        assert_ne!(first, other, "other keys are another set");
    }

    #[test]
    fn several_slots_are_groups_and_who_wakes_somebody_comes_last() {
        let groups = |lines: &[&str]| steps(lines);
        assert_eq!(
            groups(&["SET a 1", "SET b 2", "INCR a"]),
            [Step::Group(A, vec![0, 2]), Step::Group(B, vec![1])]
        );
        assert_eq!(
            groups(&["LPUSH a 1", "HSET b f v", "EXPIRE b 9"]),
            [Step::Group(B, vec![1, 2]), Step::Group(A, vec![0])]
        );
        let told = groups(&["PUBLISH ch x", "SET a 1", "SET b 2"]);
        assert_eq!(told, [Step::Group(A, vec![1]), Step::Group(B, vec![0, 2])]);
    }

    #[test]
    fn what_no_node_can_run_in_a_transaction_keeps_its_place() {
        assert_eq!(
            steps(&["SET a 1", "SET b 1", "FLUSHALL", "SET c 1"]),
            [Step::Group(A, vec![0]), Step::Group(B, vec![1]), Step::Alone(2), Step::Group(C, vec![3])]
        );
        assert_eq!(steps(&["MGET a b", "SET a 1"]), [Step::Alone(0), Step::Group(A, vec![1])]);
        assert_eq!(plan(&["MGET a b"]).slots(), [B, A]);
        assert_eq!(steps(&["CLIENT GETNAME", "PING"]), [Step::Alone(0), Step::Alone(1)]);
    }

    fn outcome(refused: &[(u32, &str)], reply: &str, keyed: usize) -> Outcome {
        let refused: Vec<_> = refused.iter().map(|(at, line)| (*at, line.as_bytes().into())).collect();
        transaction_outcome(&refused, reply.as_bytes(), || keyed)
    }

    #[test]
    fn only_commands_with_keys_are_asked_to_go_elsewhere() {
        let mut group = Vec::new();
        let requests: [&[&[u8]]; 5] =
            [&[b"MULTI"], &[b"PING"], &[b"SET", b"a", b"1"], &[b"PUBLISH", b"c", b"x"], &[b"EXEC"]];
        requests.iter().for_each(|words| encode::command(&mut group, words));
        assert_eq!(count_keyed(&Table::builtin(), &group), 1);
    }

    #[test]
    fn what_an_answer_means() {
        const ABORT: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        let answer = |text: &str| Outcome::Answer(text.as_bytes().to_vec());
        let decide = |text: &str| Outcome::Decide(text.as_bytes().to_vec());
        let (moved, ask) = ("-MOVED 1 127.0.0.1:7001\r\n", "-ASK 1 127.0.0.1:7001\r\n");
        assert_eq!(outcome(&[], "*1\r\n+OK\r\n", 1), answer("*1\r\n+OK\r\n"));
        assert_eq!(outcome(&[], "*-1\r\n", 1), answer("*-1\r\n"));
        assert_eq!(outcome(&[(1, moved), (2, moved)], ABORT, 2), decide(moved));
        assert_eq!(outcome(&[], moved, 2), decide(moved), "the slot went between the last command and EXEC");
        assert_eq!(outcome(&[(1, ask), (2, ask)], ABORT, 2), decide(ask));
        let some = outcome(&[(2, ask)], ABORT, 2);
        assert!(
            matches!(some, Outcome::Decide(line) if line.starts_with(b"-TRYAGAIN")),
            "the node has some of the keys"
        );
        assert_eq!(outcome(&[(1, "-LOADING x\r\n")], ABORT, 1), decide("-LOADING x\r\n"));
        let full = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let told = "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n";
        assert_eq!(outcome(&[(1, full)], ABORT, 1), answer(told));
        let ran = outcome(&[(0, "-NOPERM x\r\n")], "-ERR EXEC without MULTI\r\n", 1);
        assert!(matches!(ran, Outcome::Answer(line) if line.starts_with(b"-UNKNOWN")));
    }
}
