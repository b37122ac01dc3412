//! `portico check`: the cluster as it would be served, and every problem that can be seen from here.

mod findings;
mod probe;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use portico_slots::{Address, NodeId, View, merge};

use super::say::say;
use crate::config::{Config, Remark};
use crate::topology::Trouble;
use findings::Findings;
use probe::{Probe, probe};

/// Asks the seeds, then every node that they name; prints the cluster and what is wrong.
pub(super) fn run(config: &Config) -> Result<ExitCode> {
    let mut findings = Findings::default();
    for Remark { warning, text } in &config.remarks {
        if *warning {
            findings.warn(text.clone());
        } else {
            say(format_args!("{text}\n"))?;
        }
    }
    let mut probes = Probes::default();
    for seed in &config.nodes {
        probes.ask(seed, config, &mut findings);
    }
    let map = |announced: &Address| config.node_address_map.map(announced);
    let views: Vec<View> = probes.views();
    match merge(&views, &map) {
        Err(error) => findings.error(error.to_string()),
        Ok(topology) => {
            // A failed node is reported as such: that it cannot be reached is no news.
            let living = topology.nodes().iter().filter(|node| !node.failed);
            living.for_each(|node| probes.ask(&node.address, config, &mut findings));
            let topology = merge(&probes.views(), &map)?;
            findings.examine(&topology, probes.answers());
            say(report::cluster(&topology, &probes.versions()))?;
        }
    }
    say(findings.to_string())?;
    Ok(if findings.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The addresses that were asked, each once, and what they answered.
#[derive(Default)]
struct Probes(BTreeMap<Address, Option<Probe>>);

impl Probes {
    fn ask(&mut self, address: &Address, config: &Config, findings: &mut Findings) {
        if self.0.contains_key(address) {
            return;
        }
        let answer = probe(address, config);
        if let Err(error) = &answer {
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
            match cause.map(Trouble::of) {
                Some(closed @ Trouble::Closed(_)) => findings.error(format!("{address}: {closed}")),
                _ => findings.error(format!("{address}: {error:#}")),
            }
        }
        self.0.insert(address.clone(), answer.ok());
    }

    /// One answer a node, also if it was asked at several addresses.
    fn answers(&self) -> impl Iterator<Item = (&Address, &Probe)> {
        let answers = self.0.iter().filter_map(|(address, answer)| Some((address, answer.as_ref()?)));
        let nodes: BTreeMap<_, _> = answers.map(|found| (found.1.view.myself, found)).collect();
        nodes.into_values()
    }

    fn views(&self) -> Vec<View> {
        self.answers().map(|(_, answer)| answer.view.clone()).collect()
    }

    fn versions(&self) -> BTreeMap<NodeId, String> {
        self.answers().map(|(_, answer)| (answer.view.myself, answer.version.clone())).collect()
    }
}
