//! Portico's own settings as CONFIG GET tells of them and CONFIG SET takes them: redis.conf's forms, Redis' errors.

use crate::config::{Choice, Config, LogLevel, OutputLimits, find, memory_value};
use crate::topology::Identity;

/// What CONFIG GET tells: sizes in bytes, as Redis does. The password is not told.
#[must_use]
pub(super) fn show(name: &str, config: &Config) -> String {
    match name {
        "proto-max-bulk-len" => config.proto_max_bulk_len.to_string(),
        "client-query-buffer-limit" => config.client_query_buffer_limit.to_string(),
        "client-output-buffer-limit" => config.client_output_buffer_limit.in_bytes(),
        "unixsocketperm" => format!("{:o}", config.unixsocketperm.unwrap_or(0)),
        // Where relative paths of Portico's own files lead to.
        "dir" => std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default(),
        name => find(name).map(|setting| setting.show(config)).unwrap_or_default(),
    }
}

/// Sets a value in `config`. `most_clients`: as many as there are descriptors for. `nodes`: whose words are used.
///
/// # Errors
/// Why it cannot be, in Redis' words where Redis has some.
pub(super) fn set(
    name: &str,
    value: &[u8],
    config: &mut Config,
    most_clients: usize,
    nodes: &Identity,
) -> Result<(), String> {
    let text = std::str::from_utf8(value).map_err(|_| "argument must be UTF-8".to_owned())?;
    match name {
        "maxclients" => {
            let clients = integer(text, 1, u64::from(u32::MAX))?;
            if clients > most_clients as u64 {
                return Err(format!(
                    "The operating system is not able to handle the specified number of clients, try with \
                     {most_clients}"
                ));
            }
        }
        "timeout" | "tcp-keepalive" | "shutdown-timeout" => {
            integer(text, 0, u64::from(i32::MAX.unsigned_abs()))?;
        }
        "proto-max-bulk-len" | "client-query-buffer-limit" => match memory_value(text) {
            None => return Err("argument must be a memory value".to_owned()),
            Some(..1_048_576) => {
                return Err(format!("argument must be between 1048576 and {} inclusive", i64::MAX));
            }
            Some(_) => {}
        },
        "loglevel" => {
            let known = |level: &&LogLevel| **level != LogLevel::Nothing || nodes.has((7, 2), (7, 2));
            let names: Vec<&str> = LogLevel::ALL.iter().filter(known).map(|level| level.name()).collect();
            if !names.iter().any(|name| name.eq_ignore_ascii_case(text)) {
                return Err(format!("argument(s) must be one of the following: {}", names.join(", ")));
            }
        }
        "client-output-buffer-limit" => OutputLimits::check_as_redis(text)?,
        _ => {}
    }
    let setting = find(name).ok_or("it is no setting of Portico")?;
    setting.set(config, text).map_err(|invalid| format!("argument must be {}", invalid.allowed))
}

fn integer(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number: i128 = text
        .parse::<i128>()
        .ok()
        .filter(|number| number.to_string() == text)
        .ok_or("argument couldn't be parsed into an integer")?;
    u64::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("argument must be between {least} and {most} inclusive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_refused_in_redis_words() {
        let mut config = Config::default();
        let mut refused = |name: &str, value: &str| {
            set(name, value.as_bytes(), &mut config, 5_000, &Identity::redis("7.0.0")).expect_err(name)
        };
        assert_eq!(refused("maxclients", "x"), "argument couldn't be parsed into an integer");
        assert_eq!(refused("maxclients", "0"), "argument must be between 1 and 4294967295 inclusive");
        assert!(refused("maxclients", "5001").ends_with("try with 5000"));
        assert_eq!(refused("timeout", "-1"), "argument must be between 0 and 2147483647 inclusive");
        assert_eq!(refused("timeout", "010"), "argument couldn't be parsed into an integer");
        assert_eq!(refused("proto-max-bulk-len", "1x"), "argument must be a memory value");
        assert_eq!(
            refused("proto-max-bulk-len", "1"),
            "argument must be between 1048576 and 9223372036854775807 inclusive"
        );
        assert_eq!(
            refused("loglevel", ""),
            "argument(s) must be one of the following: debug, verbose, notice, warning"
        );
        let limit = "client-output-buffer-limit";
        assert_eq!(refused(limit, "normal 1 2"), "Wrong number of arguments in buffer limit configuration.");
        assert_eq!(
            refused(limit, "foo 1 2 3"),
            "Invalid client class specified in buffer limit configuration."
        );
        assert_eq!(
            refused(limit, "normal x 2 3"),
            "Error in hard, soft or soft_seconds setting in buffer limit configuration."
        );
        assert_eq!(config, Config::default());
    }

    #[test]
    fn what_is_set_is_what_is_told() {
        let mut config = Config::default();
        let mut is = |name: &str, value: &str, told: &str| {
            set(name, value.as_bytes(), &mut config, 20_000, &Identity::redis("7.2.0")).expect(name);
            assert_eq!(show(name, &config), told, "{name}");
        };
        is("maxclients", "12", "12");
        is("timeout", "7", "7");
        is("proto-max-bulk-len", "600MB", "629145600");
        is("loglevel", "Verbose", "verbose");
        is("requirepass", "a b", "(secret)");
        is("requirepass", "", "");
        is(
            "client-output-buffer-limit",
            "replica 1mb 0 0 pubsub 64mb 32mb 10",
            "normal 268435456 0 0 slave 1048576 0 0 pubsub 67108864 33554432 10",
        );
    }
}
