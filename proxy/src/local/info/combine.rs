//! Two masters' values of one INFO field made one.

use std::collections::{BTreeMap, HashMap};

use super::Rule;

/// The value of two, as the rule says. `None`: the first stays.
pub(super) fn two(rule: Option<Rule>, field: &str, known: &str, value: &str) -> Option<String> {
    match rule {
        Some(Rule::Sum) if known.contains('=') => Some(lists(known, value)),
        Some(Rule::Sum) => sum(field, known, value),
        Some(Rule::Max) if known.contains('=') => Some(percentiles(known, value)),
        Some(Rule::Max) => (number(value)? > number(known)?).then(|| value.to_owned()),
        Some(Rule::Min) => (number(value)? < number(known)?).then(|| value.to_owned()),
        Some(Rule::Worst) => (known == "ok").then(|| value.to_owned()),
        _ => None,
    }
}

/// The value of a field that is made from merged ones.
pub(super) fn made_anew(rule: Rule, field: &str, merged: &HashMap<&str, &str>) -> Option<String> {
    let of = |name: &str| merged.get(name).and_then(|value| number(value));
    match rule {
        Rule::Human => Some(human(of(field.strip_suffix("_human")?)?)),
        Rule::Ratio(part, whole) => Some(format!("{:.2}", of(part)? / of(whole)?.max(1.0))),
        Rule::Percent(part, whole, less) => {
            let whole = of(whole)? - of(less).unwrap_or(0.0);
            Some(format!("{:.2}%", of(part)? / whole.max(1.0) * 100.0))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim_end_matches('%').parse().ok()
}

/// The sum, with as many decimals as the server gives.
fn sum(field: &str, a: &str, b: &str) -> Option<String> {
    if let (Ok(a), Ok(b)) = (a.parse::<i128>(), b.parse::<i128>()) {
        return Some((a + b).to_string());
    }
    let decimals = if field.starts_with("used_cpu") { 6 } else { 2 };
    Some(format!("{:.decimals$}", number(a)? + number(b)?))
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k, v.parse().unwrap_or(0.0)))
}

/// `calls=2,usec=30,usec_per_call=15.00`, `keys=2,expires=1,avg_ttl=9` and `1=19,2=655`: name by name. Names that only
/// one of them has are sizes, in ascending order.
fn lists(a: &str, b: &str) -> String {
    let value =
        |text: &str, name: &str| pairs(text).find(|(field, _)| *field == name).map_or(0.0, |(_, v)| v);
    let both = |name: &str| value(a, name) + value(b, name);
    let mut names: Vec<&str> = pairs(a).map(|(name, _)| name).collect();
    let more: Vec<&str> = pairs(b).map(|(name, _)| name).filter(|name| !names.contains(name)).collect();
    if !more.is_empty() {
        names.extend(more);
        names.sort_by_key(|name| size(name));
    }
    let parts = names.iter().map(|&name| match name {
        "usec_per_call" => format!("{name}={:.2}", both("usec") / both("calls").max(1.0)),
        "avg_ttl" => {
            let weight = |text: &str| value(text, "avg_ttl") * value(text, "expires");
            format!("{name}={:.0}", (weight(a) + weight(b)) / both("expires").max(1.0))
        }
        name => format!("{name}={:.0}", both(name)),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// A size as Redis 8 writes it in `# Keysizes`: 512, 1K, 2M.
fn size(name: &str) -> u64 {
    let digits = name.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &name[digits.len()..] {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or(u64::MAX / unit) * unit
}

/// `p50=1.003,p99=8.031`: a percentile of a whole is at most the highest of its parts'.
fn percentiles(a: &str, b: &str) -> String {
    let b: BTreeMap<&str, f64> = pairs(b).collect();
    let highest =
        |(name, value): (&str, f64)| format!("{name}={:.3}", b.get(name).map_or(value, |b| b.max(value)));
    pairs(a).map(highest).collect::<Vec<_>>().join(",")
}

/// Bytes as INFO's `_human` fields tell them.
fn human(bytes: f64) -> String {
    let units = [(1u64 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match units.iter().find(|(size, _)| bytes >= *size as f64) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes / *size as f64),
        None => format!("{bytes:.0}B"),
    }
}
