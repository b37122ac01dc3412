//! Which views are believed: those of nodes that are part of the cluster, not of one that was cut off or removed.

use crate::{NodeId, View};
use std::cmp::Reverse;

/// The views to merge, one a node, in order of id.
///
/// Left out are nodes still in handshake, nodes that know only themselves while others know more, and nodes that most
/// of the others do not list. If nobody is left by that (seeds of several clusters), the view that knows most stays,
/// with those that list its node and are listed by it.
pub(crate) fn believed(views: &[View]) -> Vec<&View> {
    let mut views: Vec<&View> = views.iter().filter(|view| is_member(view)).collect();
    views.sort_by(|a, b| (a.myself, &a.asked).cmp(&(b.myself, &b.asked)));
    views.dedup_by_key(|view| view.myself);

    let somebody_knows_others = views.iter().any(|view| peers(view) > 0);
    views.retain(|view| peers(view) > 0 || !somebody_knows_others);

    let accepted: Vec<&View> = views.iter().copied().filter(|view| !is_isolated(view, &views)).collect();
    if !accepted.is_empty() {
        return accepted;
    }
    let Some(best) = views.iter().copied().max_by_key(|view| knowledge(view)) else { return views };
    views.retain(|view| view.myself == best.myself || lists(view, &best.myself) && lists(best, &view.myself));
    views
}

fn is_member(view: &View) -> bool {
    view.own().is_some_and(|own| !own.flags.handshake && !own.flags.noaddr)
}

/// Whether most of the other views do not list this one's node.
fn is_isolated(view: &View, all: &[&View]) -> bool {
    let others = || all.iter().filter(|other| other.myself != view.myself);
    let strangers = others().filter(|other| !lists(other, &view.myself)).count();
    strangers * 2 > others().count()
}

fn lists(view: &View, id: &NodeId) -> bool {
    view.line(id).is_some_and(|line| !line.flags.handshake)
}

/// How many other nodes a view knows.
fn peers(view: &View) -> usize {
    view.lines.iter().filter(|line| line.id != view.myself && !line.flags.handshake).count()
}

/// How good a view is when views contradict each other altogether: nodes, slots, epoch, at last the lowest id.
fn knowledge(view: &View) -> (usize, usize, u64, Reverse<NodeId>) {
    let slots = view.lines.iter().flat_map(|line| &line.slots).map(ExactSizeIterator::len).sum();
    let epoch = view.lines.iter().map(|line| line.config_epoch).max().unwrap_or(0);
    (peers(view), slots, epoch, Reverse(view.myself))
}
