//! What is read from scripts, however they are written, and what is objected to.

use proptest::prelude::*;

use super::*;
use crate::plan::with_queued;

fn object_with(text: &str, given: &[&str], masters: usize) -> Option<Objection> {
    let mut request = Vec::new();
    let words: Vec<&[u8]> = [&b"EVAL"[..], text.as_bytes(), b"0"]
        .into_iter()
        .chain(given.iter().map(|word| word.as_bytes()))
        .collect();
    portico_resp::encode::command(&mut request, &words);
    let reading = Reading::of(text.as_bytes(), false);
    with_queued(&request, |words| objection(&reading, &Table::builtin(), &Given::of(*words), masters, false))
        .expect("a request")
}

fn object(text: &str) -> Option<Objection> {
    object_with(text, &[], 3)
}

const CLUSTER: Option<Objection> = Some(Objection::Cluster(1));

fn whole(name: &str) -> Option<Objection> {
    Some(Objection::Whole(name.into()))
}

fn unread(line: u32) -> Option<Objection> {
    Some(Objection::Unread(line))
}

#[test]
fn what_is_about_all_keys_is_for_one_master_only() {
    for (text, name) in [
        ("return #redis.call('keys', ARGV[1])", "KEYS"),
        ("return redis.call(\"DBSIZE\")", "DBSIZE"),
        ("redis.pcall([[flushall]])", "FLUSHALL"),
        ("local r = redis.call('scan', 0, 'match', ARGV[1])", "SCAN"),
        ("return redis.call 'randomkey'", "RANDOMKEY"),
        ("return redis['call']('flushdb')", "FLUSHDB"),
        ("return redis.call('info')", "INFO"),
        ("return redis.call('info', 'keyspace')", "INFO"),
        ("return redis.call('memory', 'stats')", "MEMORY STATS"),
        ("return redis.call('slowlog', 'len')", "SLOWLOG LEN"),
    ] {
        assert_eq!(object(text), whole(name), "{text}");
        assert_eq!(object_with(text, &[], 1), None, "{text}");
    }
    assert_eq!(object("return redis.call('info', 'server')"), None);
    assert_eq!(object("return redis.call('memory', 'usage', KEYS[1])"), None);
    let refused = object_with("redis.call('migrate', 'h', 1, 'k', 0, 1)", &[], 1);
    assert!(matches!(refused, Some(Objection::Refused(name, _)) if name == "MIGRATE"));
}

