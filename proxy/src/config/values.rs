//! Reading single values: numbers with bounds, durations, sizes in redis.conf's units, names, lists.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Choice, Invalid, Secret};

pub(super) const KB: u64 = 1 << 10;
pub(super) const MB: u64 = 1 << 20;
pub(super) const GB: u64 = 1 << 30;

/// As far as redis.conf takes a size.
pub(super) const MAX_MEMORY: u64 = (1 << 63) - GB;

/// The memory units of redis.conf, in lower case.
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", KB),
    ("m", 1_000_000),
    ("mb", MB),
    ("g", 1_000_000_000),
    ("gb", GB),
];

pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, Invalid>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| Invalid::must_be(format!("a number from {} to {}", range.start(), range.end())))
}

/// Whole seconds; as far as redis.conf takes them.
pub(super) fn seconds(text: &str) -> Result<Duration, Invalid> {
    let max = u64::from(i32::MAX.unsigned_abs());
    number(text, 0..=max).map(Duration::from_secs)
}

pub(super) fn milliseconds(text: &str, range: RangeInclusive<u64>) -> Result<Duration, Invalid> {
    number(text, range).map(Duration::from_millis)
}

/// A number of bytes, or one with a unit: `1k` is 1,000 bytes, `1kb` is 1,024, and so on to `gb`. None: it is neither.
#[must_use]
pub fn memory_value(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// A [`memory_value`] within `range`.
pub(super) fn memory(text: &str, range: RangeInclusive<u64>) -> Result<u64, Invalid> {
    memory_value(text).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (least, most) = (show_memory(*range.start()), show_memory(*range.end()));
        Invalid::must_be(format!("a size from {least} to {most}, in bytes or as 64kb, 512mb, 1gb"))
    })
}

/// The largest unit that divides it: what `memory` reads back as the same number.
pub(super) fn show_memory(bytes: u64) -> String {
    [(GB, "gb"), (MB, "mb"), (KB, "kb")]
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

pub(super) fn choice<C: Choice>(text: &str) -> Result<C, Invalid> {
    C::from_name(text).ok_or_else(|| {
        let names: Vec<_> = C::ALL.iter().map(|choice| choice.name()).collect();
        Invalid::must_be(format!("one of: {}", names.join(", ")))
    })
}

/// Permission bits in octal, as redis.conf's unixsocketperm.
pub(super) fn permissions(text: &str) -> Result<u32, Invalid> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Invalid::must_be("permission bits in octal, such as 700 or 770"))
}

/// An empty string stands for nothing, as in redis.conf.
pub(super) fn optional<T: From<String>>(text: &str) -> Option<T> {
    (!text.is_empty()).then(|| T::from(text.to_owned()))
}

/// A password that stands alone in a file, as Docker and Kubernetes hand them out; the last line end is not part of it.
pub(super) fn secret_file(path: &str) -> Result<(PathBuf, Secret), Invalid> {
    let refuse = |why: String| Invalid::must_be(format!("a file that holds the password ({why})"));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    Ok((PathBuf::from(path), Secret::new(password)))
}

/// The items of a list, which commas or white space part.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

/// A list as it would be written, which `items` reads back.
pub(super) fn show_list<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