#[test]
fn the_cluster_is_not_asked_about_by_any_name() {
    for text in [
        "return redis.call('cluster', 'nodes')",
        "return redis.call('CLUSTER')",
        "return redis.pcall('clu'..'ster', 'info')",
        "return redis.call('\\099luster', 'info')",
        "return redis.call(\"cl\\117ster\", 'info')",
        "return redis.call([==[cluster]==], 'info')",
        "return redis --[[ x ]] . --[==[ ]] ]==] call('cluster', 'info')",
        "local call = redis.call return call('cluster', 'info')",
        "local r = redis return r.call('cluster', 'info')",
        "local r, n = redis, 'cluster' return r.pcall(n)",
        "local r = redis local c = r.call local d = c return d('cluster')",
        "local a = 'clu' local b = 'ster' return redis.call(a..b)",
        "local f = function(n) return redis.call(n) end return f('cluster')",
        "local function f(x, n) return redis.call(n) end return f(1, 'cluster')",
        "local n = KEYS[1] and 'get' or 'cluster' return redis.call(n)",
        "return redis.call(string.lower('CLUSTER'))",
        "return redis.call(('Cluster'):lower())",
        "return redis.call(unpack({'cluster', 'info'}))",
        "local t = {'cluster', 'info'} return redis.call(unpack(t))",
        "local t = {} t[1] = 'cluster' return redis.call(unpack(t))",
        "local t = {'get'} t[1] = 'cluster' return redis.call(unpack(t))",
        "local t = {'get', 'cluster'} return redis.call(t[2])",
        "for _, n in ipairs({'get', 'cluster'}) do redis.call(n, 'k') end",
        "return pcall(redis.call, 'cluster', 'info')",
        "return server.call('cluster', 'info')",
        "redis.call('readonly')",
        "redis.call('asking')",
    ] {
        assert_eq!(object(text), CLUSTER, "{text}");
        assert_eq!(object_with(text, &[], 1), CLUSTER, "{text}");
    }
    for (text, given) in [
        ("return redis.call(ARGV[1])", &["cluster"][..]),
        ("return redis.call(ARGV[1]..ARGV[2])", &["clu", "ster"]),
        ("return redis.call(unpack(ARGV))", &["CLUSTER", "nodes"]),
        ("return redis.call(ARGV[#ARGV])", &["get", "cluster"]),
        ("for i, n in ipairs(ARGV) do redis.call(n) end", &["get", "cluster"]),
        ("table.remove(ARGV, 1) return redis.call(ARGV[1])", &["get", "cluster"]),
        ("local a = ARGV local n = a[1] return redis.call(n)", &["cluster"]),
    ] {
        assert_eq!(object_with(text, given, 1), CLUSTER, "{text}");
        assert_eq!(object_with(text, &["get", "get"], 1), None, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_said_so() {
    for (text, line) in [
        ("\nreturn redis.call(redis.call('get', 'k'))", 2),
        ("return redis[ARGV[1]]('get', 'k')", 1),
        ("local x = {redis} return x[1].call('get', 'k')", 1),
        ("return _G['redis'].call('get', 'k')", 1),
        ("local function f() return _G end return f().redis.call('get', 'k')", 1),
        ("local r = getmetatable(_G).__index['redis'] return r.call('get', 'k')", 1),
        ("redis.x = redis return redis.x.call('get', 'k')", 1),
        ("return loadstring(ARGV[1])()", 1),
        ("\n\nlocal f = load(function() end)", 3),
        ("return getfenv()", 1),
        ("local t = cjson.decode(ARGV[1]) return redis.call(unpack(t))", 1),
        ("local function f(c) return c('get', 'k') end return f(redis.call)", 1),
        ("local t = {call = redis.call} return t.call('get', 'k')", 1),
        ("return redis.call(string.char(103, 101, 116), 'k')", 1),
        ("return redis.call(('teg'):reverse(), 'k')", 1),
        ("local function f(...) return redis.call(...) end return f('get', 'k')", 1),
        ("local pcall = function(f, n) return f('cluster') end return pcall(redis.call, 'get')", 1),
        ("local tostring = function(n) return 'cluster' end return redis.call(tostring('get'))", 1),
        ("local l = load local load = 1 return l(function() end)", 1),
        ("KEYS[1] = 'cluster' return redis.call(KEYS[1])", 1),
        ("local a = ARGV a[1] = 'cluster' return redis.call(ARGV[1])", 1),
        ("local p = pcall return p(redis.call, 'cluster')", 1),
    ] {
        assert_eq!(object(text), unread(line), "{text}");
    }
    let text = "return redis[ARGV[1]]('get', 'k')";
    let trusted =
        objection(&Reading::of(text.as_bytes(), false), &Table::builtin(), &Given::later(), 3, true);
    assert_eq!(trusted, None);
}

#[test]
fn ordinary_scripts_are_read() {
    for text in [
        // The locks of redis-py and Redlock, a rate limiter, a queue.
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
        "local token = redis.call('get', KEYS[1])\nif not token or token ~= ARGV[1] then\n return 0\nend\n\
         local expiration = redis.call('pttl', KEYS[1])\nreturn 1",
        "local rcall = redis.call\nlocal function add(key, cmd, id)\n rcall(cmd, key, id)\nend\n\
         local pushCmd = (ARGV[1] == '1') and 'RPUSH' or 'LPUSH'\nadd(KEYS[1], pushCmd, ARGV[2])\n\
         rcall('XADD', KEYS[2], '*', 'event', 'waiting', 'jobId', ARGV[2])",
        "local args = {'ZADD', KEYS[1]}\nfor i = 1, #ARGV do args[#args + 1] = ARGV[i] end\n\
         return redis.call(unpack(args))",
        "local keys, cluster = {}, 1\nfor i = 1, #KEYS do table.insert(keys, KEYS[i]) end\nreturn cjson.encode(keys)",
        "redis.replicate_commands()\nlocal t = redis.call('time')\nredis.log(redis.LOG_NOTICE, 'keys')\n\
         return redis.error_reply('flushall')",
        "local ok, err = pcall(redis.call, 'set', KEYS[1], ARGV[1])\nif not ok then return redis.status_reply(err) end",
        "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1]) -- redis.call('keys')",
        "--[[ redis.call('cluster') ]] return 'redis.call(\"cluster\")'",
        "local load = tonumber(redis.call('get', KEYS[1]))\nreturn load + 1",
        "return _G",
        "getmetatable(_G).__index['redis'] = 1 return setmetatable(_G, {})",
        "return 'unfinished",
        "syntax error here",
    ] {
        assert_eq!(object_with(text, &["1", "x"], 3), None, "{text}");
    }
}

#[test]
fn a_library_is_given_keys_and_arguments_as_parameters() {
    let library = |text: &str| {
        objection(&Reading::of(text.as_bytes(), true), &Table::builtin(), &Given::later(), 3, false)
    };
    assert_eq!(
        library(
            "#!lua name=l\nredis.register_function('f', function(keys, args) return redis.call('get', keys[1]) end)"
        ),
        None
    );
    assert_eq!(
        library(
            "#!lua name=l\nredis.register_function('f', function(keys, args) return redis.call(args[1]) end)"
        ),
        None
    );
    // No library can change the server's own tables.
    let changes = "#!lua name=l\nlocal lib = redis\nlib.register_function('f', function() lib.redis = redis return _G end)";
    assert_eq!(library(changes), None);
    assert_eq!(library("#!lua name=l\nlocal t = {}\nt.redis = redis\nt.redis.call('dbsize')"), unread(3));
    assert_eq!(
        library(
            "#!lua name=l\nlocal function f(keys, args) return redis.call('dbsize') end\nredis.register_function{function_name='f', callback=f}"
        ),
        whole("DBSIZE")
    );
    assert_eq!(
        library(
            "#!lua name=l\nlocal function f(keys, args) return redis.call('cluster', 'nodes') end\nredis.register_function('f', f)"
        ),
        Some(Objection::Cluster(2))
    );
}

#[test]
fn a_script_without_keys_runs_where_those_are_that_it_names() {
    let home_of = |text: &str, given: &[&str]| {
        let mut request = Vec::new();
        let words: Vec<&[u8]> = [&b"EVAL"[..], text.as_bytes(), b"0"]
            .into_iter()
            .chain(given.iter().map(|word| word.as_bytes()))
            .collect();
        portico_resp::encode::command(&mut request, &words);
        let reading = Reading::of(text.as_bytes(), false);
        let find = |words: &RequestArgs<'_>| {
            home(&reading, &Table::builtin(), &Given::of(*words), true, |one, other| one == other)
        };
        with_queued(&request, find).expect("a request")
    };
    let with = |key: &str| Home::Slot(slot(key.as_bytes()));
    assert_eq!(home_of("return redis.call('get', 'a')", &[]), with("a"));
    assert_eq!(home_of("return redis.call('set', ARGV[1], ARGV[2])", &["b", "1"]), with("b"));
    assert_eq!(home_of("return redis.call('get', 'x:' .. ARGV[1])", &["b"]), with("x:b"));
    assert_eq!(home_of("local k = 'x:' .. ARGV[1] return redis.call('get', k)", &["b"]), with("x:b"));
    assert_eq!(home_of("redis.call('set', 'a', 1) redis.call('set', '{a}b', 1)", &[]), with("a"));
    assert_eq!(home_of("redis.call('set', 'a', 1) redis.call('set', 'b', 1)", &[]), Home::Nowhere);
    assert_eq!(home_of("redis.call('rename', 'a', 'b')", &[]), Home::Nowhere);
    assert_eq!(home_of("for _, k in ipairs(ARGV) do redis.call('del', k) end", &["b", "c"]), with("b"));
    assert_eq!(home_of("redis.call('del', unpack(ARGV))", &["b", "c"]), with("b"));
    assert_eq!(home_of("return redis.call('time')", &["b"]), Home::Anywhere);
    assert_eq!(home_of("return 1", &[]), Home::Anywhere);
}

/// Ways to write `cluster` in Lua.
fn spelt() -> impl Strategy<Value = String> {
    let letter = |letter: char| {
        prop_oneof![
            Just(letter.to_string()),
            Just(letter.to_uppercase().to_string()),
            Just(format!("\\{:03}", letter as u32))
        ]
    };
    let letters: Vec<_> = "cluster".chars().map(letter).collect();
    (letters, 0..7usize, 0..4u8).prop_map(|(letters, cut, how)| {
        let plain = || letters.concat();
        let (before, behind) = (letters[..cut].concat(), letters[cut..].concat());
        match how {
            0 => format!("'{}'", plain()),
            1 => format!("\"{before}\"..'{behind}'"),
            2 => format!("('{before}' .. \"{behind}\")"),
            _ => format!("string.lower('{}')", plain()),
        }
    })
}

fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(" "),
        Just("\n"),
        Just("--[[ ' ]] "),
        Just("-- \"x\n"),
        Just("--[=[ ]] ]=]"),
        Just("\t\r\n")
    ]
}

proptest! {
    #[test]
    fn however_it_is_written(name in spelt(), gaps in prop::collection::vec(gap(), 6), how in 0..7u8) {
        let g = |at: usize| gaps[at];
        let text = match how {
            0 => format!("return{}redis{}.{}call{}({}{name}{}, 'nodes')", g(0), g(1), g(2), g(3), g(4), g(5)),
            1 => format!("local{}c{}={}redis.pcall{}return c({name},{}'nodes'){}", g(0), g(1), g(2), g(3), g(4), g(5)),
            2 => format!("local{}r{}={}redis{}return r{}.call({name}){}", g(0), g(1), g(2), g(3), g(4), g(5)),
            3 => format!("local{}n{}={}{name}{}return redis.call(n{}, 'x'){}", g(0), g(1), g(2), g(3), g(4), g(5)),
            4 => format!("local function f(a){}return redis.call(a){}end{}f({}{name}{}){}", g(0), g(1), g(2), g(3), g(4), g(5)),
            5 => format!("return{}pcall({}redis.call{},{}{name},{} 'nodes'){}", g(0), g(1), g(2), g(3), g(4), g(5)),
            _ => format!("if x then{}y(){}end{}redis[{}'call'{}]({name}){}", g(0), g(1), g(2), g(3), g(4), g(5)),
        };
        prop_assert!(matches!(object(&text), Some(Objection::Cluster(_))), "{text}: {:?}", object(&text));
    }

    #[test]
    fn any_text_is_read_without_harm(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "redis", ".", "call", "(", ")", "{", "}", "[", "]", "'a'", "\"", "'", "[[", "]]", "--", "=", ",", "local",
                "function", "end", "f", "x", "and", "or", "..", "+", "if", "then", "for", "in", "do", "ARGV", "KEYS", "1",
                "unpack", "pcall", "\n", "\\", ":", ";", "#", "not", "ipairs", "table", "insert", "...", "==", "return",
            ]),
            0..60,
        ),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let text = [words.join(" ").as_bytes(), &bytes, words.concat().as_bytes()].concat();
        let reading = Reading::of(&text, text.len().is_multiple_of(2));
        let _ = objection(&reading, &Table::builtin(), &Given::later(), 3, false);
        let _ = Reading::of(&bytes, true);
    }
}

#[test]
fn what_lies_deep_or_goes_round_ends() {
    for text in [
        format!("return redis.call({}'get'{})", "(".repeat(100_000), ")".repeat(100_000)),
        format!("return redis.call({}", "{".repeat(100_000)),
        format!("return redis.call({}", "x[".repeat(100_000)),
        format!("return redis.call({}'get')", "not ".repeat(100_000)),
        format!("return redis.call(x{})", ".a".repeat(100_000)),
        "local a = b local b = a return redis.call(a)".to_owned(),
        "local function f(a) return f(a .. 'x') end return redis.call(a)".to_owned(),
        format!("{} return redis.call(a)", "a = a .. a ".repeat(1000)),
        format!("{} return redis.call(a)", "a = a ".repeat(60_000)),
        format!("return redis.call(a) {}", "x = function() ".repeat(40_000)),
        format!("a = {} return redis.call(a)", "redis, ".repeat(60_000)),
        format!("function a() end {} return redis.call(a)", "a.".repeat(60_000)),
        format!("{} return redis.call(a)", "x[".repeat(50_000) + &"] = 1 ".repeat(20_000)),
    ] {
        assert!(matches!(object(&text), Some(Objection::Unread(_))), "{}", &text[..60.min(text.len())]);
    }
}
